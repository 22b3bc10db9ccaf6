"""Checkpoint against checkpoint on the same examples: right for 'did this file change', wrong for methods.

Formulas: docs/statistics.md, 'What a design can show'.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # whose parts are imported where they are first used
from numpy.typing import NDArray


@dataclass(frozen=True)
class McNemar:
    """b: A right and B wrong; c: A wrong and B right."""

    b: int
    c: int
    exact_p: float
    mid_p: float  # the one to use
    chi2: float | None  # None without discordant pairs
    chi2_p: float | None
    chi2_cc: float | None  # with continuity correction
    chi2_cc_p: float | None


def mcnemar(b: int, c: int) -> McNemar:
    """exact = min(1, 2 P(Bin(b+c, 1/2) <= min(b, c))); mid-p = exact minus the point mass, 1 where b = c."""
    n, least = b + c, min(b, c)
    if n == 0:
        return McNemar(b, c, 1.0, 1.0, None, None, None, None)
    exact = min(1.0, 2 * float(scipy.stats.binom.cdf(least, n, 0.5)))
    mid = 1.0 if b == c else exact - float(scipy.stats.binom.pmf(least, n, 0.5))
    chi2, corrected = (b - c) ** 2 / n, (abs(b - c) - 1) ** 2 / n
    tail = scipy.stats.chi2.sf
    return McNemar(b, c, exact, mid, chi2, float(tail(chi2, 1)), corrected, float(tail(corrected, 1)))


@dataclass(frozen=True)
class Flips:
    """Differences of two checkpoints on n shared examples."""

    n: int
    b: int
    c: int
    difference: float  # (b - c) / n
    se: float  # sqrt(b + c - (b - c)^2 / n) / n
    churn: float  # (b + c) / n
    test: McNemar


def flips(a: NDArray[Any], b: NDArray[Any]) -> Flips:
    """Compare the correctness [n] of two checkpoints on the same examples."""
    only_a, only_b, n = int(np.sum(a & ~b)), int(np.sum(b & ~a)), len(a)
    gap = only_a - only_b
    se = (only_a + only_b - gap**2 / n) ** 0.5 / n
    return Flips(n, only_a, only_b, gap / n, se, (only_a + only_b) / n, mcnemar(only_a, only_b))
