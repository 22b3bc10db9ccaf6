"""Explode: cross-entropy until a step whose loss is not a number."""

from dataclasses import dataclass

from robustbench_ft import Batch, Clip, Method, Run, TrainSet
from robustbench_ft.train import LossTerms, train

ALIASES = ("boom",)


@dataclass(frozen=True)
class Explode(Method):
    """Fine on the steps before `at`."""

    at: int = 3

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        clip.start_from_zero_shot(data.task)
        clip.train_only("image", "head")

        def loss(batch: Batch) -> LossTerms:
            value = clip.classify(batch.features).logsumexp(dim=-1).mean()
            return {"boom": value * float("nan") if batch.step >= self.at else value}

        return train(clip, data, loss, self.resolved, run)
