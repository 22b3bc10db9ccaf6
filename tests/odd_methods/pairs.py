"""Pairs: compares the images of a batch with each other, and does not say so."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from robustbench_ft import Batch, Clip, Method, Run, TrainSet
from robustbench_ft.train import LossTerms, train


@dataclass(frozen=True)
class Pairs(Method):
    """Contrastive, of each image with the head's row of its class; `separable` is left at True."""

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        clip.start_from_zero_shot(data.task)
        clip.train_only("image", "head")

        def loss(batch: Batch) -> LossTerms:
            logits = batch.features @ clip.head[batch.labels].T  # [B, B]
            return {"contrastive": F.cross_entropy(10 * logits, torch.arange(len(logits)))}

        return train(clip, data, loss, self.resolved, run)
