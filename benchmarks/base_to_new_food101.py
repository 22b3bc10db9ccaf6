"""Food101, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewFood101(BaseToNew):
    """CoOp's own split over all images, not the official one: official training images are among the test images."""

    template = "a photo of {}, a type of food."
    folder, images, split_file = "food-101", "images", "split_zhou_Food101.json"
    totals, n_known = (50_500, 20_200, 30_300), 101
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "Food101", "Bossard et al., 2014", folder, images, split_file,
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    )  # fmt: skip
