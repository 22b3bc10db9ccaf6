"""Greedy soup: average the fits that raise held-out accuracy, best first (Wortsman et al., ICML 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from robustbench_ft import Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe

from ._members import Soup, State, greedy, rating
from .uniform_soup import R_SOUP


@dataclass(frozen=True)
class GreedySoup(Soup):
    """By falling rating on ID validation, a member joins the mean where that rating becomes strictly higher.

    The default learning rates span a decade: among members that are alike there is nothing to choose.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_SOUP}
    equation: ClassVar[str] = "S <- S + {k} if val(mean of S + {k}) > val(mean of S), k by falling val(theta_k)"
    source: ClassVar[str] = "Wortsman et al., ICML 2022; mlfoundations/model-soups@d5398f1, main.py"
    oracle: ClassVar[str] = "merges.npz: model-soups@d5398f1"
    traps: ClassVar[tuple[str, ...]] = (
        "of equal members the released code takes the later first (sort, then reverse); here the first",
        "ID validation chooses members, so it no longer estimates ID accuracy without bias",
    )

    lr_factors: str = "1 0.3 3"  # on the recipe's learning rate, for one member after the other, in turn

    def soup(self, ends: Sequence[State], clip: Clip, data: TrainSet, run: Run) -> State:
        soup, kept = greedy(ends, rating(clip, data, run))
        run.log({"event": "soup", "members": kept})
        run.progress.say(f"  the soup is of members {', '.join(map(str, kept))}")
        return soup
