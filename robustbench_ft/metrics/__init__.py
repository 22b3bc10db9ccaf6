"""Metrics of one model on one split, from stored predictions alone. Torch-free.

Every metric has a name and a definition version, which rises when the definition changes; `VERSION` rises with the
list of metrics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.data import Predictions, view
from robustbench_ft.errors import RbftError, unknown

from .calibration import adaptive_ece as adaptive_ece
from .calibration import debiased_ce2 as debiased_ce2
from .calibration import ece as ece
from .classes import macro_f1 as macro_f1
from .classes import macro_recall as macro_recall
from .classes import per_class_recall as per_class_recall
from .classes import worst_groups as worst_groups

VERSION = 2
ACCURACY = "accuracy"
WORST = "worst_group:"  # and a group column: the accuracy of its worst group


def accuracy(predictions: Predictions) -> float:
    """Share of examples whose top-1 class is the label, in [0, 1]."""
    return float(predictions.correct.mean())


def nll(predictions: Predictions) -> float:
    """Mean negative natural log of the true class's probability, at temperature 1."""
    return float(_nll(predictions).mean())


def brier(predictions: Predictions) -> float:
    """Mean over examples of the sum over classes of (p_c - y_c)^2, in [0, 2]: 1 - 2 p_true + sum of p_c^2."""
    return float(_brier(predictions).mean())


def _correct(predictions: Predictions) -> NDArray[np.bool_]:
    return predictions.correct


def _nll(predictions: Predictions) -> NDArray[np.float64]:
    return -predictions.log_prob.astype(np.float64)


def _brier(predictions: Predictions) -> NDArray[np.float64]:
    true = np.exp(predictions.log_prob.astype(np.float64))
    return 1 - 2 * true + predictions.sum_sq.astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A named definition."""

    title: str  # for column headers
    version: int
    higher_is_better: bool
    of: Callable[[Predictions], float]
    per_example: Callable[[Predictions], NDArray[np.bool_] | NDArray[np.float64]] | None = None  # additive ones: [N]


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("top-1 accuracy", 1, True, accuracy, _correct),
    "nll": Metric("NLL", 1, False, nll, _nll),
    "brier": Metric("Brier score", 1, False, brier, _brier),
    "ece": Metric("ECE, 15 equal-width bins", 1, False, ece),
    "adaptive_ece": Metric("ECE, 15 equal-mass bins", 1, False, adaptive_ece),
    "debiased_ce2": Metric("debiased squared calibration error", 1, False, debiased_ce2),
    "macro_f1": Metric("macro-F1, classes in the labels", 1, True, macro_f1),
    "macro_recall": Metric("mean per-class recall", 1, True, macro_recall),
}


def score(predictions: Predictions) -> dict[str, float]:
    """Every metric of one model on one split, by name; one worst-group accuracy for each group column."""
    worst = {f"{WORST}{name}": found.accuracy for name, found in worst_groups(predictions).items()}
    return {name: metric.of(predictions) for name, metric in METRICS.items()} | worst


def named(name: str, predictions: Predictions) -> float:
    """One metric of `score` by its name. Raises `RbftError` where there is none of that name."""
    if name in METRICS:
        return METRICS[name].of(predictions)
    worst = worst_groups(predictions)
    if name.startswith(WORST) and name.removeprefix(WORST) in worst:
        return worst[name.removeprefix(WORST)].accuracy
    raise RbftError(unknown("metric", name, (*METRICS, *(f"{WORST}{column}" for column in worst))))


def sign_of(name: str) -> int:
    """1 where more is better, -1 where less is."""
    return 1 if name.startswith(WORST) or METRICS[name].higher_is_better else -1


def score_views(split: str, predictions: Predictions) -> dict[str, dict[str, float]]:
    """The metrics of a split under its name, and of its other label spaces under names of their own ('r@1000-way')."""
    return {split: score(predictions)} | {view(split, space): score(p) for space, p in predictions.also.items()}


def title_of(name: str) -> str:
    """The metric's name for column headers, also of group metrics."""
    return f"worst-{name.removeprefix(WORST)} accuracy" if name.startswith(WORST) else METRICS[name].title


def official_of(summary: Mapping[str, Any], split: str) -> str:
    """The official metric of a split, as metrics.json states it; of a view in another label space: accuracy."""
    return str(summary.get("official", {}).get(split, ACCURACY))


@dataclass(frozen=True)
class Column:
    """A number that a table shows beside the official metric of the split's own classes."""

    split: str  # or a view of it
    metric: str

    @property
    def title(self) -> str:
        return f"{self.split}: {'accuracy' if self.metric == 'accuracy' else title_of(self.metric)}"

    def of(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """The number, from the metrics of each split or view."""
        return scores[self.split][self.metric]


@dataclass(frozen=True)
class RelativeError:
    """A mean over splits of error divided by a reference model's, e.g. ImageNet-C's mCE: 1 is the reference."""

    name: str
    references: Mapping[str, float]  # split -> the reference's error

    @property
    def title(self) -> str:
        return f"{self.name} (lower is better)"

    def of(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """The number, from the metrics of each split."""
        ratios = [(1 - scores[split][ACCURACY]) / error for split, error in self.references.items()]
        return sum(ratios) / len(ratios)


@dataclass(frozen=True)
class Gap:
    """Accuracy on one split or view minus accuracy on another, e.g. with and without a watermark."""

    title: str
    minuend: str
    subtrahend: str

    def of(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """The number, from the metrics of each split or view."""
        return scores[self.minuend][ACCURACY] - scores[self.subtrahend][ACCURACY]


Derived: TypeAlias = RelativeError | Gap  # linear in the accuracies, so a mean over seeds is that of the means


def derived_columns(summary: Mapping[str, Any]) -> tuple[Derived, ...]:
    """Numbers that a suite makes of the accuracies of several splits."""
    relative = (RelativeError(name, errors) for name, errors in summary.get("relative_errors", {}).items())
    return (*relative, *(Gap(name, *views) for name, views in summary.get("gaps", {}).items()))


def further_columns(summary: Mapping[str, Any]) -> tuple[Column, ...]:
    """Accuracy where it is not the official metric, official metrics of splits in no mean, and other label spaces."""
    splits = summary["splits"]
    shown = dict.fromkeys((splits["val"], splits["test"], *splits["shifts"]))
    beside = [Column(split, ACCURACY) for split in shown if official_of(summary, split) != ACCURACY]
    extra = [Column(split, official_of(summary, split)) for split in splits.get("extra", ())]
    extra = [column for column in extra if column.metric != ACCURACY]
    return (*beside, *extra, *(Column(view, ACCURACY) for view in summary.get("views", ())))
