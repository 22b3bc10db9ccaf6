"""LwF: FT that keeps the answers of an old head on the new images (Li, Hoiem, ECCV 2016; TPAMI 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.method import FileName
from robustbench_ft.prompts import Task, fill, imagenet_classes
from robustbench_ft.train import LossTerms, Objective

from ._drift import kl
from ._texts import lines, refusal
from .ft import FT


@dataclass(frozen=True)
class LwF(FT):
    """nll + strength * KL(old || tuned), both softened by T, over the classes of an old zero-shot head.

    CLIP has no head of its own, so its old task must be named: `old_classes` is a file with one class per line. Without
    it they are the 1,000 names of ImageNet, or, where the tokenizer holds whole words only (the embedded model's), each
    of its words. The old head takes the templates of the suite. It stays as it is; Li and Hoiem train it as well. On
    ImageNet itself this is `kd` with a second head that stays.

    T = 2, strength 1 and no T^2 are the paper's, as FACIL quotes it (page 5).
    """

    equation: ClassVar[str] = "L = CE + strength KL(softmax(v0 / T) || softmax(v / T)),  v = scale W_old F(x)"
    source: ClassVar[str] = "Li, Hoiem, TPAMI 2018; mmasana/FACIL@66e3e8e, src/approach/lwf.py"
    oracle: ClassVar[str] = "kd.npz: robust-finetuning@fa8702f, up to T^2"
    traps: ClassVar[tuple[str, ...]] = (
        "FACIL minimises the cross-entropy of the two, which has the same gradients and another value, and adds 1e-5",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    strength: float = 1.0  # lambda_o
    temperature: float = 2.0  # T
    old_classes: FileName = ""  # file with one class of the old task per line

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, anchor = super().objective(clip, data, run), clip.frozen_copy()
        old = anchor.scale * anchor.zero_shot_head(Task(self.classes(clip), data.task.templates))  # [K_old, D]

        def loss(batch: Batch) -> LossTerms:
            with torch.no_grad():
                before = anchor.encode_image(batch.images) @ old.T  # [B, K_old]
            gap = kl(before, batch.features @ old.T, self.temperature)
            return {**fine_tuning(batch), "old_answers": self.strength * gap}

        return loss

    def classes(self, clip: Clip) -> tuple[str, ...]:
        """The names of the old head's classes."""
        if self.old_classes:
            return lines(self.old_classes, "the old classes")
        return clip.whole_words or imagenet_classes()

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return refusal(clip, [fill(data.task.templates[0], name) for name in self.classes(clip)])

    def problems(self) -> list[str]:
        rules = {"strength": self.strength >= 0, "temperature": self.temperature > 0}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]
