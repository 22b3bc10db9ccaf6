"""The best of n random trials: what a search of a given budget may expect (Dodge et al., EMNLP 2019, equation 2).

N trials stand for the distribution they were drawn from. The best of n fresh ones, drawn with replacement, is the trial
of rank i (ascending) with probability (i / N)^n - ((i - 1) / N)^n.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .intervals import Matrix
from .proportions import LEVEL
from .streams import generator

DRAWS = 2_000


@dataclass(frozen=True)
class BestOf:
    """The expected best of `n` trials, and what is expected of another quantity of the trial that is the best."""

    n: int
    best: float
    best_interval: tuple[float, float]  # 95 %, percentiles of bootstrap draws of the trials
    best_sd: float  # of the best of n trials itself, from one search to another
    other: float
    other_interval: tuple[float, float]
    other_sd: float


def chances(trials: int, n: int) -> Matrix:
    """[trials], the probability that the trial of each rank, worst first, is the best of `n` with replacement."""
    ends = (np.arange(trials + 1) / trials) ** n
    return np.diff(ends)


def order(values: Sequence[float], ties: Sequence[float]) -> list[int]:
    """Places from the worst value to the best; of equals the one with the smallest tie-breaker wins, then the first."""
    return sorted(range(len(values)), key=lambda k: (values[k], -ties[k], -k))


def best_of(
    values: Sequence[float], others: Sequence[float], ties: Sequence[float], *names: object, draws: int = DRAWS
) -> list[BestOf]:
    """For n = 1..N: the expected best of `values` [N], and the expected `others` [N] of the trial so chosen.

    `ties` [N] break ties, the smallest first. `names` name the random stream of the bootstrap over trials.
    """
    ranked = order(values, ties)
    x, y = (np.asarray(column, np.float64)[ranked] for column in (values, others))
    size = len(ranked)
    # ranks drawn with replacement; sorted, since a resample of ordered trials keeps their order
    drawn = np.sort(generator(*names, "best-of").integers(size, size=(draws, size)), axis=1)
    made: list[BestOf] = []
    for n in range(1, size + 1):
        p = chances(size, n)
        made.append(BestOf(n, *_with_interval(x, p, drawn), *_with_interval(y, p, drawn)))
    return made


def _with_interval(column: Matrix, p: Matrix, drawn: np.ndarray) -> tuple[float, tuple[float, float], float]:
    mean = float(column @ p)
    low, high = np.quantile(column[drawn] @ p, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    sd = float(max(0.0, (column - mean) ** 2 @ p)) ** 0.5
    return mean, (float(low), float(high)), sd
