"""Taught: FT towards the features of a second model, which a setting names."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from robustbench_ft import Batch, Clip, Method, Run, TrainSet
from robustbench_ft.method import ModelName
from robustbench_ft.train import LossTerms, train


@dataclass(frozen=True)
class Taught(Method):
    """Cross-entropy, and the mean of 1 - cos(feature, the teacher's feature)."""

    teacher: ModelName = "embedded"

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        clip.start_from_zero_shot(data.task)
        clip.train_only("image", "head")
        teacher = run.load_teacher(self.teacher)

        def loss(batch: Batch) -> LossTerms:
            with torch.no_grad():
                wanted = teacher.encode_image(batch.images)
            apart = 1 - (batch.features * wanted).sum(dim=-1).mean()
            return {"nll": F.cross_entropy(clip.classify(batch.features), batch.labels), "apart": apart}

        return train(clip, data, loss, self.resolved, run)
