"""Metrics by class and by group of examples, by WILDS' rules (docs/statistics.md, 'Metrics that are no mean')."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError
from robustbench_ft.stats.macro_f1 import per_class_f1
from robustbench_ft.stats.proportions import wilson

FEW = 20  # examples: a smaller group is flagged


def macro_f1(predictions: Predictions) -> float:
    """Mean F1 over the classes that the split's labels contain: WILDS' rule; sklearn also counts predicted ones."""
    return float(per_class_f1(predictions.label, predictions.prediction).mean())


def per_class_recall(predictions: Predictions) -> dict[int, float]:
    """Accuracy on each class that the split's labels contain."""
    return group_accuracies(predictions.correct, predictions.label)


def macro_recall(predictions: Predictions) -> float:
    """Mean of the per-class recalls."""
    return float(np.mean(list(per_class_recall(predictions).values())))


def group_accuracies(correct: NDArray[np.bool_], group: NDArray[np.int64]) -> dict[int, float]:
    """Group -> accuracy, for groups that have examples: an empty one is skipped, never counted as 0."""
    present, codes = np.unique(group, return_inverse=True)
    n = np.bincount(codes)
    right = np.bincount(codes, weights=correct)
    return {int(g): float(r / k) for g, r, k in zip(present, right, n, strict=True)}


@dataclass(frozen=True)
class WorstGroup:
    """The least accurate group. The minimum over groups is biased down: more or smaller groups make it worse."""

    group: int
    accuracy: float
    n: int
    interval: tuple[float, float]  # Wilson, of this group taken as fixed

    @property
    def few(self) -> bool:
        return self.n < FEW


def worst_group(correct: NDArray[np.bool_], group: NDArray[np.int64], ignore: Sequence[int] = ()) -> WorstGroup:
    """Over groups with examples; `ignore` names groups that do not count, e.g. FMoW's region 'Other'."""
    found = {g: a for g, a in group_accuracies(correct, group).items() if g not in ignore}
    if not found:
        raise RbftError("no group has an example: there is no worst group")
    worst = min(found, key=lambda g: (found[g], g))
    n = int((group == worst).sum())
    return WorstGroup(worst, found[worst], n, wilson(found[worst] * n, n))


def worst_groups(predictions: Predictions) -> dict[str, WorstGroup]:
    """Group column -> its worst group; examples in group -1 are in none, and a column of only these is left out."""
    return {
        name: worst_group(predictions.correct[values >= 0], values[values >= 0])
        for name, values in predictions.groups.items()
        if (values >= 0).any()
    }
