"""The two-way t interval over seeds and examples: the headline of every table (1.2, 1.3).

Seeds (training runs) and examples are two crossed random factors: an interval that knows only one of them is too
narrow. Data is a list over test sets of scores [S seeds, n examples] of any additive per-example score; the estimand is
the equal-weight mean over the sets, for a fresh seed on fresh images of the same kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from robustbench_ft.errors import RbftError

Matrix = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference with its 95 % interval."""

    value: float
    half_width: float
    se: float
    df: float
    p: float  # two-sided, of the value being 0; meaningful for differences
    seeds: int  # the smaller number where two methods are compared
    v_seed: float
    v_examples: float

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width


@dataclass(frozen=True, eq=False)
class Examples:
    """An additive score of every run on every example; clusters of examples where these are drawn together."""

    scores: NDArray[Any]  # [S, n]: bool or float
    clusters: NDArray[np.int64] | None = None  # [n], codes 0..G-1

    @cached_property
    def runs(self) -> Matrix:
        return self.scores.mean(axis=1, dtype=np.float64)

    @cached_property
    def columns(self) -> Matrix:
        """[n], means over seeds."""
        return self.scores.mean(axis=0, dtype=np.float64)

    @cached_property
    def units(self) -> Matrix:
        """[G], what each independent unit adds to the seed mean, centred: `scale` x sum of squares is V_ex."""
        centred = self.columns - self.columns.mean()
        if self.clusters is None or self.df == 0:
            return centred
        # with each cluster's leverage: the plain sum_g T_g^2 / n^2 rejects too often for 10-30 clusters of unequal size
        # (docs/results/statistics_study.md), the jackknife over clusters does not
        sizes = np.bincount(self.clusters)
        return np.bincount(self.clusters, weights=centred) / (1 - sizes / len(centred))

    @property
    def scale(self) -> float:
        n = self.scores.shape[1]
        return self.df / (self.df + 1) / n**2 if self.clusters is not None else 1 / (n * (n - 1))

    @cached_property
    def df(self) -> int:
        units = self.scores.shape[1] if self.clusters is None else int(self.clusters.max()) + 1
        if units < 2:
            raise RbftError(
                "a test set of one example or one cluster has no interval; leave it out or declare other clusters"
            )
        return units - 1

    @cached_property
    def noise(self) -> float:
        """What examples alone add to the variance between runs: MSR / n."""
        seeds, n = self.scores.shape
        if seeds < 2:
            return 0.0
        centred = self.columns - self.columns.mean()
        total = sum(_square_sum(row - mean - centred) for row, mean in zip(self.scores, self.runs, strict=True))
        return total / ((n - 1) * (seeds - 1) * n)

    def minus(self, other: Any) -> "Examples":
        """Run by run: only where run s of one was made from run s of the other."""
        difference = self.scores.astype(np.float64) - other.scores
        return Examples(difference, self.clusters)


@dataclass(frozen=True, eq=False)
class Draws:
    """A metric that is no mean (macro-F1, worst group): each run's value, and its values in shared resamples (1.12)."""

    runs: Matrix  # [S]
    draws: Matrix  # [S, R], draw r resamples the same examples for every run of every method
    df: int  # independent units resampled, minus 1

    @cached_property
    def units(self) -> Matrix:
        means = self.draws.mean(axis=0)
        return means - means.mean()

    @property
    def scale(self) -> float:
        return 1 / (self.draws.shape[1] - 1)

    @cached_property
    def noise(self) -> float:
        if len(self.runs) < 2:
            return 0.0
        centred = self.draws - self.draws.mean(axis=1, keepdims=True) - self.units
        return _square_sum(centred) * self.scale / (len(self.runs) - 1)

    def minus(self, other: Any) -> "Draws":
        return Draws(self.runs - other.runs, self.draws - other.draws, self.df)


Sample = Examples | Draws  # one method on one test set, as far as an interval needs it


def cluster_variance(scores: Matrix, clusters: NDArray[np.int64]) -> float:
    """Plain linearised cluster variance of a mean, sum_g (sum_{i in g} (y_i - ybar))^2 / n^2: as in statistics.md 1.3,
    for comparison with other software. Intervals use the jackknife, which is larger for few or unequal clusters."""
    return _square_sum(np.bincount(clusters, weights=scores - scores.mean())) / len(scores) ** 2


