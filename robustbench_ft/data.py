"""What flows through the street: a split of labelled images, and the predictions a model makes on it. Torch-free."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RbftError
from .images.files import ArrayImages as ArrayImages
from .images.files import Bytes as Bytes
from .images.files import ChosenImages as ChosenImages
from .images.files import FileImages as FileImages
from .images.files import Images as Images
from .images.files import Ints as Ints
from .images.files import decode as decode
from .images.files import read_only as read_only
from .images.files import without_border as without_border

Floats = NDArray[np.float32]


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
    keep: bool = True  # False: decoded pixels are not kept in the cache, where they would drive out all others

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

    def take(self, rows: Ints) -> "Split":
        """The examples at `rows` [M], in that order, with their groups and other label spaces."""
        also = {name: LabelSpace(space.members, space.labels[rows]) for name, space in self.also.items()}
        images: Any = self.images  # files know how to be some of them; an array is read through its places
        chosen: Images = images.take(rows) if hasattr(images, "take") else ChosenImages(images, rows)
        return replace(
            self, images=chosen, labels=self.labels[rows],
            ids=tuple(self.ids[k] for k in rows), also=also,
            groups={name: values[rows] for name, values in self.groups.items()},
        )  # fmt: skip

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
