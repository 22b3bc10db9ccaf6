"""The two-way t interval over seeds and examples: the headline of every table.

Seeds (training runs) and examples are two crossed random factors: an interval that knows only one of them is too
narrow. Data is a list over test sets of scores [S seeds, n examples] of any additive per-example score; the estimand is
the equal-weight mean over the sets, for a fresh seed on fresh images of the same kind. Formulas and a worked example:
docs/statistics.md, 'The two-way t interval'; clusters: docs/statistics.md, 'Clusters'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.errors import RbftError

from .limits import UNBOUNDED, Bounds, constant, sign_test_p, total, unanimous, within
from .proportions import LEVEL
from .tails import Part, needs_separate, satterthwaite, separate, t_p, t_quantile, t_tail

Matrix = NDArray[np.float64]
# a standard error below this share of the scores' size is rounding: one changed answer in a million moves a million
# times more
DUST = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference with its 95 % interval."""

    value: float
    half_width: float  # the longer arm of the interval
    se: float  # half_width over its t quantile where no example differs from another, and fresh ones might
    df: float
    p: float  # two-sided, of the value being 0; meaningful for differences; never 0
    seeds: int  # the smaller number where two methods are compared
    v_seed: float | int  # of a single seed the integer 0, which files keep
    v_examples: float
    low: float
    high: float

    @property
    def symmetric(self) -> bool:
        """The interval is value -+ half_width: not bent by an end of the score's range."""
        return self.low == self.value - self.half_width and self.high == self.value + self.half_width

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Estimate":
        """The estimate that `written` stored. Without `low` and `high` it is symmetric."""
        value, half_width = float(stored["value"]), float(stored["half_width"])
        low, high = stored.get("low", value - half_width), stored.get("high", value + half_width)
        return cls(
            value, half_width, float(stored["se"]), float(stored["df"]), float(stored["p"]), int(stored["seeds"]),
            float(stored["v_seed"]), float(stored["v_examples"]), float(low), float(high),
        )  # fmt: skip

    def written(self) -> dict[str, float | int]:
        """JSON for `read`; `low` and `high` are left out where they are value -+ half_width."""
        names = ("value", "half_width", "se", "df", "p", "seeds", "v_seed", "v_examples")
        ends = {} if self.symmetric else {"low": self.low, "high": self.high}
        return {name: getattr(self, name) for name in names} | ends


