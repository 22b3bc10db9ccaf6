"""Waterbirds: metadata.csv as published, labels that are in the pixels, groups, official numbers, faults."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import metrics, suite_ref
from robustbench_ft.cli import main
from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError

FOLDER = "waterbirds_v1.0"
COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")  # as group_DRO writes them
SIZES = {0: (20, 10, 10, 20), 1: (3, 3, 2, 2), 2: (4, 4, 3, 3)}  # split code -> images of each group, 2 y + place
SPECIES = ("001.Black_footed_Albatross", "009.Brewer_Blackbird")  # a waterbird, a landbird


def rows() -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for code, (y, place) in product(SIZES, product((0, 1), (0, 1))):
        for _ in range(SIZES[code][2 * y + place]):
            n, species = len(found) + 1, SPECIES[1 - y]
            found.append({
                "img_id": str(n), "img_filename": f"{species}/{species[4:]}_{n:04d}.jpg", "y": str(y),
                "split": str(code), "place": str(place), "place_filename": "/b/bamboo_forest/00000131.jpg",
            })  # fmt: skip
    return [found[k] for k in np.random.default_rng(0).permutation(len(found)).tolist()]


def write(place: Path, table: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> None:
    with (place / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)


@cache
def tree(base: Path) -> Path:
    place = base / FOLDER
    for row in rows():  # the pixels carry label, background and split
        code = int(row["y"]) + 2 * int(row["place"]) + 4 * int(row["split"])
        coded.write(place / row["img_filename"], code)
    write(place, rows())
    return base


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("waterbirds"))


def test_label_background_and_split_are_those_in_the_pixels(root: Path) -> None:
    suite = suite_ref.load("waterbirds", root, True)
    for name, code in (("train", 0), ("id_val", 0), ("val", 1), ("test", 2)):
        split = suite.split(name)
        said = np.array([coded.label_of(image) for image in split.images.read(list(range(len(split))))])
        assert (said == split.labels + 2 * split.groups["background"] + 4 * code).all()
        assert (split.groups["group"] == 2 * split.labels + split.groups["background"]).all()
    assert tuple(np.bincount(suite.split("test").groups["group"])) == SIZES[2]


def test_a_tenth_of_each_training_group_is_held_out(root: Path) -> None:
    suite = suite_ref.load("waterbirds", root, True)
    train, held = suite.split("train"), suite.split("id_val")
    assert tuple(np.bincount(held.groups["group"])) == (2, 1, 1, 2)
    assert set(train.ids).isdisjoint(held.ids)
    assert len(train) + len(held) == sum(SIZES[0])


def test_counts_follow_from_the_official_groups() -> None:
    card = suite_ref.load("waterbirds").card
    held = sum(round(n * 0.1) for n in (3_498, 184, 56, 1_057))
    assert (card.counts["train"], card.counts["id_val"]) == (4_795 - held, held)
    assert card.counts["train"] + card.counts["id_val"] + card.counts["val"] + card.counts["test"] == 11_788  # of CUB


def predictions(seed: int, n: int = 400) -> tuple[Predictions, Any]:
    rng = np.random.default_rng(seed)
    label, place = rng.integers(0, 2, n), rng.integers(0, 2, n)
    said = np.where(rng.random(n) < 0.7, label, 1 - label)
    ones = np.ones(n, np.float32)
    made = Predictions(
        tuple(map(str, range(n))), label, said, ones, 0 * ones, ones, said[:, None], ones[:, None],
        {"group": 2 * label + place},
    )  # fmt: skip
    return made, place


@pytest.mark.parametrize("seed", range(5))
def test_official_numbers_are_those_of_wilds(seed: int) -> None:
    """wilds' eval: accuracy of each (y, background), their least, and the mean under the training frequencies that its
    code writes out (p-lambda/wilds, waterbirds_dataset.py)."""
    made, place = predictions(seed)
    examples = list(zip(made.prediction, made.label, place, strict=True))
    rate = {key: np.mean([said == key[0] for said, *own in examples if tuple(own) == key])
            for key in product((0, 1), (0, 1))}  # fmt: skip
    assert metrics.named("worst_group:group", made) == pytest.approx(min(rate.values()), abs=1e-12)
    module: Any = __import__("sys").modules[type(suite_ref.load("waterbirds")).__module__]
    adjusted = (rate[0, 0] * 3498 + rate[0, 1] * 184 + rate[1, 0] * 56 + rate[1, 1] * 1057) / (3498 + 184 + 56 + 1057)
    assert module.adjusted_average(made.correct, made.groups["group"]) == pytest.approx(adjusted, abs=1e-12)


def test_exchanged_columns_are_seen_where_totals_are_right(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    suite = suite_ref.load("waterbirds", root, True)
    module: Any = __import__("sys").modules[type(suite).__module__]
    monkeypatch.setitem(module.SIZES, "test", SIZES[2])
    monkeypatch.setattr(suite, "card", replace(suite.card, counts={}))
    split = suite.split("test")
    assert suite.count_problems(split) == []
    monkeypatch.setitem(module.SIZES, "test", (4, 3, 4, 3))
    [line] = suite.count_problems(split)
    assert line.startswith("split 'test' has (4, 4, 3, 3) images of landbird on land, landbird on water, ")


def altered(change: Callable[[dict[str, str]], object], n: int = 1) -> Callable[[Path], object]:
    def damage(place: Path) -> None:
        table = rows()
        for row in table[:n]:
            change(row)
        write(place, table)

    return damage


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no table": (lambda p: (p / "metadata.csv").unlink(), "has no metadata.csv; put the official file there"),
    "no image": (lambda p: next(p.rglob("*.jpg")).unlink(), "metadata.csv names 1 image ("),
    "no column": (lambda p: write(p, rows(), COLUMNS[:-2]), "has no column place; its columns: img_id, img_filename"),
    "label swapped": (altered(lambda r: r.update(y=str(1 - int(r["y"])))), "both labels; get the official file again"),
    "label": (altered(lambda r: r.update(y="2")), "column y, row 1: 2 is outside 0..1; is it another version's table?"),
    "split": (altered(lambda r: r.update(split="3")), "column split, row 1: 3 is outside 0..2"),
    "not a number": (altered(lambda r: r.update(place="land")), "whole numbers belong there"),
    "twice": (lambda p: write(p, [*rows(), rows()[0]]), "' twice; get the official file again"),
    "a count": (lambda p: None, "split 'train' has 54 images, its card says 4,315"),
    "pickle": (lambda p: (p / "metadata.csv").write_bytes(b"\x80\x04K\x01."), "metadata.csv"),
    "no folder": (shutil.rmtree, "has no waterbirds_v1.0 or"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    damage, text = FAULTS[fault]
    damage(tmp_path / "data" / FOLDER)
    words = f"run --method zero-shot --suite waterbirds --root {tmp_path / 'data'} --out {tmp_path / 'out'}"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 2, done.output
    assert text in done.stderr.splitlines()[-1]


def test_papers_protocol_is_refused() -> None:
    with pytest.raises(RbftError, match="suite 'waterbirds' has no published protocol to follow; use --protocol clean"):
        suite_ref.load("waterbirds").under("as-published")
