"""WILDS FMoW: learn on satellite images before 2013; be tested on later years (card only, not readable yet)."""

from typing import ClassVar

from robustbench_ft.recipe import R_FLYP
from robustbench_ft.suite import Card, CardOnly


class WildsFMoW(CardOnly):
    """Official splits and metric of the WILDS package; selection on its ID validation split."""

    recipe = R_FLYP
    val, test = "id_val", "id_test"
    shifts = ("test",)
    card: ClassVar[Card] = Card(
        title="WILDS FMoW",
        paper="Christie et al., CVPR 2018; Koh et al., WILDS, ICML 2021",
        licence="Functional Map of the World Challenge Public License",
        home="wilds.stanford.edu",
        counts={},
        layout=("fmow_v1.1",),
    )
