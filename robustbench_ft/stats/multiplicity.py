"""Many tests in one table (1.9): Holm inside a declared family, Benjamini-Hochberg for exploratory cells."""

from collections.abc import Sequence

import numpy as np

from .intervals import Matrix

ALPHA = 0.05


def holm(p: Sequence[float]) -> Matrix:
    """Family-wise error. Adjusted p in input order, monotone, at most 1: max over smaller ones of (m - k) p_(k)."""
    order, m = np.argsort(p, kind="stable"), len(p)
    stepped = np.asarray(p, np.float64)[order] * np.arange(m, 0, -1)
    return _restore(np.minimum(1.0, np.maximum.accumulate(stepped)), order)


def benjamini_hochberg(p: Sequence[float]) -> Matrix:
    """False discovery rate, independent or positively dependent tests: min over larger ones of m p_(k) / k."""
    order, m = np.argsort(p, kind="stable"), len(p)
    stepped = np.asarray(p, np.float64)[order] * m / np.arange(1, m + 1)
    return _restore(np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1]), order)


def benjamini_yekutieli(p: Sequence[float]) -> Matrix:
    """As BH, under any dependence: times 1 + 1/2 + ... + 1/m."""
    order, m = np.argsort(p, kind="stable"), len(p)
    harmonic = float(np.sum(1 / np.arange(1, m + 1)))
    stepped = np.asarray(p, np.float64)[order] * m * harmonic / np.arange(1, m + 1)
    return _restore(np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1]), order)


def bonferroni(p: Sequence[float]) -> Matrix:
    return np.minimum(1.0, np.asarray(p, np.float64) * len(p))


def _restore(values: Matrix, order: np.ndarray) -> Matrix:
    restored = np.empty(len(values), np.float64)
    restored[order] = values
    return restored
