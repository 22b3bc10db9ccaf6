"""`rbft data check --with-wilds`: our reading of a tree against the package's, on the same files."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import forest_wilds
import pytest
from click.testing import CliRunner, Result
from forest_wilds import FOLDERS
from PIL import Image
from wilds_oracle import SPLITS, load

from robustbench_ft.cli.main import main
from robustbench_ft.doctor import wilds

QUANTITIES = {
    "wilds-iwildcam": ["files", "label", "location", "sequence", "year", "month", "day", "hour", "accuracy", "macro_f1",
                       "macro_recall"],
    "wilds-fmow": ["files", "label", "region", "year", "accuracy", "worst_group:region", "worst_group:year"],
    "wilds-camelyon17": ["files", "label", "hospital", "slide", "accuracy", "worst_group:slide"],
}  # fmt: skip


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Sound trees, and cards that count what they hold."""
    folder = forest_wilds.plant_all(tmp_path_factory.mktemp("forest"))
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            suite = load(name, folder)
            counts = {split: len(suite.split(split)) for split in suite.card.counts}
            patch.setattr(type(suite), "card", replace(suite.card, counts=counts))
        yield folder


def check(name: str, root: Path, *words: str) -> Result:
    return CliRunner().invoke(
        main, ["data", "check", name, "--root", str(root), "--sample", "2", "--with-wilds", *words]
    )


def lines(done: Result) -> list[list[str]]:
    """Words of the lines below the heading of the second table, without its verdict."""
    found = [line.split() for line in done.output.splitlines()]
    start = next(k for k, line in enumerate(found) if line[:2] == ["split", "quantity"])
    return [line for line in found[start + 1 :] if line][:-1]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_sound_tree_is_read_as_by_the_package(name: str, forest: Path) -> None:
    before = sorted(forest.rglob("*")), dict(os.environ), Image.MAX_IMAGE_PIXELS
    done = check(name, forest)
    assert done.exit_code == 0, done.output
    found = lines(done)
    assert [line[:3] for line in found] == [[s, q, "ok"] for s in load(name).known for q in QUANTITIES[name]]
    n = {split: len(load(name, forest).split(split)) for split in SPLITS[name]}
    assert all(line[3:] == ["the", "same", "for", f"{n[line[0]]:,}", "images"] for line in found)
    assert f"all {len(found)} quantities are what the package wilds reads and computes" in done.output
    assert before == (sorted(forest.rglob("*")), dict(os.environ), Image.MAX_IMAGE_PIXELS)
    assert not {"outdated", "torch_scatter"} & sys.modules.keys()
    assert [thread.name for thread in threading.enumerate() if not thread.daemon] == ["MainThread"]


def test_the_downloader_is_not_run_where_there_is_no_release_file(forest: Path, tmp_path: Path) -> None:
    base: Any = import_module("wilds.datasets.wilds_dataset").WILDSDataset

    def download(*_: Any) -> None:
        raise AssertionError("the package wants to download")

    place = forest_wilds.copy(forest / FOLDERS["wilds-camelyon17"], tmp_path)
    next(place.glob("RELEASE*")).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "download_dataset", download)
        assert check("wilds-camelyon17", tmp_path).exit_code == 0
    assert not list(place.glob("RELEASE*"))


def misread(change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def spoil(patch: pytest.MonkeyPatch) -> None:
        kind: Any = type(load("wilds-iwildcam"))
        read = kind.read
        patch.setattr(kind, "read", lambda self, place: change(read(self, place)))

    return spoil


def rolled(rows: Any, what: str) -> Any:
    """One quantity moved by a row."""
    if what in rows.groups:
        return replace(rows, groups={**rows.groups, what: roll(rows.groups[what])})
    return replace(rows, **{what: roll(getattr(rows, what))})


def roll(values: Any) -> Any:
    moved = values.copy()
    moved[1:], moved[0] = values[:-1], values[-1]
    return moved


def other_metric(patch: pytest.MonkeyPatch) -> None:
    kind: Any = type(load("wilds-iwildcam"))
    patch.setattr(kind, "wilds", replace(kind.wilds, metrics={"macro_f1": "recall-macro_all"}))


DIFFERENT: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = {
    "labels": (misread(lambda rows: rolled(rows, "labels")), "label", "images differ, e.g."),
    "files": (misread(lambda rows: rolled(rows, "files")), "files", "the package's train/"),
    "splits": (misread(lambda rows: rolled(rows, "split")), "files", "the package's"),
    "a group": (misread(lambda rows: rolled(rows, "location")), "location", "images differ, e.g."),
    "a metric": (other_metric, "macro_f1", "ours 0."),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_difference_is_named_and_the_exit_code_is_1(case: str, forest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, what, says = DIFFERENT[case]
    spoil(monkeypatch)
    done = check("wilds-iwildcam", forest)
    assert done.exit_code == 1, done.output
    wrong = [line for line in lines(done) if "DIFFERS" in line]
    assert what in {line[1] for line in wrong}
    assert says in done.output
    assert f"{len(wrong)} of {len(lines(done))} quantities differ" in done.output
    told = json.loads(check("wilds-iwildcam", forest, "--format", "json").stdout)["wilds"]
    assert sum(bool(one["difference"]) for one in told) == len(wrong)


def test_files_that_the_package_refuses_are_told(forest: Path, tmp_path: Path) -> None:
    """Its class asserts that cameras are numbered without a gap."""
    place = forest_wilds.copy(forest / FOLDERS["wilds-iwildcam"], tmp_path)
    rows = forest_wilds.read_table(place / "metadata.csv")
    for row in rows:
        row["location_remapped"] = str(2 * int(row["location_remapped"]))
    forest_wilds.write_table(place / "metadata.csv", rows)
    done = check("wilds-iwildcam", tmp_path)
    assert done.exit_code == 1, done.output
    assert "the package cannot read it: AssertionError" in done.output


def test_other_suites_have_nothing_to_be_held_against() -> None:
    done = CliRunner().invoke(main, ["data", "check", "digits", "--with-wilds"])
    assert done.exit_code == 2
    assert done.output.strip() == "rbft: --with-wilds: the package `wilds` has no suite 'digits'; leave the option out"


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, forest: Path) -> None:
    monkeypatch.setattr(wilds, "find_spec", lambda name: None)
    done = check("wilds-iwildcam", forest)
    assert done.exit_code == 2
    assert "run `pip install wilds`" in done.output