def cluster_codes(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clusters [n], named by any numbers -> 0..G-1."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def cluster_df(clusters: NDArray[np.int64]) -> float:
    """Degrees of freedom of a variance over clusters [n] (codes 0..G-1) of sizes n_g: G* - 1, not below 1.

    G* = n^2 / sum n_g^2 is the number of equal clusters that would spread the weight alike (Kish, 1965). With G - 1 a
    test at .05 rejects in .08 to .09 where 5 or 10 clusters are of very unequal size
    (docs/results/statistics_study.md). The floor is the df of two clusters, the fewest that have a variance; below it
    t quantiles grow beyond every range.
    """
    sizes = np.bincount(clusters).astype(np.float64)
    return max(1.0, float(sizes.sum() ** 2 / (sizes @ sizes)) - 1)


def leveraged(centred: NDArray[Any], clusters: NDArray[np.int64]) -> Matrix:
    """[G], sums over each cluster of centred scores [n], with the cluster's leverage: over 1 - n_g / n.

    (G - 1) / G of their sum of squares over n^2 is the jackknife over clusters. The plain sum of squares without
    leverage rejects too often for 10-30 clusters of unequal size (docs/results/statistics_study.md).
    """
    sizes = np.bincount(clusters)
    return np.bincount(clusters, weights=centred) / (1 - sizes / len(centred))


@dataclass(frozen=True, eq=False)
class Examples:
    """Scores [S, n] of one method on one test set, with optional cluster codes [n]. The metric is their mean."""

    scores: NDArray[Any]  # [S, n]: bool or float
    clusters: NDArray[np.int64] | None = None  # [n], codes 0..G-1
    bounds: Bounds | None = None  # the ends of one score's range; None: [0, 1] where scores are bool, else none

    @property
    def range(self) -> Bounds:
        return self.bounds or ((0.0, 1.0) if self.scores.dtype == np.bool_ else UNBOUNDED)

    @cached_property
    def runs(self) -> Matrix:
        return self.scores.mean(axis=1, dtype=np.float64)

    @cached_property
    def columns(self) -> Matrix:
        """[n], means over seeds."""
        return self.scores.mean(axis=0, dtype=np.float64)

    @cached_property
    def units(self) -> Matrix:
        """[G], the centred contribution of each example (or cluster); V_ex = `scale` * sum(units^2)."""
        centred = self.columns - self.columns.mean()
        if self.clusters is None or self.count < 2:  # `count` refuses a single cluster: its leverage is 1
            return centred
        return leveraged(centred, self.clusters)

    @property
    def scale(self) -> float:
        n = self.scores.shape[1]
        return (self.count - 1) / self.count / n**2 if self.clusters is not None else 1 / (n * (n - 1))

    @cached_property
    def count(self) -> int:
        """Independent units: examples or clusters."""
        units = self.scores.shape[1] if self.clusters is None else int(self.clusters.max()) + 1
        if units < 2:
            raise RbftError(
                "a test set of one example or one cluster has no interval; leave it out or declare other clusters"
            )
        return units

    @cached_property
    def df(self) -> float:
        count = self.count
        return count - 1.0 if self.clusters is None else cluster_df(self.clusters)

    @cached_property
    def noise(self) -> float:
        """MSR / n, the part of the variance between runs that comes from single examples."""
        seeds, n = self.scores.shape
        if seeds < 2:
            return 0.0
        centred = self.columns - self.columns.mean()
        total = sum(_square_sum(row - mean - centred) for row, mean in zip(self.scores, self.runs, strict=True))
        return total / ((n - 1) * (seeds - 1) * n)

    def minus(self, other: Any) -> "Examples":
        """Differences run by run. Valid only where run s of one row was made from run s of the other."""
        difference = self.scores.astype(np.float64) - other.scores
        return Examples(difference, self.clusters, total([(1.0, self.range), (-1.0, other.range)]))


@dataclass(frozen=True, eq=False)
class Resamples:
    """A metric that is no mean (macro-F1, worst group): each run's value, and its values in shared resamples."""

    runs: Matrix  # [S]
    draws: Matrix  # [S, R], draw r resamples the same examples for every run of every method
    df: float  # (effective) number of independent units resampled, minus 1
    range: Bounds = UNBOUNDED  # of the metric

    @property
    def count(self) -> int:
        return int(self.df) + 1

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

    def minus(self, other: Any) -> "Resamples":
        bounds = total([(1.0, self.range), (-1.0, other.range)])
        return Resamples(self.runs - other.runs, self.draws - other.draws, min(self.df, other.df), bounds)


Sample = Examples | Resamples  # one method on one test set, as far as an interval needs it


def cluster_variance(scores: Matrix, clusters: NDArray[np.int64]) -> float:
    """Plain linearised cluster variance of a mean, sum_g (sum_{i in g} (y_i - ybar))^2 / n^2: for comparison with
    other software. Intervals use the jackknife, which is larger for few or unequal clusters."""
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
    values = [float(s * _suite_runs(row, weights).mean()) for s, row in zip(signs, made, strict=True)]
    sets: list[ExamplePart] = []
    for k, weight in enumerate(weights):
        units = sum(s * row[k].units for s, row in zip(signs, made, strict=True))
        first, df = made[0][k], min(row[k].df for row in made)  # rows of a worst group may have other groups
        sets.append(ExamplePart(weight**2 * first.scale * _square_sum(units), df, first.count, weight))
    terms = [(s * w, x.range) for s, row in zip(signs, made, strict=True) for w, x in zip(weights, row, strict=True)]
    dust = DUST * max(1.0, *map(abs, values))
    return combine(sum(values), [_seed_part(row, weights) for row in made], sets, total(terms), dust)


@dataclass(frozen=True)
class SeedPart:
    """Seed variance of a suite mean: as observed, and freed of what single examples add to it."""

    observed: float  # variance of the suite mean over seeds, ddof 1
    debiased: float
    seeds: int


@dataclass(frozen=True)
class ExamplePart:
    """Variance of a suite mean that comes from the examples of one test set."""

    variance: float  # weight^2 V_ex
    df: float
    count: int  # independent units
    weight: float


def combine(
    value: float, rows: Sequence[SeedPart], sets: Sequence[ExamplePart], bounds: Bounds = UNBOUNDED, dust: float = DUST
) -> Estimate:
    """Put the variance parts together: V = sum of seed variances / S + sum of V_ex, with quantiles from `tails`.

    A value, or a standard error, not above `dust` is 0. The interval stays in `bounds`, where the value can lie.
    """
    apart = needs_separate([row.seeds for row in rows])
    trained: list[Part] = []
    for row in rows:
        if row.seeds > 1:
            # two runs say too little of their variance to take anything off it
            kept = row.observed if apart and row.seeds == 2 else row.debiased
            trained.append(Part(kept / row.seeds, row.observed / row.seeds, row.seeds - 1))
    v_seed = sum(part.variance for part in trained)
    examples = [Part(part.variance, part.variance, part.df) for part in sets]
    v_examples, seeds = sum(part.variance for part in sets), min(row.seeds for row in rows)
    variance = v_examples + v_seed
    se, value = variance**0.5, 0.0 if abs(value) <= dust else value
    if se <= dust:
        return _without_variance(value, seeds, sets, bounds)
    df = satterthwaite(variance, trained, examples)
    p = t_p(abs(value) / se, df)
    if apart:
        other_df, other_p = separate(value, variance, [*trained, *examples])
        df, p = min(df, other_df), max(p, other_p)
    half_width = t_quantile(0.5 + LEVEL / 2, df) * se
    low, high = within(value, half_width, se, bounds)
    if (low, high) != (value - half_width, value + half_width):
        half_width = max(value - low, high - value)
    return Estimate(value, half_width, se, df, p, seeds, v_seed, v_examples, low, high)


def _without_variance(value: float, seeds: int, sets: Sequence[ExamplePart], bounds: Bounds) -> Estimate:
    """Every example has the same score. A share of 0 or 1, and a difference that is everywhere the same, are unsure;
    no difference anywhere is none."""
    effective = [(part.weight**2 / (part.df + 1), part.df) for part in sets]  # variance of a mean of one example each
    units = 1 / sum(share for share, _ in effective)
    df = 1 / sum((units * share) ** 2 / df for share, df in effective)
    quantile = t_quantile(0.5 + LEVEL / 2, df)
    share = constant(value, units, quantile, bounds)
    if share is not None:
        half_width = max(value - share[0], share[1] - value)
        p = 1.0 if value == 0 else 2 * t_tail(value / (half_width / quantile), df)
        return Estimate(value, half_width, half_width / quantile, df, p, seeds, 0.0, 0.0, *share)
    if value == 0:
        return Estimate(0.0, 0.0, 0.0, 1.0, 1.0, seeds, 0.0, 0.0, 0.0, 0.0)
    count = min(part.count for part in sets)
    low, high, half_width = unanimous(value, count, bounds)
    return Estimate(value, half_width, half_width / quantile, df, sign_test_p(count), seeds, 0.0, 0.0, low, high)


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
