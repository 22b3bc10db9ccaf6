"""DiWA: average the weights of fits that share a linear probe and differ in recipe (Rame et al., NeurIPS 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe

from ._members import fit_members, fixed, greedy, mean, named, numbers, positive, rating
from .lp_ft import LpFT


@dataclass(frozen=True)
class DiWA(LpFT):
    """A soup of LP-FT's: one probe, then a mild sweep around the recipe, then the mean.

    The paper draws each member's rate from 1e-5, 3e-5 and 5e-5, its weight decay from 1e-4 and 1e-6, and dropout. Here
    member k takes the factors number k on the recipe's rate and decay, in turn, and the tower's dropout stays.
    """

    averages: ClassVar[bool] = False
    version: ClassVar[int] = 1
    equation: ClassVar[str] = "theta = mean_k theta_k, each an FT from F0 and one probe W*, with a recipe of its own"
    source: ClassVar[str] = "Rame et al., NeurIPS 2022; alexrame/diwa@4bfe468, domainbed/scripts/diwa.py"
    oracle: ClassVar[str] = (
        "none: the mean is that of merges.npz; of the sweep the released code keeps checkpoints only"
    )
    traps: ClassVar[tuple[str, ...]] = (
        "the released 'restricted' selection accepts ties, the greedy soup does not",
        "20 to 60 members in the paper, three of them here",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {
        "uniform": ("members", 1, "lp-ft"),
        "restricted": ("members", 1, "lp-ft"),
        "member-0": ("members", 1, "lp-ft"),
    }

    members: int = 3  # fits in one cell
    lr_factors: str = "1 0.333 1.667"  # 3e-5, 1e-5 and 5e-5, where the recipe's rate is 3e-5
    decay_factors: str = "1"  # on the recipe's weight decay, in turn
    selection: Literal["uniform", "restricted"] = "uniform"  # of the headline row

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start_from_probe(clip, data, run)
        ends = fit_members(self, clip, data, run, [self.recipe_of(k) for k in range(self.members)])
        restricted, kept = greedy(ends, rating(clip, data, run), ties=True)
        run.log({"event": "soup", "members": kept})
        soups = {"uniform": fixed(mean(ends)), "restricted": fixed(restricted)}
        return Candidates(clip, named(ends) | soups, default=self.selection)

    def recipe_of(self, k: int) -> Recipe:
        """The recipe of member k."""
        rates, decays = numbers(self.lr_factors), numbers(self.decay_factors)
        return replace(
            self.resolved, lr=self.resolved.lr * rates[k % len(rates)],
            weight_decay=self.resolved.weight_decay * decays[k % len(decays)],
        )  # fmt: skip

    def problems(self) -> list[str]:
        found = [] if self.members >= 1 else [f"members={self.members} must be at least 1"]
        found += positive("lr_factors", self.lr_factors) + positive("decay_factors", self.decay_factors)
        return super().problems() + found
