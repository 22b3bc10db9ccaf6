"""FTP: Adam, and a projection towards theta0 whose radii learn from the training gradient (Tian et al., 2023)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_ft import Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import train

from ._anchored import Anchored, away, groups_of
from .ft import FT

TINY = 1e-8  # the first radius, and what is added to norms
BETAS, EPS = (0.9, 0.999), 1e-8  # of the radii's own Adam


@dataclass(frozen=True)
class FTP(FT):
    """Fast trainable projection: TPGM 'during' without validation batches. One radius for each tensor, in row sums.

    A radius starts at 1e-8, so the model leaves theta0 only where gradients ask for it. It moves by about `rate` a step
    in the units of the weights. The radius of step t learns from the gradient at theta_t and the way of step t - 1 as
    it was before its projection. The head is not projected, as in the authors' code, whose head is new. The recipe's
    weight decay is kept; the authors' scripts use 0.
    """

    averages: ClassVar[bool] = True
    equation: ClassVar[str] = (
        "d = AdamW(theta) - theta0;  theta' = theta0 + min(1, gamma / |d|_1) d, row by row;  gamma by Adam on "
        "sum over rows <grad_t, d_(t-1)> / |d_(t-1)|_1, times k where positive"
    )
    source: ClassVar[str] = "Tian et al., NeurIPS 2023; GT-RIPL/FTP@1f8dd44, util/FTP.py"
    oracle: ClassVar[str] = "ftp.npz: FTP@1f8dd44"
    traps: ClassVar[tuple[str, ...]] = (
        "the released script parses k but always trains with 1",
        "the radii's Adam counts its first update as its second, so that one is smaller than `rate`",
        "radii are cut to the largest row sum of their tensor at every step, so they follow a shrinking way down",
    )

    rate: float = 1e-2  # mu, of Adam on gamma
    k: float = 1.0  # in [0, 1]: gradients that shrink a radius count k times; 1 holds strongest
    hold_head: bool = False  # project the head as well

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        self.start(clip, data)
        return train(clip, data, self.objective(clip, data, run), self.resolved, run, optimizer=self.optimizer)

    def optimizer(self, clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
        return Projecting(groups_of(clip, self.hold_head), recipe, self.rate, self.k)

    def problems(self) -> list[str]:
        found = [] if self.rate > 0 else [f"rate={self.rate} must be above 0"]
        return found + ([] if 0 <= self.k <= 1 else [f"k={self.k} must be between 0 and 1"])


class Projecting(Anchored):
    """AdamW, then the projection. State of a tensor: its way before the last projection, gamma and its moments."""

    def __init__(self, groups: list[dict[str, Any]], recipe: Recipe, rate: float, k: float) -> None:
        super().__init__(groups, recipe, weight_decay=recipe.weight_decay)
        self.rate, self.k = rate, k

    def after(self, held: list[Tensor], starts: list[Tensor], before: None) -> None:
        for p, start, way in zip(held, starts, away(held, starts), strict=True):
            state, norms = self.state[p], row_sums(way.abs()) + TINY
            if "radius" in state:
                self.learn(state, p, norms)
            else:
                state["seen"] = 1  # a number, as torch's own count lies on the GPU, in float32
                state["radius"] = torch.full((), TINY, device=p.device)
                state["first"], state["second"] = (torch.zeros((), device=p.device) for _ in range(2))
            state["way"] = way
            p.copy_(start + (state["radius"] / norms).clamp(0, 1) * way)

    def learn(self, state: dict[str, Any], p: Tensor, norms: Tensor) -> None:
        """One step of Adam on the radius of `p`, cut to the largest of `norms`."""
        state["seen"] += 1
        was, t = state["way"], state["seen"]
        slope = (row_sums(p.grad * was) / (row_sums(was.abs()) + TINY)).sum()
        slope = torch.where(slope > 0, self.k * slope, slope)
        state["first"].lerp_(slope, 1 - BETAS[0])
        state["second"].lerp_(slope.square(), 1 - BETAS[1])
        first, second = state["first"] / (1 - BETAS[0] ** t), state["second"] / (1 - BETAS[1] ** t)
        moved = state["radius"] - self.rate * first / (second.sqrt() + EPS)
        state["radius"] = moved.clamp_min(TINY).minimum(norms.max())


def row_sums(tensor: Tensor) -> Tensor:
    """[N, ...] -> [N, 1, ...]; of a vector or a number, the sum of all, []."""
    return tensor.sum(dim=tuple(range(1, tensor.dim())), keepdim=True) if tensor.dim() > 1 else tensor.sum()
