"""Corrections for many tests in one table: Holm in a family, Benjamini-Hochberg for exploratory cells.

The procedure is in docs/statistics.md, 'Many tests'.
"""

from collections.abc import Sequence

import numpy as np
import scipy  # whose parts are imported where they are first used

from .intervals import Matrix

ALPHA = 0.05


def holm(p: Sequence[float]) -> Matrix:
    """Family-wise error. Adjusted p in input order, monotone, at most 1: max over smaller ones of (m - k) p_(k)."""
    order, m = np.argsort(p, kind="stable"), len(p)
    stepped = np.asarray(p, np.float64)[order] * np.arange(m, 0, -1)
    adjusted = np.empty(m, np.float64)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> Matrix:
    """False discovery rate, independent or positively dependent tests: min over larger ones of m p_(k) / k."""
    return np.asarray(scipy.stats.false_discovery_control(p, method="bh"), np.float64)


def benjamini_yekutieli(p: Sequence[float]) -> Matrix:
    """False discovery rate under any dependence: Benjamini-Hochberg times 1 + 1/2 + ... + 1/m."""
    return np.asarray(scipy.stats.false_discovery_control(p, method="by"), np.float64)


def bonferroni(p: Sequence[float]) -> Matrix:
    return np.minimum(1.0, np.asarray(p, np.float64) * len(p))
