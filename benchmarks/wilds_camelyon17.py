"""WILDS Camelyon17: learn on tissue slides of three hospitals; be tested on a fifth (card only, not readable yet)."""

from typing import ClassVar

from robustbench_ft.recipe import R_FLYP
from robustbench_ft.suite import Card, CardOnly


class WildsCamelyon17(CardOnly):
    """Official splits and metric of the WILDS package; selection on its ID validation split."""

    recipe = R_FLYP
    val = test = "id_val"  # WILDS has no ID test split here
    shifts = ("test",)
    card: ClassVar[Card] = Card(
        title="WILDS Camelyon17",
        paper="Bandi et al. 2018; Koh et al., WILDS, ICML 2021",
        licence="CC0",
        home="wilds.stanford.edu",
        counts={},
        layout=("camelyon17_v1.0",),
    )
