"""LP-FT: first the head alone on frozen features, then everything (Kumar et al., ICLR 2022)."""

from dataclasses import dataclass, replace

from robustbench_ft import Clip, Run, TrainSet
from robustbench_ft.train import Features, train

from .ft import FT


@dataclass(frozen=True)
class LpFT(FT):
    """A head near its optimum sends small gradients into the features, so they stay where they were.

    The linear probe starts from the zero-shot head and runs on features computed once with the evaluation transform, as
    wise-ft's freeze-encoder mode does; the paper's own probe starts from nothing. Both stages take the recipe's steps.
    """

    head_lr: float = 1e-2  # learning rate of the linear probe

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        self.start(clip, data)
        clip.train_only("head")
        probe = replace(self.resolved, lr=self.head_lr)
        train(clip, Features(clip, data, run), self.objective(clip, run), probe, run, stage="linear-probe")
        clip.train_only("image", "head")
        return train(clip, data, self.objective(clip, run), self.resolved, run)

    def problems(self) -> list[str]:
        return [] if self.head_lr > 0 else [f"head_lr={self.head_lr} must be above 0"]
