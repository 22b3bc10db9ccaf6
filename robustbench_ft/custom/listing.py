"""Folders of class folders, and manifests (CSV or JSON) -> image paths with their labels as they are written there."""

import csv
import io
import json
import os
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import hub
from robustbench_ft.images.archives import PackedImages
from robustbench_ft.images.folders import SUFFIXES, image_files, is_image, read_text, scan, some

from .form import Columns, Place

Row = Mapping[str, str]


@dataclass(frozen=True)
class Listed:
    """Images of one place."""

    source: Path  # the folder or the manifest, which messages name
    root: Path  # paths start here
    paths: tuple[str, ...]  # [N], relative, with '/'
    labels: tuple[str, ...]  # [N], names of folders, or what the manifest says
    columns: Mapping[str, tuple[str, ...]]  # further columns of a manifest, each [N]
    layout: str
    images: PackedImages | None = None  # where they are rows and not files


def listed(folder: Path, place: Place, columns: Columns) -> Listed:
    """What lies at `place`, whose path starts from `folder` unless it is absolute."""
    source = folder / Path(place.path).expanduser()
    try:
        found = source.stat()
    except (OSError, ValueError) as error:  # a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise MissingDataError(f"no {source} here ({reason}): correct the path in suite.toml") from error
    if not place.is_manifest:
        if not source.is_dir():
            raise MissingDataError(f"{source} is a file of no known kind: name a folder, or a manifest .csv or .json")
        if hub.is_one(source):
            image = "image" if columns.path == Columns.path else columns.path
            rows = hub.read(source, str(place.where.get("split", "")), image, columns.label)
            return Listed(source, source, rows.names, tuple(map(composed, rows.labels)), {}, rows.layout, rows.images)
        if place.where:
            raise RbftError(f"{source} is a folder of class folders: 'where' belongs to manifests and Parquet files")
        return _folders(source)
    if source.is_dir() or not found.st_size:
        raise MissingDataError(f"{source} is {'a folder' if source.is_dir() else 'empty'}: a manifest belongs there")
    root = folder / Path(place.images).expanduser() if place.images else source.parent
    if not root.is_dir():
        raise MissingDataError(f"{root} is not a folder: correct 'images' of {place.path} in suite.toml")
    rows = csv_rows(source) if source.suffix.lower() == ".csv" else json_rows(source, columns)
    return _manifest(source, root, rows, place, columns)


def class_folders(place: Path) -> list[str]:
    """Names of the folders under `place`, sorted; anything else there is an error that names it."""
    names: list[str] = []
    for entry in scan(place):
        if _is_folder(entry):
            names.append(entry.name)
        elif is_image(entry.name):
            raise MissingDataError(
                f"{entry.path} lies outside the class folders: move it into that of its class, or list the images in a "
                "manifest"
            )
        else:
            raise MissingDataError(f"{entry.path} is neither a class folder nor an image: move it away")
    return sorted(names)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        if entry.is_dir() or entry.is_file():
            return entry.is_dir()
    except OSError:  # too many levels of links
        pass
    raise MissingDataError(f"{entry.path} is a broken link or a loop of links: remove it")


def _folders(place: Path) -> Listed:
    paths: list[str] = []
    labels: list[str] = []
    for name in class_folders(place):
        files = image_files(place / name)
        if not files:
            raise MissingDataError(f"{place / name} holds no image: put some there or remove the folder")
        paths += [f"{name}/{file}" for file in files]
        labels += [composed(name)] * len(files)
    if not paths:
        raise MissingDataError(f"{place} holds no class folder: make one for each class and put its images there")
    return Listed(place, place, tuple(paths), tuple(labels), {}, "class folders")


def csv_rows(path: Path) -> list[Row]:
    """Rows by column name, all as text."""
    reader = csv.reader(io.StringIO(text_of(path), newline=""), skipinitialspace=True, strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise RbftError(f"{path} has two columns '{twice}': give one another name")
        for cells in reader:
            if cells and len(cells) != len(header):
                raise RbftError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells under {len(header)} columns; put texts with "
                    "commas in quotes"
                )
            if cells:
                rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise RbftError(f"{path}, line {reader.line_num}: {error}; correct the line") from error
    if not rows:
        raise RbftError(f"{path} has no row under its header; the first line names the columns, e.g. path,label")
    return rows


def json_rows(path: Path, columns: Columns) -> list[Row]:
    """A list of objects, or one object {path: label}; numbers become text."""
    try:
        content: Any = json.loads(text_of(path), object_pairs_hook=_pairs)
    except _Twice as error:
        raise RbftError(f"{path} names '{error}' twice in one object; each image counts once") from error
    except (ValueError, RecursionError) as error:
        raise RbftError(f"{path} is not valid JSON: {error}; correct it") from error
    if isinstance(content, dict):
        content = [{columns.path: key, columns.label: value} for key, value in content.items()]
    shape = f'write a list such as [{{"{columns.path}": "a.jpg", "{columns.label}": "cat"}}], or {{"a.jpg": "cat"}}'
    if not isinstance(content, list) or not content:
        raise RbftError(f"{path} is no list of images: {shape}")
    rows: list[Row] = []
    for k, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise RbftError(f"{path}, entry {k} is no object: {shape}")
        for name, value in row.items():
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise RbftError(f"{path}, entry {k}: '{name}' is {json.dumps(value)}; write a text or a whole number")
        rows.append({name: str(value) for name, value in row.items()})
    return rows


