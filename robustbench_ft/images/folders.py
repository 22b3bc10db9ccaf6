"""Folders and tables of images -> paths and labels; every oddity is one line that names the place. Torch-free.

Labels come from explicit maps (folder name, split file, table), never from the order of a listing.
"""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robustbench_ft.errors import MissingDataError, RbftError

from .files import Ints

csv: Any = import_module("pyarrow.csv")  # made at import, unseen by type checkers
compute: Any = import_module("pyarrow.compute")
LONGEST = 1 << 16  # bytes in a cell of a table
SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what file managers leave behind, with hidden files
SHOWN = 3


@dataclass(frozen=True)
class Listing:
    """Images under one folder."""

    root: Path
    paths: tuple[str, ...]  # relative to root
    labels: Ints  # [N]


def class_folders(
    place: Path,
    classes: Mapping[str, int],
    *,
    kind: str = "class",
    ignore: Collection[str] = (),
    others: bool = False,
    partial: bool = False,
) -> Listing:
    """`place/<folder>/<image>` with the label of each folder's name, in order of label and file name.

    `kind`: the word for a folder in messages. `ignore`: entries to skip. `others`: skip folders of unknown names
    instead of raising. `partial`: allow classes without images. Raises MissingDataError.
    """
    folders, loose = _folders(place, ignore)
    unknown = [name for name in folders if name not in classes]
    if len(unknown) == len(folders):
        inner = next((name for name in folders if _has_class(place / name, classes)), None)
        if inner:
            raise MissingDataError(
                f"{place} is one level too high: its folder '{inner}' holds the {kind} folders; name that with --root"
            )
        if place.name in classes and not folders:
            raise MissingDataError(
                f"{place} is one {kind} folder, one level too low: name the folder above with --root"
            )
    if not folders and loose:
        raise MissingDataError(
            f"{place} holds {some(loose, 'loose image')} and no folders: sort them into {kind} folders"
        )
    if unknown and (not others or len(unknown) == len(folders)):
        raise MissingDataError(
            f"{place} holds {some(unknown, 'folder')} that name no {kind} of this set; move them away"
        )
    if loose:
        raise MissingDataError(f"{place} holds {some(loose, 'image')} outside the {kind} folders; sort or remove them")
    present = {name for name in folders if name in classes}
    missing = [name for name in classes if name not in present]
    if missing and not partial:
        raise MissingDataError(
            f"{place} lacks {some(missing, f'{kind} folder')} of {len(classes):,}; unpack the archive again, or pass "
            "--allow-partial"
        )
    paths: list[str] = []
    labels: list[int] = []
    for name in sorted(present, key=classes.__getitem__):
        files = image_files(place / name)
        if not files and not partial:
            raise MissingDataError(f"{place / name} holds no image; unpack the archive again, or pass --allow-partial")
        paths += [f"{name}/{file}" for file in files]
        labels += [classes[name]] * len(files)
    if not paths:
        raise MissingDataError(f"{place} holds no image of any {kind}; unpack the archive into it")
    return Listing(place, tuple(paths), np.array(labels, np.int64))


def image_files(folder: Path) -> list[str]:
    """Names of the images in a folder that holds nothing else, sorted; hidden files do not count."""
    files: list[str] = []
    for entry in scan(folder):
        if _is_folder(entry):
            raise MissingDataError(f"{entry.path} is a folder where only images belong; move it away")
        if not _is_file(entry):
            raise MissingDataError(f"{entry.path} is a broken link or a loop of links; remove it")
        if not is_image(entry.name):
            raise MissingDataError(f"{entry.path} is not an image by its name; move it away, nothing is skipped")
        files.append(entry.name)
    return sorted(files)


def is_image(name: str) -> bool:
    """True if the suffix is that of an image."""
    return name[name.rfind(".") :].lower() in SUFFIXES


def stems(paths: Sequence[str]) -> list[str]:
    """Paths without their suffixes, folders kept; of an image whose name holds several dots, the last counts."""
    return [path[: path.rfind(".")] for path in paths]


def _folders(place: Path, ignore: Collection[str]) -> tuple[list[str], list[str]]:
    """Names of the folders and of the images directly under `place`."""
    if not place.is_dir():
        raise MissingDataError(f"{place} is not a folder; name the folder with the images")
    folders: list[str] = []
    loose: list[str] = []
    for entry in scan(place):
        if entry.name in ignore:
            continue
        if _is_folder(entry):
            folders.append(entry.name)
        elif not _is_file(entry):
            raise MissingDataError(f"{entry.path} is a broken link or a loop of links; remove it")
        elif is_image(entry.name):
            loose.append(entry.name)
    return sorted(folders), sorted(loose)


def names_in(folder: Path) -> list[str]:
    """Names of the entries of a folder, sorted, without hidden files and clutter."""
    return sorted(entry.name for entry in scan(folder))


