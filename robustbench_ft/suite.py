"""Shift suites: what a benchmark declares; its shifts are sealed while a method runs. Torch-free."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from . import few_shot, file_names, seal
from .data import Split
from .errors import MissingDataError, RbftError, SealedError, unknown
from .images import roots
from .images.roots import Roots
from .recipe import Recipe
from .seal import sealed as sealed

Protocol = Literal["clean", "as-published"]
ACCURACY = "accuracy"
COLUMNS = ("ID", "ID val", "mean OOD")  # of tables, beside one for each shift


def is_column(split: str) -> bool:
    """Whether a shift of this name would be taken for another column of a table, e.g. 'ID' or 'mean weather'."""
    return split in COLUMNS or split.startswith("mean ")


@dataclass(frozen=True)
class Source:
    """Where one part of a suite's data comes from, for `rbft data where`. Nothing is downloaded."""

    splits: tuple[str, ...]
    title: str
    origin: str
    size: str  # of the download
    licence: str
    terms: str = ""  # what must be accepted or done by hand
    mirrors: tuple[str, ...] = ()
    unpack: str = ""  # how it must lie


@dataclass(frozen=True)
class Card:
    """What a reader must know before trusting a number on this suite."""

    title: str
    paper: str
    licence: str
    home: str  # where the data comes from
    counts: Mapping[str, int]  # split -> number of images; a split that is not listed is not counted
    note: str = ""  # printed wherever the suite's numbers are shown
    per_class: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])  # split -> least, most
    sources: tuple[Source, ...] = ()  # empty: nothing to download


@dataclass(frozen=True)
class Roles:
    """What the splits of a suite are for under one protocol."""

    train: str  # methods learn from it
    select: str  # checkpoints and candidates are chosen on it
    metric: str  # by this metric of it
    evaluate: tuple[str, ...]  # in table order; never one that was trained on


@dataclass(frozen=True)
class WildsClass:
    """A class of the `wilds` package that reads the same files, for `rbft data check --with-wilds`."""

    module: str  # of wilds.datasets
    name: str
    metrics: Mapping[str, str]  # our name of a metric -> the one in what its `eval` returns


