"""The linear probe, first stage of LP-FT and all of LP: the head alone, on frozen features."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from robustbench_ft import Clip, Range, Run, TrainSet
from robustbench_ft.train import FeatureBatches, InterruptedRun, train

from ._logistic import PENALTIES, Probe, sweep
from .ft import FT

STAGE = "linear-probe"
# Tried on `shapes` with seeds 0 and 1. The default is the best on ID validation there, of the probe and of the model.
HEAD_LR_GRID = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class LinearProbe(FT):
    """What both methods share: the settings of the probe, and the stage that fits it."""

    ranges: ClassVar[Mapping[str, Range]] = {"head_lr": Range(1e-3, 1.0, "log")}  # of the probe 'zero-shot'

    probe: Literal["zero-shot", "logistic"] = (
        "zero-shot"  # start from the zero-shot head, or from nothing with 100 penalties to choose from
    )
    head_lr: float = 3e-2  # of the probe 'zero-shot', in logits

    def fit_probe(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        """Fit the head [K, D] on features computed once with the evaluation transform; the towers stay."""
        self.start(clip, data)
        features = FeatureBatches(clip, data, run)
        if self.probe == "logistic":
            self.put_logistic_head(clip, features, run)
            return clip
        clip.train_only("head")
        recipe = replace(self.resolved, lr=self.row_lr(clip))
        return train(clip, features, self.objective(clip, data, run), recipe, run, stage=STAGE)

    def row_lr(self, clip: Clip) -> float:
        """The learning rate of the head's rows that moves logits by `head_lr`."""
        return self.head_lr / float(clip.scale) if self.resolved.head == "unit" else self.head_lr

    def put_logistic_head(self, clip: Clip, features: FeatureBatches, run: Run) -> None:
        """Fit the paper's probe and put it in the place of the zero-shot head."""
        scaled, task, began = self.resolved.head == "scaled", features.data.task, time.monotonic()
        run.log({"event": "start", "stage": STAGE, "step": 0, "of": len(PENALTIES), "parameters": clip.head.numel()})
        with run.progress.bar(STAGE, len(PENALTIES), "penalties") as advance:

            def heard(probe: Probe) -> None:
                run.log({"event": "validate", "step": probe.step, "C": probe.c, "val_accuracy": probe.accuracy})
                advance(1)
                if run.stopped():
                    raise InterruptedRun(f"stopped at penalty {probe.step + 1} of {len(PENALTIES)}")

            pairs = (
                (features.train.cpu().numpy(), features.labels.numpy()),
                (features.val.cpu().numpy(), features.data.val.labels),
            )
            best = sweep(*pairs, len(task.classes), intercept=scaled, heard=heard)
        weight = torch.from_numpy(best.weight).float().to(clip.device)
        clip.set_head(weight if scaled else weight / clip.scale.detach(), self.resolved.head, task)
        if clip.bias is not None:
            clip.restore({"bias": torch.from_numpy(best.bias).float().to(clip.device)})
        run.log({
            "event": "end", "stage": STAGE, "step": len(PENALTIES), "seconds": time.monotonic() - began,
            "images": len(features), "selected_step": best.step, "val_accuracy": best.accuracy, "diverged": False,
        })  # fmt: skip

    def problems(self) -> list[str]:
        return [] if self.head_lr > 0 else [f"head_lr={self.head_lr} must be above 0"]
