"""Files in, files out. A cell's folder is written atomically, read back without torch, and never half there."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_ft import atomic, file_names, limits
from robustbench_ft.data import Floats, Ints, Predictions
from robustbench_ft.errors import RbftError

from . import digests
from .summary import CellRecord, Environment, Summary, read_cell, read_environment, read_summary

SCHEMA = 1
MODELS, INDEX = "models", "index.json"  # weights of candidates, and which there are
HINT = "free some space, or choose another folder with --out"
Json = dict[str, Any]
Typed = TypeVar("Typed")


def write_bytes(path: Path, content: bytes) -> None:
    """Write all of `content` or nothing, also under kill -9."""
    atomic.write_bytes(path, content, HINT)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Sorted keys, so that equal values are equal bytes."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Json:
    """Content of a JSON file; a number without end is an error, as is all that is no JSON."""
    return _parsed(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Content of a file of a record. Raises `RbftError` that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RbftError(f"cannot read {path}: {error.strerror}; delete its folder to run the cell again") from error


def _parsed(path: Path, content: bytes) -> Json:
    try:
        return cast(Json, json.loads(content.decode(), parse_constant=_refuse))
    except (ValueError, RecursionError) as error:
        raise RbftError(f"cannot read {path}: {error}; delete its folder to run the cell again") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def model_config(folder: Path) -> Json:
    """open_clip_config.json of a record's saved model, or of the first of several; {} where no weights were kept."""
    model = folder / "model"
    found = [model, *sorted(path.parent for path in model.glob("*/open_clip_config.json"))]
    places = [path / "open_clip_config.json" for path in found if (path / "open_clip_config.json").exists()]
    return read_json(places[0]) if places else {}


