"""Quantiles and p of a mean whose variance has several estimated parts, each with its own degrees of freedom.

Formulas: docs/statistics.md, 'The two-way t interval'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from sys import float_info

import scipy  # whose parts are imported where they are first used
from scipy import special

from .proportions import LEVEL

FEW_SEEDS, UNEQUAL = 4, 1.5  # `needs_separate`: a row of at most so many runs beside one of so many times as many


@dataclass(frozen=True)
class Part:
    """One part of a variance."""

    variance: float
    observed: float  # as estimated, before what examples add to it was taken off
    df: float


def satterthwaite(variance: float, seeds: Sequence[Part], sets: Sequence[Part]) -> float:
    """V^2 / sum of observed^2 / df, not below 1 (Satterthwaite, 1946).

    The denominator takes seed variances as observed, not debiased: slightly conservative on purpose.
    """
    spread = [sum(part.observed**2 / part.df for part in parts) for parts in (seeds, sets)]
    return max(1.0, variance**2 / sum(spread))


def t_p(t: float, df: float) -> float:
    """Two-sided p of |t|, never 0."""
    return max(2 * t_tail(t, df), float_info.min)


def t_tail(t: float, df: float) -> float:
    """P(T > t). The bits of scipy.stats.t.sf at a fraction of its time."""
    return float(special.stdtr(df, -t))


def t_quantile(p: float, df: float) -> float:
    """The value that T stays below with probability p. The bits of scipy.stats.t.ppf at a fraction of its time."""
    return float(special.stdtrit(df, p))


def needs_separate(seeds: Sequence[int]) -> bool:
    """Rows of these numbers of seeds (1: one run, no seed variance) need `separate` quantiles.

    Satterthwaite's df are estimated too: where the few seeds of the noisier row happen to agree, V is small and the df
    large. Three seeds of sd 1 or 2 pt against five or ten quiet ones, or against a deterministic row, reject in .07 to
    .08; five seeds in about .06 (docs/results/statistics_study.md). Equal numbers, and nearly equal ones such as 3 and
    4, keep the published formula, also where one row is ten times as noisy (measured there: .06 to .08).
    """
    return max(seeds) >= UNEQUAL * min(seeds) and any(1 < count <= FEW_SEEDS for count in seeds)


def separate(value: float, variance: float, parts: Sequence[Part]) -> tuple[float, float]:
    """(df, p) of the interval value -+ sqrt(sum of t(df_i)^2 V_i), which is never below its level (Banerjee, 1960).

    df is that of one t quantile with the same half-width at LEVEL; p is where such an interval ends at 0.
    """
    kept = [part for part in parts if part.variance > 0]
    wanted = (_square(1 - LEVEL, kept) / variance) ** 0.5
    ends = [part.df for part in kept]
    return _df(wanted, min(ends), max(ends)), _p(value, kept)


def _square(p: float, parts: Sequence[Part]) -> float:
    return sum(_quantile(p, part.df) ** 2 * part.variance for part in parts)


def _quantile(p: float, df: float) -> float:
    """The value that |t| exceeds with probability p. Equals scipy.stats.t.isf(p / 2)."""
    return -t_quantile(p / 2, df)


def _df(wanted: float, least: float, most: float) -> float:
    def excess(log_df: float) -> float:
        return _quantile(1 - LEVEL, exp(log_df)) - wanted

    low, high = log(least), log(most)
    if excess(low) <= 0 or excess(high) >= 0:  # all parts have one number of df, or one part is all there is
        return least if excess(low) <= 0 else most
    return exp(float(scipy.optimize.brentq(excess, low, high)))  # pyright: ignore[reportArgumentType]


def _p(value: float, parts: Sequence[Part]) -> float:
    if value == 0:
        return 1.0

    def excess(log_p: float) -> float:
        return _square(exp(log_p), parts) - value**2

    low = -1.0
    while excess(low) < 0:
        low *= 2
        if low < log(float_info.min):
            return float_info.min
    return exp(float(scipy.optimize.brentq(excess, low, 0.0)))  # pyright: ignore[reportArgumentType]
