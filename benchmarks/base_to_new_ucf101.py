"""UCF101, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewUCF101(BaseToNew):
    """The middle frame of each video, by CoOp. Frames of one scene (group) are near copies of each other."""

    template = "a photo of a person doing {}."
    folder, images, split_file = "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"
    totals, n_known = (7_639, 1_898, 3_783), 101
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "UCF101", "Soomro et al., 2012", folder, images, split_file,
        "Google Drive, from KaiyangZhou/CoOp, DATASETS.md (UCF-101-midframes.zip)",
    )  # fmt: skip
