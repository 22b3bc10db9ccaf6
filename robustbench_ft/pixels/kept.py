"""Decoded evaluation pixels, kept as one mapped file for each split: what is decoded once is never decoded again.

The file is named by the content of the split as it lies here (paths, sizes, times) and by everything that shapes its
pixels, so a changed file or transform is another entry. One process fills an entry, under a lock that ends with it, and
moves it into place when it is whole: readers see all of it or nothing. Where it cannot be kept, evaluation goes on and
one line says why. Torch-free.
"""

import io
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import filelock
import numpy as np

from robustbench_ft import cache, checksums
from robustbench_ft.data import Bytes
from robustbench_ft.errors import RbftError
from robustbench_ft.progress import choose

KIND = "pixels"
SPARE = 2**30  # bytes that are left free on the disk
ANNOUNCED = 2**30  # bytes: cache entries larger than this are announced
Add = Callable[[Bytes], None]


def path(key: str) -> Path:
    """Path of the entry for `key`, whether or not it exists."""
    return cache.entry(KIND, key, ".npy")


@dataclass
class Held:
    """Pixels of an entry, mapped. What is read of them is checked; the first damage is said and ends the entry."""

    place: Path
    pixels: Bytes  # [N, 3, S, S]
    sealed: checksums.Sealed
    lock: Lock = field(default_factory=Lock)
    damaged: bool = False

    def rows(self, start: int, stop: int) -> Bytes | None:
        """Pixels [stop - start, 3, S, S]; None where they are damaged, in the file or on the way from the disk."""
        row = self.pixels.nbytes // len(self.pixels)
        before = len(self.sealed.content) - self.pixels.nbytes  # NumPy's header
        if not self.sealed.is_whole(before + start * row, before + stop * row):
            with self.lock:  # threads read parts of it
                if not self.damaged:
                    self.damaged = True
                    cache.discard(self.place)
            return None
        return self.pixels[start:stop]


def stored(key: str, shape: tuple[int, ...]) -> Held | None:
    """The entry for pixels [N, 3, S, S], or None. A damaged entry is removed, and it is said."""
    place = path(key)
    try:
        pixels = np.load(place, mmap_mode="r", allow_pickle=False)
        sealed = checksums.opened(place)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError):
        cache.discard(place)
        return None
    if sealed is None or pixels.shape != shape or pixels.dtype != np.uint8 or not sealed.is_whole(0, 1):
        cache.discard(place)
        return None
    cache.touch(place)
    return Held(place, pixels, sealed)


@contextmanager
def filling(key: str, shape: tuple[int, ...], about: Mapping[str, Any]) -> Generator[Add, None, None]:
    """Call what this yields with rows [n, 3, S, S] in order; the entry exists once all of `shape` were given.

    Nothing is kept when the limit or the disk is too small, or while another process fills the same entry.
    """
    place = path(key)
    lock = filelock.FileLock(place.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError, NotImplementedError):  # another process, or a file system without locks
        yield lambda rows: None
        return
    try:
        wanted = not place.exists() and _has_room(place, int(np.prod(shape)))
        filler = _Filler(place, shape, about) if wanted else None
        try:
            yield filler.add if filler else lambda rows: None
            if filler:
                filler.finish()
        finally:
            if filler:
                filler.drop()
    finally:
        lock.release()


class _Filler:
    """Writes one entry, row by row."""

    def __init__(self, path: Path, shape: tuple[int, ...], about: Mapping[str, Any]) -> None:
        self.path, self.about, self.left = path, about, int(np.prod(shape))
        self.partial = path.with_suffix(".partial")  # only the lock's holder writes it, so one left behind is stale
        self.file: BinaryIO | None = None
        self.sums = checksums.Sums()
        with self._careful():
            self.file = self.partial.open("wb")
            content: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, content)
            self._write(header.getvalue())

    def add(self, rows: Bytes) -> None:
        if self.file is not None:
            with self._careful():
                self._write(np.ascontiguousarray(rows).data)
                self.left -= rows.size

    def _write(self, content: Any) -> None:
        if self.file is not None:
            self.file.write(content)
            self.sums.add(content)

    def finish(self) -> None:
        """Move the entry into place if no row is lacking."""
        if self.file is not None and not self.left:
            with self._careful():
                self.file.write(self.sums.tail())
                self.file.close()
                cache.write_about(self.path, self.about)
                self.partial.replace(self.path)

    def drop(self) -> None:
        if self.file is not None:
            with suppress(OSError):  # closing writes what is buffered, which a full disk refuses
                self.file.close()
        self.file = None
        self.partial.unlink(missing_ok=True)

    @contextmanager
    def _careful(self) -> Generator[None, None, None]:
        """What stops writing does not stop evaluating."""
        try:
            yield
        except (OSError, RbftError) as error:
            self.drop()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            choose().say(f"  cache: cannot keep pixels in {self.path.parent}: {reason}; going on without")


def _has_room(path: Path, need: int) -> bool:
    """Make room under the limit by forgetting what was used longest ago; say so where there is none."""
    limit = cache.limit()
    free = shutil.disk_usage(path.parent).free - SPARE
    if need > min(limit, free):
        what, hint = ("limit", "RBFT_CACHE_LIMIT raises it") if limit < free else ("free disk", "RBFT_CACHE moves it")
        room = cache.size_text(max(0, min(limit, free)))
        choose().say(
            f"  cache: {cache.size_text(need)} of pixels do not fit ({what}: {room}); decoding every time ({hint})"
        )
        return False
    cache.shrink(limit - need, (KIND,))
    if need >= ANNOUNCED:
        choose().say(f"  cache: keeping {cache.size_text(need)} of pixels in {path.parent} for later (`rbft cache ls`)")
    return True
