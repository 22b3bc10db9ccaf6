"""WILDS FMoW: learn on satellite images before 2013; be tested on later years."""

from robustbench_ft.data import Split
from robustbench_ft.errors import MissingDataError
from robustbench_ft.recipe import R_FLYP
from robustbench_ft.suite import Card, Source, Suite


class WildsFMoW(Suite):
    """Official splits and metric of the WILDS package; selection on its ID validation split."""

    recipe = R_FLYP
    val, test = "id_val", "id_test"
    shifts = ("test",)
    places = dict.fromkeys(("train", "id_val", "id_test", "test"), ("fmow_v1.1",))
    card: Card = Card(
        title="WILDS FMoW",
        paper="Christie et al., CVPR 2018; Koh et al., WILDS, ICML 2021",
        licence="Functional Map of the World Challenge Public License",
        home="wilds.stanford.edu",
        counts={},
        sources=(Source(("train", "id_val", "id_test", "val", "test"), "fmow_v1.1", "CodaLab", "", ""),),
    )

    @property
    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a photo of {}.",)

    def load(self, name: str) -> Split:
        raise MissingDataError(f"{name} is not readable yet")
