"""Shift suites: what a benchmark declares, and the seal that keeps shifts out of `fit`. Torch-free."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from .data import Split
from .errors import MissingDataError, RbftError, SealedError, unknown
from .recipe import Recipe

Protocol = Literal["clean", "as-published"]
_fits: list[None] = []  # one entry for each fit under way in this process: its threads are sealed too


@dataclass(frozen=True)
class Card:
    """What a reader must know before trusting a number on this suite."""

    title: str
    paper: str
    licence: str
    home: str  # where the data comes from
    counts: Mapping[str, int]  # split -> number of images; a split that is not listed is not counted
    note: str = ""  # printed wherever the suite's numbers are shown
    layout: tuple[str, ...] = ()  # paths under the data root that must exist; empty: nothing to download


class Suite(ABC):
    """One ID distribution to learn and several shifts to be tested on."""

    card: ClassVar[Card]
    version: ClassVar[int] = 1  # raise it whenever a number could change
    recipe: ClassVar[Recipe]  # used by every method that brings none of its own for this suite
    train: ClassVar[str] = "train"
    val: ClassVar[str] = "val"  # held out of train: selects under the protocol 'clean'
    test: ClassVar[str] = "test"  # ID
    shifts: ClassVar[tuple[str, ...]]  # OOD, in table order
    shift_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # kinds of shift whose means are shown apart
    clusters: ClassVar[Mapping[str, str]] = {}  # split -> group column whose examples come together, e.g. a camera
    published_selector: ClassVar[str | None] = None  # the split that papers selected on, if any paper used the suite

    def __init__(self, name: str, root: Path | None = None) -> None:
        self.name, self.root = name, root
        self._loaded: dict[str, Split] = {}  # cells of one suite share its splits

    def __init_subclass__(cls, **options: Any) -> None:
        """Seal every way into `load`, not only the one through `split`."""
        super().__init_subclass__(**options)
        if "load" in vars(cls):
            load: Any = cls.load

            @functools.wraps(load)
            def guarded(self: "Suite", name: str) -> Split:
                self._check_seal(name)
                return load(self, name)

            cls.load = guarded

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names in label order, as prompts use them."""

    @property
    @abstractmethod
    def templates(self) -> tuple[str, ...]:
        """Prompt templates with one {}."""

    @abstractmethod
    def load(self, name: str) -> Split:
        """The split called `name`. Callers use `split`, which checks and guards."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is evaluated, in table order."""
        return (self.val, self.test, *self.shifts)

    def split(self, name: str) -> Split:
        """Load one split; refuses shifts and the ID test set while a method is being fitted."""
        self._check_seal(name)
        if name not in (self.train, *self.splits):
            raise RbftError(unknown(f"split of suite '{self.name}'", name, (self.train, *self.splits)))
        if name not in self._loaded:
            self._loaded[name] = self._checked(name)
        return self._loaded[name]

    def _check_seal(self, name: str) -> None:
        if _fits and name not in (self.train, self.val):
            raise SealedError(
                f"suite '{self.name}': split '{name}' is sealed during fit, which sees {self.train} and {self.val} only"
            )

    def _checked(self, name: str) -> Split:
        self.check_layout()
        split = self.load(name)
        expected = self.card.counts.get(name, len(split))
        if len(split) != expected:
            raise MissingDataError(
                f"suite '{self.name}': split '{name}' has {len(split)} images, its card says {expected}"
            )
        if len(split) and not 0 <= split.labels.min() <= split.labels.max() < len(self.classes):
            raise RbftError(f"suite '{self.name}': split '{name}' has a label outside 0..{len(self.classes) - 1}")
        return split

    def selector(self, protocol: Protocol) -> str:
        """The split on which checkpoints are selected."""
        if protocol == "clean":
            return self.val
        if self.published_selector is None:
            raise RbftError(f"suite '{self.name}' has no published protocol to follow; use --protocol clean")
        return self.published_selector

    def check_ready(self) -> None:
        """Raise one line when this suite cannot be run here."""
        self.check_layout()

    def check_layout(self) -> None:
        """Raise one line naming what is missing and where it should lie."""
        if not self.card.layout:
            return
        if self.root is None:
            raise MissingDataError(
                f"suite '{self.name}' needs data from {self.card.home}: pass --root DIR (or set RBFT_DATA) with "
                + ", ".join(self.card.layout)
            )
        missing = [path for path in self.card.layout if not (self.root / path).exists()]
        if missing:
            raise MissingDataError(
                f"suite '{self.name}': {self.root} lacks {', '.join(missing)}; get it from {self.card.home}"
            )


class CardOnly(Suite):
    """A suite whose card is known and whose files cannot be read yet: it is listed, and says what it would need."""

    def check_ready(self) -> None:
        raise self._refusal()

    @property
    def classes(self) -> tuple[str, ...]:
        raise self._refusal()

    @property
    def templates(self) -> tuple[str, ...]:
        raise self._refusal()

    def load(self, name: str) -> Split:
        raise self._refusal()

    def _refusal(self) -> RbftError:
        self.check_layout()
        return RbftError(
            f"suite '{self.name}' is registered with its card only: this version cannot read its files yet"
        )


@dataclass(frozen=True)
class Task:
    """What a suite looks like to a head: its classes and prompts. Shared with saved models."""

    classes: tuple[str, ...]
    templates: tuple[str, ...] = field(repr=False)


@contextmanager
def sealed() -> Generator[None, None, None]:
    """While this is open, every suite refuses to load anything but ID train and ID validation."""
    _fits.append(None)
    try:
        yield
    finally:
        _fits.pop()
