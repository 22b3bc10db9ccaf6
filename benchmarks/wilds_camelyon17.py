"""WILDS Camelyon17: learn on tissue slides of three hospitals; be tested on a fifth."""

from robustbench_ft.data import Split
from robustbench_ft.errors import MissingDataError
from robustbench_ft.recipe import R_FLYP
from robustbench_ft.suite import Card, Source, Suite


class WildsCamelyon17(Suite):
    """Official splits and metric of the WILDS package; selection on its ID validation split."""

    recipe = R_FLYP
    val = test = "id_val"  # WILDS has no ID test split here
    shifts = ("test",)
    places = dict.fromkeys(("train", "id_val", "test"), ("camelyon17_v1.0",))
    card: Card = Card(
        title="WILDS Camelyon17",
        paper="Bandi et al. 2018; Koh et al., WILDS, ICML 2021",
        licence="CC0",
        home="wilds.stanford.edu",
        counts={},
        sources=(Source(("train", "id_val", "id_test", "val", "test"), "camelyon17_v1.0", "CodaLab", "", ""),),
    )

    @property
    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a photo of {}.",)

    def load(self, name: str) -> Split:
        raise MissingDataError(f"{name} is not readable yet")
