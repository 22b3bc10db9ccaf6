"""DTD, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewDTD(BaseToNew):
    """CoOp's own split (half, a fifth, the rest of each class), not one of the ten official ones."""

    template = "{} texture."
    folder, images, split_file = "dtd", "images", "split_zhou_DescribableTextures.json"
    totals, n_known = (2_820, 1_128, 1_692), 47
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "DTD", "Cimpoi et al., 2014", folder, images, split_file,
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
    )  # fmt: skip
