"""The crossed bootstrap: its closed form, its exact draws, and Gaussian draws of the same first two moments.

Seed weights W ~ Multinomial(S, 1/S) per method, shared by its test sets; example weights U ~ Multinomial(n, 1/n) once
per test set, shared by all methods. A resampled mean is sum W_s U_i Y_si / (S n).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import Matrix, leveraged
from .streams import generator

Progress = Callable[[int], None]
BLOCK = 100  # draws per stream: results do not depend on how blocks are shared out
COUNTED = 20_000  # numbers drawn at a time: they stay in the cache
RARE = 50  # fewer right or wrong answers than this: a normal approximation of their number is not good enough


@dataclass(frozen=True)
class Components:
    """The three terms of the bootstrap variance of one method's mean."""

    seed: float  # sum a^2 / S^2
    example: float  # sum b^2 / n^2
    interaction: float  # sum e^2 / (S n)^2

    @property
    def variance(self) -> float:
        return self.seed + self.example + self.interaction


def components(scores: Matrix) -> Components:
    """Variance components of the mean of scores [S, n]."""
    seeds, n = scores.shape
    a, b = scores.mean(axis=1) - scores.mean(), scores.mean(axis=0) - scores.mean()
    e = scores - scores.mean() - a[:, None] - b[None]
    return Components(
        float((a**2).sum()) / seeds**2, float((b**2).sum()) / n**2, float((e**2).sum()) / (seeds * n) ** 2
    )


def se_mean(scores: Matrix) -> float:
    """Standard error of the mean of scores [S, n]: the limit of infinitely many crossed bootstrap draws."""
    return components(scores).variance ** 0.5


def se_difference(a: Matrix, b: Matrix) -> float:
    """Standard error of mean(a) - mean(b), both [S, n] on shared examples, seeds independent; see `se_mean`."""
    gap = a.mean(axis=0) - b.mean(axis=0)
    example = float(((gap - gap.mean()) ** 2).sum()) / a.shape[1] ** 2
    one, two = components(a), components(b)
    return (one.seed + one.interaction + two.seed + two.interaction + example) ** 0.5


def example_weights(n: int, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """[draws, n], each row a multinomial count vector. Small counts are exact in float32."""
    weights = np.empty((draws, n), np.float32)
    step = max(1, COUNTED // n)
    for start in range(0, draws, step):
        rows = weights[start : start + step]
        drawn = rng.integers(n, size=rows.shape)
        drawn += n * np.arange(len(rows))[:, None]
        rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return weights


def cluster_weights(clusters: NDArray[np.int64], draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """[draws, n], whole clusters [n] drawn together; a row is scaled to sum to n, as sizes differ.

    For statistics that are no sum over clusters; where few clusters are of unequal size, these draws are somewhat
    narrower than the jackknife.
    """
    weights = example_weights(int(clusters.max()) + 1, draws, rng)[:, clusters]
    return weights * (len(clusters) / weights.sum(axis=1, keepdims=True))


def cluster_effects(runs: NDArray[Any], clusters: NDArray[np.int64]) -> Matrix:
    """[R, G], what each cluster adds to the mean of each run [R, n]: the sums of squares are the jackknife's variances,
    so that draws are as wide as the intervals over clusters."""
    count = int(clusters.max()) + 1
    rows = [leveraged(row - row.mean(dtype=np.float64), clusters) for row in runs]
    return np.stack(rows) * ((count - 1) / count) ** 0.5 / len(clusters)


def exact_draws(
    runs: NDArray[Any], draws: int, *names: object, clusters: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """[draws, R] means of all runs [R, n] under shared example weights, as weights x scores by blocks.

    Clusters get independent Poisson(1) weights on their effects: multinomial ones would take off 1 / G of the variance.
    """
    if clusters is not None:
        effects = cluster_effects(runs, clusters)
        weights = generator(*names, "clusters").poisson(1.0, (draws, effects.shape[1]))
        return runs.mean(axis=1, dtype=np.float64) + (weights - 1.0) @ effects.T
    scores = np.ascontiguousarray(runs.T, np.float32)  # [n, R]
    found = np.empty((draws, len(runs)))
    for start in range(0, draws, BLOCK):
        size, rng = min(BLOCK, draws - start), generator(*names, "examples", start // BLOCK)
        found[start : start + size] = example_weights(len(scores), size, rng) @ scores / len(scores)
    return found


def gaussian_draws(
    runs: NDArray[Any], draws: int, *names: object, clusters: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """[draws, R] means of runs [R, n] from N(y, C / n), C their covariance over examples (or clusters).

    Arguments are those of `exact_draws`.
    """
    means = runs.mean(axis=1, dtype=np.float64)
    if clusters is None:
        # sums of 0/1 scores are exact in float32; other scores need float64
        kind = np.float32 if runs.dtype == np.bool_ else np.float64
        scores, n = runs.astype(kind), runs.shape[1]
        covariance = (scores @ scores.T / kind(n) - np.outer(means, means)) / n
    else:
        effects = cluster_effects(runs, clusters)
        covariance = effects @ effects.T
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    normal = generator(*names, "gaussian").standard_normal((draws, len(means)))
    return means + normal @ (vectors * np.sqrt(np.maximum(values, 0.0))).T


def is_rare(runs: NDArray[np.bool_]) -> bool:
    """Some run [R, n] has too few right or wrong answers for Gaussian draws."""
    right = runs.sum(axis=1)
    return bool((np.minimum(right, runs.shape[1] - right) < RARE).any())


def resample_seeds(example_draws: Sequence[Matrix], draws: int, *names: object) -> Matrix:
    """[draws] suite means of one method from its runs' draws on each set [draws, S], seeds resampled once for all sets.

    Seed deviations are stretched by sqrt(S / (S - 1)): a bootstrap of few seeds is else too narrow.
    """
    suite = np.mean(example_draws, axis=0)  # [draws, S]
    seeds = suite.shape[1]
    if seeds == 1:
        return suite[:, 0]
    weights = generator(*names, "seeds").multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    centre = suite.mean(axis=1)
    return centre + (seeds / (seeds - 1)) ** 0.5 * ((weights * suite).sum(axis=1) - centre)