class _Twice(ValueError):
    """A key that stands twice in one JSON object."""


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def text_of(path: Path) -> str:
    """A text file of the user's own."""
    return read_text(path, "save it as UTF-8", "correct the path or its permissions")


def _manifest(source: Path, root: Path, rows: Sequence[Row], place: Place, columns: Columns) -> Listed:
    every = list(dict.fromkeys(name for row in rows for name in row))
    for name in (columns.path, columns.label, *place.where):
        if name not in every:
            raise RbftError(
                f"{source} has no column '{name}': its columns are {', '.join(every[:9])}; correct its first line, or "
                "'columns' in suite.toml"
            )
    lacking = next((k for k, row in enumerate(rows, start=1) if len(row) != len(every)), None)
    if lacking:
        absent = next(name for name in every if name not in rows[lacking - 1])
        raise RbftError(f"{source}, entry {lacking} has no '{absent}', which others have; add it")
    kept = [row for row in rows if all(row[name] == str(value) for name, value in place.where.items())]
    if not kept:
        name = next(n for n, v in place.where.items() if str(v) not in {row[n] for row in rows} or len(place.where) > 1)
        raise RbftError(
            f"{source} has no row where {' and '.join(f'{n} is {v}' for n, v in place.where.items())}; '{name}' is "
            f"{some(sorted({row[name] for row in rows}))}"
        )
    paths = [_path(source, row[columns.path]) for row in kept]
    labels = [composed(row[columns.label]) for row in kept]
    for path, label in zip(paths, labels, strict=True):
        if not label:
            raise RbftError(f"{source} gives {path} no label; fill in '{columns.label}'")
    if len(set(paths)) != len(paths):
        seen = set[str]()
        twice = next(path for path in paths if path in seen or seen.add(path))
        raise RbftError(f"{source} names '{twice}' twice; each image counts once: remove one row")
    others = [name for name in every if name not in (columns.path, columns.label)]
    kind = f"{source.suffix[1:].upper()} manifest"
    where = f" where {', '.join(f'{n}={v}' for n, v in place.where.items())}" if place.where else ""
    further = {name: tuple(row[name] for row in kept) for name in others}
    return Listed(source, root, tuple(paths), tuple(labels), further, kind + where)


def _path(source: Path, text: str) -> str:
    """A path as ids hold it: relative, with '/', without detours."""
    if not text:
        raise RbftError(f"{source} has a row without a path; fill it in")
    if text.startswith(("/", "~")) or PureWindowsPath(text).drive:
        raise RbftError(
            f"{source} names {text}: write paths relative to the manifest (or to 'images' in suite.toml), so that ids "
            "are the same on every machine"
        )
    if "\\" in text:
        raise RbftError(f"{source} names {text}: write '/' between folders, which every system reads")
    if Path(text).suffix.lower() not in SUFFIXES:
        raise RbftError(f"{source} names {text}, no image by its name; known: {', '.join(sorted(SUFFIXES))}")
    return posixpath.normpath(text)


def check_files(lists: Mapping[str, Listed]) -> None:
    """Every image is there, and no file is in two splits (or twice in one), by whatever name."""
    owner: dict[tuple[int, int], tuple[str, str]] = {}
    rows: dict[str, str] = {}
    for split, found in lists.items():
        if found.images is not None:
            _check_rows(split, found.images.names, rows)
            continue
        absent: list[str] = []
        for path in found.paths:
            file = f"{found.root}{os.sep}{path}"  # a Path for each of a million images takes longer than the disk
            try:
                state = os.stat(file)
            except (OSError, ValueError):  # a NUL in it
                absent.append(path)
                continue
            other, known = owner.setdefault((state.st_dev, state.st_ino), (split, file))
            if (other != split or known != file) and state.st_ino:
                where = f"twice in {split}" if other == split else f"in {other} and in {split}"
                also = f" (as {file})" if known != file else ""
                raise RbftError(f"{known} is {where}{also}: an image counts once; remove it from one of them")
        if absent:
            raise MissingDataError(
                f"{found.source} names {len(absent):,} image{'s' * (len(absent) > 1)} not under {found.root}: "
                f"{some(absent)}; correct the paths or put the files there"
            )


def _check_rows(split: str, names: Sequence[str], owner: dict[str, str]) -> None:
    for name in names:
        if owner.setdefault(name, split) != split:
            raise RbftError(f"{name} is in {owner[name]} and in {split}: an image counts once; name another split")


def composed(text: str) -> str:
    """Accents as one character: some systems take the names of files apart, and ids and labels are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
