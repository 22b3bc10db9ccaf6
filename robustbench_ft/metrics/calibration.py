"""Calibration errors of top-label confidence (docs/statistics.md, 'Metrics that are no mean'), plug-in and debiased."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.data import Predictions

BINS = 15
Floats = NDArray[np.float64]
Bins = tuple[Floats, Floats, Floats]  # per bin that is not empty: n, mean confidence, accuracy


def equal_width(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS) -> Bins:
    """Bins (lo, hi], the first closed at 0; 1.0 is in the last (Naeini et al., 2015)."""
    confidence = confidence.astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # confidence x bins may round across an edge: compare with the edges themselves
    edges = np.arange(bins + 1) / bins
    index -= (confidence <= edges[index]) & (index > 0)
    index += (confidence > edges[index + 1]) & (index < bins - 1)
    n = np.bincount(index, minlength=bins).astype(np.float64)
    sums = np.bincount(index, weights=confidence, minlength=bins), np.bincount(index, weights=correct, minlength=bins)
    filled = n > 0
    return n[filled], sums[0][filled] / n[filled], sums[1][filled] / n[filled]


def equal_mass(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], ids: tuple[str, ...] = (), bins: int = BINS
) -> Bins:
    """`bins` groups of equal size by rising confidence; ties go by example id, else order would move the number."""
    first = _by_id(ids) if ids else np.arange(len(confidence))
    order = first[np.argsort(confidence[first], kind="stable")]
    return (
        _group_sizes(len(order), bins),
        _group_means(confidence[order].astype(np.float64), bins),
        _group_means(correct[order].astype(np.float64), bins),
    )


@lru_cache(maxsize=64)
def _by_id(ids: tuple[str, ...]) -> NDArray[np.int64]:
    """[n] places of the sorted ids: all runs and candidates of a split share them."""
    return np.argsort(np.asarray(ids), kind="stable")


def _group_sizes(n: int, bins: int) -> Floats:
    """Sizes of `bins` groups of n, the first few of which have one more, as by `np.array_split`; none is empty."""
    size, more = divmod(n, bins)
    return np.array([size + (k < more) for k in range(bins if size else more)], np.float64)


def _group_means(values: Floats, bins: int) -> Floats:
    """Means of neighbours in groups of these sizes."""
    size, more = divmod(len(values), bins)
    larger, others = values[: more * (size + 1)], values[more * (size + 1) :]
    found = [larger.reshape(more, size + 1).mean(axis=1)] if more else []
    found += [others.reshape(bins - more, size).mean(axis=1)] if size else []
    return np.concatenate(found)


def expected_error(bins: Bins) -> float:
    """Mean |confidence - accuracy|, weighted by bin size. Biased up, more so for small n and good calibration."""
    n, confidence, right = bins
    return float((n * np.abs(confidence - right)).sum() / n.sum())


def maximum_error(bins: Bins) -> float:
    return float(np.abs(bins[1] - bins[2]).max())


def squared_error(bins: Bins) -> float:
    """Mean (confidence - accuracy)^2, weighted by bin size, as it is plugged in."""
    n, confidence, right = bins
    return float((n * (confidence - right) ** 2).sum() / n.sum())


def debiased_squared_error(bins: Bins) -> float:
    """`squared_error` less acc (1 - acc) / (n_b - 1) for each bin (Kumar et al., 2019). May be negative."""
    n, confidence, right = bins
    bias = right * (1 - right) / np.maximum(n - 1, 1)
    return float((n * ((confidence - right) ** 2 - bias)).sum() / n.sum())


def ece(predictions: Predictions, bins: int = BINS) -> float:
    """Expected calibration error: top label, 15 equal-width bins."""
    return expected_error(equal_width(predictions.confidence, predictions.correct, bins))


def adaptive_ece(predictions: Predictions, bins: int = BINS) -> float:
    """Expected calibration error: top label, 15 equal-mass bins."""
    return expected_error(equal_mass(predictions.confidence, predictions.correct, predictions.ids, bins))


def debiased_ce2(predictions: Predictions) -> float:
    """Squared calibration error without its plug-in bias: 15 equal-mass bins; may be negative."""
    return debiased_squared_error(equal_mass(predictions.confidence, predictions.correct, predictions.ids))


def reliability(predictions: Predictions) -> Bins:
    """Equal-width bins for a reliability diagram."""
    return equal_width(predictions.confidence, predictions.correct)
