"""Compact letters by insert-and-absorb (Piepho, 2004): two rows share a letter iff they are not told apart.

Formulas: docs/statistics.md, 'Many tests'.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .multiplicity import ALPHA

Letter = frozenset[int]


def compact_letters(adjusted: NDArray[np.float64], alpha: float = ALPHA) -> list[str]:
    """Letters of rows that are ordered best first, from their adjusted p [M, M]; 'a' holds the best row."""
    m = len(adjusted)
    sets: list[Letter] = [frozenset(range(m))]
    for i in range(m):
        for j in range(i + 1, m):
            if adjusted[i, j] < alpha:
                sets = _absorb([part for group in sets for part in _split(group, i, j)])
    ordered = sorted(sets, key=sorted)  # by best member, then the next
    texts = ["".join(_name(k) for k, group in enumerate(ordered) if row in group) for row in range(m)]
    assert all(
        bool({k for k, g in enumerate(ordered) if i in g and j in g}) == bool(adjusted[i, j] >= alpha)
        for i in range(m) for j in range(i)
    ), "letters do not say what the tests say"  # fmt: skip
    return texts


def _split(group: Letter, i: int, j: int) -> Sequence[Letter]:
    return (group - {i}, group - {j}) if i in group and j in group else (group,)


def _absorb(sets: Sequence[Letter]) -> list[Letter]:
    unique = list(dict.fromkeys(sets))
    return [group for group in unique if not any(group < other for other in unique)]


def readable(texts: Iterable[str]) -> bool:
    """Whether letters are a display that anyone can read: 26 groups at most."""
    return not any("(" in text for text in texts)


def _name(k: int) -> str:
    """a..z, then (27), (28), ...: more than 26 letters say that letters are the wrong display."""
    return chr(ord("a") + k) if k < 26 else f"({k + 1})"
