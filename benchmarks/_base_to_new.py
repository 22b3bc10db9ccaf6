"""The ten data sets of CoOp (Zhou et al., IJCV 2022) from base to new classes, by one reader of its split files.

Layouts, templates and the rule for classes: KaiyangZhou/CoOp@ff61507, DATASETS.md, datasets/*.py, trainers/zsclip.py.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from robustbench_ft.data import FileImages, Ints, LabelSpace, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.images import folders
from robustbench_ft.images.roots import Roots
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import Card, Source, Suite

HOME = "the data set's own page; split files from KaiyangZhou/CoOp, DATASETS.md"
PAPER = "Zhou et al., CoOp, IJCV 2022 (arXiv:2109.01134), and CoCoOp, CVPR 2022 (arXiv:2203.05557), on data of "
NOTE = (
    "ID is the base classes, 'new' the others, each scored among its own names; while learning, the names of the new "
    "classes are in the softmax too, which CoCoOp's code leaves out: zero-shot numbers are its, trained ones are not"
)
PARTS = ("train", "val", "test")
SPLITS = (*PARTS, "new")
AGAIN = "get the official split file again"
RECIPE = Recipe(  # no paper fine-tunes all of CLIP on these splits: the recipe of a suite.toml
    lr=1e-5, weight_decay=0.1, epochs=10, batch=64, warmup_fraction=0.1, schedule="lipsum", clip_norm=1.0, head="unit",
    augment="crop", select="last",
)  # fmt: skip


class Part(NamedTuple):
    """One part of a data set, over all its classes, in order of label and path."""

    file: Path
    paths: tuple[str, ...]  # below the folder of images
    labels: Ints


class Table(NamedTuple):
    """What the split file says: class names in label order, and the three parts."""

    names: tuple[str, ...]
    parts: dict[str, Part]


class BaseToNew(Suite):
    """Learn on the first half of the classes (rounded up), be tested on it and on the other half."""

    template: ClassVar[str]
    folder: ClassVar[str]  # under a root
    images: ClassVar[str]  # in that folder
    split_file: ClassVar[str]  # beside the images
    totals: ClassVar[tuple[int, int, int]]  # of train, val and test over all classes
    n_known: ClassVar[int]  # classes
    sorted_folders: ClassVar[bool] = True  # whether each class has a folder of its own among the images
    recipe = RECIPE
    model, pretrained = "ViT-B-16", "openai"  # CoCoOp's
    shifts = ("new",)

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        self._read: Table | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(name.replace("_", " ") for name in self.table.names)

    @property
    def templates(self) -> tuple[str, ...]:
        return (self.template,)

    @property
    def counts(self) -> dict[str, int]:
        """Of images drawn; how many images the halves have, the split file says."""
        return {self.train: n_base(self.n_known) * self.shots.k} if self.shots else {}

    @property
    def table(self) -> Table:
        """The split file, read once."""
        if self._read is None:
            self._read = self.read(self.place(self.train))
            self._check(self._read)
        return self._read

    def read(self, place: Path) -> Table:
        """Names and parts of the data set under `place`."""
        return read_split(place / self.split_file)

    def key(self, path: str) -> str:
        """What of an image's path says its class; '' where nothing does."""
        return path.rpartition("/")[0] if self.sorted_folders else ""

    def load(self, name: str) -> Split:
        table, place = self.table, self.place(name)
        part = table.parts["test" if name == "new" else name]
        m, n = n_base(len(table.names)), len(table.names)
        images = place / self.images
        folders.check_files(images, part.paths, part.file)
        rows: list[int] = np.flatnonzero(part.labels >= m if name == "new" else part.labels < m).tolist()
        paths, labels = tuple(part.paths[k] for k in rows), part.labels[rows]
        layout = f"{part.file.name}, {'new' if name == 'new' else 'base'} classes"
        if name == self.train:
            return Split(name, FileImages(images, paths), labels, paths, place=place, layout=layout)
        own = range(m, n) if name == "new" else range(m)
        return Split(
            name, FileImages(images, paths), labels - own.start, paths, members=tuple((k,) for k in own),
            also={"all-classes": LabelSpace(None, labels)}, place=place, layout=layout,
        )  # fmt: skip

    def count_problems(self, split: Split) -> list[str]:
        """Of the split file as a whole: its halves have no published counts."""
        name = "test" if split.name == "new" else split.name
        found, expected = len(self.table.parts[name].paths), self.totals[PARTS.index(name)]
        if found == expected:
            return []
        return [f"split '{split.name}': part '{name}' has {found:,} images of all classes, CoOp's has {expected:,}"]

    def _check(self, table: Table) -> None:
        """Each image once, each class by one name and one folder, all classes there."""
        owner: dict[str, str] = {}
        label_of: dict[str, tuple[int, str]] = {}
        for name, part in table.parts.items():
            for path, label in zip(part.paths, part.labels.tolist(), strict=True):
                if owner.setdefault(path, name) != name:
                    raise RbftError(f"{part.file} names '{path}' in {owner[path]} and in {name}; {AGAIN}")
                key = self.key(path)
                if key and label_of.setdefault(key, (label, path))[0] != label:
                    first, other = label_of[key]
                    raise RbftError(
                        f"{part.file} gives '{path}' label {label} and '{other}' label {first}, which are of one "
                        f"class; {AGAIN}"
                    )
        if len(table.names) != self.n_known:
            file = table.parts[self.train].file
            raise RbftError(f"{file} has {len(table.names)} classes, CoOp's has {self.n_known}; {AGAIN}")


