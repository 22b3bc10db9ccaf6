"""Files in, files out. A cell's folder is written atomically, read back without torch, and never half there."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .data import Floats, Ints, Predictions
from .errors import RbftError

SCHEMA = 1
Json = dict[str, Any]


def write_bytes(path: Path, content: bytes) -> None:
    """Write all of `content` or nothing, also under kill -9."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RbftError(f"cannot write {path}: {error.strerror}; choose another folder with --out") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Sorted keys, so that equal values are equal bytes."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Json:
    try:
        return cast(Json, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RbftError(f"cannot read {path}: {error}; delete its folder to run the cell again") from error


def write_predictions(path: Path, predictions: Predictions) -> None:
    """One row per example, in split order."""
    columns: dict[str, Any] = {
        "id": pa.array(predictions.ids, pa.string()),
        "label": pa.array(predictions.label, pa.int32()),
        "prediction": pa.array(predictions.prediction, pa.int32()),
        "correct": pa.array(predictions.correct),
        "confidence": pa.array(predictions.confidence, pa.float32()),
        "log_prob": pa.array(predictions.log_prob, pa.float32()),
        "sum_sq": pa.array(predictions.sum_sq, pa.float32()),
        "top_classes": _lists(predictions.top_classes.astype(np.int32)),
        "top_probs": _lists(predictions.top_probs),
    }
    columns |= {f"group:{name}": pa.array(values) for name, values in predictions.groups.items()}
    table = pa.table(columns).replace_schema_metadata({"rbft_schema": str(SCHEMA)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def read_predictions(path: Path) -> Predictions:
    """Read and check one file; a damaged or inconsistent one is an error that names it."""
    column = read_columns(path)
    try:
        predictions = Predictions(
            ids=tuple(column["id"].to_pylist()),
            label=_ints(column["label"]),
            prediction=_ints(column["prediction"]),
            confidence=_floats(column["confidence"]),
            log_prob=_floats(column["log_prob"]),
            sum_sq=_floats(column["sum_sq"]),
            top_classes=_matrix(column["top_classes"]).astype(np.int64),
            top_probs=_matrix(column["top_probs"]).astype(np.float32),
            groups={name[6:]: _ints(values) for name, values in column.items() if name.startswith("group:")},
        )
        stored = column["correct"].to_numpy(zero_copy_only=False)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    wrong = _contradictions(predictions, stored)
    if wrong:
        raise RbftError(f"predictions {path} contradict themselves ({', '.join(wrong)}); run the cell again")
    return predictions


def _contradictions(p: Predictions, correct: Any) -> list[str]:
    """Columns that cannot be true together."""
    rules = {
        "an id is there twice": len(set(p.ids)) == len(p.ids),
        "'correct' is not what label and prediction say": np.array_equal(correct, p.correct),
        "'prediction' is not the top class": np.array_equal(p.prediction, p.top_classes[:, 0]),
        "'confidence' is not the top probability": np.array_equal(p.confidence, p.top_probs[:, 0]),
        "'log_prob' is no log-probability": bool((np.isfinite(p.log_prob) & (p.log_prob < 1e-5)).all()),
        "'sum_sq' is not in [0, 1]": bool(((p.sum_sq >= 0) & (p.sum_sq < 1 + 1e-5)).all()),
    }
    return [what for what, holds in rules.items() if not holds]


def read_columns(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Arrow columns of one prediction file by name: those in `names`, or all. A damaged file is an error."""
    try:
        table = pq.read_table(path, columns=None if names is None else list(names), use_threads=False)
        return {name: table.column(name).combine_chunks() for name in names or table.column_names}
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RbftError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RbftError(f"cannot read predictions {path}: {reason}; run the cell again")


@dataclass(frozen=True)
class Record:
    """A finished cell on disk."""

    folder: Path

    @cached_property
    def cell(self) -> Json:
        return read_json(self.folder / "cell.json")

    @cached_property
    def env(self) -> Json:
        return read_json(self.folder / "env.json")

    @cached_property
    def metrics(self) -> Json:
        return read_json(self.folder / "metrics.json")

    @property
    def seed(self) -> int:
        return int(self.cell["seed"])

    def predictions(self, candidate: str, split: str) -> Predictions:
        return read_predictions(predictions_path(self.folder, candidate, split))


def predictions_path(folder: Path, candidate: str, split: str) -> Path:
    return folder / "predictions" / candidate / f"{split}.parquet"


def is_done(folder: Path) -> bool:
    return (folder / "done").exists()


def find_records(roots: Iterable[Path]) -> list[Record]:
    """Every finished cell under the given folders, in path order; unfinished ones are not records."""
    found: set[Path] = set()
    for root in roots:
        if not root.exists():
            raise RbftError(f"no such folder: {root}; `rbft run` writes records to ./runs unless --out says otherwise")
        found |= {path.parent for path in root.rglob("done") if (path.parent / "cell.json").exists()}
    if not found:
        raise RbftError(f"no finished cell under {', '.join(map(str, roots))}; finish one with `rbft run`")
    return [Record(folder) for folder in sorted(found)]


def _lists(matrix: Any) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def _matrix(column: Any) -> Any:
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _ints(column: Any) -> Ints:
    return column.to_numpy().astype(np.int64)


def _floats(column: Any) -> Floats:
    return column.to_numpy().astype(np.float32)
