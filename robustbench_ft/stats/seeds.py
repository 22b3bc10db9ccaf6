"""Seed-level tests, and the least p they can reach (docs/statistics.md, 'What a design can show')."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np
import scipy  # whose parts are imported where they are first used

from .intervals import LEVEL, Matrix

ENOUGH = 1e-12  # relative slack: equal statistics differ by rounding in enumerations


@dataclass(frozen=True)
class TTest:
    t: float
    df: float
    p: float
    low: float
    high: float


def welch(a: Matrix, b: Matrix) -> TTest:
    """Unequal variances: the sensible small-S test of seed means, for the estimand 'these exact images'."""
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return _t_test(float(a.mean() - b.mean()), float(va + vb) ** 0.5, float(df))


def paired_t(a: Matrix, b: Matrix) -> TTest:
    """Paired t test of seed means. Valid only where seeds are paired by construction."""
    d = a - b
    return _t_test(float(d.mean()), float(d.std(ddof=1)) / len(d) ** 0.5, len(d) - 1.0)


def _t_test(value: float, se: float, df: float) -> TTest:
    half = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, df)) * se
    return TTest(value / se, df, float(2 * scipy.stats.t.sf(abs(value) / se, df)), value - half, value + half)


def permutation_p(a: Matrix, b: Matrix) -> float:
    """Two-sided exact permutation test of a difference in means: all C(n+m, n) regroupings."""
    pooled, total = np.concatenate([a, b]), float(np.sum(a) + np.sum(b))
    sums = np.array([pooled[list(chosen)].sum() for chosen in combinations(range(len(pooled)), len(a))])
    gaps = sums / len(a) - (total - sums) / len(b)
    observed = float(a.mean() - b.mean())
    slack = ENOUGH * max(1.0, abs(observed))
    # twice the smaller tail, as scipy does
    tail = min(float(np.mean(gaps <= observed + slack)), float(np.mean(gaps >= observed - slack)))
    return min(1.0, 2 * tail)


def sign_flip_p(d: Matrix) -> float:
    """Two-sided exact sign-flip test of a mean difference: all 2^n signs."""
    return _flipped_p(d)


def signed_rank_p(d: Matrix) -> tuple[float, float, float]:
    """(W+, W-, p): Wilcoxon's signed ranks by full sign-flip enumeration, exact also with tied |d| (n <= 15)."""
    d = d[d != 0]
    ranks = scipy.stats.rankdata(np.abs(d))
    plus = float(ranks[d > 0].sum())
    return plus, float(ranks.sum()) - plus, _flipped_p(ranks * np.sign(d))


def _flipped_p(values: Matrix) -> float:
    signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
    sums, observed = signs @ np.abs(values), abs(float(values.sum()))
    return float(np.mean(np.abs(sums) >= observed - ENOUGH * max(1.0, observed)))


def mann_whitney(a: Matrix, b: Matrix) -> tuple[float, float]:
    """(U of a, exact two-sided p)"""
    found = scipy.stats.mannwhitneyu(a, b, method="exact")
    return float(found.statistic), float(found.pvalue)


def a12(a: Matrix, b: Matrix) -> float:
    """P(A > B) + P(A = B) / 2 over pairs of runs (Vargha and Delaney, 2000)."""
    return float((np.sign(a[:, None] - b[None]).mean() + 1) / 2)


def hedges_g(a: Matrix, b: Matrix) -> float:
    """Difference over the pooled sd, times 1 - 3 / (4 df - 1)."""
    df = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / df
    return float((a.mean() - b.mean()) / pooled**0.5 * (1 - 3 / (4 * df - 1)))


def cohen_dz(d: Matrix) -> float:
    return float(d.mean() / d.std(ddof=1))


def minimum_p_paired(n: int) -> float:
    """The least two-sided p that signed ranks or sign flips on n pairs can give: 2 / 2^n."""
    return 2 / 2**n


def minimum_p_unpaired(n: int, m: int | None = None) -> float:
    """The least two-sided p of a rank or permutation test of n against m runs: 2 / C(n + m, n)."""
    return 2 / comb(n + (n if m is None else m), n)


def sd_interval(sd: float, n: int) -> tuple[float, float]:
    """95 % interval of a standard deviation from n runs; 3 runs give x 0.52 to x 6.28."""
    low, high = (float(scipy.stats.chi2.ppf(q, n - 1)) for q in (0.5 + LEVEL / 2, 0.5 - LEVEL / 2))
    return sd * ((n - 1) / low) ** 0.5, sd * ((n - 1) / high) ** 0.5


def relative_error_reduction(a: float, b: float) -> float:
    """1 - (1 - acc A) / (1 - acc B)"""
    return 1 - (1 - a) / (1 - b)


def least_seeds(family: int, alpha: float = 0.05, paired: bool = False) -> int:
    """Seeds per method from which a rank or permutation test can pass Holm's first step in a family of this size."""
    sizes: Sequence[int] = range(2, 100)
    least = minimum_p_paired if paired else minimum_p_unpaired
    return next(n for n in sizes if least(n) < alpha / family)
