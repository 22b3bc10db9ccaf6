"""StanfordCars, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewStanfordCars(BaseToNew):
    """Images lie in cars_train and cars_test, whose names say no class. CoOp writes the year first: '2012 Audi A5'."""

    template = "a photo of a {}."
    folder, images, split_file = "stanford_cars", "", "split_zhou_StanfordCars.json"
    totals, n_known = (6_509, 1_635, 8_041), 196
    sorted_folders = False
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "StanfordCars", "Krause et al., 2013", folder, images, split_file,
        "http://ai.stanford.edu/~jkrause/car196/cars_train.tgz and cars_test.tgz",
    )  # fmt: skip
