"""Feature distillation: FT that keeps the image features where they were (Xiao et al., CVPR 2023, without masks)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.train import LossTerms, Objective

from ._drift import recorded
from .ft import FT


@dataclass(frozen=True)
class FeatureDistill(FT):
    """nll + strength * distance of the last features f to those of the pre-trained model, on the same images.

    As the authors' code has it: raw features, before they are normalised, the mean of squares over images and
    dimensions, and strength 30. With `features` 'unit' and `reduction` 'sum' it is |F - F0|^2: what Lipsum-FT's
    penalty would be, up to a factor, if random texts pointed everywhere alike.
    """

    equation: ClassVar[str] = "L = CE + strength mean_x mean_d (f_d(x) - f0_d(x))^2, raw features"
    source: ClassVar[str] = (
        "Xiao et al., CVPR 2023 (the FD term alone); Coxy7/robust-finetuning@fa8702f, trainers/distill_trainer.py"
    )
    oracle: ClassVar[str] = "none: the term is torch's MSELoss; tests compare with it"
    traps: ClassVar[tuple[str, ...]] = (
        "a published weight belongs to raw or to unit features, and to a mean or to a sum over dimensions",
    )
    reduces_to: ClassVar[dict[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    strength: float = 30.0  # lambda
    features: Literal["raw", "unit"] = "raw"  # before or after they are normalised
    reduction: Literal["mean", "sum"] = "mean"  # over dimensions; over images it is always a mean

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, anchor = super().objective(clip, data, run), clip.frozen_copy()

        def loss(batch: Batch) -> LossTerms:
            with torch.no_grad(), recorded([anchor.model.visual]) as before:
                unit_before = anchor.encode_image(batch.images)  # [B, D]
            with recorded([clip.model.visual]) as now:
                unit_now = batch.features
            pair = (unit_now, unit_before) if self.features == "unit" else (now[0], before[0])
            return {**fine_tuning(batch), "feature_gap": self.strength * self.distance(*pair)}

        return loss

    def distance(self, now: Tensor, before: Tensor) -> Tensor:
        """Squared differences of features [B, D]: mean over images, mean or sum over dimensions."""
        squares = (now - before).square()
        return squares.mean() if self.reduction == "mean" else squares.sum(dim=-1).mean()

    def problems(self) -> list[str]:
        return [] if self.strength >= 0 else [f"strength={self.strength} must be at least 0"]
