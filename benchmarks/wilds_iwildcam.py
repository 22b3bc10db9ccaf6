"""WILDS iWildCam: learn on some camera traps; be tested on others (card only, not readable yet)."""

from typing import ClassVar

from robustbench_ft.recipe import R_FLYP
from robustbench_ft.suite import Card, CardOnly


class WildsIWildCam(CardOnly):
    """Official splits and metric of the WILDS package; selection on its ID validation split."""

    recipe = R_FLYP
    val, test = "id_val", "id_test"
    shifts = ("test",)
    card: ClassVar[Card] = Card(
        title="WILDS iWildCam",
        paper="Beery et al. 2021; Koh et al., WILDS, ICML 2021",
        licence="CDLA-Permissive-1.0",
        home="wilds.stanford.edu",
        counts={},
        layout=("iwildcam_v2.0",),
    )
