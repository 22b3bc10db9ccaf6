"""How far the order of a table can be trusted: pairs told apart, tied ranks, and how often the first stays first.

Formulas: docs/statistics.md, 'Ranks'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .multiplicity import ALPHA
from .ranks import DRAWS, DUST
from .streams import generator


@dataclass(frozen=True)
class Resolution:
    """What the tests of all pairs of a table decide."""

    pairs: int
    told_apart: int
    top: int  # rows of tied rank 1: no row above them is told apart from them

    @property
    def share(self) -> float:
        """The share of pairs that are told apart; 0 where there is no pair."""
        return self.told_apart / self.pairs if self.pairs else 0.0


def tied_ranks(adjusted: NDArray[np.float64], alpha: float = ALPHA) -> list[int]:
    """1 + the number of rows above each row that are told apart from it, from adjusted p [M, M] of rows best first."""
    return [1 + int((row[:k] < alpha).sum()) for k, row in enumerate(adjusted)]


def resolution(adjusted: NDArray[np.float64], alpha: float = ALPHA) -> Resolution:
    """How many pairs of rows are told apart, and how many rows tie at the top, from adjusted p [M, M], best first."""
    upper = adjusted[np.triu_indices(len(adjusted), 1)]
    return Resolution(len(upper), int((upper < alpha).sum()), tied_ranks(adjusted, alpha).count(1))


def first_over_sets(means: Mapping[str, Sequence[float]], *names: object, draws: int = DRAWS) -> dict[str, float]:
    """Row -> share of resamples of the test sets in which its mean is the highest; rows that tie share one.

    `means` holds each row's score on every set [T], higher is better. A resample draws T sets with replacement, and
    seeds and images stay as they are. `names` name the random stream. Empty where one set leaves nothing to draw.
    """
    rows = sorted(means)  # the order of rows changes nothing
    values = np.asarray([means[row] for row in rows], np.float64)  # [M, T]
    if not rows or values.shape[1] < 2:
        return {}
    sets = values.shape[1]
    weights: NDArray[Any] = generator(*names, "test sets").multinomial(sets, np.full(sets, 1 / sets), draws) / sets
    drawn = weights @ values.T  # [draws, M]
    first = drawn >= drawn.max(axis=1, keepdims=True) - DUST
    share = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(rows, share.tolist(), strict=True))
