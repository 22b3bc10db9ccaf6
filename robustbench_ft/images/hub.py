"""Hugging Face data sets on disk, without the `datasets` package and without network. Torch-free.

Two layouts: the folder of one split that `Dataset.save_to_disk` writes (state.json, dataset_info.json, data-*.arrow in
Arrow's stream format, mapped into memory), and Parquet shards, as in a snapshot of the hub's cache
(datasets--ORG--NAME/snapshots/REVISION).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_ft.errors import MissingDataError, RbftError

from . import archives
from .archives import PackedImages
from .files import Ints
from .folders import names_in, some

ipc: Any = import_module("pyarrow.ipc")
compute: Any = import_module("pyarrow.compute")
CACHED, SNAPSHOTS = "datasets--", "snapshots"
SAVED, SEVERAL = "state.json", "dataset_dict.json"


@dataclass(frozen=True)
class Rows:
    """Images of one split in the order of its rows."""

    images: PackedImages
    names: tuple[str, ...]  # [N], 'ROW/FILE': names of files repeat, and many rows have none
    labels: tuple[str, ...]  # [N], class names where the data set has them, else whole numbers
    layout: str


@dataclass(frozen=True)
class Column:
    """The rows of one file."""

    sizes: Ints  # [n], bytes of each image
    paths: Sequence[str | None]  # [n], where they came from
    labels: Ints  # [n]
    bytes: Callable[[int, int, int], bytes]  # (row, start, n)


def is_one(place: Path) -> bool:
    """Whether a folder holds a Hugging Face data set, or several splits or revisions of one."""
    return (
        any((place / name).is_file() for name in (SAVED, SEVERAL))
        or (place.name.startswith(CACHED) and (place / SNAPSHOTS).is_dir())
        or _shard_folder(place) is not None
    )


def read(place: Path, split: str, image: str = "image", label: str = "label") -> Rows:
    """The rows of one split; `image` and `label` name its columns, `split` is a word in the names of Parquet shards.

    Raises one line where a split or a revision is not named, or rows have no image, or no label.
    """
    if (place / SEVERAL).is_file() and not (place / SAVED).is_file():
        inner = [name for name in names_in(place) if (place / name / SAVED).is_file()]
        raise MissingDataError(f"{place} holds {some(inner, 'split')}: name one of these folders")
    if (place / SAVED).is_file():
        if split:
            raise RbftError(f"{place} is one split, saved by itself: take 'where' away")
        return _saved(place, image, label)
    if place.name.startswith(CACHED):
        revisions = names_in(place / SNAPSHOTS)
        raise MissingDataError(
            f"{place} holds {some(revisions, 'revision')}: name one, e.g. "
            f"{place.name}/{SNAPSHOTS}/{revisions[0] if revisions else 'REVISION'}"
        )
    return _parquet(place, split, image, label)


def read_part(place: Path, split: str, image: str, label: str) -> Rows:
    """The rows of one split for a suite that knows its name: `read`, where several splits may be saved in one folder.

    Raises as `read` does.
    """
    if (place / SEVERAL).is_file() and not (place / SAVED).is_file():
        if not (place / split / SAVED).is_file():
            inner = [name for name in names_in(place) if (place / name / SAVED).is_file()]
            raise MissingDataError(f"{place} holds {some(inner, 'split')} and no '{split}'; save that too")
        place = place / split
    return read(place, "" if (place / SAVED).is_file() else split, image, label)


def _shard_folder(place: Path) -> Path | None:
    return next((folder for folder in (place, place / "data") if any(folder.glob("*.parquet"))), None)


def _saved(place: Path, image: str, label: str) -> Rows:
    state, info = (_json(place / name) for name in (SAVED, "dataset_info.json"))
    if state.get("_indices_data_files"):
        raise RbftError(f"{place} keeps its rows in another order than its files: flatten_indices() and save it again")
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise RbftError(f"{place / SAVED} lists no data files; save the data set again")
    files = [place / Path(str(one.get("filename"))).name for one in listed]
    columns = [_column(file, image, label) for file in files]
    features: Any = info.get("features") or {}
    layout = f"Hugging Face save_to_disk, fingerprint {state.get('_fingerprint', 'not stated')}"
    return _rows(place, files, columns, _names(features, label), layout)


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingDataError(f"{file.parent} has no {file.name}: save the data set again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RbftError(f"{file} cannot be read as JSON: {error}; save the data set again") from error
    if not isinstance(content, dict):
        raise RbftError(f"{file} is no JSON object; save the data set again")
    return content


def _names(features: Any, label: str) -> tuple[str, ...]:
    """Class names of a ClassLabel column, in label order; () where it has none."""
    found = features.get(label) if isinstance(features, dict) else None
    names = found.get("names") if isinstance(found, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _column(file: Path, image: str, label: str) -> Column:
    """Images {bytes, path} and labels of one Arrow stream, mapped."""
    try:
        table: Any = ipc.open_stream(pa.memory_map(str(file))).read_all()
        table.validate(full=True)  # offsets that lead out of the file would end the process
        lacking = [name for name in (image, label) if name not in table.column_names]
        if lacking:
            raise RbftError(f"{file} has no column {some(lacking)}; its columns: {', '.join(table.column_names)}")
        labels = table.column(label).cast(pa.int64())
        compute.struct_field(table.column(image), "bytes").cast(pa.large_binary())
    except (OSError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"{file} cannot be read as Arrow images: {reason}; save the data set again") from error
    if labels.null_count:
        raise RbftError(f"{file}: some rows have no {label} (rows: {labels.null_count:,}); save the data set again")
    images = table.column(image)
    lengths = compute.binary_length(compute.struct_field(images, "bytes"))
    if lengths.null_count:
        raise RbftError(
            f"{file} names images and does not hold them (rows: {lengths.null_count:,}); save it again with its images"
        )
    paths = compute.struct_field(images, "path").to_pylist()
    return Column(
        lengths.to_numpy().astype(np.int64), paths, labels.to_numpy().astype(np.int64), partial(_part, images)
    )


def _part(images: Any, row: int, start: int, n: int) -> bytes:
    return memoryview(images[row]["bytes"].as_buffer())[start : start + n].tobytes()


def _parquet(place: Path, split: str, image: str, label: str) -> Rows:
    folder = _shard_folder(place) or place
    if not split:
        shards = [name for name in names_in(folder) if name.endswith(".parquet")]
        raise RbftError(
            f'{folder} holds {some(shards, "Parquet file")}: say which split, e.g. where = {{split = "train"}}'
        )
    files = archives.shards_of(folder, "parquet", {split})
    tables = archives.mapped(files, image, label)
    try:
        metadata: Any = pq.ParquetFile(files[0]).schema_arrow.metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (OSError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"{files[0]} cannot be read as Parquet: {reason}; get it again") from error
    columns = [Column(table.sizes, table.keys, table.labels, table.bytes) for table in tables]
    parts = place.absolute().parts
    pinned = parts[parts.index(SNAPSHOTS) + 1] if SNAPSHOTS in parts[:-1] else "not stated"
    layout = f"Hugging Face Parquet, revision {pinned}, {split}"
    return _rows(place, files, columns, _names(features, label), layout)


def _rows(place: Path, files: Sequence[Path], columns: Sequence[Column], names: tuple[str, ...], layout: str) -> Rows:
    stems = [(path or "").replace("\\", "/").rpartition("/")[2] for column in columns for path in column.paths]
    labels = np.concatenate([column.labels for column in columns])
    if not len(labels):
        raise MissingDataError(f"{place} holds no row; get the data set again")
    last = len(names) - 1
    if labels.min() < 0 or (names and labels.max() > last):
        raise RbftError(
            f"{place} has label {labels.min() if labels.min() < 0 else labels.max()}: "
            + ("the split is not labelled; name another" if labels.min() < 0 else f"its classes are 0 to {last}")
        )
    ids = tuple(f"{k:07d}/{stem}" if stem else f"{k:07d}" for k, stem in enumerate(stems))
    owners = [str(file) for file, column in zip(files, columns, strict=True) for _ in column.labels]
    starts = np.cumsum([0, *(len(column.labels) for column in columns)])
    images = PackedImages(
        tuple(f"{owner}:{name}" for owner, name in zip(owners, ids, strict=True)),
        np.concatenate([column.sizes for column in columns]), partial(_bytes, columns, starts),
        tuple(archives.stamp(file) for file in files),
    )  # fmt: skip
    texts = tuple(names[k] if names else str(k) for k in labels.tolist())
    return Rows(images, ids, texts, layout)


def _bytes(columns: Sequence[Column], starts: Ints, row: int, start: int, n: int) -> bytes:
    """`n` bytes of the image in a row of all columns together."""
    number = int(np.searchsorted(starts, row, side="right")) - 1
    return columns[number].bytes(row - int(starts[number]), start, n)
