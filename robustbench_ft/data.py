"""What flows through the street: a split of labelled images, and the predictions a model makes on it. Torch-free."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import RbftError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class Images(Protocol):
    """Where a split's pixels come from. Nothing is decoded before `read`."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        """The images at `indices`, in that order and in the mode they are stored in: RGB comes after resizing."""
        ...

    def array(self) -> Bytes | None:
        """All pixels [N, H, W, 3] when they are small and of one size, else None."""
        ...

    def digest(self) -> str:
        """Names the content: the same digest means the same pixels in the same order."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Images that fit in memory as one array [N, H, W, 3]."""

    pixels: Bytes

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return [Image.fromarray(self.pixels[i]) for i in indices]

    def array(self) -> Bytes | None:
        return self.pixels

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()


@dataclass(frozen=True)
class FileImages:
    """Images in files, decoded by Pillow when they are asked for."""

    root: Path
    paths: tuple[str, ...]  # relative to root, also the stable example ids

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return [self._open(self.root / self.paths[i]) for i in indices]

    def array(self) -> Bytes | None:
        return None

    def digest(self) -> str:
        """By path and size: reading every byte of a large set is the data check's business."""
        lines = (f"{path}\0{(self.root / path).stat().st_size}" for path in self.paths)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @staticmethod
    def _open(path: Path) -> Image.Image:
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise RbftError(f"cannot decode {path}: {error}; replace the file, nothing is skipped") from error


@dataclass(frozen=True)
class Split:
    """Labelled images in a fixed order."""

    name: str
    images: Images
    labels: Ints  # [N], in 0..K-1
    ids: tuple[str, ...]  # [N], unique and stable: two tables are joined on them
    groups: Mapping[str, Ints] = field(default_factory=dict[str, Ints])  # e.g. camera location, each [N]

    def __post_init__(self) -> None:
        lengths = {"images": len(self.images), "labels": len(self.labels), "ids": len(self.ids)}
        lengths |= {f"group {name}": len(values) for name, values in self.groups.items()}
        if len(set(lengths.values())) != 1:
            raise RbftError(f"split '{self.name}': lengths differ: {lengths}")
        if len(set(self.ids)) != len(self.ids):
            raise RbftError(f"split '{self.name}': example ids are not unique")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """Of ids, labels and pixels; goes into every record."""
        parts = ("\n".join(self.ids), self.labels.tobytes().hex(), self.images.digest())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


TOP_K = 5


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

    def __len__(self) -> int:
        return len(self.label)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """[N]"""
        return self.prediction == self.label
