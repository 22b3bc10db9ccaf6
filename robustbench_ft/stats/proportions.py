"""Intervals for k successes in n trials: one checkpoint, examples only."""

from scipy import stats as scipy_stats

from .intervals import LEVEL


def wilson(k: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval (1927); right also near 0 and 1, where p -+ z se is not."""
    z = float(scipy_stats.norm.ppf(0.5 + level / 2))
    p, shrink = k / n, 1 + z**2 / n
    centre = (p + z**2 / (2 * n)) / shrink
    half = z / shrink * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def clopper_pearson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact binomial interval: never below its level, hence wider."""
    tail = (1 - level) / 2
    low = float(scipy_stats.beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(scipy_stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def standard_error(k: float, n: int) -> float:
    """sqrt(p (1 - p) / n)"""
    p = k / n
    return (p * (1 - p) / n) ** 0.5
