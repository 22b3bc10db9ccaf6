"""One run of a claim: its configuration, environment and predictions, in files small enough for git.

A run's folder holds `record.json` and one `predictions.parquet` with all splits: example id, label, group columns, the
top-1 class of every candidate, and for the candidates that rows need the three columns from which every metric follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robustbench_ft import limits
from robustbench_ft.compare.rows import by_oracle, by_validation, selection_metric
from robustbench_ft.data import Floats, Ints, Predictions
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import ACCURACY, further_columns, named
from robustbench_ft.record.store import Json, Record, model_config, read_json, write_bytes, write_json
from robustbench_ft.record.summary import RESTORE, CellRecord, Environment, Summary, read_summary
from robustbench_ft.stats.intervals import cluster_codes

from .schema import RunRecord, read_run

RECORD, PREDICTIONS = "record.json", "predictions.parquet"
POINTER = b"version https://git-lfs"  # a file that git LFS has not got yet begins so
SCORES = ("confidence", "log_prob", "sum_sq")


@dataclass(frozen=True, eq=False)
class Bundle:
    """One run (seed) of a claim."""

    record: Json  # record.json as it is stored: cell, env, summary
    typed: RunRecord  # the same, checked
    scored: Mapping[str, Mapping[str, Predictions]]  # split -> candidate -> predictions
    choices: Mapping[str, Mapping[str, Ints]]  # split -> every candidate -> top-1 class [n]
    digests: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str], repr=False)
    ids: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)  # by split, in Arrow

    @property
    def config(self) -> CellRecord:
        """The configuration of the run."""
        return self.typed.cell

    @property
    def summary(self) -> Summary:
        """Splits and candidates; the numbers are in `numbers`."""
        return self.typed.summary

    @property
    def seed(self) -> int:
        return self.config.seed

    def any(self, split: str) -> Predictions:
        """Ids, labels and groups are the same for all candidates of a run."""
        return next(iter(self.scored[split].values()))

    def arrow_ids(self, split: str) -> Any:
        """[n] ids as Arrow has them: they are compared without making Python texts."""
        if split not in self.ids:
            self.ids[split] = pa.array(self.any(split).ids)
        return self.ids[split]

    def cluster_name(self, split: str) -> str | None:
        """The group column of examples that come together on a split, or a view of it; None: they come alone."""
        return self.summary.clusters.get(split.partition("@")[0])

    def codes(self, split: str) -> Ints | None:
        """[n] which cluster each example belongs to, 0..G-1, where the suite declares that examples come together."""
        name = self.cluster_name(split)
        return None if name is None else cluster_codes(self.any(split).groups[name])

    @cached_property
    def metrics(self) -> Json:
        """The part of metrics.json that rows need: the official metric of every candidate."""
        candidates = next(iter(self.choices.values()))
        found = {name: {split: self._scores(name, split) for split in self.choices} for name in candidates}
        return {**self.record["summary"], "candidates": found}

    @cached_property
    def numbers(self) -> Summary:
        """What `metrics` says, typed."""
        return read_summary(self.metrics, Path(RECORD), RESTORE)

    def _scores(self, candidate: str, split: str) -> dict[str, float]:
        """Accuracy and the official metric, which need no probabilities."""
        answers = replace(self.any(split), prediction=self.choices[split][candidate])
        return {metric: named(metric, answers) for metric in {ACCURACY, self.summary.official_of(split)}}


def split_names(summary: Summary) -> tuple[str, ...]:
    """Splits, and views of them in other label spaces."""
    splits = summary.splits
    return tuple(dict.fromkeys((splits.val, splits.test, *splits.shifts, *splits.extra, *summary.views)))


def from_record(record: Record) -> Bundle:
    """The bundle of a finished cell. RbftError where a split or candidate has no predictions."""
    metrics, told = record.metrics, record.summary
    summary: Json = {key: metrics[key] for key in ("default", "axis", "splits", "shift_groups")}
    if selection_metric(told) != told.official_of(told.splits.val):
        summary |= {"selection_metric": selection_metric(told)}
    summary |= {"transductive": True} if told.transductive else {}
    summary |= {"clusters": told.clusters, "resolution": _resolution(record.folder)}
    summary |= {name: metrics[name] for name in ("relative_errors", "gaps") if name in metrics}
    if further_columns(metrics):
        summary |= {"official": told.official, "views": told.views}
    names = sorted(told.candidates)
    whole = {split: {name: record.predictions(name, split) for name in names} for split in split_names(told)}
    choices = {split: {name: p.prediction for name, p in found.items()} for split, found in whole.items()}
    content: Json = {"cell": portable(record.cell), "env": record.env, "summary": summary}
    draft = Bundle(content, read_run(content, record.folder), whole, choices)
    kept = {told.default, by_validation(draft.numbers)}
    kept |= {by_oracle(draft.numbers)} if told.axis else set()
    scored = {split: {name: p for name, p in found.items() if name in kept} for split, found in whole.items()}
    return replace(draft, scored=scored, choices=choices)


def write(folder: Path, bundle: Bundle) -> None:
    columns: dict[str, list[Any]] = {"split": [], "id": [], "label": []}
    groups = sorted({name for found in bundle.scored.values() for p in found.values() for name in p.groups})
    for split in bundle.scored:
        first = bundle.any(split)
        columns["split"].append(pa.array([split] * len(first), pa.string()))
        columns["id"].append(pa.array(first.ids, pa.string()))
        columns["label"].append(pa.array(first.label, pa.int32()))
        for name in groups:
            values = first.groups.get(name)
            column = pa.nulls(len(first), pa.int64()) if values is None else pa.array(values, pa.int64())
            columns.setdefault(f"group:{name}", []).append(column)
        for name, choice in bundle.choices[split].items():
            columns.setdefault(f"prediction:{name}", []).append(pa.array(choice, pa.int32()))
        for name, predictions in bundle.scored[split].items():
            for score in SCORES:
                values = pa.array(getattr(predictions, score), pa.float32())
                columns.setdefault(f"{score}:{name}", []).append(values)
    table = pa.table({name: pa.concat_arrays(parts) for name, parts in columns.items()})
    # sorted ids and split float bytes shrink to half of what plain columns take
    packed = {name: "BYTE_STREAM_SPLIT" for name in columns if name.partition(":")[0] in SCORES}
    sink = pa.BufferOutputStream()
    write_table: Any = pq.write_table
    write_table(
        table.replace_schema_metadata(None), sink, compression="zstd", compression_level=19,
        use_dictionary=[name for name in columns if name not in packed and name != "id"],
        column_encoding={"id": "DELTA_BYTE_ARRAY", **packed}, row_group_size=1 << 24,
    )  # fmt: skip
    write_bytes(folder / PREDICTIONS, sink.getvalue().to_pybytes())
    write_json(folder / RECORD, bundle.record)


def is_pointer(path: Path) -> bool:
    """Whether a file only says what git LFS has to get."""
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def read(folder: Path, like: Bundle | None = None) -> Bundle:
    """Read and check; a damaged file is an error that names it. Ids that are those of `like` are shared with it."""
    content, path = read_json(folder / RECORD), folder / PREDICTIONS
    typed = read_run(content, folder / RECORD)
    if not path.exists():
        raise RbftError(f"{path} is not here; restore it, or get it with `rbft leaderboard verify --fetch`")
    try:
        if is_pointer(path):
            raise RbftError(f"{path} is a pointer of git LFS: get the file with `git lfs pull`")
        with pq.ParquetFile(path) as file:
            limits.check_parquet(file, path.stat().st_size)
            limits.check_texts(file, path)
            table = file.read(use_threads=False)
        bundle = _bundle(content, typed, table, like)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise RbftError(f"cannot read {path}: {first}; restore the file") from error
    for found in bundle.scored.values():
        if not all(np.isfinite(getattr(p, score)).all() for p in found.values() for score in SCORES):
            raise RbftError(f"{path} holds a probability that is not a number; restore the file")
    return bundle


def _bundle(record: Json, typed: RunRecord, table: Any, like: Bundle | None) -> Bundle:
    """Cut the table into splits. Raises `ValueError` with what is wrong with it."""
    named = table["split"].combine_chunks().dictionary_encode()  # codes: texts are slow to compare, row by row
    codes = dict(zip(named.dictionary.to_pylist(), range(len(named.dictionary)), strict=True))
    code = np.from_dlpack(named.indices)
    candidates = [name.partition(":")[2] for name in table.column_names if name.startswith("prediction:")]
    kept = [name for name in candidates if f"confidence:{name}" in table.column_names]
    chosen = {name: _values(table, f"prediction:{name}").astype(np.int64) for name in candidates}
    scores = {name: [_values(table, f"{score}:{name}").astype(np.float32) for score in SCORES] for name in kept}
    label = _values(table, "label").astype(np.int64)
    scored: dict[str, dict[str, Predictions]] = {}
    choices: dict[str, dict[str, Ints]] = {}
    ids: dict[str, Any] = {}
    for split in split_names(typed.summary):
        rows = _rows(code == codes.get(split, -1))
        part = table.slice(rows.start, rows.stop - rows.start) if isinstance(rows, slice) else table.take(rows)
        if not len(part) or not kept:
            raise ValueError(f"split '{split}' has no {'candidate with probabilities' if len(part) else 'rows'}")
        ids[split] = part["id"].combine_chunks()
        choices[split] = {name: values[rows] for name, values in chosen.items()}
        shared = {"ids": _ids(ids[split], split, like), "label": label[rows], "groups": _groups(part)}
        scored[split] = {
            name: _predictions(choices[split][name], *(values[rows] for values in scores[name]), **shared)
            for name in kept
        }
    if len(table) != sum(map(len, ids.values())):
        raise ValueError("it holds rows of other splits")
    return Bundle(record, typed, scored, choices, ids=ids)


def _rows(chosen: NDArray[np.bool_]) -> "slice | Ints":
    """Rows of a split, which lie together in all files that `write` made."""
    rows = np.flatnonzero(chosen)
    if len(rows) and rows[-1] - rows[0] + 1 != len(rows):
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)


def _ids(found: Any, split: str, like: Bundle | None) -> tuple[str, ...]:
    """Ids in Python; those of `like`, made and checked before, where they are the same."""
    if like is not None and split in like.ids and like.ids[split].equals(found):
        return like.any(split).ids
    if found.null_count:
        raise ValueError(f"split '{split}' lacks an example id")
    ids = tuple(found.to_pylist())
    if len(set(ids)) != len(ids):
        raise ValueError(f"split '{split}' names an example id twice")
    return ids


def _groups(part: Any) -> dict[str, Ints]:
    """Group columns that a split has."""
    names = [name for name in part.column_names if name.startswith("group:") and part[name].null_count == 0]
    return {name.removeprefix("group:"): _values(part, name).astype(np.int64) for name in names}


def _predictions(choice: Ints, confidence: Floats, log_prob: Floats, sum_sq: Floats, **shared: Any) -> Predictions:
    return Predictions(
        prediction=choice, confidence=confidence, log_prob=log_prob, sum_sq=sum_sq, top_classes=choice[:, None],
        top_probs=confidence[:, None], **shared,
    )  # fmt: skip


def _values(table: Any, name: str) -> NDArray[Any]:
    column = table[name].combine_chunks()
    if column.null_count:
        raise ValueError(f"column '{name}' has empty cells")
    return np.from_dlpack(column)  # `to_numpy` would import pandas, which takes longer than reading a claim


@dataclass(frozen=True)
class PublishedRun(Record):
    """A run of a claim, read as a record: `folder` holds record.json and predictions.parquet."""

    bundle: Bundle = field(kw_only=True, compare=False, repr=False)

    @cached_property
    def config(self) -> CellRecord:
        return self.bundle.config

    @cached_property
    def environment(self) -> Environment:
        return self.bundle.typed.environment

    @cached_property
    def summary(self) -> Summary:
        return self.bundle.numbers

    def _read(self, name: str) -> Json:
        """The content that an own record has in a file of this name."""
        record = self.bundle.record
        return self.bundle.metrics if name == "metrics.json" else record["cell" if name == "cell.json" else "env"]

    def path(self, candidate: str, split: str) -> Path:
        return self.folder / PREDICTIONS

    def holds(self, candidate: str, split: str) -> bool:
        return candidate in self.bundle.choices.get(split, {})

    def columns(self, candidate: str, split: str, names: Sequence[str]) -> Mapping[str, Any]:
        """Columns [n], ids in Arrow; an alpha that no row needs was stored without probabilities."""
        shown, choice = self.bundle.any(split), self.bundle.choices[split][candidate]
        scored = self.bundle.scored[split].get(candidate)
        found: dict[str, Any] = {"id": self.bundle.arrow_ids(split), "label": shown.label, "prediction": choice}
        found |= {"correct": choice == shown.label} | {f"group:{name}": v for name, v in shown.groups.items()}
        found |= {score: getattr(scored, score) for score in SCORES} if scored else {}
        absent = [name for name in names if name not in found and name != "confidence"]
        if absent:
            raise RbftError(f"{self.folder} keeps no {', '.join(absent)} of candidate '{candidate}' on '{split}'")
        return {name: found[name] for name in names if name in found}

    def predictions(self, candidate: str, split: str) -> Predictions:
        found = self.bundle.scored.get(split, {}).get(candidate)
        if found is None:
            raise RbftError(f"{self.folder} keeps no probabilities of candidate '{candidate}' on '{split}'")
        return found


def _resolution(folder: Path) -> int | None:
    """Image side of the saved model; None where weights were not kept."""
    size = model_config(folder).get("model_cfg", {}).get("vision_cfg", {}).get("image_size")
    return cast("int | None", size[0] if isinstance(size, list) else size)


def portable(cell: Json) -> Json:
    """The cell without folders of the machine it ran on. Weights are identified by their hash."""
    model = dict(cell["model"])
    for key in ("name", "pretrained"):
        schema, colon, place = str(model[key]).rpartition(":")
        if "/" in place and schema != "hf-hub":
            model[key] = f"{schema}{colon}{Path(place).name}"
    return {**cell, "model": model}
