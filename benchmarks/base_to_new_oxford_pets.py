"""OxfordPets, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewOxfordPets(BaseToNew):
    """Names are written small and without underscores, as CoOp writes them. An image's name begins with its breed."""

    template = "a photo of a {}, a type of pet."
    folder, images, split_file = "oxford_pets", "images", "split_zhou_OxfordPets.json"
    totals, n_known = (2_944, 736, 3_669), 37
    sorted_folders = False
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "OxfordPets", "Parkhi et al., 2012", folder, images, split_file,
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
    )  # fmt: skip

    def key(self, path: str) -> str:
        return path.rpartition("_")[0]
