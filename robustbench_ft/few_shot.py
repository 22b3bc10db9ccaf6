"""`SUITE+shots=K+draw=D`: K images of each class, drawn from ids alone: the same for everybody. Torch-free.

ID validation is drawn too, at most four images of each class, as in CoOp (Zhou et al., IJCV 2022; KaiyangZhou/
CoOp@ff61507, datasets/*.py: `num_shots=min(num_shots, 4)`): whoever has few images has few to choose by.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .data import Ints, Split
from .errors import RbftError

VAL_SHOTS = 4
KEYS = ("shots", "draw")
OPTION = re.compile(rf"({'|'.join(KEYS)})=(.*)")
TAIL = re.compile(rf"((?:\+(?:{'|'.join(KEYS)})=[^+/\\]*)+)$")
OPTIONS = {
    "shots=K": f"K images of each class to learn from, and at most {VAL_SHOTS} of each to select on",
    "shots=K+draw=D": "another list of as many images, D from 2 on",
}


@dataclass(frozen=True)
class Shots:
    """How many images of each class, and which of the lists: a suite has one for each draw."""

    k: int
    draw: int = 1

    def __str__(self) -> str:
        """As suites' names hold it; the first draw goes without saying."""
        return f"shots={self.k}" + (f"+draw={self.draw}" if self.draw > 1 else "")

    @property
    def val(self) -> int:
        """Images of each class to select on, of a class that has so many."""
        return min(self.k, VAL_SHOTS)

    @property
    def note(self) -> str:
        """What a reader must know of numbers on it."""
        return f"{self.k} of each class to learn from, up to {self.val} of each to select on, draw {self.draw}"


def is_option(text: str) -> bool:
    """Whether this option of a suite says what is drawn."""
    return OPTION.fullmatch(text) is not None


def cut(text: str) -> tuple[str, list[str]]:
    """'./suite.toml+shots=16' -> the path, and the options behind it."""
    found = TAIL.search(text)
    return (text[: found.start()], found[1][1:].split("+")) if found else (text, [])


def read(suite: str, options: Collection[str]) -> Shots | None:
    """What options say; None where none of them is about shots. Raises `RbftError` for what cannot be drawn."""
    found: dict[str, int] = {}
    for option in options:
        if (parts := OPTION.fullmatch(option)) is None:
            continue
        key, value = parts[1], parts[2]
        if not re.fullmatch(r"[1-9][0-9]{0,8}", value):
            raise RbftError(f"suite '{suite}': {option}: write a whole number from 1 on, e.g. {suite}+{key}=16")
        if found.setdefault(key, int(value)) != int(value):
            raise RbftError(f"suite '{suite}': {key}={found[key]} and {option} in one name; write {key} once")
    if "draw" in found and "shots" not in found:
        raise RbftError(
            f"suite '{suite}': draw={found['draw']} without shots; write {suite}+shots=16+draw={found['draw']}"
        )
    return Shots(found["shots"], found.get("draw", 1)) if found else None


def canonical(suite: str, options: Collection[str]) -> list[str]:
    """Options in the one order that names have; the words of `shots` and `draw` stand last."""
    plain = sorted({option for option in options if not is_option(option)})
    shots = read(suite, options)
    return plain + (str(shots).split("+") if shots else [])


def rows(ids: Sequence[str], labels: Ints, k: int, draw: int) -> Ints:
    """[at most k in each class] places of the examples drawn, ascending.

    In each class those whose hash of (draw, id) is lowest. So a list depends on no order, generator or other class,
    and that of 8 shots is part of that of 16.
    """
    digests = (hashlib.sha256(f"few-shot/{draw}/{name}".encode()).digest()[:8] for name in ids)
    keys = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    order = np.lexsort((keys, labels))
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    drawn = [order[start : start + min(k, size)] for start, size in zip(starts, sizes, strict=True)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def draw(split: Split, shots: Shots, suite: str, classes: Sequence[str], train: bool) -> Split:
    """The part of a split that is learnt from, or else selected on.

    Raises `RbftError` where a class that the training set knows has fewer images than are to be learnt from.
    """
    if train:
        sizes = np.bincount(split.labels, minlength=len(classes))
        short = np.flatnonzero((sizes > 0) & (sizes < shots.k))
        if len(short):
            least = int(short[np.argmin(sizes[short])])
            more = f" ({len(short):,} classes have too few)" if len(short) > 1 else ""
            raise RbftError(
                f"suite '{suite}': class '{classes[least]}' has {sizes[least]:,} training image"
                f"{'' if sizes[least] == 1 else 's'}{more}; at most shots={sizes[least]} can be drawn"
            )
    n = shots.k if train else shots.val
    found = split.take(rows(split.ids, split.labels, n, shots.draw))
    return replace(found, layout=", ".join(filter(None, (split.layout, f"{n} of each class, draw {shots.draw}"))))
