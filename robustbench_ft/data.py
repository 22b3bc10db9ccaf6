"""What flows through the street: a split of labelled images, and the predictions a model makes on it. Torch-free."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import RbftError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Array = TypeVar("Array", bound=NDArray[Any])
LOOKS, LOOKERS = 2_000, 16  # files that one of so many threads looks at in one go


def read_only(values: Array) -> Array:
    """A view of `values` that cannot be written through; `values` itself stays as it was."""
    view = values.view()
    view.setflags(write=False)
    return view


class Images(Protocol):
    """Where a split's pixels come from. Nothing is decoded before `read`."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        """The images at `indices`, in that order and in the mode they are stored in: RGB comes after resizing."""
        ...

    def name(self, index: int) -> str:
        """What errors call an image: its path, or its archive and the name in it."""
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

    def stamp(self) -> str:
        """Names the content as it lies here and now: a replaced file gives another stamp. What caches are keyed by."""
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

    def stamp(self) -> str:
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

    def stamp(self) -> str:
        def line(name: str) -> str:
            found = os.stat(name)
            return f"{name}\0{found.st_size}\0{found.st_mtime_ns}"

        return self._hash(line)

    def _hash(self, line: Callable[[str], str]) -> str:
        """Many files at once: on a network disk each look takes a while."""

        def lines(start: int) -> bytes:
            some: list[str] = []
            for name in map(self.name, range(start, min(start + LOOKS, len(self)))):
                try:
                    some.append(f"{line(name)}\n")
                except OSError as error:
                    raise _unreadable(name, error) from error
            return "".join(some).encode()

        digest = hashlib.sha256(f"border {self.border}\n".encode())
        with ThreadPoolExecutor(LOOKERS) as pool:
            for part in pool.map(lines, range(0, len(self), LOOKS)):
                digest.update(part)
        return digest.hexdigest()


def _unreadable(name: str, error: OSError) -> RbftError:
    return RbftError(f"cannot read {name}: {error.strerror}; put the file back")


WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # converting these to RGB clips every level above 255


def decode(raw: bytes, name: str) -> Image.Image:
    """The first frame of an image file in the mode it is stored in; `name` is what errors call it.

    As in open_clip, an EXIF orientation is not applied, and conversion to RGB is left to whoever resizes.
    """
    try:
        image = Image.open(io.BytesIO(raw))
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


def without_border(image: Image.Image, border: int) -> Image.Image:
    """Cut `border` pixels off each side."""
    b = border
    return image.crop((b, b, image.width - b, image.height - b)) if b else image


@dataclass(frozen=True)
class LabelSpace:
    """Another set of classes to score a split in, e.g. the 200 classes of ImageNet-R out of 1000.

    Logits are reduced before softmax, argmax and log: a class's logit is the largest of its members'.
    """

    members: tuple[tuple[int, ...], ...] | None  # class of this space -> classes of the head; None: the head's own
    labels: Ints  # [N], in 0..len(members)-1; -1: the example has no label here and is left out

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", read_only(self.labels))


@dataclass(frozen=True)
class Split:
    """Labelled images in a fixed order. Its arrays are read-only: cells that run in one process share them."""

    name: str
    images: Images
    labels: Ints  # [N], in 0..K-1, or in 0..len(members)-1 where the split has classes of its own
    ids: tuple[str, ...]  # [N], unique and stable wherever the files lie: two tables are joined on them
    groups: Mapping[str, Ints] = field(default_factory=dict[str, Ints])  # e.g. camera location, each [N]; -1: in none
    members: tuple[tuple[int, ...], ...] | None = None  # as in `LabelSpace`; None: the suite's classes
    also: Mapping[str, LabelSpace] = field(default_factory=dict[str, LabelSpace])  # scored side by side, by name
    place: Path | None = None  # where it was found
    layout: str = ""  # how it was recognised, e.g. 'wnid folders'

    def __post_init__(self) -> None:
        lengths = {"images": len(self.images), "labels": len(self.labels), "ids": len(self.ids)}
        lengths |= {f"group {name}": len(values) for name, values in self.groups.items()}
        lengths |= {f"label space {name}": len(space.labels) for name, space in self.also.items()}
        if len(set(lengths.values())) != 1:
            raise RbftError(f"split '{self.name}': lengths differ: {lengths}")
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for name, n in Counter(self.ids).items() if n > 1)
            raise RbftError(f"split '{self.name}': example ids are not unique, e.g. '{twice}'; each image counts once")
        object.__setattr__(self, "labels", read_only(self.labels))
        object.__setattr__(self, "groups", {name: read_only(values) for name, values in self.groups.items()})

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """Of ids, labels and pixels; goes into every record."""
        parts = ("\n".join(self.ids), self.labels.tobytes().hex(), self.images.digest())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


TOP_K = 5


def view(split: str, space: str) -> str:
    """Name of a split scored in another label space, e.g. 'r@1000-way'; the split itself where `space` is empty."""
    return f"{split}@{space}" if space else split


@dataclass(frozen=True)
class Predictions:
    """One model on one split: all that any metric needs, and nothing of the model itself."""

    ids: tuple[str, ...]  # [N]
    label: Ints  # [N]
    prediction: Ints  # [N], argmax of the probabilities
    confidence: Floats  # [N], top-1 probability
    log_prob: Floats  # [N], natural log of the true class's probability
    sum_sq: Floats  # [N], sum over classes of squared probabilities
    top_classes: Ints  # [N, min(K, 5)], most probable first
    top_probs: Floats  # [N, min(K, 5)]
    groups: Mapping[str, Ints] = field(default_factory=dict[str, Ints])
    also: Mapping[str, "Predictions"] = field(default_factory=dict[str, "Predictions"])  # in other label spaces, each
    # on the examples that have a label there

    def __len__(self) -> int:
        return len(self.label)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[N]"""
        return self.prediction == self.label
