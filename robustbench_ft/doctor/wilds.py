"""The `wilds` package as a second reader of the same files: what `rbft data check --with-wilds` holds ours against.

The package is kept from what it must not do to a user: its downloader never runs, it starts no thread that asks a
registry, it reads through links in a temporary folder and so writes nothing beside the data, and Pillow's guard against
decompression bombs stays. torch and pandas, which it needs, are imported when it is asked for.
"""

import importlib
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from robustbench_ft import metrics
from robustbench_ft.data import Ints, Predictions, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.progress import Progress
from robustbench_ft.stats.streams import generator
from robustbench_ft.suite import Suite, WildsClass
from robustbench_ft.tabular import Text, number

CLOSE = 1e-6  # of two metrics, relative: the package sums in float32


@dataclass(frozen=True)
class Agreement:
    """One quantity of one split, read twice."""

    split: str
    what: str
    n: int  # images
    difference: str = ""  # empty: both readers say the same

    @property
    def text(self) -> str:
        return self.difference or f"the same for {self.n:,} images"


def table(held: Sequence[Agreement]) -> Text:
    """A line for each split and quantity."""
    body = tuple(("DIFFERS" if one.difference else "ok", one.split, one.what, number(one.n), one.text) for one in held)
    return Text(
        "held against the package wilds", ("verdict", "split", "quantity", "images", "what"), body, words=(0, 1, 2, 4)
    )


class UnreadableError(Exception):
    """The package refuses the files."""


class _Unopened:
    """What the package gets for an image whose path is all that is asked for."""

    def convert(self, mode: str) -> "_Unopened":
        return self


class Package:
    """One data set as the package reads it."""

    def __init__(self, data: Any) -> None:
        self.data, self.root = data, Path(data.data_dir)

    def rows(self, split: str) -> Ints:
        return np.asarray(self.data.get_subset(split).indices)

    def labels(self, split: str) -> Ints:
        return self.data.y_array[self.rows(split)].numpy()

    def column(self, split: str, name: str) -> Ints:
        """[N] of the package's metadata."""
        return self.data.metadata_array[self.rows(split)][:, self.data.metadata_fields.index(name)].numpy()

    def codes(self, split: str, name: str, names: tuple[str, ...] | None) -> Ints:
        """A column by `names`, -1 for what is none of them: the package numbers by the order of its table."""
        if names is None or name not in self.data.metadata_map:
            return self.column(split, name)
        theirs = np.array(
            [names.index(str(text)) if str(text) in names else -1 for text in self.data.metadata_map[name]]
        )
        return theirs[self.column(split, name)]

    def paths(self, split: str) -> list[str]:
        """What it would open, below the folder of the data; nothing is opened."""
        opened: list[str] = []

        def note(path: Any, *_: Any) -> _Unopened:
            opened.append(Path(path).relative_to(self.root).as_posix())
            return _Unopened()

        with mock.patch.object(Image, "open", note):
            for row in self.rows(split).tolist():
                self.data.get_input(row)
        return opened

    def scores(self, split: str, prediction: Ints) -> Mapping[str, float]:
        """Every number that it prints of these predictions [N]."""
        import torch

        rows = self.rows(split)
        return self.data.eval(torch.from_numpy(prediction), self.data.y_array[rows], self.data.metadata_array[rows])[0]


def check_available(suite: Suite) -> WildsClass:
    """What reads this suite in the package. Raises `RbftError` where nothing does, or it is not installed."""
    if suite.wilds is None:
        raise RbftError(f"--with-wilds: the package `wilds` has no suite '{suite.name}'; leave the option out")
    if find_spec("wilds") is None:
        raise RbftError("--with-wilds needs the package `wilds`; run `pip install wilds`")
    return suite.wilds


def compare(suite: Suite, splits: Mapping[str, Split], progress: Progress) -> tuple[Agreement, ...]:
    """Every split and quantity of `splits`, as we read them and as the package does. Raises as `check_available`."""
    kind = check_available(suite)
    found: list[Agreement] = []
    places = dict.fromkeys(split.place for split in splits.values() if split.place)
    with progress.bar("hold against wilds", len(splits), "splits") as advance:
        for place in places:
            own = {name: split for name, split in splits.items() if split.place == place}
            try:
                with reading(kind, place) as package:
                    for split in own.values():
                        found += _of_split(suite, split, package)
                        advance(1, split.name)
            except UnreadableError as error:
                found.append(Agreement(", ".join(own), "table", 0, f"the package cannot read it: {error}"))
    return tuple(found)


