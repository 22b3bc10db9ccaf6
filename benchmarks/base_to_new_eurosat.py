"""EuroSAT, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewEuroSAT(BaseToNew):
    """Class names are CoOp's, e.g. 'Annual Crop Land' for the folder AnnualCrop. Ten classes: five base, five new."""

    template = "a centered satellite photo of {}."
    folder, images, split_file = "eurosat", "2750", "split_zhou_EuroSAT.json"
    totals, n_known = (13_500, 5_400, 8_100), 10
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "EuroSAT", "Helber et al., 2019", folder, images, split_file,
        "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
    )  # fmt: skip