def scan(folder: Path) -> list["os.DirEntry[str]"]:
    """Entries of a folder, without hidden files and clutter."""
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in CLUTTER]
    except OSError as error:
        raise MissingDataError(f"cannot list {folder}: {error.strerror}; correct its permissions") from error
    for entry in found:
        if not entry.name.isascii() and (shown := entry.name.encode(errors="replace").decode()) != entry.name:
            raise MissingDataError(f"{folder} holds a name that is not UTF-8 ({shown!r}): rename it, ids are texts")
    return found


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # too many levels of links
        return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _has_class(folder: Path, classes: Mapping[str, int]) -> bool:
    return any(entry.name in classes for entry in scan(folder))


def split_file(path: Path, n_classes: int) -> tuple[tuple[str, ...], Ints]:
    """Lines of `relative/path label` -> paths and labels. A path may hold spaces: the label follows the last."""
    paths: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().rpartition(" ")
        if not name or not label.isdecimal():
            raise RbftError(f"{path}, line {number}: '{line}' is not 'path label'; get the official split file again")
        if int(label) >= n_classes:
            raise RbftError(f"{path}, line {number}: label {label} is outside 0..{n_classes - 1}; is it another set's?")
        paths.append(name)
        labels.append(int(label))
    if not paths:
        raise RbftError(f"{path} names no image; get the official split file again")
    _check_unique(path, paths)
    return tuple(paths), np.array(labels, np.int64)


def check_files(root: Path, paths: Sequence[str], source: Path) -> None:
    """Every path that a table names is there; folders are listed once, not each file asked for."""
    present: dict[str, set[str]] = {}
    absent: list[str] = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in present:
            present[folder] = {entry.name for entry in scan(root / folder)} if (root / folder).is_dir() else set()
        if name not in present[folder]:
            absent.append(path)
    if absent:
        raise MissingDataError(
            f"{source} names {some(absent, 'image')} that {'is' if len(absent) == 1 else 'are'} not under {root}; "
            "unpack the archive again"
        )


def read_text(path: Path, mend: str = "get the file again", find: str = "put the file there") -> str:
    """A file in UTF-8; `mend` and `find` are what to do about one that is not, or that cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RbftError(f"{path} is not UTF-8 text (byte {error.start}); {mend}") from error
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}; {find}") from error


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[np.str_]]:
    """Columns of a CSV file with a header line, as text: leading zeros and odd timestamps stay as they are."""
    try:
        header = read_text_line(path)
        names = csv.read_csv(pa.BufferReader(header.encode())).column_names
        lacking = [name for name in columns if name not in names]
        if lacking:
            raise RbftError(f"{path} has no column {some(lacking)}; its columns: {', '.join(names)}")
        chosen = [name for name in (*columns, *optional) if name in names]
        options = csv.ConvertOptions(
            include_columns=chosen, column_types=dict.fromkeys(chosen, pa.string()), strings_can_be_null=False
        )
        table = csv.read_csv(path, convert_options=options, parse_options=csv.ParseOptions(newlines_in_values=True))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"{path} cannot be read as a table: {reason}; get the official file again") from error
    if not len(table):
        raise RbftError(f"{path} has a header and no rows; get the official file again")
    for name in chosen:  # an array of texts is as wide as its longest
        longest = compute.max(compute.binary_length(table.column(name))).as_py() or 0
        if longest > LONGEST:
            raise RbftError(f"{path}, column {name}: a cell has {longest:,} bytes; get the official file again")
    # not through `to_numpy`, which imports pandas where that is installed
    return {name: np.array(table.column(name).to_pylist(), np.str_) for name in chosen}


def read_text_line(path: Path) -> str:
    """The first line."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readline().rstrip("\r\n") + "\n"
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}; put the file there") from error


def integers(path: Path, name: str, values: NDArray[np.str_]) -> Ints:
    """A column of whole numbers; `1.0` counts as 1, as spreadsheets and pandas write it."""
    try:
        numbers = values.astype(np.float64)
    except ValueError as error:
        raise RbftError(f"{path}, column {name}: {error}; whole numbers belong there") from error
    whole = (np.abs(numbers) < 2**53) & (numbers == np.floor(numbers))
    if not whole.all():
        row = int(np.argmin(whole))
        raise RbftError(f"{path}, column {name}, row {row + 1}: '{values[row]}' is not a whole number")
    return numbers.astype(np.int64)


def held_out(ids: Sequence[str], labels: Ints, per_class: float) -> NDArray[np.bool_]:
    """[N] which examples of a training set select, fixed for all time: in each class those whose id hashes lowest.

    `per_class` is a number of images, or below 1 a share of the class (at least one image). A class is never emptied.
    """
    chosen = np.zeros(len(ids), np.bool_)
    keys = np.frombuffer(b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in ids), ">u8").astype(np.uint64)
    order = np.lexsort((keys, labels))
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    for start, size in zip(starts, sizes, strict=True):
        n = round(size * per_class) if per_class < 1 else int(per_class)
        chosen[order[start : start + min(max(n, 1), size - 1)]] = True
    return chosen


def _check_unique(path: Path, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        seen = set[str]()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise RbftError(f"{path} names '{twice}' twice; get the official file again")


def some(names: Sequence[str], noun: str = "") -> str:
    """'3 folders (a, b, c)', '120 images (a, b, c, ...)', or the bare names."""
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names):,} {noun}{'' if len(names) == 1 else 's'} ({shown})" if noun else shown
