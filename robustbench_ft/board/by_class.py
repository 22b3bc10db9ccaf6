"""The board class by class: accuracy of every row on every split, and the classes on which rows differ most."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robustbench_ft import suite_ref
from robustbench_ft.compare.two_runs import class_names
from robustbench_ft.errors import RbftError

from .table import Board, Row

MOST_ROWS = 16
MOST_CELLS = 9_000  # of all classes' tables: a page stays below 300 kB


@dataclass(frozen=True)
class ClassTable:
    """One class."""

    label: int
    name: str
    images: Mapping[str, int]  # column -> images of the class
    accuracy: Mapping[str, Mapping[str, float]]  # row key -> column with images -> mean over seeds
    mean_ood: Mapping[str, float]  # row key -> mean over the shifts that have images of the class

    @property
    def spread(self) -> float:
        """Between the best and the worst row, by mean OOD; by ID where no shift has the class."""
        found = list(self.mean_ood.values()) or [cells["ID"] for cells in self.accuracy.values() if "ID" in cells]
        return max(found) - min(found) if found else 0.0


@dataclass(frozen=True)
class ByClass:
    """What a board's page of classes shows."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]  # ID and the shifts that have its classes
    left_out: tuple[str, ...]  # shifts with classes of their own
    classes: tuple[ClassTable, ...]  # in label order
    total: int  # classes that there are


def by_class(board: Board) -> ByClass:
    """Accuracy by class; of many rows the first ones, of many classes those of the widest spread."""
    rows = _rows(board)
    run = board.rows[0].source.runs[0]
    splits = {column: board.columns[column][0] for column in ("ID", *board.shifts)}
    labels = {column: run.any(split).label for column, split in splits.items()}
    # a shift with fewer classes may number them by itself; only its suite's data tell
    known = len(np.unique(labels["ID"]))
    columns = tuple(c for c, label in labels.items() if c == "ID" or len(np.unique(label)) == known)
    names, size = _names(board), 1 + max(int(labels[column].max()) for column in columns)
    counts = {column: np.bincount(labels[column], minlength=size) for column in columns}
    right = {(row.key, column): _right(row, splits[column], labels[column], size) for row in rows for column in columns}
    made = [_table(k, names, rows, columns, counts, right) for k in range(size) if counts["ID"][k]]
    most = max(5, MOST_CELLS // (len(rows) * (len(columns) + 1)))
    kept = sorted(made, key=lambda one: (-one.spread, one.label))[:most]
    left = tuple(column for column in board.shifts if column not in columns)
    return ByClass(rows, columns, left, tuple(sorted(kept, key=lambda one: one.label)), len(made))


def _rows(board: Board) -> tuple[Row, ...]:
    """The first rows, and the baseline."""
    if len(board.rows) <= MOST_ROWS:
        return board.rows
    base = [row for row in board.rows[MOST_ROWS - 1 :] if row.name == board.baseline]
    return (*board.rows[: MOST_ROWS - len(base)], *base)


def _right(row: Row, split: str, label: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """[size], right answers to each class, mean over seeds."""
    shares = row.correct(split).scores.mean(axis=0, dtype=np.float64)
    return np.bincount(label, weights=shares, minlength=size).astype(np.float64)


def _table(
    k: int, names: tuple[str, ...], rows: tuple[Row, ...], columns: tuple[str, ...],
    counts: Mapping[str, NDArray[np.int64]], right: Mapping[tuple[str, str], NDArray[np.float64]],
) -> ClassTable:  # fmt: skip
    present = [column for column in columns if counts[column][k]]
    found = {row.key: {c: float(right[row.key, c][k] / counts[c][k]) for c in present} for row in rows}
    shifts = [column for column in present if column != "ID"]
    means = {key: float(np.mean([cells[c] for c in shifts])) for key, cells in found.items()} if shifts else {}
    name = names[k] if k < len(names) else f"class {k}"
    return ClassTable(k, name, {c: int(counts[c][k]) for c in present}, found, means)


def _names(board: Board) -> tuple[str, ...]:
    """Names of classes in label order, as records or the installed suite tell them; empty where neither does."""
    told = class_names(board.rows[0].source.records[0])
    if told:
        return told
    try:
        return suite_ref.load(board.suite, None, version=board.version).classes
    except RbftError:
        return ()
