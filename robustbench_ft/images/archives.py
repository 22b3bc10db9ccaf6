"""Images inside archives: WebDataset tars and Hugging Face Parquet shards, read at random, not unpacked. Torch-free.

Tars are indexed once (where each member lies); Parquet shards are copied once into Arrow files of the cache, which are
mapped into memory as the `datasets` library does, since a row of a compressed column cannot be reached alone.
"""

import hashlib
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from robustbench_ft import cache
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.progress import Advance, Progress, choose

from .files import Bytes, Ints, decode

ipc: Any = import_module("pyarrow.ipc")
BATCH = 256  # rows copied at a time
PACKED = ("jpg", "jpeg", "png")
SEPARATORS, COUNTED = re.compile(r"[-_.]"), re.compile(r"-(\d+)-of-(\d+)\.")
SHOWN = 3


@dataclass(frozen=True)
class PackedImages:
    """Files inside archives: `load(k, start, n)` gives n bytes of the k-th."""

    names: tuple[str, ...]  # what errors call them
    sizes: Ints  # [N], bytes
    load: Callable[[int, int, int], bytes]
    fingerprints: tuple[str, ...]  # of the archives: path, size, time

    def __len__(self) -> int:
        return len(self.names)

    def raw(self, index: int) -> bytes:
        """The file as it was packed."""
        return self.load(index, 0, self.size(index))

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    def part(self, index: int, start: int, n: int) -> bytes:
        return self.load(index, start, n)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return [decode(self.raw(i), self.names[i]) for i in indices]

    def name(self, index: int) -> str:
        return self.names[index]

    def array(self) -> Bytes | None:
        return None

    def digest(self) -> str:
        """The digest of the same files in folders: packing changes nothing."""
        digest = hashlib.sha256(b"border 0\n")
        for size in self.sizes:
            digest.update(f"{size}\n".encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join((*self.fingerprints, *self.names)).encode()).hexdigest()

    def take(self, rows: Ints) -> "PackedImages":
        """Some of them, in another order."""
        own = rows.astype(np.int64)
        names = tuple(self.names[k] for k in own)
        return PackedImages(
            names, self.sizes[own], lambda k, start, n: self.load(int(own[k]), start, n), self.fingerprints
        )


@dataclass(frozen=True)
class Packed:
    """Contents of archives: images, the name each was packed under, and its label."""

    images: PackedImages
    keys: tuple[str, ...]
    labels: Ints


def tars(shards: Sequence[Path]) -> Packed:
    """Members `<key>.jpg|jpeg|png` with `<key>.cls` (a number) beside them, as WebDataset writes them."""
    found: list[Mapping[str, Any]] = []
    made = [cache.entry("tar-index", stamp(shard), ".npz") for shard in shards]
    with _bar("index tars", made) as advance:
        for shard, path in zip(shards, made, strict=True):
            known = path.exists()
            found.append(_index(shard, path))
            if not known:
                advance(1, shard.name)
    keys = tuple(key for index in found for key in index["key"].tolist())
    if not keys:
        raise MissingDataError(f"{shards[0].parent}: the tars hold no image with a .cls beside it; get them again")
    _check_once(keys, shards[0].parent)
    owners = np.repeat(np.arange(len(shards)), [len(index["key"]) for index in found])
    offsets, sizes, labels = (np.concatenate([index[name] for index in found]) for name in ("offset", "size", "label"))

    def load(k: int, start: int, n: int) -> bytes:
        shard = shards[owners[k]]
        try:
            with open(shard, "rb", buffering=0) as file:  # a handle for each call: many threads read
                file.seek(int(offsets[k]) + start)
                return file.read(max(0, min(n, int(sizes[k]) - start)))
        except OSError as error:
            raise RbftError(f"cannot read {shard}: {error.strerror}; put the file back") from error

    names = tuple(f"{shards[owner]}:{key}" for owner, key in zip(owners.tolist(), keys, strict=True))
    return Packed(PackedImages(names, sizes, load, tuple(stamp(shard) for shard in shards)), keys, labels)


