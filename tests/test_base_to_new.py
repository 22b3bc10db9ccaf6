"""CoOp's ten data sets from base to new classes: split files, halves, label spaces, and what can be wrong."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coded
import forest
import numpy as np
import pytest
import tiny
from test_bad_input import answer, invoke

from robustbench_ft import registry, suite_ref
from robustbench_ft.compare import report
from robustbench_ft.data import Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.prompts import Task
from robustbench_ft.record import store
from robustbench_ft.suite import Suite

SIZES = {"train": 2, "val": 1, "test": 2}  # images of each class
SUITES = {  # name -> folder, folder of images, split file, classes, a prompt of class 'odd_name'
    "caltech101": ("caltech-101", "101_ObjectCategories", "Caltech101", 100, "a photo of a odd name."),
    "oxford-pets": ("oxford_pets", "images", "OxfordPets", 37, "a photo of a odd name, a type of pet."),
    "stanford-cars": ("stanford_cars", "", "StanfordCars", 196, "a photo of a odd name."),
    "flowers102": ("oxford_flowers", "jpg", "OxfordFlowers", 102, "a photo of a odd name, a type of flower."),
    "food101": ("food-101", "images", "Food101", 101, "a photo of odd name, a type of food."),
    "fgvc-aircraft": ("fgvc_aircraft", "images", "", 100, "a photo of a odd name, a type of aircraft."),
    "sun397": ("sun397", "SUN397", "SUN397", 397, "a photo of a odd name."),
    "dtd": ("dtd", "images", "DescribableTextures", 47, "odd name texture."),
    "eurosat": ("eurosat", "2750", "EuroSAT", 10, "a centered satellite photo of odd name."),
    "ucf101": ("ucf101", "UCF-101-midframes", "UCF101", 101, "a photo of a person doing odd name."),
}
DTD = "dtd/split_zhou_DescribableTextures.json"


def path_of(name: str, label: int, part: str, k: int) -> str:
    """As the real set calls its files."""
    stem = f"{part}_{label:03d}_{k}"
    match name:
        case "oxford-pets":
            return f"Breed_{label}_{'train val test'.index(part)}{k}.jpg"
        case "stanford-cars":
            return f"cars_{'test' if part == 'test' else 'train'}/{stem}.jpg"
        case "flowers102" | "fgvc-aircraft":
            return f"image_{stem}.jpg"
        case "sun397":
            return f"k/kind_{label}/outdoor/sun_{stem}.jpg"
        case _:
            return f"class_{label}/{stem}.jpg"


def plant(root: Path, name: str) -> Path:
    """The tree of one data set, all its classes, with each label in the pixels."""
    folder, images, split, n, _ = SUITES[name]
    parts: dict[str, list[list[Any]]] = {}
    names = ["odd_name", *(f"kind of {label}" for label in range(1, n))]
    for part, size in SIZES.items():
        parts[part] = [[path_of(name, y, part, k), y, names[y]] for k in range(size) for y in reversed(range(n))]
        for path, label, _ in parts[part]:
            coded.write(root / folder / images / path, label)
    if split:
        (root / folder / f"split_zhou_{split}.json").write_text(json.dumps(parts))
        return root
    (root / folder / "variants.txt").write_text("".join(f"{text}\n" for text in names))
    for part, rows in parts.items():
        lines = [f"{path.removesuffix('.jpg')} {text}\n" for path, _, text in rows]
        (root / folder / f"images_variant_{part}.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coop")
    for name in SUITES:
        plant(root, name)
    return root


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The cards count what the small trees hold."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (_, _, _, n, _) in SUITES.items():
            kind = registry.load("suite", f"base-to-new-{name}", Suite)
            patch.setattr(kind, "totals", tuple(size * n for size in SIZES.values()))
        yield


def seen(split: Split) -> list[int]:
    return coded.labels(np.stack([np.asarray(image) for image in split.images.read(range(len(split)))])).tolist()


def subsample(rows: list[list[Any]], half: str) -> list[tuple[str, int, str]]:
    """The public rule, from its description in datasets/oxford_pets.py: the reference of the next test."""
    labels = sorted({row[1] for row in rows})
    m = math.ceil(len(labels) / 2)
    chosen = labels[:m] if half == "base" else labels[m:]
    return [(path, chosen.index(label), text) for path, label, text in rows if label in chosen]


@pytest.mark.parametrize("name", SUITES)
def test_every_image_has_the_label_that_its_pixels_carry(name: str, base: Path) -> None:
    suite = suite_ref.load(f"base-to-new-{name}", base)
    n = SUITES[name][3]
    m = math.ceil(n / 2)
    for split in ("train", "val", "test", "new"):
        found = suite.split(split)
        first = m if split == "new" else 0
        assert (found.labels + first).tolist() == seen(found)
        assert set(found.labels.tolist()) == set(range(n - m if split == "new" else m))
        assert len(found) == SIZES["test" if split == "new" else split] * (n - m if split == "new" else m)
        if split != "train":
            assert found.members == tuple((k,) for k in (range(m, n) if split == "new" else range(m)))
            assert found.also["all-classes"].labels.tolist() == seen(found)


@pytest.mark.parametrize("name", SUITES)
def test_prompts_are_those_of_coop(name: str, base: Path) -> None:
    suite = suite_ref.load(f"base-to-new-{name}", base)
    assert Task(suite.classes, suite.templates).texts[0] == SUITES[name][4]
    assert len(suite.classes) == SUITES[name][3]


@pytest.mark.parametrize("name", [name for name in SUITES if SUITES[name][2]])
def test_halves_are_those_of_the_public_rule(name: str, base: Path) -> None:
    folder, _, split, _, _ = SUITES[name]
    content = json.loads((base / folder / f"split_zhou_{split}.json").read_text())
    suite = suite_ref.load(f"base-to-new-{name}", base)
    for own, part, half in (("train", "train", "base"), ("val", "val", "base"), ("test", "test", "base"),
                            ("new", "test", "new")):  # fmt: skip
        found = suite.split(own)
        names = [suite.class_name(found, label) for label in found.labels.tolist()]
        expected = subsample(content[part], half)
        assert sorted(zip(found.ids, found.labels.tolist(), names, strict=True)) == sorted(
            (path, label, text.replace("_", " ")) for path, label, text in expected
        )


def test_shots_are_drawn_from_base_classes(base: Path) -> None:
    suite = suite_ref.load("base-to-new-dtd+shots=1", base)
    assert len(suite.split("train")) == suite.counts["train"] == 24
    assert len(suite.split("val")) == 24
    assert len(suite.split("new")) == 46


def test_zero_shot_and_training_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_ref.load("base-to-new-eurosat", base)
    words = {word for text in Task(suite.classes, suite.templates).texts for word in forest.WORD.findall(text.lower())}
    monkeypatch.setattr(tiny, "WORDS", tuple(sorted(words)))
    model = f"local-dir:{tiny.write_model(tmp_path / 'model')}"
    words = f"run --suite base-to-new-eurosat+shots=2 --root {base} --model {model} --set steps=2 --set batch=4"
    done = invoke(f"{words} --precision fp32 --method zero-shot --method ft --method coop", tmp_path)
    assert done.exit_code == 0, (done.output, done.exception)
    records = store.find_records([tmp_path / "out"])
    assert len(records) == 3
    for record in records:
        assert record.metrics["splits"] == {"val": "val", "test": "test", "shifts": ["new"], "extra": []}
        found, default = record.predictions("final", "new"), record.metrics["candidates"]["final"]
        assert default["new"]["accuracy"] == pytest.approx(found.correct.mean())
        assert set(found.label.tolist()) == set(range(5)) >= set(found.prediction.tolist())
        assert set(found.also["all-classes"].label.tolist()) == set(range(5, 10))
    assert "new" in report.markdown(report.tables(records)[0])


@dataclass(frozen=True)
class Case:
    """`damage` is given TMP, which holds DTD's tree."""

    split: str
    damage: Callable[[Path], object]
    text: str


