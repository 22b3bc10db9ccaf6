"""FT: cross-entropy through the image tower and the head, from the zero-shot head (Wortsman et al., 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from robustbench_ft import Batch, Candidates, Clip, Method, Run, TrainSet
from robustbench_ft.recipe import R_WISE, Recipe
from robustbench_ft.train import LossTerms, Objective, train


@dataclass(frozen=True)
class FT(Method):
    """Every weight of the image tower moves; nothing holds it back. The text tower stays as it was."""

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_WISE}
    averages: ClassVar[bool] = True
    equation: ClassVar[str] = "L = CE(scale W F(x), y), over F and W from F0 and the zero-shot head"
    source: ClassVar[str] = "Wortsman et al., CVPR 2022; mlfoundations/wise-ft@58b7a4b, src/models/finetune.py"
    oracle: ClassVar[str] = "wiseft_finetune.npz: wise-ft@58b7a4b; ft_jax.npz: lipsum-ft@1331873"

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        return self.tune(clip, data, run)

    def tune(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        """Plain fine-tuning, for methods that do something before or after it."""
        self.start(clip, data)
        return train(clip, data, self.objective(clip, data, run), self.resolved, run)

    def start(self, clip: Clip, data: TrainSet) -> None:
        """Where training begins: the zero-shot head [K, D], in the recipe's convention."""
        clip.start_from_zero_shot(data.task, self.resolved.head)
        clip.train_only("image", "head")

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        def loss(batch: Batch) -> LossTerms:
            logits = clip.classify(batch.features)  # [B, D] -> [B, K]
            return {"nll": F.cross_entropy(logits, batch.labels, label_smoothing=self.resolved.label_smoothing)}

        return loss
