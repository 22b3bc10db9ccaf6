"""Noise: cross-entropy on noisy features, and the noise is torch's own."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_ft import Batch, Clip, Method, Run, TrainSet
from robustbench_ft.train import LossTerms, train


@dataclass(frozen=True)
class Noise(Method):
    """Of `way` 'global', which no stream of the run knows of; 'module' drops features, as a model may."""

    way: str = "global"

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        clip.start_from_zero_shot(data.task)
        clip.train_only("image", "head")
        drop = torch.nn.Dropout(0.5)

        def noisy(features: Tensor) -> Tensor:
            return drop(features) if self.way == "module" else features + 0.1 * torch.randn_like(features)

        def loss(batch: Batch) -> LossTerms:
            return {"nll": F.cross_entropy(clip.classify(noisy(batch.features)), batch.labels)}

        return train(clip, data, loss, self.resolved, run)
