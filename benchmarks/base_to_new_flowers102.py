"""Flowers102, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewFlowers102(BaseToNew):
    """CoOp's own split (half, a fifth, the rest of each class), not the official one. Images' names say no class."""

    template = "a photo of a {}, a type of flower."
    folder, images, split_file = "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"
    totals, n_known = (4_093, 1_633, 2_463), 102
    sorted_folders = False
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "Flowers102", "Nilsback and Zisserman, 2008", folder, images, split_file,
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
    )  # fmt: skip
