"""Metrics of one model on one split, from stored predictions alone. Torch-free.

Every function takes `Predictions` and returns a float; `VERSION` rises when a definition changes.
"""

from collections.abc import Callable, Mapping

import numpy as np

from .data import Predictions

VERSION = 1
ECE_BINS = 15


def accuracy(predictions: Predictions) -> float:
    """Share of examples whose top-1 class is the label, in [0, 1]."""
    return float(predictions.correct.mean())


def nll(predictions: Predictions) -> float:
    """Mean negative natural log of the true class's probability, at temperature 1."""
    return float(-predictions.log_prob.astype(np.float64).mean())


def brier(predictions: Predictions) -> float:
    """Mean over examples of the sum over classes of (p_c - y_c)^2, in [0, 2]: 1 - 2 p_true + sum of p_c^2."""
    true = np.exp(predictions.log_prob.astype(np.float64))
    return float((1 - 2 * true + predictions.sum_sq.astype(np.float64)).mean())


def ece(predictions: Predictions, bins: int = ECE_BINS) -> float:
    """Top-label expected calibration error: equal-width bins (lo, hi], the first closed at 0 (Naeini et al., 2015)."""
    confidence = predictions.confidence.astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=predictions.correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


METRICS: Mapping[str, Callable[[Predictions], float]] = {"accuracy": accuracy, "nll": nll, "brier": brier, "ece": ece}


def score(predictions: Predictions) -> dict[str, float]:
    """Every metric of one model on one split, by name."""
    return {name: metric(predictions) for name, metric in METRICS.items()}
