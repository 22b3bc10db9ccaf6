"""What the suites of DomainBed have in common: one domain is held out, the others are learnt from.

`NAME+DOMAIN` holds DOMAIN out. Splits are DomainBed's own (facebookresearch/DomainBed, lib/misc.py `split_dataset`,
scripts/train.py): a fifth of every domain, drawn by `trial_seed`, is its out-split. Of training domains the rest is
learnt from, and the out-splits together select ("training-domain validation"; DomainBed takes the mean of the domains'
accuracies, rbft that of the images). Of the held-out domain the in-split, four fifths, is what DomainBed's tables show
(model_selection.py, IIDAccuracySelectionMethod); its out-split serves oracle selection there and nothing here.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from robustbench_ft.data import FileImages, Ints, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import folders
from robustbench_ft.images.roots import Roots
from robustbench_ft.recipe import R_LIP
from robustbench_ft.suite import Card, Source, Suite

HOLDOUT = 0.2  # DomainBed's --holdout_fraction
TRIALS = (0, 1, 2)  # its tables are means over these trial seeds
WHOLE = "whole"
SELECTS = (
    "DomainBed has no ID test set: val, a fifth of each training domain, selects and is reported, so the ID column is "
    "a validation number"
)
LEARNS = "batches are drawn from all training images alike, where DomainBed takes as many from each domain"
LICENCE = "none stated; academic use"


class Domain(NamedTuple):
    """The images of one domain, in ImageFolder's order."""

    paths: tuple[str, ...]  # below the folder of the data set
    labels: Ints


class DomainBed(Suite):
    """Leave one domain out. Options name the domain in lower case, with underscores for spaces."""

    recipe = replace(R_LIP, steps=5_000, batch=96)  # DomainBed: 5,000 steps, 32 images of each of three domains
    model, pretrained = "ViT-B-16", "openai"
    test = "val"  # see SELECTS
    published_selector = "val"
    folders_of: ClassVar[Mapping[str, str]]  # option -> folder, in DomainBed's order, which is that of folder names
    names: ClassVar[tuple[str, ...]]  # of class folders, sorted as Python sorts: the labels
    found: ClassVar[Mapping[str, int]] = {}  # option -> images; empty where no source was seen for each domain

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.options = {
            **{name: f"holds out {folder}" for name, folder in cls.folders_of.items()},
            WHOLE: "scores all images of the held-out domain; DomainBed's tables leave a fifth of them out",
            **{f"trial={k}": f"DomainBed's splits for trial seed {k}; 0 without it" for k in TRIALS[1:]},
        }

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        held = [option for option in self.chosen if option in self.folders_of]
        trials = [int(option.partition("=")[2]) for option in self.chosen if option.startswith("trial=")]
        if len(held) > 1:
            raise RbftError(f"suite '{self.name}' holds out {' and '.join(held)}; {self._how()}")
        if len(trials) > 1:
            raise RbftError(f"suite '{self.name}' names two trials; write one")
        self.held = held[0] if held else ""
        self.trial = trials[0] if trials else TRIALS[0]
        self.shifts = (self.held,) if held else tuple(self.folders_of)
        self.group_names = {"domain": tuple(self.folders_of)}
        if held and self.found:
            self.card = replace(self.card, counts=self._expected())
        self._read: dict[str, Domain] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(name.replace("_", " ").lower() for name in self.names)

    @property
    def templates(self) -> tuple[str, ...]:
        """CLIPood's."""
        return ("a photo of a {}.",)

    def check_ready(self) -> None:
        super().check_ready()
        self._check_held()

    def load(self, name: str) -> Split:
        self._check_held()
        place = self.place(name)
        if name == self.held:
            parts = [(name, self._rows(name, WHOLE if WHOLE in self.chosen else "in"))]
        else:
            parts = [
                (d, self._rows(d, "in" if name == self.train else "out")) for d in self.folders_of if d != self.held
            ]
        paths = tuple(self._domain(d).paths[k] for d, rows in parts for k in rows.tolist())
        codes = [np.full(len(rows), list(self.folders_of).index(d)) for d, rows in parts]
        return Split(
            name, FileImages(place, paths), np.concatenate([self._domain(d).labels[rows] for d, rows in parts]), paths,
            {"domain": np.concatenate(codes).astype(np.int64)}, place=place,
            layout=f"class folders of {len(parts)} domain{'s' * (len(parts) > 1)}, trial seed {self.trial}",
        )  # fmt: skip

    def _check_held(self) -> None:
        if not self.held:
            raise RbftError(f"suite '{self.base}' has no domain held out; {self._how()}")

    def _how(self) -> str:
        return f"write one of {', '.join(f'{self.base}+{name}' for name in self.folders_of)}"

    def _domain(self, name: str) -> Domain:
        if name not in self._read:
            folder = self.folders_of[name]
            place = self.place(self.train) / folder
            if not place.is_dir():
                raise MissingDataError(f"{place.parent} has no folder '{folder}'; unpack the archive again, or rename")
            labels = {class_name: k for k, class_name in enumerate(self.names)}
            listing = folders.class_folders(place, labels, partial=self.partial)
            self._read[name] = Domain(tuple(f"{folder}/{path}" for path in listing.paths), listing.labels)
        return self._read[name]

    def _rows(self, name: str, part: str) -> Ints:
        """Places in a domain, ascending."""
        n = len(self._domain(name).paths)
        if part == WHOLE:
            return np.arange(n, dtype=np.int64)
        out, rest = split_dataset(n, seed_hash(self.trial, list(self.folders_of).index(name)))
        return out if part == "out" else rest

    def _expected(self) -> dict[str, int]:
        """Split -> images, from the domains' own numbers."""
        out = {name: int(n * HOLDOUT) for name, n in self.found.items()}
        trained = [name for name in self.found if name != self.held]
        whole = self.found[self.held]
        return {
            "train": sum(self.found[name] - out[name] for name in trained),
            "val": sum(out[name] for name in trained),
            self.held: whole if WHOLE in self.chosen else whole - out[self.held],
        }


def seed_hash(*args: int) -> int:
    """DomainBed's seed for one trial and domain."""
    return int(hashlib.md5(str(args).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def split_dataset(n: int, seed: int) -> tuple[Ints, Ints]:
    """Places of DomainBed's out-split and in-split of `n` images, each ascending."""
    keys = list(range(n))
    np.random.RandomState(seed).shuffle(keys)  # DomainBed's generator
    order, cut = np.array(keys, np.int64), int(n * HOLDOUT)
    return np.sort(order[:cut]), np.sort(order[cut:])


def card(title: str, paper: str, home: str, size: str, unpack: str, splits: Collection[str], note: str = "") -> Card:
    """A card; what all of these suites have in common is said once."""
    return Card(
        title, paper, LICENCE, home, {}, note="; ".join(filter(None, (note, SELECTS, LEARNS))),
        sources=(
            Source(("train", "val", *splits), title, f"links in DomainBed's scripts/download.py; {home}", size, LICENCE,
                   unpack=unpack),
        ),
    )  # fmt: skip


def places(splits: Collection[str], *where: str) -> dict[str, tuple[str, ...]]:
    """Every split lies in the one folder that holds the domains."""
    return dict.fromkeys(("train", "val", *splits), where)