def shards_of(place: Path, suffix: str, parts: Set[str], partial: bool = False) -> list[Path]:
    """The shards of one part, e.g. 'train-00000-of-00294.parquet' of 'train'; none if the folder holds no shard at all.

    Where names count (`-of-00294`), a missing shard is an error unless `partial`.
    """
    every = sorted(place.glob(f"*.{suffix}"))
    shards = [path for path in every if parts & set(SEPARATORS.split(path.name))]
    if every and not shards:
        known = ", ".join(path.name for path in every[:SHOWN])
        raise MissingDataError(
            f"{place} holds {len(every)} .{suffix} files ({known}{', ...' * (len(every) > SHOWN)}) and none of part "
            f"'{min(parts)}'; get them too"
        )
    counted = {int(found[2]): found for path in shards if (found := COUNTED.search(path.name))}
    for total, found in counted.items():
        present = {int(other[1]) for path in shards if (other := COUNTED.search(path.name)) and int(other[2]) == total}
        missing = sorted(set(range(total)) - present)
        if missing and not partial:
            raise MissingDataError(
                f"{place} lacks {len(missing)} of {total} .{suffix} files of part '{min(parts)}', e.g. number "
                f"{missing[0]:0{len(found[1])}d}; get them too, or pass --allow-partial"
            )
    return shards


def _bar(label: str, made: Sequence[Path]) -> AbstractContextManager[Advance]:
    """Progress over what is not in the cache yet; silent where all of it is."""
    missing = sum(not path.exists() for path in made)
    progress = choose() if missing else Progress()
    return progress.bar(label, len(made), "files", done=len(made) - missing)


def _check_once(keys: Sequence[str], place: Path) -> None:
    if len(set(keys)) != len(keys):
        twice = next(key for key, n in Counter(keys).items() if n > 1)
        raise RbftError(f"{place} holds '{twice}' twice; move the shards away that are there in two versions")


def stamp(path: Path) -> str:
    """Path, size and time of a file: names its content as it lies here and now."""
    try:
        found = path.stat()
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}; put the file back") from error
    return f"{path.resolve()}\0{found.st_size}\0{found.st_mtime_ns}"


def _index(shard: Path, path: Path) -> Mapping[str, Any]:
    """Key, label, offset and size of each image of one tar; from the cache when it was indexed before."""
    if path.exists():
        try:
            with path.open("rb") as file:
                stored = np.load(file, allow_pickle=False)
                return {name: stored[name] for name in ("key", "label", "offset", "size")}
        except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile):
            path.unlink(missing_ok=True)
    found = _members(shard)
    cache.write(path, lambda temporary: np.savez(temporary, **found))
    return found


def _members(shard: Path) -> dict[str, Any]:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key, _, suffix = member.name.rpartition(".")
                if member.isdir():
                    continue
                if suffix.lower() in PACKED:
                    if key in images or not member.isfile():
                        raise RbftError(f"{shard}: '{key}' is there twice or is a link; get WebDataset shards again")
                    images[key] = (member.offset_data, member.size)
                elif suffix == "cls":
                    file = archive.extractfile(member)
                    labels[key] = file.read().decode("ascii", "replace").strip() if file else ""
            end = archive.offset + tarfile.BLOCKSIZE  # the empty block that closes a tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RbftError(f"{shard} is not a whole tar file: {error}; get it again") from error
    if end > shard.stat().st_size:
        raise RbftError(f"{shard} is not a whole tar file: it ends before its last block; get it again")
    for key in images:
        if not labels.get(key, "").isdecimal():
            raise RbftError(f"{shard}: '{key}' has no .cls with a number beside it; get WebDataset shards with labels")
    return {
        "key": np.array(list(images), np.str_), "label": np.array([int(labels[key]) for key in images], np.int64),
        "offset": np.array([place[0] for place in images.values()], np.int64),
        "size": np.array([place[1] for place in images.values()], np.int64),
    }  # fmt: skip


