"""What is installed is what is in the repository, and nothing answers to the name of a folder."""

import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from robustbench_ft import registry
from robustbench_ft.method import Method
from robustbench_ft.suite import Suite

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).parent.parent
CONFIG: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
HOMES = {"robustbench_ft.methods": REPO / "methods", "robustbench_ft.benchmarks": REPO / "benchmarks"}


def folder(package: str) -> Path:
    return HOMES.get(package, REPO / package.replace(".", "/"))


def test_packages_are_those_on_disk() -> None:
    top = {"robustbench_ft": "robustbench_ft"} | {place.name: package for package, place in HOMES.items()}
    on_disk = {
        ".".join((package, *path.parent.relative_to(REPO / name).parts))
        for name, package in top.items()
        for path in (REPO / name).rglob("__init__.py")
    }
    assert set(CONFIG["packages"]) == on_disk


def test_package_dir_maps_the_two_shelves() -> None:
    assert {name: REPO / place for name, place in CONFIG["package-dir"].items()} == {
        "robustbench_ft": REPO / "robustbench_ft",
        **HOMES,
    }


@pytest.mark.parametrize("name", ["methods", "benchmarks"])
def test_no_folder_in_the_core_hides_a_shelf(name: str) -> None:
    assert not (REPO / "robustbench_ft" / name).exists()


def test_package_data_covers_every_data_file() -> None:
    for package in CONFIG["packages"]:
        patterns = CONFIG["package-data"].get(package, [])
        inner = [folder(other) for other in CONFIG["packages"] if folder(package) in folder(other).parents]
        for path in folder(package).rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc") or any(place in path.parents for place in inner):
                continue
            name = path.relative_to(folder(package)).as_posix()
            assert any(fnmatch(name, pattern) for pattern in patterns), f"{path} would be missing from the wheel"


def test_the_embedded_model_and_the_type_marker_are_shipped() -> None:
    assert CONFIG["package-data"]["robustbench_ft"] == ["py.typed"]
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "vocab.txt"):
        assert (folder("robustbench_ft.embedded") / "checkpoint" / name).is_file()


def test_loading_by_name_makes_no_second_copy_of_a_shelf() -> None:
    for name in registry.entries("method"):
        assert registry.load("method", name, Method).__module__.startswith("robustbench_ft.methods.")
    for name in registry.entries("suite"):
        assert registry.load("suite", name, Suite).__module__.startswith("robustbench_ft.benchmarks.")
    assert not {"methods", "benchmarks"} & sys.modules.keys()
