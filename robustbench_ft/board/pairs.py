"""Two rows side by side: paired differences on every column, and the images whose answer flips.

Flips are counted by accuracy. A firm flip is an image that every seed of one row gets right and no seed of the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.compare.verdicts import difference_of
from robustbench_ft.stats import Estimate
from robustbench_ft.stats.multiplicity import ALPHA

from .table import Board, Row

MOST_ROWS = 16  # with more rows not all pairs are shown: a page stays small
MOST_IMAGES = 3  # that are named of each sort, spread over the split; on a long board one


@dataclass(frozen=True)
class Flipped:
    """Answers of rows A and B on one split."""

    n: int
    only_a: float  # share of images that only A gets right, mean over all pairs of a seed of A and a seed of B
    only_b: float
    firm_a: int  # images that every seed of A gets right and no seed of B
    firm_b: int
    ids_a: tuple[str, ...]  # some of these
    ids_b: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One column of a board: A - B, and the flips where the column is one split."""

    column: str
    title: str
    difference: Estimate
    flipped: Flipped | None


@dataclass(frozen=True)
class Pair:
    """Two rows of a board, in its order."""

    a: Row
    b: Row
    lines: tuple[Line, ...]
    paired_seeds: bool
    p_adjusted: float | None  # of mean OOD, Holm over all pairs of ranked rows; None: one of the two is not ranked

    @property
    def told_apart(self) -> bool:
        """True if their mean OOD differs by the tests that letters come from."""
        return self.p_adjusted is not None and self.p_adjusted < ALPHA


def chosen(board: Board) -> list[tuple[Row, Row]]:
    """All pairs of rows; on a long board each row beside the baseline (else the reference) and the best only."""
    rows = board.rows
    if len(rows) <= MOST_ROWS:
        return list(combinations(rows, 2))
    best = board.placed[0].key if board.placed else ""
    bases = [row.key for row in rows if row.name == board.baseline] or [row.key for row in rows if row.reference]
    fixed = {best, *bases}
    return [(a, b) for a, b in combinations(rows, 2) if a.key in fixed or b.key in fixed]


def pairs(board: Board) -> list[Pair]:
    """What a board's page of pairs shows."""
    right = {(row.key, split): row.correct(split).scores.mean(axis=0, dtype=np.float64)
             for row in board.rows for split in _splits(board)}  # fmt: skip
    most = MOST_IMAGES if len(board.rows) <= MOST_ROWS else 1
    return [_pair(board, a, b, right, most) for a, b in chosen(board)]


def _splits(board: Board) -> tuple[str, ...]:
    return (*board.columns["ID"], *board.shifts)


def _pair(board: Board, a: Row, b: Row, right: dict[tuple[str, str], NDArray[np.float64]], most: int) -> Pair:
    run_set = board.run_set
    by_name = {row.name: row for row in run_set.rows}
    one, two = by_name[a.name], by_name[b.name]
    lines: list[Line] = []
    for column in ("mean OOD", "ID", *board.shifts):
        splits = board.columns[column]
        flipped = None
        if column != "mean OOD":
            ids = a.source.runs[0].any(splits[0]).ids
            flipped = _flipped(right[a.key, splits[0]], right[b.key, splits[0]], ids, most)
        lines.append(Line(column, board.title_of(column), difference_of(run_set, one, two, splits), flipped))
    p = board.p_pairs.get(frozenset((a.name, b.name)))
    return Pair(a, b, tuple(lines), run_set.paired(one, two), p)


def _flipped(a: NDArray[np.float64], b: NDArray[np.float64], ids: Sequence[str], most: int) -> Flipped:
    """Flips from the share of seeds that get each image right [n], with the names of up to `most` of each sort."""
    firm_a, firm_b = np.flatnonzero((a == 1) & (b == 0)), np.flatnonzero((b == 1) & (a == 0))
    return Flipped(
        len(a), float((a * (1 - b)).mean()), float((b * (1 - a)).mean()), len(firm_a), len(firm_b),
        _some(firm_a, ids, most), _some(firm_b, ids, most),
    )  # fmt: skip


def _some(places: NDArray[np.intp], ids: Sequence[str], most: int) -> tuple[str, ...]:
    """A few of them, evenly spread: the first ones are often of one class."""
    if not len(places):
        return ()
    steps = np.linspace(0, len(places) - 1, min(most, len(places))).astype(int).tolist()
    return tuple(ids[int(places[k])] for k in steps)
