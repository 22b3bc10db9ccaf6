"""Going through the images of splits on threads: their sizes, their bytes, and which of them are the same.

Nothing of an image is kept but its size, its flags and its digest: 100 bytes each.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.data import Bytes, Ints, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.progress import Advance, Progress

from .look import BIT, look_at

T = TypeVar("T")
TASK = 32  # images a thread takes at a time
PROBE = 64  # bytes from the middle of a file, compared before whole files are
SAMPLE = 1000  # images per split


@dataclass(frozen=True)
class Seen:
    """Measurements of the images of one split. The passes below fill it in place."""

    sizes: Ints  # [N], bytes as stored; -1: it cannot be asked
    flags: Ints  # [N], of `look`
    looked: NDArray[np.bool_]  # [N]: decoded
    read: NDArray[np.bool_]  # [N]: its digest is known
    sums: Bytes  # [N, 32], SHA-256 of the stored bytes
    words: dict[int, str] = field(default_factory=dict[int, str])  # what flags do not say, by index


def default_workers() -> int:
    """Two threads a core: decoding and hashing run beside the waiting for a disk."""
    return min(32, 2 * (os.cpu_count() or 1))


def measure(split: Split, workers: int, advance: Advance) -> Seen:
    """Sizes of all images; what is empty or cannot be found is flagged."""
    n = len(split)
    seen = Seen(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.bool_),
                np.zeros((n, 32), np.uint8))  # fmt: skip

    def size(index: int) -> int:
        try:
            return split.images.size(index)
        except RbftError as error:
            seen.words[index] = str(error).rpartition(": ")[2].partition(";")[0]
            return -1

    for some, found in _each(size, range(n), workers, advance):
        seen.sizes[some] = found
    seen.flags[seen.sizes == 0] |= BIT["empty"]
    seen.flags[seen.sizes < 0] |= BIT["unreadable"]
    return seen


def choose(split: Split, n: int | None) -> Ints:
    """Indices to look at, ascending: all, or n of them, spread over classes and the same wherever the split lies.

    Within a class in order of a hash of the id, classes in turn; a larger n adds images and drops none.
    """
    if n is None or n >= len(split):
        return np.arange(len(split))
    keys = np.array([hashlib.sha256(f"data check\0{name}".encode()).digest()[:8] for name in split.ids], "S8")
    order = np.lexsort((keys, split.labels))
    _, starts, sizes = np.unique(split.labels[order], return_index=True, return_counts=True)
    turn = np.empty(len(split), np.int64)
    turn[order] = np.arange(len(split)) - np.repeat(starts, sizes)
    return np.sort(np.lexsort((keys, turn))[:n])


def look(split: Split, seen: Seen, indices: Sequence[int] | Ints, workers: int, advance: Advance) -> None:
    """Read, digest and decode these images. ImageBatches that are kept as an array need no decoding."""
    pixels = split.images.array() is not None

    def one(index: int) -> tuple[bytes, int, str]:
        if pixels:
            return hashlib.sha256(split.images.raw(index)).digest(), 0, ""
        raw, flags, words = look_at(split.images, index)
        return b"" if flags & BIT["unreadable"] else hashlib.sha256(raw).digest(), flags, words

    with _no_warnings():
        for some, found in _each(one, [int(k) for k in indices], workers, advance):
            for index, (digest, flags, words) in zip(some, found, strict=True):
                seen.looked[index] = True
                seen.flags[index] |= flags
                if words:
                    seen.words[index] = words
                if digest:
                    _keep(seen, index, digest)


def same(splits: Mapping[str, Split], seen: Mapping[str, Seen], workers: int, progress: Progress) -> list["Copies"]:
    """Images with the same bytes, in one split or in several; none is missed.

    Files of one size are compared by a few bytes from their middle, and those that agree there by their digests.
    """
    names = list(splits)
    owner = np.concatenate([np.full(len(splits[name]), k) for k, name in enumerate(names)])
    index = np.concatenate([np.arange(len(splits[name])) for name in names])
    sizes = np.concatenate([seen[name].sizes for name in names])
    rows = _repeated(np.flatnonzero(sizes > 0), sizes)
    if not all(seen[name].read.all() for name in names):
        probes = np.zeros(len(sizes), np.uint64)

        def probe(row: int) -> int:
            images, size = splits[names[owner[row]]].images, int(sizes[row])
            try:
                part = images.part(int(index[row]), max(0, (size - PROBE) // 2), PROBE)
            except RbftError:
                return row  # it was there a moment ago; of no other's content
            return int.from_bytes(hashlib.sha256(size.to_bytes(8, "little") + part).digest()[:8], "little")

        with progress.bar("compare equal sizes", len(rows), "images") as advance:
            for some, found in _each(probe, rows.tolist(), workers, advance):
                probes[some] = np.array(found, np.uint64)
        rows = _repeated(rows, probes)
    unread = [int(row) for row in rows if not seen[names[owner[row]]].read[index[row]]]

    def digest(row: int) -> bytes:
        try:
            return hashlib.sha256(splits[names[owner[row]]].images.raw(int(index[row]))).digest()
        except RbftError:
            return b""

    if unread:
        with progress.bar("compare contents", len(unread), "images") as advance:
            for some, found in _each(digest, unread, workers, advance):
                for row, sum_ in zip(some, found, strict=True):
                    if sum_:
                        _keep(seen[names[owner[row]]], int(index[row]), sum_)
    groups: dict[bytes, list[tuple[str, int]]] = {}
    for row in rows.tolist():
        name, k = names[owner[row]], int(index[row])
        if seen[name].read[k]:
            groups.setdefault(seen[name].sums[k].tobytes(), []).append((name, k))
    return [Copies(key.hex(), tuple(members)) for key, members in groups.items() if len(members) > 1]


@dataclass(frozen=True)
class Copies:
    """Images of the same bytes."""

    sha256: str
    members: tuple[tuple[str, int], ...]  # (split, index), in split order

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self.members))


def _repeated(rows: Ints, keys: NDArray[np.int64] | NDArray[np.uint64]) -> Ints:
    """Those of `rows` whose key is another's too."""
    _, inverse, counts = np.unique(keys[rows], return_inverse=True, return_counts=True)
    return rows[counts[inverse] > 1]


def _keep(seen: Seen, index: int, digest: bytes) -> None:
    seen.sums[index] = np.frombuffer(digest, np.uint8)
    seen.read[index] = True


def _each(
    work: Callable[[int], T], indices: Sequence[int], workers: int, advance: Advance
) -> Iterator[tuple[Sequence[int], list[T]]]:
    """Results of `work`, task by task and in order; on an interrupt what was not begun is dropped."""
    tasks = [indices[k : k + TASK] for k in range(0, len(indices), TASK)]
    pool = ThreadPoolExecutor(workers)
    try:
        for task, found in zip(tasks, pool.map(lambda task: [work(k) for k in task], tasks), strict=True):
            yield task, found
            advance(len(task))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _no_warnings() -> Generator[None, None, None]:
    """Pillow warns of odd EXIF blocks and of large images, on each of them; neither stops a run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