def mean(sets: Sequence[Matrix | Sample]) -> Estimate:
    """Two-way t interval for one method. One seed gives an interval over examples only."""
    return estimate([sets])


def difference(a: Sequence[Matrix | Sample], b: Sequence[Matrix | Sample], paired_seeds: bool = False) -> Estimate:
    """a - b on the same examples. `paired_seeds` only where run s of `a` was made from run s of `b`."""
    left, right = [as_sample(x) for x in a], [as_sample(y) for y in b]
    if paired_seeds:
        return estimate([[x.minus(y) for x, y in zip(left, right, strict=True)]])
    return estimate([left, right], (1.0, -1.0))


def estimate(
    rows: Sequence[Sequence[Matrix | Sample]], signs: Sequence[float] = (1.0,), weights: Sequence[float] | None = None
) -> Estimate:
    """Signed sum of independent rows, each the weighted sum over the same test sets (default: their mean)."""
    made = [[as_sample(x) for x in row] for row in rows]
    weights = weights or [1 / len(made[0])] * len(made[0])
    value = sum(s * _suite_runs(row, weights).mean() for s, row in zip(signs, made, strict=True))
    parts = [_seed_part(row, weights) for row in made]
    per_set: list[tuple[float, int]] = []
    for k, weight in enumerate(weights):
        units = sum(s * row[k].units for s, row in zip(signs, made, strict=True))
        per_set.append((weight**2 * made[0][k].scale * _square_sum(units), made[0][k].df))
    return combine(float(value), parts, per_set)


@dataclass(frozen=True)
class SeedPart:
    """Seed variance of a suite mean: as observed, and freed of what single examples add to it."""

    observed: float  # variance of the suite mean over seeds, ddof 1
    debiased: float
    seeds: int


def combine(value: float, parts: Sequence[SeedPart], per_set: Sequence[tuple[float, int]]) -> Estimate:
    """Put the variance parts together; `per_set` holds (V_ex, its df) of each test set.

    df = V^2 / [sum (s2/S)^2/(S-1) + sum V_ex^2/df_ex], not below 1. Its denominator takes the seed variance as
    observed, not the debiased one: slightly conservative on purpose.
    """
    v_examples, v_seed = sum(v for v, _ in per_set), sum(part.debiased / part.seeds for part in parts)
    variance = v_examples + v_seed
    seeds = min(part.seeds for part in parts)
    if variance == 0:
        return Estimate(value, 0.0, 0.0, 1.0, 1.0 if value == 0 else 0.0, seeds, 0.0, 0.0)
    spread = sum((part.observed / part.seeds) ** 2 / (part.seeds - 1) for part in parts if part.seeds > 1)
    spread += sum(v**2 / df for v, df in per_set)
    df = max(1.0, variance**2 / spread)
    se = variance**0.5
    p = float(2 * scipy_stats.t.sf(abs(value) / se, df))
    half_width = float(scipy_stats.t.ppf(0.5 + LEVEL / 2, df)) * se
    return Estimate(value, half_width, se, df, p, seeds, v_seed, v_examples)


def as_sample(scores: Matrix | Sample) -> Sample:
    return Examples(scores) if isinstance(scores, np.ndarray) else scores


def _suite_runs(row: Sequence[Sample], weights: Sequence[float]) -> Matrix:
    """[S], the suite value of each run: a run brings all its test sets with it."""
    return np.sum([w * x.runs for w, x in zip(weights, row, strict=True)], axis=0)


def _seed_part(row: Sequence[Sample], weights: Sequence[float]) -> SeedPart:
    seeds = len(row[0].runs)
    if seeds < 2:
        return SeedPart(0.0, 0.0, seeds)
    observed = float(_suite_runs(row, weights).var(ddof=1))
    noise = sum(w**2 * x.noise for w, x in zip(weights, row, strict=True))
    return SeedPart(observed, max(0.0, observed - noise), seeds)


def _square_sum(values: Any) -> float:
    flat = np.ravel(values)
    return float(flat @ flat)
