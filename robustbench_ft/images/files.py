"""Images of a split: in memory or one by one in files. Nothing is decoded before it is asked for. Torch-free."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustbench_ft.errors import RbftError

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Array = TypeVar("Array", bound=NDArray[Any])
STATS_PER_TASK, STAT_THREADS = 2_000, 16  # files per task, and threads, when asking for sizes


def read_only(values: Array) -> Array:
    """A view of `values` that cannot be written through; `values` itself stays as it was."""
    view = values.view()
    view.setflags(write=False)
    return view


class Images(Protocol):
    """Source of a split's pixels. Nothing is decoded before `read`."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        """The images at `indices`, in that order and in the mode they are stored in: RGB comes after resizing."""
        ...

    def name(self, index: int) -> str:
        """Name of an image in errors: its path, or its archive and the name in it."""
        ...

    def raw(self, index: int) -> bytes:
        """An image as it is stored: the bytes of its file, undecoded and with any border."""
        ...

    def size(self, index: int) -> int:
        """Bytes of `raw`, without reading them."""
        ...

    def part(self, index: int, start: int, n: int) -> bytes:
        """`raw(index)[start : start + n]`, without reading the rest where that can be done."""
        ...

    def array(self) -> Bytes | None:
        """All pixels [N, H, W, 3] when they are small and of one size, else None."""
        ...

    def digest(self) -> str:
        """Names the content, wherever it lies: the same digest means the same pixels in the same order."""
        ...

    def fingerprint(self) -> str:
        """Names the content as it lies here and now: a replaced file gives another one. Caches are keyed by it."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Images that fit in memory as one array [N, H, W, 3], which is read-only."""

    pixels: Bytes

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", read_only(self.pixels))

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return [Image.fromarray(self.pixels[i]) for i in indices]

    def name(self, index: int) -> str:
        return f"image {index}"

    def raw(self, index: int) -> bytes:
        return self.pixels[index].tobytes()

    def size(self, index: int) -> int:
        return self.pixels[index].nbytes

    def part(self, index: int, start: int, n: int) -> bytes:
        return self.raw(index)[start : start + n]

    def array(self) -> Bytes | None:
        return self.pixels

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()

    def fingerprint(self) -> str:
        return self.digest()


@dataclass(frozen=True)
class FileImages:
    """Images in files, decoded by Pillow when they are asked for."""

    root: Path
    paths: tuple[str, ...]  # relative to root
    border: int = 0  # pixels cut off each side after decoding (ObjectNet's red frame)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return [without_border(decode(self.raw(i), self.name(i)), self.border) for i in indices]

    def name(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])  # of a million images, joining Paths would take a minute

    def take(self, rows: Ints) -> "FileImages":
        """Some of them: their digest looks at no other file."""
        return replace(self, paths=tuple(self.paths[k] for k in rows))

    def raw(self, index: int) -> bytes:
        return self.part(index, 0, -1)

    def size(self, index: int) -> int:
        try:
            return os.stat(self.name(index)).st_size
        except OSError as error:
            raise _unreadable(self.name(index), error) from error

    def part(self, index: int, start: int, n: int) -> bytes:
        try:
            with open(self.name(index), "rb", buffering=0) as file:
                file.seek(start)
                return file.read(n)
        except OSError as error:
            raise _unreadable(self.name(index), error) from error

    def array(self) -> Bytes | None:
        return None

    def digest(self) -> str:
        """By size: ids name the files, and reading every byte of a large set is the data check's business."""
        return self._hash(lambda name: f"{os.stat(name).st_size}")

    def fingerprint(self) -> str:
        def line(name: str) -> str:
            found = os.stat(name)
            return f"{name}\0{found.st_size}\0{found.st_mtime_ns}"

        return self._hash(line)

    def _hash(self, line: Callable[[str], str]) -> str:
        """Many files at once: on a network disk each look takes a while."""

        def lines(start: int) -> bytes:
            some: list[str] = []
            for name in map(self.name, range(start, min(start + STATS_PER_TASK, len(self)))):
                try:
                    some.append(f"{line(name)}\n")
                except OSError as error:
                    raise _unreadable(name, error) from error
            return "".join(some).encode()

        digest = hashlib.sha256(f"border {self.border}\n".encode())
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            for part in pool.map(lines, range(0, len(self), STATS_PER_TASK)):
                digest.update(part)
        return digest.hexdigest()


def _unreadable(name: str, error: OSError) -> RbftError:
    return RbftError(f"cannot read {name}: {error.strerror}; put the file back")


MOST_LONG = 200  # times its short side: resized to a model's side, a strip that is longer takes gigabytes
WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # converting these to RGB clips every level above 255


def decode(raw: bytes, name: str) -> Image.Image:
    """The first frame of an image file in the mode it is stored in; `name` is what errors call it.

    As in open_clip, an EXIF orientation is not applied, and conversion to RGB is left to whoever resizes.
    """
    try:
        image = Image.open(io.BytesIO(raw))
        if is_strip(image.size):
            raise ValueError(f"it is a strip of {image.width} x {image.height} pixels, which no crop of it shows")
        image.load()
        found = image.copy() if getattr(image, "n_frames", 1) > 1 else image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is empty" if not raw else (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"cannot decode {name}: {reason}; replace the file, nothing is skipped") from error
    if found.mode in WIDE_MODES:
        raise RbftError(
            f"cannot use {name}: {found.mode} has more than 8 bits a pixel, which would be clipped to white; convert "
            "the file to 8 bits"
        )
    return found


def is_strip(size: tuple[int, int]) -> bool:
    """Whether an image of (width, height) is so long that nothing but its middle could be seen."""
    return max(size) > MOST_LONG * min(size)


def without_border(image: Image.Image, border: int) -> Image.Image:
    """Cut `border` pixels off each side."""
    b = border
    return image.crop((b, b, image.width - b, image.height - b)) if b else image


@dataclass(frozen=True)
class ChosenImages:
    """Some images of others, in the order of `indices`. Its digest names both."""

    images: Images
    indices: Ints

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return self.images.read([int(self.indices[i]) for i in indices])

    def name(self, index: int) -> str:
        return self.images.name(int(self.indices[index]))

    def raw(self, index: int) -> bytes:
        return self.images.raw(int(self.indices[index]))

    def size(self, index: int) -> int:
        return self.images.size(int(self.indices[index]))

    def part(self, index: int, start: int, n: int) -> bytes:
        return self.images.part(int(self.indices[index]), start, n)

    def array(self) -> Bytes | None:
        pixels = self.images.array()
        return None if pixels is None else pixels[self.indices]

    def digest(self) -> str:
        return f"{self.images.digest()}[{','.join(map(str, self.indices))}]"

    def fingerprint(self) -> str:
        return f"{self.images.fingerprint()}[{','.join(map(str, self.indices))}]"