def _of_split(suite: Suite, split: Split, package: Package) -> Iterator[Agreement]:
    assert suite.wilds is not None
    name, n = split.name, len(split)
    theirs = package.paths(name)
    if len(theirs) != n:
        yield Agreement(name, "files", n, f"ours {n:,}, the package's {len(theirs):,}")
        return
    yield _same(split, "files", _paths(split), theirs)
    yield _same(split, "label", split.labels.tolist(), package.labels(name).tolist())
    for group, values in split.groups.items():
        if group not in package.data.metadata_fields:
            yield Agreement(name, group, n, "the package has no such column")
        else:
            codes = package.codes(name, group, suite.group_names.get(group))
            yield _same(split, group, values.tolist(), codes.tolist())
    predictions = guesses(split, len(suite.classes))
    scored, said = metrics.score(predictions), package.scores(name, predictions.prediction)
    for ours, other in suite.wilds.metrics.items():
        a, b = scored[ours], float(said[other])
        off = abs(a - b) > CLOSE * max(abs(a), abs(b))
        yield Agreement(name, ours, n, f"ours {a:.6f}, the package's {b:.6f}" if off else "")


def _same(split: Split, what: str, ours: list[Any], theirs: list[Any]) -> Agreement:
    rows = [k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if not rows:
        return Agreement(split.name, what, len(split))
    first = f"e.g. {split.ids[rows[0]]}: ours {ours[rows[0]]}, the package's {theirs[rows[0]]}"
    return Agreement(split.name, what, len(split), f"{len(rows):,} of {len(split):,} images differ, {first}")


def _paths(split: Split) -> list[str]:
    assert split.place is not None
    return [Path(split.images.name(k)).relative_to(split.place).as_posix() for k in range(len(split))]


def guesses(split: Split, n_classes: int) -> Predictions:
    """Predictions to score twice, right for about half of the images."""
    rng, n = generator("wilds", split.name, len(split)), len(split)
    prediction = np.where(rng.random(n) < 0.5, split.labels, rng.integers(0, n_classes, n))
    ones = np.ones(n, np.float32)
    return Predictions(
        split.ids, split.labels, prediction, ones, -ones, ones, prediction[:, None], ones[:, None], split.groups
    )  # fmt: skip


# -- the package, kept in its place -----------------------------------------------------------------------------------


@contextmanager
def reading(kind: WildsClass, place: Path) -> Generator[Package, None, None]:
    """The data set in `place`, for the package in a folder of the name and with the release file that it insists on.

    Raises `UnreadableError`.
    """
    with ExitStack() as stack:
        stack.enter_context(_guarded())
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made: Any = getattr(importlib.import_module(f"wilds.datasets.{kind.module}"), kind.name)
        version = max(made._versions_dict)
        folder = root / f"{made._dataset_name}_v{version}"
        folder.mkdir()
        (folder / f"RELEASE_v{version}.txt").touch()
        for path in place.iterdir():
            if not path.name.startswith("RELEASE_v"):
                (folder / path.name).symlink_to(path.absolute())
        try:
            data = made(root_dir=str(root), download=False)
        except Exception as error:  # its checks of a table are bare assertions
            raise UnreadableError(repr(error)) from error
        yield Package(data)


@contextmanager
def _guarded() -> Generator[None, None, None]:
    """No thread that asks a registry for a newer version, Pillow's guard as it was, FMoW's timestamps readable."""
    scatter: Any = types.ModuleType("torch_scatter")
    scatter.scatter = _scatter_mean
    stubs = {"outdated": None, "torch_scatter": scatter}
    before = {name: sys.modules[name] for name in stubs if name in sys.modules}
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(mock.patch.dict(os.environ, {"OUTDATED_IGNORE": "1"}))
        stack.enter_context(mock.patch.object(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS))
        stack.callback(lambda: sys.modules.update(before))
        for name in stubs:
            stack.callback(sys.modules.pop, name, None)
        sys.modules.update(stubs)  # pyright: ignore[reportArgumentType, reportCallIssue]
        pandas: Any = importlib.import_module("pandas")
        stack.enter_context(mock.patch.object(pandas, "to_datetime", partial(pandas.to_datetime, format="ISO8601")))
        yield


def _scatter_mean(src: Any, index: Any, dim_size: int, reduce: str) -> Any:
    """Stands in for torch_scatter, which users would have to compile; a group without examples gets 0."""
    import torch

    assert reduce == "mean"
    n = torch.bincount(index, minlength=dim_size).clamp(min=1)
    return torch.zeros(dim_size, dtype=src.dtype).index_add(0, index, src) / n
