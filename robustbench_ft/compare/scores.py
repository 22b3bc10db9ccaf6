"""Per-example scores of many runs on one split, read fast and checked: same examples, same labels, no holes.

Only the columns that a score needs are read; example ids stay in Arrow, as millions of Python strings would cost more
than all statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robustbench_ft.errors import RbftError
from robustbench_ft.record.store import Record

pc: Any = import_module("pyarrow.compute")  # its functions are made at import, unseen by type checkers
Key = tuple[Path, str]
Scores = NDArray[Any]  # [n] or [S, n]: bool for accuracy, else float64
NEEDED: Mapping[str, tuple[str, ...]] = {"accuracy": (), "nll": ("log_prob",), "brier": ("log_prob", "sum_sq")}
CHECKED = ("id", "label", "prediction", "correct", "confidence")


@dataclass
class SplitReader:
    """Reads one split of many runs; the first file read is what all others must agree with."""

    split: str  # or a view of it in another label space
    metric: str = "accuracy"
    first: Path | None = None
    ids: Any = None
    label: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    # candidates are shared by several rows: (folder of the record, candidate) -> scores, predicted classes
    cache: dict[Key, Scores] = field(default_factory=dict[Key, Scores])
    choices: dict[Key, NDArray[np.int32]] = field(default_factory=dict[Key, NDArray[np.int32]])

    def read(self, record: Record, candidate: str) -> Scores | None:
        """[n] of one run; None where the record holds no predictions for this split."""
        key = record.folder, candidate
        if key not in self.cache:
            if not record.holds(candidate, self.split):
                return None
            path = record.path(candidate, self.split)
            column = record.columns(candidate, self.split, (*CHECKED, *NEEDED[self.metric]))
            self._check(path, column, int(record.env["data"].get(self.split, {}).get("n", -1)))
            self.cache[key] = self._score(path, column)
            self.choices[key] = _numpy(path, column["prediction"]).astype(np.int32)
        return self.cache[key]

    def group(self, record: Record, candidate: str, name: str) -> NDArray[np.int64]:
        """[n] values of a group column."""
        path = record.path(candidate, self.split)
        column = record.columns(candidate, self.split, (f"group:{name}",))[f"group:{name}"]
        return _numpy(path, column).astype(np.int64)

    def predictions(self, record: Record, candidate: str) -> NDArray[np.int64]:
        """[n] predicted classes, after `read` has checked the file."""
        return self.choices[record.folder, candidate].astype(np.int64)

    def _check(self, path: Path, column: Mapping[str, Any], n: int) -> None:
        ids = column["id"]
        if len(ids) == 0:
            raise RbftError(f"predictions {path} hold no example; run the cell again")
        if self.first is None or not ids.equals(self.ids):
            distinct = pc.count_distinct(ids, mode="all").as_py()
            if ids.null_count or distinct != len(ids):
                raise RbftError(
                    f"predictions {path} hold {len(ids) - distinct + ids.null_count} duplicate or empty example ids; "
                    "run the cell again"
                )
        if n not in (-1, len(ids)):
            raise RbftError(f"predictions {path} hold {len(ids)} examples, the record says {n}; run the cell again")
        label = _numpy(path, column["label"])
        if self.first is None:
            self.first, self.ids, self.label = path, ids, label.astype(np.int64)
        if not ids.equals(self.ids):
            absent = len(self.ids) - int(pc.sum(pc.is_in(self.ids, value_set=ids)).as_py() or 0)
            reason = f"{absent} example ids of the other are missing" if absent else "ids are in another order"
            raise RbftError(f"predictions {path} and {self.first} are of different examples: {reason}")
        if not np.array_equal(label, self.label):
            raise RbftError(f"predictions {path} and {self.first} disagree on labels; run one of the cells again")

    def _score(self, path: Path, column: Mapping[str, Any]) -> Scores:
        correct = _numpy(path, column["correct"])
        if "confidence" in column and not np.isfinite(_numpy(path, column["confidence"])).all():
            raise RbftError(f"predictions {path} hold a confidence that is NaN or infinite; run the cell again")
        if not np.array_equal(_numpy(path, column["prediction"]) == self.label, correct):
            raise RbftError(f"predictions {path} contradict themselves (wrong 'correct'); run the cell again")
        if self.metric == "accuracy":
            return correct
        log_prob = _numpy(path, column["log_prob"]).astype(np.float64)
        score = -log_prob
        if self.metric == "brier":
            score = 1 - 2 * np.exp(log_prob) + _numpy(path, column["sum_sq"])
        if not np.isfinite(score).all():
            raise RbftError(f"predictions {path} have no finite {self.metric} for every example; run the cell again")
        return score


def stacked(reader: SplitReader, runs: Sequence[tuple[Record, str]]) -> Scores | None:
    """[S, n], or None while a run lacks the split: a row with a hole has no mean."""
    found = [reader.read(record, candidate) for record, candidate in runs]
    present = [scores for scores in found if scores is not None]
    return np.stack(present) if len(present) == len(found) else None


def _numpy(path: Path, values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    if values.null_count:
        raise RbftError(f"predictions {path} have empty cells; run the cell again")
    try:
        return values.to_numpy(zero_copy_only=False)
    except (pa.ArrowException, ValueError) as error:
        raise RbftError(f"cannot read predictions {path}: {error}; run the cell again") from error
