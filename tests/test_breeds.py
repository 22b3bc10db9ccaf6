"""Living-17 and Entity-30: the maps, labels that are in the pixels in every layout of ImageNet, faults in one line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import coded
import forest
import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import suite_ref
from robustbench_ft.cli import main

MAPS = Path(__file__).parent.parent / "benchmarks/breeds_splits.json"
SHAPE = {"living17": (17, 2), "entity30": (30, 4)}
TREES: dict[str, Callable[[Path], Path]] = {
    "folders": forest.imagenet, "kaggle": forest.kaggle, "parquet": lambda base: forest.parquet(base).parents[1],
    "tars": lambda base: forest.tars(base).parent,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("breeds")


def test_the_maps_are_the_ones_of_the_card() -> None:
    digest = hashlib.sha256(MAPS.read_bytes()).hexdigest()
    for name in SHAPE:
        assert f"sha256 {digest[:12]}..." in suite_ref.load(name).card.note


@pytest.mark.parametrize("name", SHAPE)
def test_superclasses_share_no_imagenet_class(name: str) -> None:
    entries, (classes, each) = json.loads(MAPS.read_text())[name], SHAPE[name]
    assert {(len(entry["source"]), len(entry["target"])) for entry in entries} == {(each, each)}
    wnids = [wnid for entry in entries for wnid in (*entry["source"], *entry["target"])]
    assert len(entries) == classes
    assert len(set(wnids)) == 2 * each * classes
    assert set(wnids) <= set(forest.wnids())
    card = suite_ref.load(name).card
    assert (card.counts["test"], card.counts["target"]) == (classes * each * 50, classes * each * 50)
    assert len(set(suite_ref.load(name).classes)) == classes


@pytest.mark.parametrize("layout", TREES)
@pytest.mark.parametrize("name", SHAPE)
def test_labels_are_in_the_pixels(name: str, layout: str, base: Path) -> None:
    suite = suite_ref.load(name, TREES[layout](base), True)
    entries, order = json.loads(MAPS.read_text())[name], list(forest.wnids())
    for split, part in (("train", "source"), ("val", "source"), ("test", "source"), ("target", "target")):
        read = suite.split(split)
        said = [order[coded.label_of(image)] for image in read.images.read(list(range(len(read))))]
        assert all(wnid in entries[k][part] for wnid, k in zip(said, read.labels.tolist(), strict=True))
        assert sorted(said) == sorted(wnid for entry in entries for wnid in entry[part])
    assert set(suite.split("train").ids).isdisjoint(suite.split("val").ids)
    assert set(suite.split("test").ids).isdisjoint(suite.split("target").ids)


def test_ids_do_not_depend_on_the_layout(base: Path) -> None:
    found = [suite_ref.load("living17", make(base), True).split("target").ids for make in TREES.values()]
    assert all(ids == found[0] for ids in found[1:])


def test_validation_images_are_those_that_imagenet_holds_out(base: Path) -> None:
    root = forest.imagenet(base)
    assert set(suite_ref.load("entity30", root, True).split("val").ids) <= set(
        suite_ref.load("imagenet", root, True).split("val").ids
    )


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no val": (lambda p: shutil.rmtree(p / "imagenet/val"), "suite 'living17', split 'test': "),
    "no class": (lambda p: shutil.rmtree(p / "imagenet/train/n01631663"), "lacks 1 wnid folder (n01631663) of 1,000"),
    "stray folder": (lambda p: (p / "imagenet/train/dog").mkdir(), "holds 1 folder (dog) that name no wnid"),
    "a count": (lambda p: None, "split 'train' has "),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault: str, base: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        forest.copy(forest.imagenet(base) / "imagenet" / part, tmp_path / "data/imagenet" / part)
    damage, text = FAULTS[fault]
    damage(tmp_path / "data")
    words = f"run --method zero-shot --suite living17 --root {tmp_path / 'data'} --out {tmp_path / 'out'}"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 2, done.output
    assert text in done.stderr.splitlines()[-1]


def test_classes_are_first_synonyms() -> None:
    names = suite_ref.load("living17").classes
    assert (names[8], names[11]) == ("dog", "domestic cat")
    assert len(suite_ref.load("living17").templates) == 7
    assert np.all([name == name.strip() for name in names])
