"""SUN397, from base to new classes (CoOp's split; CoCoOp's protocol in one label space)."""

from ._base_to_new import SPLITS, BaseToNew, card


class BaseToNewSUN397(BaseToNew):
    """The first official partition, its training half divided in two. Names are read backwards: 'outdoor ...'."""

    template = "a photo of a {}."
    folder, images, split_file = "sun397", "SUN397", "split_zhou_SUN397.json"
    totals, n_known = (15_880, 3_970, 19_850), 397
    places = dict.fromkeys(SPLITS, (folder,))
    card = card(
        "SUN397", "Xiao et al., 2010", folder, images, split_file,
        "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
    )  # fmt: skip
