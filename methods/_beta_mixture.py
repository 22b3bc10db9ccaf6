"""A mixture of Beta densities on (0, 1), fitted by expectation and maximisation with moments (DaWin, ICLR 2025)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import beta
from sklearn.cluster import KMeans

Array = NDArray[np.float64]
STARTS, ITERATIONS, ENOUGH = 3, 1000, 1e-4  # starts; steps of each; a step that gains less is the last
TINY = 10 * np.finfo(np.float64).eps
NEARLY_ZERO = 1e-10  # the released code adds it to a variance


@dataclass(frozen=True)
class Mixture:
    """K components: Beta(a_k, b_k) with the share `shares`[k]."""

    shares: Array  # [K]
    a: Array  # [K]
    b: Array  # [K]

    @property
    def means(self) -> Array:
        """[K]"""
        return self.a / (self.a + self.b)

    def joint(self, values: Array) -> Array:
        """[N] -> [N, K]: log of share times density."""
        return np.log(self.shares) + beta.logpdf(values[:, None], self.a, self.b)

    def component(self, values: Array) -> NDArray[np.int64]:
        """[N] -> [N]: the most probable component of each."""
        return self.joint(values).argmax(axis=1)


def fit(values: Array, components: int, seed: int) -> Mixture:
    """The best of three fits to `values` [N], each from a k-means of its own."""
    found = [_climb(values, _begin(values, components, seed + start)) for start in range(STARTS)]
    return max(found, key=lambda pair: pair[0])[1]  # of equals the first


def _begin(values: Array, components: int, seed: int) -> Mixture:
    kept = min(components, len(np.unique(values)))
    labels = KMeans(kept, n_init=1, random_state=seed).fit_predict(values[:, None])  # pyright: ignore[reportArgumentType]
    return _moments(values, (labels[:, None] == np.arange(kept)) + TINY)


def _climb(values: Array, mixture: Mixture) -> tuple[float, Mixture]:
    """The mean log-likelihood before the last step, and the mixture after it."""
    bound = -np.inf
    for _ in range(ITERATIONS):
        joint = mixture.joint(values)
        evidence = logsumexp(joint, axis=1)
        before, bound = bound, float(np.mean(evidence))
        mixture = _moments(values, np.exp(joint - np.asarray(evidence)[:, None]))
        if abs(bound - before) < ENOUGH:
            break
    return bound, mixture


def _moments(values: Array, weight: Array) -> Mixture:
    """Components with the mean and variance of `values` [N] under the weights [N, K]; variances have a cap."""
    counts = weight.sum(axis=0) + TINY
    mean = values @ weight / counts
    variance = np.minimum(values**2 @ weight / counts - mean**2, mean * (1 - mean) / 4) + TINY
    total = mean * (1 - mean) / (variance + NEARLY_ZERO) - 1
    return Mixture(counts / counts.sum(), total * mean, total * (1 - mean))
