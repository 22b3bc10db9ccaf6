"""A class that one's own shift has no image of is named, by `run`, `data check` and `show`; it stops nothing."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from custom_cases import BASE, Case, build
from PIL import Image

from robustbench_ft import custom
from robustbench_ft.cli.main import main

TOLD = (
    "has no image of old fox (1 of 3 classes): its numbers are over the others; own_classes = true also scores it "
    "among these"
)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """The base tree with images, of which the shift lacks a class."""
    folder = tmp_path / "pets"
    build(folder, Case("test = 2\nval = 1\n" + BASE, ()))
    for k, path in enumerate(sorted(folder.rglob("*.png"))):
        Image.new("RGB", (8, 8), (k, 9, 99)).save(path)
    shutil.rmtree(folder / "night" / "old_fox")
    return folder


def said(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_class_is_named_where_a_user_looks(pets: Path, tmp_path: Path) -> None:
    words = [
        "run",
        "--method",
        "zero-shot",
        "--suite",
        pets,
        "--model",
        "ViT-B-32",
        "--pretrained",
        "random",
        "--out",
        tmp_path / "runs",
    ]
    assert f"note: pets, split 'night' {TOLD}" in said(*words, "--dry-run")
    assert TOLD in said("data", "check", pets)
    assert f"note split 'night' {TOLD}" in said("show", pets)


def test_who_declares_it_needs_no_word(pets: Path) -> None:
    file = pets / "suite.toml"
    file.write_text(file.read_text().replace('"night"', '{path = "night", own_classes = true}'))
    assert custom.read(pets).remarks == {}


def test_a_shift_with_all_classes_needs_no_word(tmp_path: Path) -> None:
    build(tmp_path / "pets", Case(BASE, ()))
    assert custom.read(tmp_path / "pets").remarks == {}


def test_a_test_set_without_a_class_is_told_too(pets: Path) -> None:
    file = pets / "suite.toml"
    shutil.copytree(pets / "night", pets / "quiz")
    for k, path in enumerate(sorted((pets / "quiz").rglob("*.png"))):
        Image.new("RGB", (8, 8), (k, 99, 9)).save(path)
    file.write_text(file.read_text().replace("test = 2", 'test = "quiz"'))
    remark = custom.read(pets).remarks["test"]
    assert remark == "has no image of old fox (1 of 3 classes): its numbers are over the others"
