"""Images inside archives: WebDataset tars and Hugging Face Parquet shards, read at random without unpacking. Torch-free.

Tars are indexed once (where each member lies); Parquet shards are copied once into Arrow files of the cache, which are
mapped into memory as the `datasets` library does, since a row of a compressed column cannot be reached alone.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from . import cache
from .data import Bytes, Ints, decode
from .errors import MissingDataError, RbftError
from .progress import choose

ipc: Any = import_module("pyarrow.ipc")
BATCH = 256  # rows copied at a time


@dataclass(frozen=True)
class PackedImages:
    """Files inside archives: `load(k, start, n)` gives n bytes of the k-th."""

    names: tuple[str, ...]  # what errors call them
    sizes: Ints  # [N], bytes
    load: Callable[[int, int, int], bytes]
    stamps: tuple[str, ...]  # of the archives: path, size, time

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
        """As of the same files in folders: packing changes nothing."""
        digest = hashlib.sha256(b"border 0\n")
        for size in self.sizes:
            digest.update(f"{size}\n".encode())
        return digest.hexdigest()

    def stamp(self) -> str:
        return hashlib.sha256("\n".join((*self.stamps, *self.names)).encode()).hexdigest()

    def take(self, rows: Ints) -> "PackedImages":
        """Some of them, in another order."""
        own = rows.astype(np.int64)
        names = tuple(self.names[k] for k in own)
        return PackedImages(names, self.sizes[own], lambda k, start, n: self.load(int(own[k]), start, n), self.stamps)


@dataclass(frozen=True)
class Packed:
    """What archives hold: images, the name each was packed under, and its label."""

    images: PackedImages
    keys: tuple[str, ...]
    labels: Ints


def tars(shards: Sequence[Path]) -> Packed:
    """Members `<key>.jpg|jpeg|png` with `<key>.cls` (a number) beside them, as WebDataset writes them."""
    keys: list[str] = []
    labels: list[int] = []
    places: list[tuple[int, int, int]] = []  # shard, offset, size
    for number, shard in enumerate(shards):
        found = _index(shard)
        for key, label, offset, size in zip(*(found[n] for n in ("key", "label", "offset", "size")), strict=True):
            keys.append(str(key))
            labels.append(int(label))
            places.append((number, int(offset), int(size)))
    if not keys:
        raise MissingDataError(f"{shards[0].parent}: the tars hold no image with a .cls beside it; get them again")
    table = np.array(places, np.int64).reshape(-1, 3)

    def load(k: int, start: int, n: int) -> bytes:
        shard, offset, size = map(int, table[k])
        handle = os.open(shards[shard], os.O_RDONLY)
        try:
            return os.pread(handle, max(0, min(n, size - start)), offset + start)
        finally:
            os.close(handle)

    names = tuple(f"{shards[place[0]]}:{key}" for place, key in zip(places, keys, strict=True))
    images = PackedImages(names, table[:, 2], load, tuple(_stamp(shard) for shard in shards))
    return Packed(images, tuple(keys), np.array(labels, np.int64))


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}; put the file back") from error
    return f"{path.resolve()}\0{found.st_size}\0{found.st_mtime_ns}"


def _index(shard: Path) -> Mapping[str, Any]:
    """Key, label, offset and size of each image of one tar; from the cache when it was indexed before."""
    path = cache.entry("tar-index", _stamp(shard), ".npz")
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in ("key", "label", "offset", "size")}
        except (OSError, ValueError, KeyError, EOFError):
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
                if not member.isfile():
                    continue
                if suffix.lower() in ("jpg", "jpeg", "png"):
                    images[key] = (member.offset_data, member.size)
                elif suffix == "cls":
                    file = archive.extractfile(member)
                    labels[key] = file.read().decode("ascii", "replace").strip() if file else ""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RbftError(f"{shard} is not a whole tar file: {error}; get it again") from error
    for key in images:
        if not labels.get(key, "").isdecimal():
            raise RbftError(f"{shard}: '{key}' has no .cls with a number beside it; get WebDataset shards with labels")
    end = max((offset + size for offset, size in images.values()), default=0)
    if end > shard.stat().st_size:
        raise RbftError(f"{shard} is not a whole tar file: it ends inside an image; get it again")
    return {
        "key": np.array(list(images), np.str_), "label": np.array([int(labels[key]) for key in images], np.int64),
        "offset": np.array([place[0] for place in images.values()], np.int64),
        "size": np.array([place[1] for place in images.values()], np.int64),
    }  # fmt: skip


def parquet(shards: Sequence[Path]) -> Packed:
    """Rows with `image` {bytes, path} and `label`, as Hugging Face stores image folders."""
    tables: list[_Mapped] = []
    made = [cache.entry("arrow", _stamp(shard), ".arrow") for shard in shards]
    missing = sum(not path.exists() for path in made)
    with choose().bar("copy Parquet into the cache", len(shards), "files", done=len(shards) - missing) as advance:
        for shard, path in zip(shards, made, strict=True):
            if not path.exists():
                _copy(shard, path)
                advance(1, shard.name)
            tables.append(_Mapped(path))
    keys = tuple(key for table in tables for key in table.keys)
    labels = np.concatenate([table.labels for table in tables])
    if "" in keys:
        raise RbftError(f"{shards[0].parent}: some rows have no file name in image.path, so they have no stable id")
    starts = np.cumsum([0, *(len(table.labels) for table in tables)])

    def load(k: int, start: int, n: int) -> bytes:
        number = int(np.searchsorted(starts, k, side="right")) - 1
        return tables[number].bytes(k - int(starts[number]), start, n)

    sizes = np.concatenate([table.sizes for table in tables])
    names = tuple(f"{shard}:{key}" for shard, table in zip(shards, tables, strict=True) for key in table.keys)
    return Packed(PackedImages(names, sizes, load, tuple(_stamp(shard) for shard in shards)), keys, labels)


class _Mapped:
    """One Arrow file, mapped: nothing is read until it is asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self.table: Any = ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
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

    def bytes(self, row: int, start: int, n: int) -> bytes:
        return memoryview(self.table.column("bytes")[row].as_buffer())[start : start + n].tobytes()


def _copy(shard: Path, path: Path) -> None:
    try:
        source = pq.ParquetFile(shard)
        names = source.schema_arrow.names
        lacking = [name for name in ("image", "label") if name not in names]
        if lacking:
            raise RbftError(f"{shard} has no column {', '.join(lacking)}; its columns: {', '.join(names)}")
        schema = pa.schema([("bytes", pa.large_binary()), ("path", pa.string()), ("label", pa.int64())])

        def save(temporary: Path) -> None:
            with ipc.new_file(str(temporary), schema) as writer:
                for batch in source.iter_batches(BATCH, columns=["image", "label"]):
                    image = batch.column(0)
                    columns = (image.field("bytes"), image.field("path"), batch.column(1))
                    arrays = [column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)]
                    writer.write_batch(pa.record_batch(arrays, schema=schema))

        cache.write(path, save)
    except (pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"{shard} cannot be read as Parquet images: {reason}; get it again") from error
