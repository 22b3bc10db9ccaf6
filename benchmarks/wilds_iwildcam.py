"""WILDS iWildCam: learn on some camera traps; be tested on others."""

from robustbench_ft.data import Split
from robustbench_ft.errors import MissingDataError
from robustbench_ft.recipe import R_FLYP
from robustbench_ft.suite import Card, Source, Suite


class WildsIWildCam(Suite):
    """Official splits and metric of the WILDS package; selection on its ID validation split."""

    recipe = R_FLYP
    val, test = "id_val", "id_test"
    shifts = ("test",)
    places = dict.fromkeys(("train", "id_val", "id_test", "test"), ("iwildcam_v2.0",))
    card: Card = Card(
        title="WILDS iWildCam",
        paper="Beery et al. 2021; Koh et al., WILDS, ICML 2021",
        licence="CDLA-Permissive-1.0",
        home="wilds.stanford.edu",
        counts={},
        sources=(Source(("train", "id_val", "id_test", "val", "test"), "iwildcam_v2.0", "CodaLab", "", ""),),
    )

    @property
    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a photo of {}.",)

    def load(self, name: str) -> Split:
        raise MissingDataError(f"{name} is not readable yet")
