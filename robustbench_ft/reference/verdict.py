"""A measured zero-shot number beside the published one: inside the tolerance, or outside. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustbench_ft import metrics
from robustbench_ft.data import Predictions
from robustbench_ft.record.store import Record
from robustbench_ft.stats.macro_f1 import macro_f1_draws

from .numbers import Reference, find, key_of

# Two-sided 99 %: of five splits of a right setup, one is called outside in 5 % of cases at most.
QUANTILE = 2.58
DRAWS = 200  # resamples for the error of a macro-F1


@dataclass(frozen=True)
class Verdict:
    """One split's number and the published one."""

    split: str
    reference: Reference
    measured: float  # in [0, 1]
    n: int  # images it was measured on
    error: float  # standard error of measured - published: sampling, on both sides
    elsewhere: tuple[Reference, ...] = ()  # further published numbers of the same model on the same split

    @property
    def gap(self) -> float:
        """Measured - published."""
        return self.measured - self.reference.value

    @property
    def tolerance(self) -> float:
        """How large a gap a right setup may have: sampling and the allowance."""
        return QUANTILE * self.error + self.reference.allowance

    @property
    def inside(self) -> bool:
        return abs(self.gap) <= self.tolerance


def judge(split: str, predictions: Predictions, published: Sequence[Reference]) -> Verdict:
    """Verdict by the first of `published`, which has the least allowance."""
    reference = published[0]
    measured = metrics.named(reference.metric, predictions)
    error = _error(reference, predictions)
    return Verdict(split, reference, measured, len(predictions), error, tuple(published[1:]))


def of_record(record: Record, like: str = "") -> list[Verdict]:
    """Verdicts on the splits of a zero-shot record for which numbers are published; empty for other methods."""
    if record.config.method != "zero-shot":
        return []
    model = record.config.model
    found = find(key_of(model.name, model.pretrained, like), record.config.suite)
    default = record.summary.default
    return [
        judge(split, record.predictions(default, split), published)
        for split, published in found.items() if record.holds(default, split)
    ]  # fmt: skip


def _error(reference: Reference, predictions: Predictions) -> float:
    """Standard error of the difference, as of two samples of images.

    Where both numbers are of the same images the true one is smaller: a gap inside may still have a small cause.
    """
    n = len(predictions)
    if reference.metric == "macro_f1":
        [drawn] = macro_f1_draws(predictions.label, predictions.prediction[None], DRAWS, "reference")
        return float(np.std(drawn.draws)) * (1 + n / (reference.n or n)) ** 0.5
    p = min(max(reference.value, 1 / n), 1 - 1 / n)
    if reference.metric.startswith(metrics.WORST):
        worst = metrics.worst_groups(predictions)[reference.metric.removeprefix(metrics.WORST)]
        return (2 * p * (1 - p) / worst.n) ** 0.5
    return (p * (1 - p) * (1 / n + 1 / (reference.n or n))) ** 0.5