class Suite(ABC):
    """One ID distribution to learn and several shifts to be tested on."""

    card: Card
    version: int = 1  # raise it whenever a number could change
    older: ClassVar[Mapping[int, str]] = {}  # earlier versions that can still be loaded, as 'shapes-v1' -> their images
    recipe: Recipe  # used by every method that brings none of its own for this suite
    model: str = ""  # default of `--model`; empty: 'embedded' where it knows every word of the prompts, else CLIP's
    pretrained: str = ""  # default of `--pretrained`, an open_clip tag; empty where the model's name says it all
    train: str = "train"
    val: str = "val"  # held out of train: selects under the protocol 'clean'
    test: str = "test"  # ID
    shifts: tuple[str, ...]  # OOD, in table order
    extra: tuple[str, ...] = ()  # evaluated and stored, and in no mean: e.g. WILDS' OOD validation
    shift_groups: Mapping[str, tuple[str, ...]] = {}  # kinds of shift whose means are shown apart
    relative_errors: Mapping[str, Mapping[str, float]] = {}  # a mean of errors, e.g. 'mCE' -> split -> error that is 1
    gaps: Mapping[str, tuple[str, str]] = {}  # name -> two splits or views: accuracy on the one minus on the other
    clusters: Mapping[str, str] = {}  # split -> group column whose examples come together, e.g. a camera
    metrics: Mapping[str, str] = {}  # split -> its official metric, where that is not accuracy
    published_train: str = ""  # what papers trained on, where that is more than `train`
    published_selector: str | None = None  # the split that papers selected on, if any paper used the suite
    places: Mapping[str, tuple[str, ...]] = {}  # split -> paths under a root where people keep it
    definition: str = ""  # digest of the file that defines the suite and of its data, where it is not a registered one
    group_names: Mapping[str, tuple[str, ...]] = {}  # group column -> names of its codes, where data have text there
    wilds: ClassVar[WildsClass | None] = None
    options: ClassVar[Mapping[str, str]] = {}  # what may follow the name, as in 'imagenet+objectnet' -> what it does

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        self.name, self.roots, self.chosen, self.partial = name, roots.roots_of(root), tuple(chosen), partial
        self.shots = few_shot.read(self.base, chosen)  # None: all of train
        for option in chosen:
            if option not in self.options and not few_shot.is_option(option):
                known = {**self.options, **few_shot.OPTIONS}
                raise RbftError(unknown(f"option of suite '{self.base}'", option, known))
        if self.shots:
            self.published_train = ""  # the same few images under every protocol
        self._incomplete: dict[str, list[str]] = {}  # split of which some is drawn -> what was wrong with the whole
        self._loaded: dict[str, Split] = {}  # cells of one suite share its splits

    @property
    def base(self) -> str:
        """The name without options."""
        return self.name.partition("+")[0]

    def at(self, version: int) -> "Suite":
        """The suite itself, from now on in an earlier version. Raises `RbftError` where that is not known any more."""
        newest = type(self).version
        if version not in (newest, *self.older):
            names = [*(f"{self.base}-v{one}" for one in sorted(self.older)), f"{self.base} (version {newest})"]
            raise RbftError(f"suite '{self.base}' has no version {version}; known: {', '.join(names)}")
        self.version = version
        return self

    @property
    def recipe_key(self) -> str:
        """What `Method.published` calls it: other recipes are published for few images of each class."""
        return f"{self.base}+shots={self.shots.k}" if self.shots else self.base

    @property
    def counts(self) -> Mapping[str, int]:
        """Split -> number of images that a run reads of it, as far as the card tells."""
        if not self.shots:
            return self.card.counts
        drawn = {self.train: len(self.classes) * self.shots.k}
        return {name: n for name, n in self.card.counts.items() if name in self.known and name != self.val} | drawn

    @property
    def reference(self) -> str:
        """What `--suite` takes to mean it: its name (with the version of an earlier one), or the path of its file."""
        if self.version == type(self).version:
            return self.name
        base, plus, options = self.name.partition("+")
        return f"{base}-v{self.version}{plus}{options}"

    def __init_subclass__(cls, **options: Any) -> None:
        """Seal every way into `load`, not only the one through `split`."""
        super().__init_subclass__(**options)
        if "load" in vars(cls):
            load: Any = cls.load

            @functools.wraps(load)
            def guarded(self: "Suite", name: str) -> Split:
                self._check_seal(name)
                with seal.permitted():
                    return load(self, name)

            cls.load = guarded

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names in label order, as prompts use them."""

    @property
    @abstractmethod
    def templates(self) -> tuple[str, ...]:
        """Prompt templates with one {}; `fill` says what 'a(n) {}' does."""

    @abstractmethod
    def load(self, name: str) -> Split:
        """The split called `name`. Callers use `split`, which checks and guards."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is evaluated under the protocol 'clean', in table order."""
        return self.under("clean").evaluate

    def under(self, protocol: Protocol) -> Roles:
        """What each split is for. Raises `RbftError` where no paper's protocol is known.

        Papers chose checkpoints by accuracy; 'clean' takes the official metric.
        """
        train, select, metric = self.train, self.val, self.metric_of(self.val)
        if protocol == "as-published":
            if self.published_selector is None:
                raise RbftError(f"suite '{self.name}' has no published protocol to follow; use --protocol clean")
            train, select, metric = self.published_train or self.train, self.published_selector, ACCURACY
        val = (self.val,) if train == self.train else ()
        evaluate = dict.fromkeys((select, *val, self.test, *self.shifts, *self.extra))
        return Roles(train, select, metric, tuple(evaluate))

    def metric_of(self, split: str) -> str:
        """Name of the official metric of a split."""
        return self.metrics.get(split, ACCURACY)

    def place(self, split: str) -> Path:
        """Where a split lies under the roots; one line that says what was looked for otherwise."""
        return roots.find(self.roots, self.base, split, self.places[split], self.card.home, self.places[self.train])

    def split(self, name: str) -> Split:
        """Load one split; refuses shifts and the ID test set while a method is being fitted or evaluated."""
        self._check_seal(name)
        if name not in self.known:
            raise RbftError(unknown(f"split of suite '{self.name}'", name, self.known))
        if name not in self._loaded:
            self._loaded[name] = self._checked(name)
        return self._loaded[name]

    def is_loaded(self, names: Sequence[str]) -> bool:
        """Whether these splits are at hand."""
        return all(name in self._loaded for name in names)

    def forget(self) -> None:
        """Let the memory of all splits go; they are loaded again when asked for."""
        self._loaded.clear()

    def _check_seal(self, name: str) -> None:
        if seal.is_sealed() and name not in (self.train, self.val):
            raise SealedError(
                f"suite '{self.name}': split '{name}' is sealed during fit, which sees {self.train} and {self.val} only"
            )

    @property
    def known(self) -> tuple[str, ...]:
        """Every split that can be loaded."""
        own = (self.train, *self.splits, self.published_train, self.published_selector or "")
        return tuple(name for name in dict.fromkeys(own) if name)

    def _checked(self, name: str) -> Split:
        split = self.load(name)
        problems = self.count_problems(split)
        if problems and not self.partial:
            raise MissingDataError(
                f"suite '{self.name}': {problems[0]}"
                + (f" in {split.place}; `rbft data check {self.reference}` tells more, --allow-partial runs on it"
                   if split.place else "")
            )  # fmt: skip
        last = self.n_classes(split) - 1
        if len(split) and not 0 <= split.labels.min() <= split.labels.max() <= last:
            raise RbftError(f"suite '{self.name}': split '{name}' has a label outside 0..{last}")
        if self.shots and name in (self.train, self.val):
            self._incomplete[name] = problems
            return few_shot.draw(split, self.shots, self.name, self.classes, name == self.train)
        return split

    @property
    def remarks(self) -> Mapping[str, str]:
        """Split -> what a reader of its numbers must know of the data as they lie here, in one line."""
        return {}

    def problems_of(self, split: Split) -> list[str]:
        """What `count_problems` says of a split that was loaded here; of one that was drawn, what it said of all."""
        return self._incomplete[split.name] if split.name in self._incomplete else self.count_problems(split)

    def count_problems(self, split: Split) -> list[str]:
        """How the number of images, in all and by class, differs from the card; empty when it does not."""
        found: list[str] = []
        expected = self.card.counts.get(split.name, len(split))
        if len(split) != expected:
            found.append(f"split '{split.name}' has {len(split):,} images, its card says {expected:,}")
        if odd := self.odd_classes(split):
            least, most = self.card.per_class[split.name]
            shown = ", ".join(f"{self.class_name(split, k)}: {n}" for k, n in list(odd.items())[:3])
            span = f"{least}" if least == most else f"{least} to {most:,}"
            found.append(
                f"split '{split.name}' has {len(odd)} classes without their {span} images ({shown}"
                f"{', ...' if len(odd) > 3 else ''})"
            )
        return found

    def odd_classes(self, split: Split) -> dict[int, int]:
        """Label -> number of images, of the classes that have fewer or more than the card says."""
        if split.name not in self.card.per_class:
            return {}
        least, most = self.card.per_class[split.name]
        sizes = np.bincount(split.labels, minlength=self.n_classes(split)).tolist()
        return {label: n for label, n in enumerate(sizes) if not least <= n <= most}

    def n_classes(self, split: Split) -> int:
        """Of the split's own label space."""
        return len(self.classes) if split.members is None else len(split.members)

    def class_name(self, split: Split, label: int) -> str:
        """As prompts call it; a class of the split's own is named for its members."""
        members: Sequence[int] = (label,) if split.members is None else split.members[label]
        return " or ".join(self.classes[k] for k in members)

    def check_ready(self) -> None:
        """Raise one line naming what is missing and where it should lie, before anything is read."""
        for split in (*self.shifts, *self.extra):
            if is_column(split):
                raise RbftError(
                    f"suite '{self.name}': '{split}' is a column of every table; give the shift another name"
                )
            file_names.checked(split, f"suite '{self.name}': the split")
        for split in self.places:
            if split in self.known:
                self.place(split)
