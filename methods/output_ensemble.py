"""Output ensemble: mix what zero-shot and fine-tuned models say (a baseline of Wortsman et al., CVPR 2022)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.recipe import R_WISE, Recipe
from robustbench_ft.train import FeatureBatches

from ._pair import Temperatures, Together, calibrated, fit_pair, load_pair, mixed
from .ft import FT

GRID = tuple(round(0.1 * k, 1) for k in range(11))
Space = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class OutputEnsemble(FT):
    """WiSE-FT in the space of outputs. Every alpha of the grid is a candidate; 0 and 1 are single models.

    The space 'logits' mixes logits instead: another method with other numbers. In a label space of a split, each
    model's logits are cut to its classes first. With `calibrate`, both are divided by temperatures from ID validation.
    """

    averages: ClassVar[bool] = False
    single_model: ClassVar[bool] = False
    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_WISE}
    equation: ClassVar[str] = "p = (1 - alpha) softmax(u0 / T0) + alpha softmax(u / T),  u = scale W F(x)"
    source: ClassVar[str] = "Wortsman et al., CVPR 2022; BeierZhu/VRF@de9647d, src/baselines.py"
    oracle: ClassVar[str] = "mixtures.npz: the mixture of VRF@de9647d"
    traps: ClassVar[tuple[str, ...]] = (
        "a mixture of probabilities and one of logits are both called output ensemble",
        "VRF's script chooses the weight on the ImageNet validation set that it then reports",
        "two forward passes for each image: not the price of one model",
    )
    passes: ClassVar[float] = 2.0
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {
        "alpha-1": ("alpha", 1.0, "ft"),
        "alpha-0": ("alpha", 0.0, "zero-shot"),
    }

    alpha: float = 0.5  # of the headline row
    space: Space = "probabilities"  # what is mixed
    calibrate: bool = False  # divide logits by temperatures from ID validation

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        pair, heat = fit_pair(self, clip, data, run), Temperatures()
        if self.calibrate:
            heat = calibrated(pair, FeatureBatches(pair.before, data, run), FeatureBatches(pair.tuned, data, run))
            run.log({"event": "calibrated", "zero_shot": heat.before, "tuned": heat.tuned})
        axis = {f"alpha-{alpha:g}": alpha for alpha in sorted({*GRID, self.alpha})}
        mixtures = {name: Mixture(pair, heat, alpha, self.space) for name, alpha in axis.items() if 0 < alpha < 1}
        members = {name: lambda mixture=mixture: mixture for name, mixture in mixtures.items()}
        ends = {"alpha-0": lambda: dict(pair.start), "alpha-1": lambda: dict(pair.end)}
        ordered = {name: members.get(name) or ends[name] for name in axis}
        return Candidates(clip, ordered, default=f"alpha-{self.alpha:g}", axis=axis)

    @classmethod
    def reload(cls, folder: Path, load: Callable[[str], Clip]) -> Candidates:
        pair = load_pair(load)
        own = pair.tuned.config["rbft"]["ensemble"]
        return pair.alone(Mixture(pair, Temperatures(**own["temperatures"]), own["alpha"], own["space"]))

    def problems(self) -> list[str]:
        return [] if 0 <= self.alpha <= 1 else [f"alpha={self.alpha} must be between 0 and 1"]


@dataclass(frozen=True)
class Mixture(Together):
    """Answers with a mixture of two models, 0 < alpha < 1."""

    alpha: float
    space: Space

    def mix(self, before: Tensor, tuned: Tensor, features: Tensor) -> Tensor:
        if self.space == "logits":
            return (1 - self.alpha) * before + self.alpha * tuned
        return mixed(before, tuned, torch.tensor(self.alpha, device=tuned.device))

    def save(self, folder: Path, note: Mapping[str, Any]) -> None:
        ensemble = {"alpha": self.alpha, "space": self.space, "temperatures": vars(self.heat)}
        self.pair.save(folder, {**note, "ensemble": ensemble})
