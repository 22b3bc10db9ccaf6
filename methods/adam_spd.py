"""Adam-SPD: Adam, with a decay towards theta0 where the gradient points away from it (Tian et al., NeurIPS 2024)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_ft import Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import train

from ._anchored import Anchored, away, groups_of
from .ft import FT


@dataclass(frozen=True)
class AdamSPD(FT):
    """After a step, a tensor goes back the share `strength` r of its way; only where the last step was back already.

    The condition <gradient, theta - theta0> > 0 says that a step against the gradient leads back to theta0. It replaces
    the recipe's weight decay, which is not used. The learning rate does not multiply it. The authors' code states no
    value of `strength`; 1 takes back all that the step added to the distance.
    """

    equation: ClassVar[str] = (
        "theta' = Adam(theta);  where <grad, theta - theta0> > 0: theta' -= strength r (theta' - theta0), "
        "r = max(0, 1 - |theta - theta0| / |theta' - theta0|), tensor by tensor"
    )
    source: ClassVar[str] = "Tian, Huang, Kira, NeurIPS 2024; GT-RIPL/Selective-Projection-Decay@b377695, adamSPD.py"
    oracle: ClassVar[str] = "adam_spd.npz: Selective-Projection-Decay@b377695"
    traps: ClassVar[tuple[str, ...]] = (
        "its option is called weight_decay but is no rate: the learning rate does not multiply it",
        "the repository holds the optimiser alone: no script, and no value of the decay",
    )

    strength: float = 1.0  # lambda; the released code's weight_decay

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        self.start(clip, data)
        return train(clip, data, self.objective(clip, data, run), self.resolved, run, optimizer=self.optimizer)

    def optimizer(self, clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
        return SelectiveDecay(groups_of(clip, hold_head=True), recipe, self.strength)

    def problems(self) -> list[str]:
        return [] if self.strength >= 0 else [f"strength={self.strength} must be at least 0"]


class SelectiveDecay(Anchored):
    """Adam, then the decay of each tensor that moves back."""

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe, strength: float) -> None:
        super().__init__(groups, recipe, weight_decay=0.0)
        self.strength = strength

    def before(self, held: list[Tensor], starts: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """|theta - theta0|, and <gradient, theta - theta0>."""
        moved, gradients = away(held, starts), [p.grad for p in held if p.grad is not None]
        return [tensor.norm() for tensor in moved], [(g * d).sum() for g, d in zip(gradients, moved, strict=True)]

    def after(self, held: list[Tensor], starts: list[Tensor], before: tuple[list[Tensor], list[Tensor]]) -> None:
        for p, d, was, back in zip(held, away(held, starts), *before, strict=True):
            far = d.norm()
            share = ((far - was) / far).clamp(0, 1)
            # no `if`: asking the GPU would stop it. A tensor at theta0 has no share, and no gradient along its way
            p.sub_(d * torch.where(back > 0, self.strength * share, 0.0))
