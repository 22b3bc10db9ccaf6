"""The suite that a `suite.toml` describes: classes and labels by name, held-out parts, groups, other label spaces."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robustbench_ft.data import FileImages, Ints, LabelSpace, Split
from robustbench_ft.errors import MissingDataError, PlanError, RbftError, unknown
from robustbench_ft.images.folders import held_out
from robustbench_ft.images.roots import Roots
from robustbench_ft.suite import Card, Suite

from .form import Form
from .listing import Listed, check_files, composed, listed, some, text_of

OWN = "own-classes"
WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
WNID = re.compile(r"n[0-9]{8}")  # of WordNet, as ImageNet and its subsets call their folders


class CustomSuite(Suite):
    """Your own images, listed and checked whenever the suite is named: before anything is written."""

    form: ClassVar[Form]
    file: ClassVar[Path]  # relative paths in the form start from its folder

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        form = self.form
        for split in form.places:
            self._check_seal(split)  # what is listed here can be read: nobody builds the suite while a method is fitted
        lists = _lists(self.file.parent, form)
        keys = _class_keys(self.file.parent, form, lists["train"])
        self.names = tuple(keys.values())
        self.group_names = _group_names(form, lists)
        self._made, held = _splits(form, lists, list(keys), self.group_names)
        self.shifts, self.extra, self.recipe = tuple(form.shifts), tuple(form.extra), form.recipe
        self.model, self.pretrained = form.model, form.pretrained
        self.metrics, self.clusters, self.shift_groups = form.metrics, form.cluster_columns, form.shift_groups
        self.card = Card(
            form.title or form.name, form.paper, form.licence, form.home,
            counts={split: len(self._made[split]) for split in ("train", "val", *form.tested)},
            note="; ".join(filter(None, (form.note, *(f"{split} is {how}" for split, how in held.items())))),
        )  # fmt: skip
        self.definition = _digest(self, self._made)

    @property
    def remarks(self) -> Mapping[str, str]:
        """Split -> which classes it has no image of, for splits that are tested on and do not declare it."""
        told: dict[str, str] = {}
        for split in self.form.tested:
            present = set(self._made[split].labels.tolist())
            absent = [name for k, name in enumerate(self.names) if k not in present]
            is_shift = split in self.form.shifts
            if absent and not (is_shift and self.form.shifts[split].own_classes):
                also = "; own_classes = true also scores it among these" if is_shift else ""
                told[split] = (
                    f"has no image of {some(absent)} ({len(absent)} of {len(self.names)} classes): its numbers are "
                    f"over the others{also}"
                )
        return told

    @property
    def reference(self) -> str:
        return "+".join((str(self.file), *self.chosen))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names

    @property
    def templates(self) -> tuple[str, ...]:
        return self.form.prompts

    def load(self, name: str) -> Split:
        return self._made[name]


def _lists(folder: Path, form: Form) -> dict[str, Listed]:
    """Split -> its images, of every place in the file; problems of several places are shown together."""
    found: dict[str, Listed] = {}
    problems: list[str] = []
    for split, place in form.places.items():
        try:
            found[split] = listed(folder, place, form.columns)
        except RbftError as error:
            problems.append(f"{split}: {error}")
    if problems:
        raise PlanError(problems)
    check_files(found)
    return found


def _class_keys(folder: Path, form: Form, train: Listed) -> dict[str, str]:
    """Name of a class in folders and manifests -> its name in prompts, in label order."""
    named = form.classes
    source = "classes"
    if isinstance(named, str):
        source = str(folder / Path(named).expanduser())
        named = _class_file(Path(source))
    if not named:
        source = str(train.source)
        named = tuple(sorted(set(train.labels)))  # no order is given: the one of names, wherever the files lie
        if all(WHOLE.fullmatch(name) for name in named):
            raise RbftError(
                f"{source} calls its classes {some(named)}: prompts need names; add [classes] with lines such as "
                f'"{named[0]}" = "name" to suite.toml'
            )
    keys = named if isinstance(named, Mapping) else {key: _readable(form, key) for key in named}
    twice = next((key for key in named if list(named).count(key) > 1), None) if len(keys) != len(named) else None
    if twice is not None:
        raise RbftError(f"{source} names the class '{twice}' twice; each class has one label")
    owners: dict[str, str] = {}
    for key, name in keys.items():
        if not name.strip():
            raise RbftError(f"{source}: class '{key}' has an empty name; prompts need one")
        if WNID.fullmatch(name):
            raise RbftError(
                f"{source}: '{name}' is a WordNet id, which no prompt can use: add [classes] with a line for each such "
                f'folder, e.g. "{key}" = "tench", to suite.toml'
            )
        if owners.setdefault(name, key) != key:
            raise RbftError(
                f"{source}: '{owners[name]}' and '{key}' are both '{name}' in prompts; rename one in [classes]"
            )
    if len(keys) < 2:
        raise RbftError(f"{source} has {len(keys)} class: a suite needs two at least")
    return {composed(key): name for key, name in keys.items()}


def _readable(form: Form, key: str) -> str:
    return key.replace("_", " ").strip() if form.underscores == "spaces" else key


def _class_file(path: Path) -> tuple[str, ...] | dict[str, str]:
    """A .txt file with one class on each line, or a .json list, or a .json object FOLDER -> name."""
    shape = 'write one class on each line (.txt), or ["cat", ...] or {"folder": "name", ...} (.json)'
    if path.suffix.lower() not in (".txt", ".json"):
        raise RbftError(f"classes: {path} is neither .txt nor .json; {shape}")
    if not path.is_file():
        raise MissingDataError(f"classes: no file {path}; {shape}")
    text = text_of(path)
    content: Any = [line.strip() for line in text.splitlines() if line.strip()]
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RbftError(f"{path} is not valid JSON: {error}; {shape}") from error
    values = content.values() if isinstance(content, dict) else content
    if not isinstance(content, dict | list) or not content or not all(isinstance(value, str) for value in values):
        raise RbftError(f"{path} is no list of class names: {shape}")
    return content if isinstance(content, dict) else tuple(content)


def _labels(found: Listed, keys: Sequence[str]) -> Ints:
    """[N]. A label is a class by name; a whole number is a place in the class list unless classes are called so."""
    place = {key: k for k, key in enumerate(keys)}
    if not any(WHOLE.fullmatch(key) for key in keys):
        place |= {str(k): k for k in range(len(keys))}
    stray = sorted({label for label in found.labels if label not in place})
    if stray:
        numbers = [label for label in stray if WHOLE.fullmatch(label)]
        if numbers and len(numbers) == len(stray) and len(place) > len(keys):
            raise RbftError(f"{found.source} has label {some(numbers)}, outside 0..{len(keys) - 1}; correct it")
        raise RbftError(
            f"{found.source}: {unknown('class', stray[0], keys)}"
            + (f" ({len(stray)} such)" if len(stray) > 1 else "")
            + "; add it to train and `classes`, or take it out"
        )
    return np.array([place[label] for label in found.labels], np.int64)


def _group_names(form: Form, lists: Mapping[str, Listed]) -> dict[str, tuple[str, ...]]:
    """Column -> its texts in all splits, sorted: stored codes are places in it. Columns of whole numbers have none."""
    found: dict[str, tuple[str, ...]] = {}
    for column in _columns(form):
        values = {text for one in lists.values() for text in one.columns.get(column, ()) if text}
        if not all(WHOLE.fullmatch(text) for text in values):
            found[column] = tuple(sorted(values))
    return found


def _columns(form: Form) -> tuple[str, ...]:
    needed = [column for split in ("val", *form.tested) for column in form.needed(split)]
    return tuple(dict.fromkeys((*form.groups, *needed)))


def _splits(
    form: Form, lists: Mapping[str, Listed], keys: Sequence[str], names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Split], dict[str, str]]:
    """All splits, and of those that are held out of train, how."""
    whole: dict[str, Split] = {}
    held: dict[str, str] = {}
    for split, found in lists.items():
        ids = tuple(composed(f"{split}/{path}") for path in found.paths)
        images = found.images or FileImages(found.root, found.paths)
        whole[split] = Split(
            split, images, _labels(found, keys), ids, _groups(form, split, found, names), place=found.source,
            layout=found.layout,
        )  # fmt: skip
    _check_train(form, whole["train"], keys)
    made = dict(whole)
    for split, share in (("test", form.test), ("val", form.val)):
        if isinstance(share, float):
            train = made["train"]
            chosen = held_out(train.ids, train.labels, share)
            if not chosen.any():
                raise MissingDataError(
                    f"{split}: {train.place} has one image a class, none to hold out: add some or give {split} a place"
                )
            part = f"{share:.0%} of each class" if share < 1 else f"{share:.0f} images of each class"
            held[split] = f"held out of train: {part}, by id"
            layout = f"{train.layout}, {held[split]}"
            made |= {split: _part(train, split, chosen, layout), "train": _part(train, "train", ~chosen, train.layout)}
    for split in ("val", *form.tested):
        _check_groups(form, made[split])
    return _with_own_classes(form, made), dict(sorted(held.items(), reverse=True))


def _part(split: Split, name: str, chosen: Any, layout: str) -> Split:
    """The chosen examples of a split, under the ids that they have."""
    return replace(split.take(np.flatnonzero(chosen)), name=name, layout=layout)


def _groups(form: Form, split: str, found: Listed, names: Mapping[str, Sequence[str]]) -> dict[str, Ints]:
    """[N] codes of each group column; an empty cell is in no group, -1."""
    codes: dict[str, Ints] = {}
    for column in _columns(form):
        if column not in found.columns:
            continue
        code = {text: k for k, text in enumerate(names[column])} if column in names else None
        texts = found.columns[column]
        codes[column] = np.array(
            [-1 if not text else int(text) if code is None else code[text] for text in texts], np.int64
        )
    return codes


def _check_train(form: Form, train: Split, keys: Sequence[str]) -> None:
    """Raise MissingDataError if a class has no image in the training set, before anything is held out."""
    absent = [keys[k] for k in sorted({*range(len(keys))} - {*train.labels.tolist()})]
    if absent and not form.incomplete:
        raise MissingDataError(
            f"{train.place} has no image of {some(absent)}: add some, take the class out of `classes`, or write "
            "incomplete = true in suite.toml"
        )


def _check_groups(form: Form, split: Split) -> None:
    """There are two images at least; the columns that metric, clusters and `groups` name are there and filled in."""
    if len(split) < 2:
        raise MissingDataError(f"{split.place} gives split '{split.name}' one image, which has no interval: add some")
    manifest = form.places.get(split.name, form.train).is_manifest
    for column in (*form.needed(split.name), *(form.groups if manifest else ())):
        if column not in split.groups:
            raise RbftError(
                f"{split.place} has no column '{column}' (split '{split.name}'): add it, or take it out of groups, "
                "clusters and metric"
            )
    cluster = form.cluster_columns.get(split.name)
    if cluster and (split.groups[cluster] < 0).any():
        name = split.ids[int(np.argmax(split.groups[cluster] < 0))]
        raise RbftError(
            f"{split.place}: '{cluster}' of {name} is empty; fill it in: it says which images come together"
        )
    if cluster and len(np.unique(split.groups[cluster])) < 2:
        raise RbftError(
            f"{split.place}: '{cluster}' is the same for all of split '{split.name}', and one cluster has no interval; "
            "take it out of clusters"
        )
    for column in form.needed(split.name):
        if (split.groups[column] < 0).all():
            raise RbftError(f"{split.place}: column '{column}' is empty; fill it in, or name another metric")


def _with_own_classes(form: Form, made: Mapping[str, Split]) -> dict[str, Split]:
    """Shifts that ask for it, and the ID test set, are also scored among the classes that the shift holds."""
    found = dict(made)
    for split, place in form.shifts.items():
        if not place.own_classes:
            continue
        present = np.unique(made[split].labels)
        members = tuple((int(k),) for k in present)

        def among(labels: Ints, present: Ints = present) -> Ints:
            own = np.searchsorted(present, labels).clip(max=len(present) - 1)
            return np.where(present[own] == labels, own, -1).astype(np.int64)

        if len(present) < 2:
            raise RbftError(f"{made[split].place} holds one class: take own_classes of shift '{split}' away")
        found[split] = replace(found[split], also={OWN: LabelSpace(members, among(made[split].labels))})
        of_test = among(found["test"].labels)
        if (of_test >= 0).any():
            also = {**found["test"].also, f"{split}-classes": LabelSpace(members, of_test)}
            found["test"] = replace(found["test"], also=also)
    return found


def _digest(suite: CustomSuite, splits: Mapping[str, Split]) -> str:
    """SHA-256 of all that affects results and is not already in the cell: classes, prompts, metrics, the data.

    Names of files and folders outside the ids, titles and licences are not in it, so a suite can be moved.
    """
    content = {
        "classes": suite.classes, "templates": suite.templates, "metrics": dict(suite.metrics),
        "clusters": dict(suite.clusters), "shifts": suite.shifts, "extra": suite.extra,
        "shift_groups": {name: list(members) for name, members in suite.shift_groups.items()},
        "group_names": dict(suite.group_names),
        "splits": {name: split.digest for name, split in splits.items()},
        "groups": {f"{name}/{column}": values.tolist()
                   for name, split in splits.items() for column, values in split.groups.items()},
        "also": {name: sorted(split.also) for name, split in splits.items()},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