def rows(change: Callable[[dict[str, list[list[Any]]]], object]) -> Callable[[Path], object]:
    """Change the split file."""

    def damage(root: Path) -> None:
        content = json.loads((root / DTD).read_text())
        change(content)
        (root / DTD).write_text(json.dumps(content))

    return damage


def first(k: int, value: Any) -> Callable[[Path], object]:
    """Put a value into column k of the first training row, which is of the last class."""
    return rows(lambda content: content["train"][0].__setitem__(k, value))


def swap(content: dict[str, list[list[Any]]]) -> None:
    """Exchange labels and names of two classes in the test part alone."""
    pairs = {0: (1, "kind of 1"), 1: (0, "odd_name")}
    content["test"] = [[path, *pairs.get(label, (label, text))] for path, label, text in content["test"]]


def one_name(content: dict[str, list[list[Any]]]) -> None:
    """Call class 3 as class 0 is called."""
    for part, listed in content.items():
        content[part] = [[path, label, "odd_name" if label == 3 else text] for path, label, text in listed]


CASES = {
    "no folder": Case("train", lambda r: shutil.rmtree(r / "dtd"), "TMP has no dtd; get it from"),
    "no split file": Case("train", lambda r: (r / DTD).unlink(), f"cannot read TMP/{DTD}: No such file"),
    "pickle": Case("train", lambda r: (r / DTD).write_bytes(b"\x80\x04\x95\xff"), f"TMP/{DTD} is not UTF-8 text (byte"),
    "not JSON": Case("train", lambda r: (r / DTD).write_text("{"), "is not valid JSON: Expecting property"),
    "another shape": Case("train", lambda r: (r / DTD).write_text('{"train": {}}'), 'is not {"train": [[path, label, '),
    "label in quotes": Case("train", first(1, "46"), 'entry 1 of train is ["class_46/train_046_0.jpg", "46", "kind of'),
    "label true": Case("train", first(1, True), "entry 1 of train is "),
    "two names": Case("train", first(2, "other"), "calls label 46 'other' and 'kind of 46'; get the official"),
    "one name twice": Case("train", rows(one_name), "calls labels 0 and 3 both 'odd_name'"),
    "labels swapped": Case("test", rows(swap), "gives 'class_1/test_001_0.jpg' label 0 and '"),
    "a class too few": Case("train", rows(lambda c: [c.update({p: [r for r in c[p] if r[1] != 46]}) for p in c]),
                            "has 46 classes, CoOp's has 47"),
    "a gap": Case("train", rows(lambda c: [c.update({p: [r for r in c[p] if r[1] != 5]}) for p in c]),
                  "has 46 classes and no label 5"),
    "path leads out": Case("train", first(0, "../x.jpg"), "names '../x.jpg', which is no path below the folder"),
    "image twice": Case("train", rows(lambda c: c["train"].append(c["train"][0])), "'class_46/train_046_0.jpg' twice"),
    "train in test": Case("test", rows(lambda c: c["test"].append(c["train"][0])), "train_046_0.jpg' in train"),
    "no val": Case("val", rows(lambda c: c.update(val=[])), "names no image of val"),
    "an image too few": Case("test", rows(lambda c: c["test"].pop()), "split 'test': part 'test' has 93 images of all"),
    "image gone": Case("new", lambda r: (r / "dtd/images/class_46/test_046_0.jpg").unlink(),
                       "names 1 image (class_46/test_046_0.jpg) that is not under TMP/dtd/images"),
    "images gone": Case("train", lambda r: shutil.rmtree(r / "dtd/images"), "names 94 images (class_0/train_000_0.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_broken_tree_is_one_line(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    plant(tmp_path, "dtd")
    case.damage(tmp_path)
    with pytest.raises((MissingDataError, RbftError)) as caught:
        suite_ref.load("base-to-new-dtd", tmp_path).split(case.split)
    assert case.text.replace("TMP", str(tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no split file", "pickle", "labels swapped"])
def test_broken_tree_stops_a_run(name: str, tmp_path: Path) -> None:
    plant(tmp_path, "dtd")
    CASES[name].damage(tmp_path)
    words = "run --method zero-shot --suite base-to-new-dtd --model ViT-B-32 --pretrained random --root TMP"
    assert CASES[name].text.replace("TMP", str(tmp_path)) in answer(invoke(words, tmp_path))[0]


def test_unknown_variant_is_named_with_its_line(tmp_path: Path) -> None:
    plant(tmp_path, "fgvc-aircraft")
    file = tmp_path / "fgvc_aircraft/images_variant_test.txt"
    file.write_text(file.read_text() + "0001 707-999\n")
    with pytest.raises(RbftError, match=r"images_variant_test.txt, line 201: '707-999' is not in .*variants.txt"):
        suite_ref.load("base-to-new-fgvc-aircraft", tmp_path).split("test")


def test_pets_of_one_breed_have_one_label(tmp_path: Path) -> None:
    plant(tmp_path, "oxford-pets")
    file = tmp_path / "oxford_pets/split_zhou_OxfordPets.json"
    content = json.loads(file.read_text())
    content["test"][0][1:] = [0, "odd_name"]
    file.write_text(json.dumps(content))
    with pytest.raises(RbftError, match="are of one class"):
        suite_ref.load("base-to-new-oxford-pets", tmp_path).split("test")
