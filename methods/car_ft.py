"""CAR-FT: FT that keeps the zero-shot model's predictions of the context (Mao et al., IJCV 2024)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.train import LossTerms, Objective

from ._drift import kl
from .ft import FT


@dataclass(frozen=True)
class CarFT(FT):
    """nll + strength * KL(q0 || q), where q(x) is the softmax over the suite's templates, each a context.

    A template's weights are the mean of its text embeddings over all classes, normalised: what the setup script of
    Lipsum-FT stores. No code of CAR-FT was found, and neither its construction of contexts, nor its coefficient, nor
    the one behind the CAR-FT rows of Nam, Heo and Lee (ICLR 2024) could be verified; 1 is declared here.
    """

    equation: ClassVar[str] = (
        "L = CE + strength KL(q0(x) || q(x)),  q(x) = softmax(scale V F(x)),  v_n = unit mean_c G(template_n(c))"
    )
    source: ClassVar[str] = "Mao et al., IJCV 2024; its context weights: cs-giung/lipsum-ft@1331873, scripts/setup.py"
    oracle: ClassVar[str] = "context weights: zeroshot.npz of lipsum-ft@1331873; penalty: none, no code was found"
    traps: ClassVar[tuple[str, ...]] = ("with a single template there is one context, and the penalty is 0",)
    reduces_to: ClassVar[dict[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    strength: float = 1.0  # lambda

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, anchor = super().objective(clip, data, run), clip.frozen_copy()
        contexts = anchor.scale * anchor.context_head(data.task)  # [T, D]

        def loss(batch: Batch) -> LossTerms:
            with torch.no_grad():
                before = anchor.encode_image(batch.images) @ contexts.T  # [B, T]
            return {**fine_tuning(batch), "context_gap": self.strength * kl(before, batch.features @ contexts.T)}

        return loss

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if len(data.task.templates) > 1 else "one template is one context, whose prediction cannot change"

    def problems(self) -> list[str]:
        return [] if self.strength >= 0 else [f"strength={self.strength} must be at least 0"]
