"""Intervals for k successes in n trials: one checkpoint, examples only."""

import scipy  # whose parts are imported where they are first used

LEVEL = 0.95


def wilson(k: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval (1927); right also near 0 and 1, where p -+ z se is not."""
    found = scipy.stats.binomtest(round(k), n).proportion_ci(level, "wilson")
    return float(found.low), float(found.high)


def score_interval(p: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval for a share p of n units, n any positive number, at any quantile of |p - p0| / se(p0).

    With n = p (1 - p) / V and a t quantile it is that of Korn and Graubard (1998) for complex surveys; Franco, Little,
    Louis and Slud (2019) compare it with its rivals there.
    """
    shrink = 1 + quantile**2 / n
    centre = (p + quantile**2 / (2 * n)) / shrink
    half = quantile / shrink * (p * (1 - p) / n + quantile**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - half) if p > 0 else 0.0, min(1.0, centre + half) if p < 1 else 1.0


def clopper_pearson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact binomial interval: never below its level, hence wider."""
    found = scipy.stats.binomtest(k, n).proportion_ci(level, "exact")
    return float(found.low), float(found.high)


def standard_error(k: float, n: int) -> float:
    """sqrt(p (1 - p) / n)"""
    p = k / n
    return (p * (1 - p) / n) ** 0.5