def write_predictions(path: Path, predictions: Predictions) -> None:
    """One row per example, in split order."""
    columns = _columns(predictions) | {f"group:{name}": pa.array(v) for name, v in predictions.groups.items()}
    place = {example: row for row, example in enumerate(predictions.ids)} if predictions.also else {}
    for space, found in predictions.also.items():
        rows = np.full(len(predictions), -1)
        rows[[place[example] for example in found.ids]] = np.arange(len(found))
        taken = pa.array(rows, mask=rows < 0)  # a row that has no label in this space is null in its columns
        columns |= {
            f"{space}|{name}": _nullable(column).take(taken) for name, column in _columns(found).items() if name != "id"
        }
    table = pa.table(columns).replace_schema_metadata({"rbft_schema": str(SCHEMA)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_bytes(path, sink.getvalue().to_pybytes())


def _columns(predictions: Predictions) -> dict[str, Any]:
    return {
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


def read_predictions(path: Path, content: bytes | None = None) -> Predictions:
    """Read and check one file, or its content; a damaged or inconsistent one is an error that names it."""
    column = read_columns(path, content=content)
    spaces = list(dict.fromkeys(name.partition("|")[0] for name in column if "|" in name))
    also = {space: _predictions(path, _in_space(column, space), {}) for space in spaces}
    return _predictions(path, {name: values for name, values in column.items() if "|" not in name}, also)


def _in_space(column: Mapping[str, Any], space: str) -> dict[str, Any]:
    """The columns of one label space, without the rows that have no label there."""
    own = {name.partition("|")[2]: values for name, values in column.items() if name.startswith(f"{space}|")}
    own |= {name: values for name, values in column.items() if _shared(name)}
    kept = own["label"].is_valid() if "label" in own else None
    return own if kept is None else {name: values.filter(kept) for name, values in own.items()}


def _predictions(path: Path, column: Mapping[str, Any], also: Mapping[str, Predictions]) -> Predictions:
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
            also=also,
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


def read_columns(
    path: Path, names: Sequence[str] | None = None, space: str = "", content: bytes | None = None
) -> dict[str, Any]:
    """Arrow columns of one prediction file by name: those in `names`, or all. A damaged file is an error.

    With a label space the columns are those of that space, and rows without a label there are left out.
    """
    try:
        stored = {name: f"{space}|{name}" if space and not _shared(name) else name for name in names or ()}
        content = path.read_bytes() if content is None else content
        source = pa.BufferReader(content)
        columns = list(stored.values()) or None
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            limits.check_parquet(file, len(content))
            limits.check_texts(file, pa.BufferReader(content), columns or ())
            table = file.read(columns, use_threads=False)
        stored = stored or {name: name for name in table.column_names}
        found = {name: table.column(own).combine_chunks() for name, own in stored.items()}
        kept = found["label"].is_valid() if space and "label" in found else None
        return found if kept is None else {name: values.filter(kept) for name, values in found.items()}
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def _shared(name: str) -> bool:
    return name == "id" or name.startswith("group:")


def _damaged(path: Path, error: Exception) -> RbftError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RbftError(f"cannot read predictions {path}: {reason}; run the cell again")


@dataclass(frozen=True)
class Record:
    """A finished cell on disk. Its files are read and checked once, when they are first asked for."""

    folder: Path
    files: dict[str, Json] = field(default_factory=dict[str, Json], compare=False, repr=False)
    contents: dict[str, bytes] = field(default_factory=dict[str, bytes], compare=False, repr=False)  # until checked

    @cached_property
    def digests(self) -> dict[str, str]:
        """File -> its digest when the cell was finished; {} for records of old."""
        return digests.read(self.folder) if is_done(self.folder) else {}

    @property
    def cell(self) -> Json:
        """The configuration, as cell.json holds it."""
        return self._checked("cell.json", lambda: self.config)

    @property
    def env(self) -> Json:
        """Machine, versions, data and costs, as env.json holds them."""
        return self._checked("env.json", lambda: self.environment)

    @property
    def metrics(self) -> Json:
        """Which splits and candidates there are, and every metric of them, as metrics.json holds them."""
        return self._checked("metrics.json", lambda: self.summary)

    @cached_property
    def config(self) -> CellRecord:
        """The configuration, typed."""
        return self._held("cell.json", read_cell(self._read("cell.json"), self.folder / "cell.json"))

    @cached_property
    def environment(self) -> Environment:
        """Machine, data and costs, typed."""
        return self._held("env.json", read_environment(self._read("env.json"), self.folder / "env.json"))

    @cached_property
    def summary(self) -> Summary:
        """Splits, candidates and metrics, typed."""
        return self._held("metrics.json", read_summary(self._read("metrics.json"), self.folder / "metrics.json"))

    def _checked(self, name: str, check: Callable[[], object]) -> Json:
        check()
        return self._read(name)

    def _read(self, name: str) -> Json:
        if name not in self.files:
            self.contents[name] = read_bytes(self.folder / name)
            self.files[name] = _parsed(self.folder / name, self.contents[name])
        return self.files[name]

    def _held(self, name: str, typed: Typed) -> Typed:
        """`typed`, once its file is known to be the one that the cell was finished with."""
        digests.check(self.folder, name, self.contents.pop(name), self.digests)
        return typed

    def _whole(self, candidate: str, split: str) -> bytes:
        """The content of a predictions file that is the one that the cell was finished with."""
        path = predictions_path(self.folder, candidate, split)
        content = read_bytes(path)
        digests.check(self.folder, path.relative_to(self.folder).as_posix(), content, self.digests)
        return content

    @property
    def seed(self) -> int:
        return self.config.seed

    def path(self, candidate: str, split: str) -> Path:
        """The file that holds a candidate's answers on a split, or on a view of it."""
        return predictions_path(self.folder, candidate, split)

    def holds(self, candidate: str, split: str) -> bool:
        """True if predictions of a split, or of a view of it ('r@1000-way'), are stored."""
        viewed = "@" not in split or split in self.summary.candidates.get(candidate, {})
        path = self.path(candidate, split)
        if viewed and not path.exists() and path.relative_to(self.folder).as_posix() in self.digests:
            digests.check_present(self.folder, self.digests)
        return viewed and path.exists()

    def columns(self, candidate: str, split: str, names: Sequence[str]) -> Mapping[str, Any]:
        """Arrow columns [n] of a split or of a view of it, by name."""
        content = self._whole(candidate, split)
        return read_columns(self.path(candidate, split), names, split.partition("@")[2], content)

    def predictions(self, candidate: str, split: str) -> Predictions:
        """Of a split, or of a view of it ('r@1000-way')."""
        found = read_predictions(predictions_path(self.folder, candidate, split), self._whole(candidate, split))
        space = split.partition("@")[2]
        if space and space not in found.also:
            raise RbftError(f"{self.folder} has no predictions for '{split}'; run the cell again")
        return found.also[space] if space else found


def predictions_path(folder: Path, candidate: str, split: str) -> Path:
    """Of a split, or of a view of it in another label space ('r@1000-way'): both are in one file."""
    name = file_names.checked(split.partition("@")[0], "the split")
    return folder / "predictions" / file_names.checked(candidate, "the candidate") / f"{name}.parquet"


def is_done(folder: Path) -> bool:
    return (folder / digests.DONE).exists()


def mark_done(folder: Path) -> None:
    """Finish a cell: `done` holds the digest of each of its files, as `sha256sum -c done` reads it."""
    digests.mark(folder, HINT)


def was_edited(folder: Path) -> bool:
    """Whether the cell.json of a finished cell is another than when it was finished; `done` of old is empty."""
    if not is_done(folder):
        return False
    told = digests.read(folder)
    return "cell.json" in told and told["cell.json"] != digests.of_file(folder / "cell.json")


def unsealed(records: Iterable[Record]) -> str:
    """A line that says how many records are of versions that noted no digests; '' where all note them."""
    old = [record for record in records if (record.folder / digests.DONE).exists()]
    old = [record for record in old if not digests.is_complete(record.digests)]
    if not old:
        return ""
    many = f"{old[0].folder} and {len(old) - 1} more are" if len(old) > 1 else f"{old[0].folder} is"
    return f"{many} of an older version, without digests of all files: damage to them may go unnoticed"


def find_records(roots: Iterable[Path]) -> list[Record]:
    """Every finished cell under the given folders, in path order; unfinished ones are not records."""
    found: set[Path] = set()
    for root in roots:
        if not root.exists():
            raise RbftError(f"no such folder: {root}; `rbft run` writes records to ./runs unless --out says otherwise")
        found |= {path.parent for path in root.rglob(digests.DONE) if _is_record(path)}
    if not found:
        raise RbftError(f"no finished cell under {', '.join(map(str, roots))}; finish one with `rbft run`")
    return [Record(folder) for folder in sorted(found)]


def _is_record(done: Path) -> bool:
    """Whether a file called 'done' finishes a cell; one whose cell.json is lost is an error where its list says so."""
    if (done.parent / "cell.json").exists():
        return True
    head = done.read_bytes()[:66] if done.is_file() else b""
    if digests.LINE.match(head.decode(errors="replace") + "x"):
        digests.check_present(done.parent, digests.read(done.parent))
    return False


def _lists(matrix: Any) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def _nullable(column: Any) -> Any:
    """Lists of any length: pyarrow before 26 cannot read lists of one size from Parquet where some are null."""
    fixed = pa.types.is_fixed_size_list(column.type)
    return column.cast(pa.list_(column.type.value_type)) if fixed else column


def _matrix(column: Any) -> Any:
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _ints(column: Any) -> Ints:
    return column.to_numpy().astype(np.int64)


def _floats(column: Any) -> Floats:
    return column.to_numpy().astype(np.float32)
