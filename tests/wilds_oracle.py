"""The `wilds` package as the oracle of tests: what `rbft data check --with-wilds` reads with, and decoded images."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from forest_wilds import FOLDERS
from PIL import Image

from robustbench_ft import suite_ref
from robustbench_ft.data import Split
from robustbench_ft.doctor import wilds
from robustbench_ft.doctor.wilds import Package
from robustbench_ft.suite import Suite

SPLITS = {
    "wilds-iwildcam": ("train", "val", "test", "id_val", "id_test"),
    "wilds-fmow": ("train", "val", "test", "id_val", "id_test"),
    "wilds-camelyon17": ("train", "val", "test", "id_val"),
}


@contextmanager
def opened(forest: Path) -> Generator[dict[str, Package]]:
    """The package's data set of each suite, read from the trees in `forest`."""
    with ExitStack() as stack:
        found: dict[str, Package] = {}
        for name, folder in FOLDERS.items():
            kind = wilds.check_available(load(name))
            found[name] = stack.enter_context(wilds.reading(kind, forest / folder))
        yield found


def images(package: Package, split: str) -> list[tuple[str, Image.Image]]:
    """Path below the folder of the data, and what the package decodes from it."""
    paths: list[str] = []
    real, found = Image.open, list[tuple[str, Image.Image]]()

    def spy(path: Any, *more: Any) -> Image.Image:
        paths.append(Path(path).relative_to(package.root).as_posix())
        return real(path, *more)

    with mock.patch.object(Image, "open", spy):
        for row in package.rows(split):
            with package.data.get_input(row) as image:
                image.load()
                found.append((paths[-1], image.convert("RGB")))
    return found


def paths(split: Split) -> list[str]:
    assert split.place is not None
    return [Path(split.images.name(k)).relative_to(split.place).as_posix() for k in range(len(split))]


def load(name: str, root: Path | None = None, partial: bool = True) -> Suite:
    return suite_ref.load(name, root, partial)


def agree(suite: Suite, split: str, ours: dict[str, float], theirs: Mapping[str, float]) -> None:
    """All that the package prints of a split, and that the official metric is one of these numbers."""
    same = wilds.check_available(suite).metrics
    for name, other in same.items():
        assert ours[name] == pytest.approx(theirs[other], rel=1e-6), (name, ours[name], theirs[other])
    assert suite.metric_of(split) in same
    official = {"wilds-iwildcam": "macro_f1", "wilds-camelyon17": "accuracy"}.get(
        suite.name, "worst_group:region" if split in ("val", "test") else "accuracy"
    )
    assert suite.metric_of(split) == official or split == "train"
