"""What the WILDS suites have in common: one table that names every image with its split, label and metadata.

The tables are read directly, not through the `wilds` package's dataset classes: these import torch and pandas, ask the
network for a newer version, switch off Pillow's bomb guard, create folders under a wrong root, and FMoW's fails on its
own table with pandas 2 and later. The package reads them a second time instead: every file, split, label and piece of
metadata, and every official metric, is held against its own (wilds 2.0.0, p-lambda/wilds@4726775), in the tests and by
`rbft data check --with-wilds`.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.data import FileImages, Ints, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import folders
from robustbench_ft.images.roots import Roots
from robustbench_ft.suite import Suite

NONE = ""  # split of a row that belongs to no split
Texts = NDArray[np.str_]


@dataclass(frozen=True)
class Rows:
    """The images that a table names, in its order. [N] each."""

    split: Texts  # NONE: in no split
    files: Texts  # relative to the folder of the data set
    ids: Texts
    labels: Ints
    groups: Mapping[str, Ints]


class Wilds(Suite):
    """Splits keep WILDS' own names: `test` is the OOD test set, `val` the OOD validation set, `id_*` are ID."""

    val, test = "id_val", "id_test"
    model, pretrained = "ViT-B-16", "openai"  # of the published numbers
    shifts = ("test",)
    extra = ("val",)
    table: ClassVar[str] = "metadata.csv"

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        self._read: dict[Path, Rows] = {}

    @abstractmethod
    def read(self, place: Path) -> Rows:
        """The table under `place`, checked but for the images."""

    def load(self, name: str) -> Split:
        place = self.place(name)
        rows = self._rows(place)
        keep = rows.split == name
        if not keep.any():
            raise MissingDataError(f"{place / self.table} has no row of split '{name}'; get the official file again")
        found = self._on_disk(place, rows, keep)
        absent = int(keep.sum() - found.sum())
        kept = np.flatnonzero(found)
        if not len(kept):
            raise MissingDataError(f"{place} has none of the {absent:,} images of split '{name}'; unpack the archive")
        return Split(
            name, FileImages(place, tuple(rows.files[kept].tolist())), rows.labels[kept],
            tuple(rows.ids[kept].tolist()), {key: values[kept] for key, values in rows.groups.items()}, place=place,
            layout=self.table + (f", {absent:,} of its images absent" if absent else ""),
        )  # fmt: skip

    def check_ready(self) -> None:
        """The table is small beside the images: everything in it is checked before any work is done."""
        super().check_ready()
        for name in dict.fromkeys((self.train, *self.splits)):
            self.split(name)

    def _rows(self, place: Path) -> Rows:
        if place not in self._read:
            self._check_place(place)
            self._read[place] = self.read(place)
        return self._read[place]

    def _check_place(self, place: Path) -> None:
        """A folder that is there without its table is a common half-way state: say what the next step is."""
        if not place.is_dir():
            raise MissingDataError(f"{place} is not a folder; name the folder that holds {self.table}")
        if (place / self.table).exists():
            return
        inner = next((p for p in (place / place.name, *map(place.joinpath, self.places[self.train]))
                      if (p / self.table).exists()), None)  # fmt: skip
        if inner:
            raise MissingDataError(f"{place} has no {self.table}: it lies one level down; pass --root {inner.parent}")
        archive = next(iter(sorted(place.glob("*.tar.gz"))), None)
        if archive:
            raise MissingDataError(f"{place} has no {self.table}; unpack {archive} there")
        raise MissingDataError(f"{place} has no {self.table}; put the official file there")

    def _on_disk(self, place: Path, rows: Rows, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[N] rows to keep; one without its image is an error, and left out where partial data are allowed."""
        if not self.partial:
            folders.check_files(place, rows.files[keep].tolist(), place / self.table)
            return keep
        found = keep.copy()
        for k in np.flatnonzero(keep):
            found[k] = (place / rows.files[k]).exists()
        return found


def check_unique(table: Path, names: Texts) -> None:
    """Each image has one row."""
    values, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise RbftError(f"{table} names '{values[counts > 1][0]}' twice; get the official file again")


def numbers(table: Path, columns: Mapping[str, Texts], name: str, most: int = 2**31, where: str = "") -> Ints:
    """A column of whole numbers in 0..most."""
    found = folders.integers(table, name, columns[name])
    odd = (found < 0) | (found > most)
    if odd.any():
        row = int(np.argmax(odd))
        raise RbftError(
            f"{table}, column {name}, row {row + 1}: {columns[name][row]} is outside 0..{most}"
            f"{where}; is it another version's table?"
        )
    return found


def choice(table: Path, columns: Mapping[str, Texts], name: str, known: Sequence[str]) -> None:
    """A column holds these words only."""
    odd = ~np.isin(columns[name], known)
    if odd.any():
        row = int(np.argmax(odd))
        raise RbftError(
            f"{table}, column {name}, row {row + 1}: '{columns[name][row]}' is none of {', '.join(known)}; get the "
            "official file again"
        )
