"""Intervals and paired differences over seeds and examples. Torch-free.

Seeds (training runs) and examples are two crossed random factors: an interval that knows only one of them is too
narrow. The two-way t interval below keeps both. Data is a list over test sets of matrices [S seeds, n examples] of any
additive per-example score; the estimand is the equal-weight mean over the sets, for a fresh seed on fresh images of the
same kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

Matrix = NDArray[np.float64]


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


@dataclass(frozen=True)
class _SeedPart:
    """Seed variance of a suite mean: as observed, and freed of what single examples add to it."""

    observed: float  # variance of the suite mean over seeds, ddof 1
    debiased: float
    seeds: int


def mean(sets: Sequence[Matrix]) -> Estimate:
    """Two-way t interval for one method. One seed gives an interval over examples only."""
    part = _seed_part(sets)
    value = float(np.mean([y.mean() for y in sets]))
    return _estimate(value, [part], [y.mean(axis=0) for y in sets])


def difference(a: Sequence[Matrix], b: Sequence[Matrix], paired_seeds: bool = False) -> Estimate:
    """a - b on the same examples. `paired_seeds` only where run s of `a` was made from run s of `b`."""
    if paired_seeds:
        return mean([x - y for x, y in zip(a, b, strict=True)])
    value = float(np.mean([x.mean() - y.mean() for x, y in zip(a, b, strict=True)]))
    columns = [x.mean(axis=0) - y.mean(axis=0) for x, y in zip(a, b, strict=True)]
    return _estimate(value, [_seed_part(a), _seed_part(b)], columns)


def _seed_part(sets: Sequence[Matrix]) -> _SeedPart:
    seeds = len(sets[0])
    if seeds < 2:
        return _SeedPart(0.0, 0.0, seeds)
    observed = float(np.mean([y.mean(axis=1) for y in sets], axis=0).var(ddof=1))
    noise = sum(_residual_mean_square(y) / y.shape[1] for y in sets) / len(sets) ** 2
    return _SeedPart(observed, max(0.0, observed - noise), seeds)


def _residual_mean_square(y: Matrix) -> float:
    """Seed-by-example interaction, the sum of squares over (n - 1)(S - 1)."""
    residual = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0, keepdims=True) + y.mean()
    return float((residual**2).sum() / ((y.shape[1] - 1) * (y.shape[0] - 1)))


def _estimate(value: float, parts: Sequence[_SeedPart], columns: Sequence[Matrix]) -> Estimate:
    """Put the variance parts together; `columns` are seed means or their differences per example, one array per set."""
    per_set = [float(d.var(ddof=1)) / len(d) / len(columns) ** 2 for d in columns]
    v_examples, v_seed = sum(per_set), sum(part.debiased / part.seeds for part in parts)
    variance = v_examples + v_seed
    seeds = min(part.seeds for part in parts)
    if variance == 0:
        return Estimate(value, 0.0, 0.0, 1.0, 1.0 if value == 0 else 0.0, seeds, 0.0, 0.0)
    spread = sum((part.observed / part.seeds) ** 2 / (part.seeds - 1) for part in parts if part.seeds > 1)
    spread += sum(v**2 / (len(d) - 1) for v, d in zip(per_set, columns, strict=True))
    df = max(1.0, variance**2 / spread)
    se = variance**0.5
    p = float(2 * scipy_stats.t.sf(abs(value) / se, df))
    return Estimate(value, float(scipy_stats.t.ppf(0.975, df)) * se, se, df, p, seeds, v_seed, v_examples)
