"""Ranks as intervals, and the chance of being best, from bootstrap draws of all methods at once.

Formulas: docs/statistics.md, 'Ranks'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import exact_draws, gaussian_draws, is_rare, resample_seeds
from .intervals import Matrix

DRAWS = 10_000
EXACT_DRAWS = 2_000
DUST = 1e-9  # draws that differ by less differ by rounding: one example of a million is 1e-6


@dataclass(frozen=True)
class RankInterval:
    """95 % of draws put the method between `low` and `high`; 1 is best."""

    low: int
    high: int
    p_best: float  # ties share


@dataclass(frozen=True)
class TestSet:
    """The scores of all methods on one test set: name -> [S, n]. Higher is better."""

    name: str
    scores: Mapping[str, NDArray[Any]]
    clusters: NDArray[np.int64] | None = None


def example_draws(suite: str, test: TestSet, draws: int, exact: bool = False) -> dict[str, Matrix]:
    """Method -> [draws, S] means of its runs. Gaussian draws where counts allow them, exact ones elsewhere or asked.

    Streams are named by suite and test set, and methods are put in the order of their names first, so that the order
    of rows changes nothing.
    """
    methods = sorted(test.scores)
    runs = np.concatenate([test.scores[name] for name in methods])
    draw = exact_draws if exact or needs_exact(test) else gaussian_draws
    drawn = draw(runs, draws, suite, test.name, clusters=test.clusters)
    ends = np.cumsum([len(test.scores[name]) for name in methods])
    return dict(zip(methods, np.split(drawn, ends[:-1], axis=1), strict=True))


def needs_exact(test: TestSet) -> bool:
    """Some run has too few right or wrong answers for a normal approximation."""
    return any(scores.dtype == np.bool_ and is_rare(scores) for scores in test.scores.values())


def suite_draws(
    suite: str, sets: Sequence[Mapping[str, Matrix]], streams: Mapping[str, str] | None = None
) -> dict[str, Matrix]:
    """Method -> [draws] suite means, from each set's example draws.

    Methods of one stream share their seeds' weights: those whose runs belong together.
    """
    names = streams or {}
    return {
        name: resample_seeds([drawn[name] for drawn in sets], len(sets[0][name]), suite, names.get(name, name))
        for name in sorted(sets[0])
    }


def rank_intervals(drawn: Mapping[str, Matrix]) -> dict[str, RankInterval]:
    """Rank intervals from each method's draws [R]. Rank = 1 + the number of methods better in that draw.

    Methods with the same answers have the same draws but for rounding, and tie.
    """
    names, values = list(drawn), np.stack(list(drawn.values()), axis=1)  # [R, M]
    ranks = 1 + (values[:, None, :] > values[:, :, None] + DUST).sum(axis=2)  # [R, M]
    best = ranks == 1
    share = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf").astype(int)
    return {name: RankInterval(int(low[k]), int(high[k]), float(share[k])) for k, name in enumerate(names)}
