"""OLOR: after every Adam step a short way back to theta0, shorter in deeper tensors (Huang et al., AAAI 2024)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_ft import Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import train

from ._anchored import Anchored, groups_of
from .ft import FT


@dataclass(frozen=True)
class OLOR(FT):
    """One step learning, one step review: after an Adam step, tensor l goes back a share of its way to theta0.

    The share is rate / peak rate times a level that falls from `pull` at the first tensor to `pull_last` at the last,
    counted in tensors and not in layers. The recipe's weight decay is not used. The head is not pulled, as in the
    authors' code, whose head is new. The released optimiser writes this as one formula for the step and the way made;
    the two are equal.
    """

    equation: ClassVar[str] = (
        "theta' = Adam(theta);  theta' -= (lr_t / lr) level_l (theta' - theta0), "
        "level_l = pull_last + (1 - l / n)^power (pull - pull_last)"
    )
    source: ClassVar[str] = (
        "Huang et al., AAAI 2024; rainbow-xiao/OLOR-AAAI-2024@2ab7996, OLOR/utils/AdamB.py, OLOR/train.py"
    )
    oracle: ClassVar[str] = "olor.npz: OLOR-AAAI-2024@2ab7996"
    traps: ClassVar[tuple[str, ...]] = (
        "the released script divides back_level_max by the peak rate and leaves back_level_min as it is; it is 0 there",
        "l counts tensors, so a layer's bias is pulled less than its weight",
    )

    pull: float = 0.01  # back_level_max of config.py: the share of the first tensor at the peak rate
    pull_last: float = 0.0  # back_level_min times the peak rate
    power: float = 1.0  # back_pow
    hold_head: bool = False  # pull the head as well, as the last of the tensors

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        self.start(clip, data)
        return train(clip, data, self.objective(clip, data, run), self.resolved, run, optimizer=self.optimizer)

    def optimizer(self, clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
        return Review(groups_of(clip, self.hold_head), recipe, self.levels)

    def levels(self, n: int) -> list[float]:
        """Of each of `n` tensors, from the first to the last."""
        depth = [place / max(1, n - 1) for place in range(n)]
        return [self.pull_last + (1 - d) ** self.power * (self.pull - self.pull_last) for d in depth]

    def problems(self) -> list[str]:
        shares = {"pull": self.pull, "pull_last": self.pull_last}
        found = [f"{name}={value} must be between 0 and 1" for name, value in shares.items() if not 0 <= value <= 1]
        return found + ([] if self.power >= 0 else [f"power={self.power} must be at least 0"])


class Review(Anchored):
    """Adam, then the way back."""

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe, levels: Any) -> None:
        super().__init__(groups, recipe, weight_decay=0.0)
        self.peak, self.levels = recipe.lr, dict(zip(self.starts, levels(len(self.starts)), strict=True))

    def after(self, held: list[Tensor], starts: list[Tensor], before: None) -> None:
        share = self.param_groups[0]["lr"] / self.peak
        for p, start in zip(held, starts, strict=True):
            p.lerp_(start, share * self.levels[p])
