"""A suite that was mended stays known in its earlier version, so published rows of that version can be checked."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import registry, suite_ref
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.plan import Request, make
from robustbench_ft.suite import Suite

OLD, NEW = suite_ref.load("shapes-v1"), suite_ref.load("shapes")
MENDED = {"sketch": [889], "quickdraw": [428, 682, 1089]}


def pixels(suite: Suite, split: str) -> np.ndarray:
    found = suite.split(split).images.array()
    assert found is not None
    return found


@pytest.mark.parametrize("split", NEW.known)
def test_shapes_2_draws_again_what_showed_nothing_and_no_other_image(split: str) -> None:
    old, new = pixels(OLD, split), pixels(NEW, split)
    differs = np.flatnonzero((old != new).reshape(len(old), -1).any(axis=1))
    assert differs.tolist() == MENDED.get(split, [])
    assert all(new[i].std() > 4 * old[i].std() for i in differs), "an object stands where nothing stood"
    assert (OLD.split(split).labels == NEW.split(split).labels).all()


@pytest.mark.parametrize("split", NEW.known)
def test_no_two_images_of_a_split_are_equal(split: str) -> None:
    assert len({hashlib.sha256(image.tobytes()).digest() for image in pixels(NEW, split)}) == len(NEW.split(split))


def test_every_id_says_its_version() -> None:
    assert {name.partition("/")[0] for split in OLD.known for name in OLD.split(split).ids} == {"shapes-v1"}
    assert {name.partition("/")[0] for split in NEW.known for name in NEW.split(split).ids} == {"shapes-v2"}


def test_the_earlier_version_is_asked_for_by_the_name_that_its_board_has() -> None:
    assert (OLD.name, OLD.version, OLD.reference) == ("shapes", 1, "shapes-v1")
    assert (NEW.name, NEW.version, NEW.reference) == ("shapes", 2, "shapes")
    few = suite_ref.load("shapes-v1+shots=4")
    assert (few.name, few.reference) == ("shapes+shots=4", "shapes-v1+shots=4")
    assert suite_ref.load(few.reference).split("train").ids == few.split("train").ids
    assert suite_ref.load("shapes", version=1).reference == "shapes-v1"
    assert registry.load("suite", "shapes", Suite).version == 2, "the class itself is not changed"


def test_versions_never_share_a_cell() -> None:
    (old,), (new,) = (make(Request(("ft",), (name,), seeds="0")).cells for name in ("shapes-v1", "shapes"))
    assert (old.suite_version, new.suite_version) == (1, 2)
    assert old.digest.startswith("4f358087"), "as the rows that were published before there was a version 2"
    assert new.digest != old.digest


@pytest.mark.parametrize("load", [lambda: suite_ref.load("shapes-v3"), lambda: suite_ref.load("shapes", version=3)])
def test_a_version_that_never_was_is_told_which_are(load: object) -> None:
    with pytest.raises(RbftError, match=r"^suite 'shapes' has no version 3; known: shapes-v1, shapes \(version 2\)$"):
        load()  # pyright: ignore[reportCallIssue]


def test_a_run_of_the_earlier_version(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["run", "--suite", "shapes-v1", "--method", "zero-shot", "--out", str(tmp_path), "--jobs", "2"]
    )
    assert done.exit_code == 0, done.output
    (record,) = tmp_path.rglob("cell.json")
    assert '"suite_version": 1' in record.read_text()
    assert "shapes v1" in CliRunner().invoke(main, ["report", str(tmp_path)]).output
