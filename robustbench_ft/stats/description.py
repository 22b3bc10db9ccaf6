"""Ranks over test sets, as a description only: five test sets are no random sample, so do not test on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts are imported where they are first used

from .intervals import Matrix
from .multiplicity import ALPHA, holm


@dataclass(frozen=True)
class Friedman:
    """Rows are test sets, columns methods, higher is better, rank 1 is best, ties get mid-ranks."""

    mean_ranks: Matrix  # [k]
    chi2: float  # tie-corrected
    p_chi2: float
    kendall_w: float
    f: float  # Iman and Davenport's, to be preferred
    p_f: float
    nemenyi_cd: float  # mean ranks further apart than this differ
    nemenyi_p: Matrix  # [k, k]
    conover_p: Matrix  # [k, k]; more liberal
    conover_holm_p: Matrix


def friedman(scores: Matrix, alpha: float = ALPHA) -> Friedman:
    """Friedman's test and its pairwise follow-ups, of scores [N test sets, k methods]."""
    n, k = scores.shape
    ranks = scipy.stats.rankdata(-scores, axis=1)
    sums, squares = ranks.sum(axis=0), float((ranks**2).sum())
    constant = n * k * (k + 1) ** 2 / 4
    chi2 = (k - 1) * (float((sums**2).sum()) - n * constant) / (squares - constant)
    f = (n - 1) * chi2 / (n * (k - 1) - chi2) if n * (k - 1) > chi2 else float("inf")
    means = sums / n
    gaps = np.abs(means[:, None] - means[None])
    # the studentised range is for differences over one mean's standard error, hence sqrt(2)
    nemenyi = scipy.stats.studentized_range.sf(gaps * 2**0.5 / (k * (k + 1) / (6 * n)) ** 0.5, k, np.inf)
    error = 2 * n * (squares - constant) * (1 - chi2 / (n * (k - 1))) / ((n - 1) * (k - 1))
    t = np.abs(sums[:, None] - sums[None]) / max(error, np.finfo(float).tiny) ** 0.5
    conover = 2 * scipy.stats.t.sf(t, (n - 1) * (k - 1))
    upper = np.triu_indices(k, 1)
    adjusted = np.ones((k, k))
    adjusted[upper] = holm(conover[upper].tolist())
    return Friedman(
        means, chi2, float(scipy.stats.chi2.sf(chi2, k - 1)), chi2 / (n * (k - 1)),
        f, float(scipy.stats.f.sf(f, k - 1, (k - 1) * (n - 1))), critical_difference(k, n, alpha),
        np.minimum(1.0, nemenyi), conover, np.minimum(adjusted, adjusted.T),
    )  # fmt: skip


def critical_difference(k: int, n: int, alpha: float = ALPHA) -> float:
    """Nemenyi: q sqrt(k (k + 1) / (6 N)), q = studentised range / sqrt(2). N = 5 sets: 6.06 of at most 9 for k = 10."""
    q = float(scipy.stats.studentized_range.ppf(1 - alpha, k, np.inf)) / 2**0.5
    return q * (k * (k + 1) / (6 * n)) ** 0.5


def page_p(scores: Matrix) -> float:
    """Page's test that the columns [k] are in increasing order."""
    return float(scipy.stats.page_trend_test(scores).pvalue)


def interquartile_mean(scores: Matrix) -> float:
    """Mean of the pooled scores without floor(N/4) on each side. Over five test sets it drops whole test sets."""
    return float(scipy.stats.trim_mean(scores, 0.25, axis=None))


def probability_of_improvement(x: Sequence[Matrix], y: Sequence[Matrix]) -> float:
    """Per test set P(run of x beats run of y), ties 1/2, then the mean over sets. Each set: scores [S]."""
    return float(np.mean([(np.sign(a[:, None] - b[None]).mean() + 1) / 2 for a, b in zip(x, y, strict=True)]))


def signed_rank_rope(
    diff: Matrix, rope: float, rng: np.random.Generator, draws: int = 50_000, prior: float = 0.5
) -> tuple[float, float, float]:
    """(P(left better), P(within the rope), P(right better)): Bayesian signed ranks (Benavoli et al., 2014).

    A Dirichlet over the differences and one prior observation at 0 of weight `prior`. A summary, not a proof: the rope
    must be declared before results.
    """
    values = np.concatenate([[0.0], diff])
    weights = rng.dirichlet(np.concatenate([[prior], np.ones(len(diff))]), draws)
    sums = values[:, None] + values[None]
    left = np.einsum("ri,ij,rj->r", weights, (sums > 2 * rope).astype(float), weights, optimize=True)
    right = np.einsum("ri,ij,rj->r", weights, (sums < -2 * rope).astype(float), weights, optimize=True)
    winner = np.argmax([left, 1 - left - right, right], axis=0)
    return float(np.mean(winner == 0)), float(np.mean(winner == 1)), float(np.mean(winner == 2))
