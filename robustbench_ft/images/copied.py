"""Parquet shards of images, copied once into Arrow files of the cache and mapped: rows are reached alone. Torch-free.

Each copy carries check sums: one of each image's bytes, and one of the names, labels and sums of each batch.
"""

import zlib
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_ft import cache, limits
from robustbench_ft.errors import MissingDataError, RbftError

from .files import Ints

ipc: Any = import_module("pyarrow.ipc")
BATCH = 64  # rows copied at a time
SUM = "sum"  # of a batch
SCHEMA = pa.schema([
    ("bytes", pa.large_binary()), ("path", pa.string()), ("label", pa.int64()), ("sum", pa.uint32()),
    ("last", pa.bool_()),
])  # fmt: skip


def entry(shard: Path, image: str = "image", label: str = "label") -> Path:
    """Path of the copy of a shard, whether or not it exists."""
    columns = "" if (image, label) == ("image", "label") else f"\0{image}\0{label}"
    return cache.entry("arrow", f"{stamp(shard)}{columns}\0sums", ".arrow")


def stamp(path: Path) -> str:
    """Path, size and time of a file: names its content as it lies here and now."""
    try:
        found = path.stat()
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}; put the file back") from error
    return f"{path.resolve()}\0{found.st_size}\0{found.st_mtime_ns}"


class Mapped:
    """The copy of one shard, mapped: nothing is read until it is asked for. A damaged one is made again."""

    def __init__(self, shard: Path, image: str = "image", label: str = "label") -> None:
        self.shard, self.columns, self.path = shard, (image, label), entry(shard, image, label)
        self.lock = Lock()
        if self.path.exists():
            try:
                self.table = _opened(self.path)
                return
            except (pa.ArrowException, OSError, ValueError, KeyError, IndexError):
                cache.discard(self.path)
        self._make()

    def _make(self) -> None:
        _copy(self.shard, self.path, *self.columns)
        self.table: Any = _opened(self.path)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(name or "" for name in self.table.column("path").to_pylist())

    @cached_property
    def labels(self) -> Ints:
        return self.table.column("label").to_numpy().astype(np.int64)

    @cached_property
    def sums(self) -> Ints:
        return self.table.column("sum").to_numpy().astype(np.int64)

    @cached_property
    def sizes(self) -> Ints:
        lengths: Any = import_module("pyarrow.compute").binary_length(self.table.column("bytes"))
        return lengths.to_numpy().astype(np.int64)

    def bytes(self, row: int, start: int, n: int) -> bytes:
        """`n` bytes of the file in a row; one that is read whole is checked."""
        whole = self._buffer(row)
        if not start and n >= len(whole) and zlib.crc32(whole) != self.sums[row]:
            with self.lock:
                if zlib.crc32(self._buffer(row)) != self.sums[row]:  # no other thread was faster
                    cache.discard(self.path)
                    self._make()
            whole = self._buffer(row)
            if zlib.crc32(whole) != self.sums[row]:
                raise RbftError(f"{self.path} in the cache is damaged as soon as it is written; set RBFT_CACHE")
        return whole[start : start + n].tobytes()

    def _buffer(self, row: int) -> memoryview:
        return memoryview(self.table.column("bytes")[row].as_buffer())


def _opened(path: Path) -> Any:
    """The table of a copy. Raises `ValueError` where rows are lost, or names, labels or check sums are damaged."""
    reader = ipc.open_file(pa.memory_map(str(path)))
    if not reader.schema.equals(SCHEMA):
        raise ValueError("its columns are damaged")
    batches: list[Any] = []
    rows = 0
    for k in range(reader.num_record_batches):
        batch, about = reader.get_batch_with_custom_metadata(k)
        batch.validate(full=True)  # offsets that lead out of the file would end the process
        if about is None or about[SUM] != _sum_of(batch, rows):
            raise ValueError(f"batch {k} is damaged")
        batches.append(batch)
        rows += len(batch)
    if not batches or batches[-1].column("last")[-1].as_py() is not True:
        raise ValueError("its last rows are lost")
    return pa.Table.from_batches(batches, SCHEMA)


def _sum_of(batch: Any, before: int) -> bytes:
    """The check sum of all columns of a batch but the images, and of the number of rows before it."""
    names = "\0".join(name or "" for name in batch.column("path").to_pylist())
    found = zlib.crc32(f"{before}\0{batch.column('last')[-1].as_py()}\0{names}".encode())
    for name in ("label", "sum"):
        found = zlib.crc32(batch.column(name).to_numpy().tobytes(), found)
    return str(found).encode()


def _copy(shard: Path, path: Path, image: str, label: str) -> None:
    try:
        source = pq.ParquetFile(shard)
        limits.check_parquet(source, shard.stat().st_size)
        names = source.schema_arrow.names
        lacking = [name for name in (image, label) if name not in names]
        if lacking:
            raise RbftError(f"{shard} has no column {', '.join(lacking)}; its columns: {', '.join(names)}")

        def save(temporary: Path) -> None:
            with ipc.new_file(str(temporary), SCHEMA) as writer:
                rows = 0
                for batch in _batches(source, shard, image, label):
                    writer.write_batch(batch, custom_metadata={SUM: _sum_of(batch, rows)})
                    rows += len(batch)

        cache.write(path, save)
    except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"{shard} cannot be read as Parquet images: {reason}; get it again") from error


def _batches(source: Any, shard: Path, image: str, label: str) -> Iterator[Any]:
    """Record batches of `SCHEMA`, of which the very last row says that it is the last.

    Raises `ValueError` where there is none, or they unfold to more than any data set does.
    """
    most, total = limits.TIMES * shard.stat().st_size + limits.SLACK, 0
    left = source.metadata.num_rows
    if not left:
        raise ValueError("it has no row")
    for batch in source.iter_batches(BATCH, columns=[image, label]):
        pair = batch.column(image), batch.column(label)
        columns = (pair[0].field("bytes"), pair[0].field("path"), pair[1])
        arrays = [column.cast(kind) for column, kind in zip(columns, SCHEMA.types, strict=False)]
        empty = [n for n, a in zip(("image.bytes", "label"), arrays[::2], strict=True) if a.null_count]
        if empty:
            raise RbftError(f"{shard}: some rows have no {' and no '.join(empty)}; get it again")
        files = [memoryview(one.as_buffer()) for one in arrays[0]]
        total += sum(map(len, files))
        if total > most or max(map(len, files), default=0) > limits.MOST_BYTES:
            raise ValueError(f"it unfolds from {shard.stat().st_size:,} to {total:,} bytes, or more")
        sums = pa.array([zlib.crc32(one) for one in files], pa.uint32())
        left -= len(files)
        last = pa.array([not left and k == len(files) - 1 for k in range(len(files))])
        yield pa.record_batch([*arrays, sums, last], schema=SCHEMA)
