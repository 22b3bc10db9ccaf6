"""Intervals at the ends of a score's range: 9 of 9 right is not 100 -+ 0, and no accuracy is above 100.

Formulas: docs/statistics.md, 'Small n and the ends of the range'.
"""

from collections.abc import Iterable
from sys import float_info

from .proportions import LEVEL, score_interval

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (float("-inf"), float("inf"))


def total(terms: Iterable[tuple[float, Bounds]]) -> Bounds:
    """The range of a sum of weighted scores, from (weight, range of the score)."""
    ends = [(w * low, w * high) if w > 0 else (w * high, w * low) for w, (low, high) in terms]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def within(value: float, half_width: float, se: float, bounds: Bounds) -> Bounds:
    """value -+ half_width where that lies in the range; else an interval that does.

    A score with two ends gets Wilson's interval for n_eff = p (1 - p) / V units at the quantile half_width / se. The t
    interval leaves [0, 1] where successes or failures are fewer than about quantile^2 effective units, four for 1.96:
    that one rule covers both reasons to leave it. A difference, or a score with one end, is cut at the end.
    """
    low, high = value - half_width, value + half_width
    if bounds[0] <= low and high <= bounds[1]:
        return low, high
    if not _is_share(bounds) or not bounds[0] < value < bounds[1]:
        return max(low, bounds[0]), min(high, bounds[1])
    length = bounds[1] - bounds[0]
    p = (value - bounds[0]) / length
    return _scaled(score_interval(p, p * (1 - p) * (length / se) ** 2, half_width / se), bounds)


def constant(value: float, units: float, quantile: float, bounds: Bounds) -> Bounds | None:
    """Interval of a score that is the same on all `units`: Wilson's, a share p of them; None for anything but a share.

    For 9 of 9 and quantile 2.31 (t with 8 df): 63 % to 100 %.
    """
    if not _is_share(bounds):
        return None
    p = (value - bounds[0]) / (bounds[1] - bounds[0])
    return _scaled(score_interval(p, units, quantile), bounds)


def sign_test_p(units: int) -> float:
    """Two-sided p where all of `units` independent units differ to the same side: 2^(1 - G), never 0."""
    return max(2.0 ** (1 - units), float_info.min)


def unanimous(value: float, units: int, bounds: Bounds) -> tuple[float, float, float]:
    """(low, high, half-width) of a difference d that is the same on all `units`: d -+ 2 |d| (1 - q).

    q = (alpha / 2)^(1 / G) is Clopper and Pearson's (1934) lower limit of the share of units that differ to this side
    when G of G do; if the others differ by as much to the other side, the difference is d (2 q - 1). 0 is outside iff
    the sign test's p is below alpha.
    """
    q = ((1 - LEVEL) / 2) ** (1 / units)
    half = 2 * abs(value) * (1 - q)
    return max(value - half, bounds[0]), min(value + half, bounds[1]), half


def _is_share(bounds: Bounds) -> bool:
    """True if the range has two ends and holds no negative value, so that the score is no difference."""
    return bounds[0] >= 0 and bounds[1] < float("inf")


def _scaled(share: Bounds, bounds: Bounds) -> Bounds:
    length = bounds[1] - bounds[0]
    return bounds[0] + length * share[0], bounds[0] + length * share[1]
