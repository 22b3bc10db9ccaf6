"""Caltech101, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewCaltech101(BaseToNew):
    """BACKGROUND_Google and Faces_easy are left out; four classes are renamed (airplane, face, leopard, motorbike)."""

    template = "a photo of a {}."
    folder, images, split_file = "caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"
    totals, n_known = (4_128, 1_649, 2_465), 100
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "Caltech101", "Fei-Fei et al., 2004", folder, images, split_file,
        "http://www.vision.caltech.edu/Image_Datasets/Caltech101/101_ObjectCategories.tar.gz",
    )  # fmt: skip
