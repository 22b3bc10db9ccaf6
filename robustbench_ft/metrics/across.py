"""Aggregates over splits and runs: means that refuse holes, and which learning rate ID validation would choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robustbench_ft.stats.proportions import standard_error


@dataclass(frozen=True)
class SuiteMean:
    """Equal weights over the required test sets; None while one is missing: never a mean of what is there."""

    suite_mean: float | None
    complete: bool
    n_present: int
    n_required: int


def suite_mean(scores: Mapping[str, float | None]) -> SuiteMean:
    """Mean OOD: ID is never among the sets."""
    present = [value for value in scores.values() if value is not None]
    complete = bool(scores) and len(present) == len(scores)
    return SuiteMean(float(np.mean(present)) if complete else None, complete, len(present), len(scores))


BEST, ONE_SE = "lr by best ID val", "lr by one-SE rule"


@dataclass(frozen=True)
class Setting:
    """A learning rate and the ID-validation accuracy that one run with it reached on n examples."""

    lr: float
    accuracy: float
    n: int


def select_best(settings: Sequence[Setting]) -> int:
    """Index of the best ID-validation accuracy; of equals, the smallest learning rate."""
    return min(range(len(settings)), key=lambda k: (-settings[k].accuracy, settings[k].lr))


def select_one_se(settings: Sequence[Setting]) -> int:
    """Index of the smallest learning rate whose ID-validation accuracy is within one binomial SE of the best."""
    best = settings[select_best(settings)]
    floor = best.accuracy - standard_error(best.accuracy * best.n, best.n)
    near = [k for k, setting in enumerate(settings) if setting.accuracy >= floor]
    return min(near, key=lambda k: (settings[k].lr, -settings[k].accuracy))


RULES = {BEST: select_best, ONE_SE: select_one_se}