def n_base(n: int) -> int:
    """How many of n classes are base classes: the first half, rounded up (datasets/oxford_pets.py)."""
    return (n + 1) // 2


def read_split(file: Path) -> Table:
    """`{"train" | "val" | "test": [[path, label, class name], ...]}`, as CoOp's `save_split` writes it."""
    text = folders.read_text(file, AGAIN, "get it from KaiyangZhou/CoOp, DATASETS.md: it says what is learnt from")
    shape = f'{file} is not {{"train": [[path, label, name], ...], "val": ..., "test": ...}}'
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RbftError(f"{file} is not valid JSON: {error}; {AGAIN}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
        raise RbftError(f"{shape}; {AGAIN}")
    names: dict[int, str] = {}
    found: dict[str, list[tuple[str, int]]] = {}
    for part in PARTS:
        rows: list[tuple[str, int]] = []
        for k, entry in enumerate(content[part], start=1):
            if not (isinstance(entry, list) and [type(value) for value in entry] == [str, int, str]):
                raise RbftError(f"{shape}: entry {k} of {part} is {json.dumps(entry)}; {AGAIN}")
            path, label, name = entry
            if names.setdefault(label, name) != name:
                raise RbftError(f"{file} calls label {label} '{names[label]}' and '{name}'; {AGAIN}")
            rows.append((path, label))
        found[part] = rows
    ordered = in_order(file, names)  # first: a label may be any number until then
    return Table(ordered, {part: made(file, part, rows) for part, rows in found.items()})


def made(file: Path, part: str, rows: Sequence[tuple[str, int]]) -> Part:
    """One part, in order of label and path however the file was shuffled. Raises where a path is twice or leads out."""
    if not rows:
        raise RbftError(f"{file} names no image of {part}; {AGAIN}")
    out = next((path for path, _ in rows if path.startswith("/") or ".." in path.split("/") or "\\" in path), None)
    if out is not None:
        raise RbftError(f"{file} names '{out}', which is no path below the folder of images; {AGAIN}")
    if len({path for path, _ in rows}) != len(rows):
        seen = set[str]()
        twice = next(path for path, _ in rows if path in seen or seen.add(path))
        raise RbftError(f"{file} names '{twice}' twice in {part}; {AGAIN}")
    ordered = sorted(rows, key=lambda row: (row[1], row[0]))
    return Part(file, tuple(path for path, _ in ordered), np.array([label for _, label in ordered], np.int64))


def in_order(file: Path, names: dict[int, str]) -> tuple[str, ...]:
    """Names by label. Raises where labels are not 0 to K - 1, or two of them have one name."""
    absent = next((k for k in range(len(names)) if k not in names), None)
    if absent is not None:
        raise RbftError(f"{file} has {len(names)} classes and no label {absent}; {AGAIN}")
    owner: dict[str, int] = {}
    for label in range(len(names)):
        if owner.setdefault(names[label], label) != label:
            raise RbftError(f"{file} calls labels {owner[names[label]]} and {label} both '{names[label]}'; {AGAIN}")
    return tuple(names[k] for k in range(len(names)))


def card(
    title: str, authors: str, folder: str, images: str, split_file: str, origin: str,
    licence: str = "not stated by CoOp: see the data set's own page",
) -> Card:  # fmt: skip
    """Of one data set. Counts of its halves are not published, so there are none: `count_problems` looks at all."""
    return Card(
        title=f"{title}, base to new classes", paper=PAPER + authors, licence=licence, home=HOME, counts={}, note=NOTE,
        sources=(
            Source(
                SPLITS, title, origin, "not stated", licence, "the split file is a download of its own (Google Drive)",
                unpack=f"{folder}/{images or 'cars_train, cars_test'}, with {split_file} in {folder}",
            ),
        ),
    )  # fmt: skip
