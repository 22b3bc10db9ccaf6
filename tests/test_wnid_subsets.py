"""ImageNet-100 and its like: folders called by WordNet ids, of which there are fewer than a thousand."""

from pathlib import Path

import coded
import forest
import pytest
from test_bad_input import answer, invoke

from robustbench_ft import suite_ref
from robustbench_ft.errors import RbftError

WNIDS = forest.wnids()[:100:10]
SUITE = 'name = "imagenet-10"\ntrain = "imagenet/train"\nval = 1.0\ntest = 1.0\n[shifts]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten classes of ImageNet, and half of them as a shift."""
    for label, wnid in enumerate(WNIDS):
        for k in range(4):
            coded.write(tmp_path / f"imagenet/train/{wnid}/{wnid}_{k}.JPEG", label)
        for k in range(2 * (label % 2)):
            coded.write(tmp_path / f"imagenet-r/{wnid}/art_{k}.jpg", label)
    return tmp_path


def test_imagenet_says_what_a_subset_is(root: Path, tmp_path: Path) -> None:
    [line] = answer(invoke("run --suite imagenet+objectnet --method zero-shot --root TMP/imagenet", tmp_path))
    assert "imagenet" in line
    with pytest.raises(
        RbftError, match=r"holds 10 of the 1,000 wnid folders: a subset such as ImageNet-100 is a suite"
    ):
        suite_ref.load("imagenet", root).split("train")


def test_the_doctor_says_so_too(root: Path, tmp_path: Path) -> None:
    """Once of all splits that are cut from the tree, and nothing of counts: the tree is whole."""
    done = invoke("data check imagenet --root TMP", tmp_path)
    assert done.exit_code == 1
    [line] = [line for line in done.output.splitlines() if "a suite of its own" in line]
    assert line.startswith("train, val, train-all")
    assert "holds 10 of the 1,000 wnid folders: a subset such as ImageNet-100 is a suite of its own" in line
    assert "own_classes for its shifts (rbft new suite FOLDER)" in line
    assert "1,255,167" not in line
    assert "its card says 1,281,167" not in done.output


def test_wnids_are_no_names(root: Path) -> None:
    (root / "suite.toml").write_text(f'{SUITE}r = "imagenet-r"\n')
    with pytest.raises(RbftError, match=f"'{WNIDS[0]}' is a WordNet id, which no prompt can use: add .classes."):
        suite_ref.load(str(root))


def test_a_subset_is_scored_among_its_own_classes(root: Path) -> None:
    names = "".join(f'"{wnid}" = "kind {k}"\n' for k, wnid in enumerate(WNIDS))
    (root / "suite.toml").write_text(f'{SUITE}r = {{path = "imagenet-r", own_classes = true}}\n[classes]\n{names}')
    suite = suite_ref.load(str(root))
    assert suite.split("r").also["own-classes"].members == tuple((k,) for k in range(1, 10, 2))
    assert (suite.split("test").also["r-classes"].labels >= 0).sum() == 5
