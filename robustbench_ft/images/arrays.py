"""Images inside plain arrays of one size: `.npy`, `.npz` and raw binary files, mapped and not copied. Torch-free.

Nothing here reads a pickle: an array of Python objects is refused.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustbench_ft.errors import MissingDataError, RbftError

from .archives import stamp
from .files import Bytes, Ints

CHUNK = 1024  # images gathered at a time


@dataclass(frozen=True)
class StackedImages:
    """Images of one size in several arrays [n, H, W, 3], read as one sequence in the order of `rows`.

    `raw` is an image as a PPM file, so that whoever takes raw bytes can decode them.
    """

    parts: tuple[Bytes, ...]  # each may be mapped from a file; all of one H and W
    files: tuple[Path, ...]  # one a part: where it came from
    rows: Ints  # [N], places in the parts laid end to end

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, indices: Sequence[int] | Ints) -> Bytes:
        """[n, H, W, 3]"""
        rows = self.rows[np.asarray(indices, np.int64)]
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty((len(rows), *self.parts[0].shape[1:]), np.uint8)
        for k in np.unique(owners).tolist():
            own = owners == k
            found[own] = self.parts[k][rows[own] - self._starts[k]]
        return found

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return [Image.fromarray(pixels) for pixels in self.pixels(indices)]

    def name(self, index: int) -> str:
        row = int(self.rows[index])
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{self.files[part]}:{row - int(self._starts[part])}"

    def raw(self, index: int) -> bytes:
        return self._head + self.pixels([index]).tobytes()

    def size(self, index: int) -> int:
        return len(self._head) + int(np.prod(self.parts[0].shape[1:]))

    def part(self, index: int, start: int, n: int) -> bytes:
        return self.raw(index)[start : start + n]

    def array(self) -> Bytes | None:
        return None

    def digest(self) -> str:
        """Digest of all pixels in order, whatever file they lie in."""
        digest = hashlib.sha256(self._head)
        for start in range(0, len(self), CHUNK):
            digest.update(self.pixels(np.arange(start, min(start + CHUNK, len(self)))).tobytes())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.rows.tobytes())
        digest.update("\n".join(map(stamp, self.files)).encode())
        return digest.hexdigest()

    def take(self, rows: Ints) -> "StackedImages":
        """Some of them, in another order."""
        return replace(self, rows=self.rows[rows])

    @cached_property
    def _starts(self) -> Ints:
        return np.cumsum([0, *map(len, self.parts)])

    @property
    def _head(self) -> bytes:
        height, width = self.parts[0].shape[1:3]
        return f"P6\n{width} {height}\n255\n".encode()


def stacked(parts: Sequence[Bytes], files: Sequence[Path]) -> StackedImages:
    """All images of these arrays, in order."""
    return StackedImages(tuple(parts), tuple(files), np.arange(sum(map(len, parts)), dtype=np.int64))


def npy(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file, mapped. Raises one line where it is absent, cut off or pickled."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}; put the official file there") from error
    except (ValueError, EOFError) as error:
        raise RbftError(
            f"{path} is no plain array: it is a pickle, which is never read, or cut off; get it again"
        ) from error


def npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays of a `.npz` file by name. Raises one line where it is absent, damaged, pickled or lacks one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            lacking = [name for name in names if name not in stored]
            if lacking:
                raise RbftError(f"{path} has no array '{lacking[0]}'; get the official file again")
            return [stored[name] for name in names]
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror or error}; put the official file there") from error
    except (ValueError, EOFError, TypeError, AttributeError, BadZipFile) as error:
        raise RbftError(
            f"{path} is no plain .npz: it holds a pickle, which is never read, or is cut off; get it again"
        ) from error


def binary(path: Path, record: int) -> Bytes:
    """[n, record] bytes of a raw file of records, mapped. Raises one line where it holds no whole number of them."""
    try:
        size = path.stat().st_size
        if not size or size % record:
            raise RbftError(f"{path} has {size:,} bytes, no whole number of records of {record:,}; get it again")
        return np.memmap(path, np.uint8, "r").reshape(-1, record)
    except OSError as error:
        raise MissingDataError(f"cannot read {path}: {error.strerror}; put the official file there") from error


def images(path: Path, pixels: NDArray[Any], side: int) -> Bytes:
    """`pixels`, once it is known to be [n, side, side, 3] of bytes."""
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
        raise RbftError(
            f"{path} holds {pixels.dtype} {list(pixels.shape)}, not uint8 [n, {side}, {side}, 3]; get it again"
        )
    return pixels


def labels(path: Path, values: NDArray[Any], n: int, classes: int, first: int = 0) -> Ints:
    """[n] labels in 0..classes-1, one for each image; in the file they count from `first`."""
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise RbftError(f"{path} has labels {values.dtype} {list(values.shape)} for {n:,} images; get it again")
    last = first + classes - 1
    if n and not first <= int(values.min()) <= int(values.max()) <= last:
        raise RbftError(f"{path} has a label outside {first}..{last}; get the official file again")
    return values.astype(np.int64) - first
