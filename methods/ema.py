"""EMA: fine-tune, and keep a running average of the weights (baseline of Nam, Heo, Lee, ICLR 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_ft import Candidates, Clip, Method, Range, RbftError, Run, TrainSet

from ._beside import fit_beside
from .ft import FT


@dataclass(frozen=True)
class EMA(FT):
    """mean <- decay * mean + (1 - decay) * theta after every update, head included; the mean starts at theta0.

    A mean that starts at theta0 and has not forgotten it holds the model back, as WiSE-FT does: over n updates theta0
    keeps the weight decay^n. The papers do not state their decay; 0.999 is a common one.
    """

    averages: ClassVar[bool] = False  # it is one
    equation: ClassVar[str] = "mean_k = decay mean_(k-1) + (1 - decay) theta_k, mean_0 = theta0"
    source: ClassVar[str] = "baseline of Nam, Heo, Lee, ICLR 2024; its decay is not stated anywhere"
    oracle: ClassVar[str] = "ema.npz: the mean of CaRot@c3e8bdc and timm's ModelEmaV2"
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"ema": ("decay", 0.0, "ft")}

    ranges: ClassVar[Mapping[str, Range]] = {"decay": Range(0.9, 0.9999, "log1m")}

    decay: float = 0.999  # what the mean keeps of itself at each update

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        return self.around(FT(self.recipe), clip, data, run)

    def around(self, method: Method, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        """`NAME+ema`: the mean over the last stage of `method`."""
        fitted, average = fit_beside(method, clip, data, run, lambda model: Average(model, self.decay))
        if not isinstance(fitted, Clip):
            raise RbftError(
                "'+ema' needs the path of one model, and what was fitted is several: set `averages` to False"
            )
        last, mean = fitted.snapshot(), average.mean
        return Candidates(fitted, {"last": lambda: last, "ema": lambda: mean}, default="ema")

    def problems(self) -> list[str]:
        return [] if 0 <= self.decay < 1 else [f"decay={self.decay} must be at least 0 and below 1"]


class Average:
    """A companion of training: the running mean of all tensors that move."""

    def __init__(self, clip: Clip, decay: float) -> None:
        self.clip, self.decay, self.mean = clip, decay, clip.snapshot()

    @torch.no_grad()
    def after_step(self, step: int, of: int) -> None:
        moving = self.clip.moving()
        mean, now = list(self.mean.values()), [moving[name] for name in self.mean]
        torch._foreach_mul_(mean, self.decay)  # pyright: ignore
        torch._foreach_add_(mean, torch._foreach_mul(now, 1 - self.decay))  # pyright: ignore

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.mean)

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        self.mean = {name: state[name].clone() for name in self.mean}
