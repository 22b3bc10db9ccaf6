"""Macro-F1 under shared example weights: its resamples, and the linearisation that checks them.

Formulas: docs/statistics.md, 'Metrics that are no mean'.

The class list is fixed by the full split: classes that are in its labels. Where a resample holds neither label nor
prediction of a class, 0/0 skips the class in that draw.
"""

import numpy as np
import scipy  # whose parts are imported where they are first used
from numpy.typing import NDArray

from .bootstrap import cluster_weights, example_weights
from .intervals import Matrix, Resamples, cluster_df
from .streams import generator

DRAWS = 2_000
BLOCK = 50  # draws per sparse product: [n, 50] float32 stays near the cache

Ints = NDArray[np.int64]


def per_class_f1(label: Ints, prediction: Ints) -> Matrix:
    """F1 of every class present in the labels, in class order: 2 TP / (predicted + true)."""
    classes = np.unique(label)
    size = int(max(label.max(), prediction.max())) + 1
    hits = np.bincount(label[label == prediction], minlength=size)
    total = np.bincount(label, minlength=size) + np.bincount(prediction, minlength=size)
    return 2 * hits[classes] / total[classes]


def per_class_recall(label: Ints, prediction: Ints) -> Matrix:
    """Recall of every class present in the labels, in class order."""
    classes, places = np.unique(label, return_inverse=True)
    return np.bincount(places, weights=label == prediction, minlength=len(classes)) / np.bincount(places)


def influence(label: Ints, prediction: Ints) -> Matrix:
    """[n] contribution of each example to macro-F1, mean 0. For checks: too small where classes are rare."""
    classes, n = np.unique(label), len(label)
    place = np.full(int(max(label.max(), prediction.max())) + 1, -1)
    place[classes] = np.arange(len(classes))
    own, said = place[label], place[prediction]
    f = per_class_f1(label, prediction)
    total = np.bincount(own, minlength=len(classes)) + np.bincount(said[said >= 0], minlength=len(classes))
    phi = (2.0 * (own == said) - f[own]) / total[own]
    known = said >= 0
    phi[known] -= (f / total)[said[known]]
    return phi * n / len(classes)


def macro_recall_draws(
    label: Ints, predictions: NDArray[np.int64], draws: int, *names: object, clusters: Ints | None = None
) -> list[Resamples]:
    """One `Resamples` for each of the runs [R, n] on shared labels [n]: mean per-class recall in shared resamples."""
    return macro_f1_draws(label, predictions, draws, *names, clusters=clusters, recall=True)


def macro_f1_draws(
    label: Ints, predictions: NDArray[np.int64], draws: int, *names: object, clusters: Ints | None = None,
    recall: bool = False,
) -> list[Resamples]:  # fmt: skip
    """One `Resamples` for each of the runs [R, n] on shared labels [n]: macro-F1 (or recall) in shared resamples."""
    classes, n = np.unique(label), len(label)
    k = len(classes)
    place = np.full(int(max(label.max(), predictions.max())) + 1, -1)
    place[classes] = np.arange(k)
    own, said = place[label], place[predictions]
    indicator = scipy.sparse.vstack([_indicator(own, k), *(_indicator(np.where(s == own, s, -1), k) for s in said),
                               *(_indicator(s, k) for s in said)], format="csr")  # fmt: skip
    runs = len(predictions)
    values = np.empty((runs, draws))
    for start in range(0, draws, BLOCK):
        size, rng = min(BLOCK, draws - start), generator(*names, "macro-f1", start // BLOCK)
        weights = example_weights(n, size, rng) if clusters is None else cluster_weights(clusters, size, rng)
        counts = indicator @ np.ascontiguousarray(weights.T)  # [(1 + 2 R) K, size]
        true, hits, predicted = counts[:k], counts[k : (runs + 1) * k], counts[(runs + 1) * k :]
        # F1 = 2 hits / (predicted + true), recall = hits / true
        total = true[None] + (true[None] if recall else predicted.reshape(runs, k, size))
        f = np.divide(2 * hits.reshape(runs, k, size), total, out=np.full_like(hits.reshape(runs, k, size), np.nan),
                      where=total > 0)  # fmt: skip
        values[:, start : start + size] = np.nanmean(f, axis=1)
    score = per_class_recall if recall else per_class_f1
    whole = np.array([score(label, p).mean() for p in predictions])
    df = n - 1.0 if clusters is None else cluster_df(clusters)
    return [Resamples(whole[r : r + 1], values[r : r + 1], df, (0.0, 1.0)) for r in range(runs)]


def stack(parts: list[Resamples]) -> Resamples:
    """Runs of one method together."""
    runs, draws = np.concatenate([part.runs for part in parts]), np.concatenate([part.draws for part in parts])
    return Resamples(runs, draws, min(part.df for part in parts), parts[0].range)


def _indicator(codes: NDArray[np.int64], k: int) -> "scipy.sparse.csr_matrix":
    """[k, n] with a one where example i has code c; -1 is nowhere."""
    columns = np.flatnonzero(codes >= 0)
    ones = np.ones(len(columns), np.float32)
    return scipy.sparse.csr_matrix((ones, (codes[columns], columns)), shape=(k, len(codes)))
