"""KD: FT that keeps the zero-shot model's predictions (Hinton et al., 2015; baseline of Nam, Heo, Lee, ICLR 2024)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.train import LossTerms, Objective

from ._drift import kl
from .ft import FT


@dataclass(frozen=True)
class KD(FT):
    """nll + strength * T^2 * KL(zero-shot || tuned), both softened by the temperature T.

    The values behind the KD rows of Nam, Heo and Lee are not published. The defaults are ours: T = 1 keeps the
    teacher's probabilities as they are, and CLIP's are close to calibrated (temperatures fitted to B/32, B/16 and L/14
    on ImageNet are 0.96, 0.96 and 1.08: naver-ai/dawin@310e0e1). Xiao et al. (CVPR 2023) run T = 10 and strength 30,
    where T^2 KL is nearly half the variance over classes of the difference of logits.
    """

    equation: ClassVar[str] = "L = CE + strength T^2 KL(softmax(u0 / T) || softmax(u / T)), u0 of the zero-shot model"
    source: ClassVar[str] = "Hinton, Vinyals, Dean, 2015; Coxy7/robust-finetuning@fa8702f, losses/distill.py"
    oracle: ClassVar[str] = "kd.npz: robust-finetuning@fa8702f"
    traps: ClassVar[tuple[str, ...]] = ("without T^2 the penalty fades as the temperature rises",)
    reduces_to: ClassVar[dict[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    strength: float = 1.0  # lambda
    temperature: float = 1.0  # T

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, teacher = super().objective(clip, data, run), clip.frozen_copy()

        def loss(batch: Batch) -> LossTerms:
            with torch.no_grad():
                before = teacher.logits(batch.images)  # [B, K]
            gap = self.temperature**2 * kl(before, clip.classify(batch.features), self.temperature)
            return {**fine_tuning(batch), "distillation": self.strength * gap}

        return loss

    def problems(self) -> list[str]:
        rules = {"strength": self.strength >= 0, "temperature": self.temperature > 0}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]