def parquet(shards: Sequence[Path]) -> Packed:
    """Rows with `image` {bytes, path} and `label`, as Hugging Face stores image folders."""
    tables = mapped(shards)
    keys = tuple(key for table in tables for key in table.keys)
    labels = np.concatenate([table.labels for table in tables])
    if "" in keys:
        raise RbftError(
            f"{shards[0].parent}: some rows have no file name in image.path, hence no stable id; get other shards"
        )
    _check_once(keys, shards[0].parent)
    starts = np.cumsum([0, *(len(table.labels) for table in tables)])

    def load(k: int, start: int, n: int) -> bytes:
        number = int(np.searchsorted(starts, k, side="right")) - 1
        return tables[number].bytes(k - int(starts[number]), start, n)

    sizes = np.concatenate([table.sizes for table in tables])
    names = tuple(f"{shard}:{key}" for shard, table in zip(shards, tables, strict=True) for key in table.keys)
    return Packed(PackedImages(names, sizes, load, tuple(stamp(shard) for shard in shards)), keys, labels)


def mapped(shards: Sequence[Path], image: str = "image", label: str = "label") -> list["Mapped"]:
    """Copies of Parquet shards in the cache, mapped; made where they are not there yet."""
    columns = "" if (image, label) == ("image", "label") else f"\0{image}\0{label}"
    made = [cache.entry("arrow", stamp(shard) + columns, ".arrow") for shard in shards]
    _check_room(shards, made)
    tables: list[Mapped] = []
    with _bar("copy Parquet into the cache", made) as advance:
        for shard, path in zip(shards, made, strict=True):
            if not path.exists():
                _copy(shard, path, image, label)
                advance(1, shard.name)
            tables.append(Mapped(path))
    return tables


def _check_room(shards: Sequence[Path], made: Sequence[Path]) -> None:
    """The copies are as large as the shards, for images do not compress further."""
    needed = sum(shard.stat().st_size for shard, path in zip(shards, made, strict=True) if not path.exists())
    free = shutil.disk_usage(made[0].parent).free
    if needed > free:
        raise RbftError(
            f"{shards[0].parent}: {needed / 1e9:.1f} GB are to be copied into {made[0].parent}, which has "
            f"{free / 1e9:.1f} GB left; set RBFT_CACHE to a larger disk, or use tars or folders: they are read in place"
        )


class Mapped:
    """One Arrow file, mapped: nothing is read until it is asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self.table: Any = ipc.open_file(pa.memory_map(str(path))).read_all()
        except (pa.ArrowException, OSError) as error:
            path.unlink(missing_ok=True)
            raise RbftError(f"{path} in the cache is damaged and was removed; run the command again") from error

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(name or "" for name in self.table.column("path").to_pylist())

    @cached_property
    def labels(self) -> Ints:
        return self.table.column("label").to_numpy().astype(np.int64)

    @cached_property
    def sizes(self) -> Ints:
        lengths: Any = import_module("pyarrow.compute").binary_length(self.table.column("bytes"))
        return lengths.to_numpy().astype(np.int64)

    @cached_property
    def images(self) -> Any:
        """[N] of {bytes, path}"""
        parts = [
            pa.StructArray.from_arrays([batch.column("bytes"), batch.column("path")], ["bytes", "path"])
            for batch in self.table.to_batches()
        ]
        return pa.chunked_array(parts)

    def bytes(self, row: int, start: int, n: int) -> bytes:
        return memoryview(self.table.column("bytes")[row].as_buffer())[start : start + n].tobytes()


def _copy(shard: Path, path: Path, image: str, label: str) -> None:
    try:
        source = pq.ParquetFile(shard)
        names = source.schema_arrow.names
        lacking = [name for name in (image, label) if name not in names]
        if lacking:
            raise RbftError(f"{shard} has no column {', '.join(lacking)}; its columns: {', '.join(names)}")
        schema = pa.schema([("bytes", pa.large_binary()), ("path", pa.string()), ("label", pa.int64())])

        def save(temporary: Path) -> None:
            with ipc.new_file(str(temporary), schema) as writer:
                for batch in source.iter_batches(BATCH, columns=[image, label]):
                    pair = batch.column(image), batch.column(label)
                    columns = (pair[0].field("bytes"), pair[0].field("path"), pair[1])
                    arrays = [column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)]
                    empty = [n for n, a in zip(("image.bytes", "label"), arrays[::2], strict=True) if a.null_count]
                    if empty:
                        raise RbftError(f"{shard}: some rows have no {' and no '.join(empty)}; get it again")
                    writer.write_batch(pa.record_batch(arrays, schema=schema))

        cache.write(path, save)
    except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"{shard} cannot be read as Parquet images: {reason}; get it again") from error
