"""`SUITE+shots=K`: the same few images for everybody, in every layout, kept in the record and held by claims."""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import forest
import forest_wilds
import numpy as np
import pytest
from custom_cases import BASE, build
from custom_cases import Case as Listing
from test_bad_input import Case, check, invoke

from robustbench_ft import few_shot, registry, suite_ref
from robustbench_ft.board import ranking
from robustbench_ft.checks import check_suite
from robustbench_ft.claims import audit
from robustbench_ft.errors import RbftError
from robustbench_ft.suite import Suite

SAME = {
    "digits+shots=16": "digits+shots=16+draw=1",
    "imagenet+objectnet+shots=16": "imagenet+shots=16+objectnet+objectnet",
    "domainnet+clean-prompts+quickdraw+shots=4+draw=2": "domainnet+draw=2+quickdraw+shots=4+clean-prompts",
    "shapes": "shapes",
}
# SHA-256 of the ids, a line each. These lists are published: whoever names the suite has them.
LISTS = {
    ("digits+shots=16", "train"): "964e9167",
    ("digits+shots=16", "val"): "4f392f0d",
    ("digits+shots=16+draw=2", "train"): "641c5257",
    ("shapes-v1+shots=1", "train"): "c007ff14",
    ("shapes+shots=1", "train"): "21b92473",  # another version, other ids
}
CASES = (
    Case("show digits+shots=0", ("suite 'digits': shots=0: write a whole number from 1 on, e.g. digits+shots=16",)),
    Case("show digits+shots=many", ("shots=many: write a whole number from 1 on",)),
    Case("show digits+shots=1+shots=2", ("shots=1 and shots=2 in one name; write shots once",)),
    Case("show digits+draw=2", ("suite 'digits': draw=2 without shots; write digits+shots=16+draw=2",)),
    Case("show digits+shot=2", ("unknown option of suite 'digits' 'shot=2': did you mean shots=K?",)),
)


def sizes(split: str, suite: Suite) -> list[int]:
    return np.bincount(suite.split(split).labels, minlength=len(suite.classes)).tolist()


@pytest.mark.parametrize(("name", "written"), SAME.items())
def test_a_set_of_options_has_one_name(name: str, written: str) -> None:
    assert suite_ref.load(written).name == suite_ref.load(name).name == name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_what_cannot_be_drawn_is_said_in_one_line(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize("name", ["digits+shots=3", "shapes+shots=16+draw=2"])
def test_a_drawn_suite_keeps_the_contract_of_suites(name: str) -> None:
    for one in check_suite(suite_ref.load(name)):
        one.run()


@pytest.mark.parametrize(("name", "split"), LISTS)
def test_the_lists_never_change(name: str, split: str) -> None:
    ids = "\n".join(suite_ref.load(name).split(split).ids)
    assert hashlib.sha256(ids.encode()).hexdigest()[:8] == LISTS[name, split]


def test_each_class_has_k_images_and_at_most_four_to_select_on() -> None:
    for k, val in ((1, 1), (2, 2), (16, 4)):
        suite, whole = suite_ref.load(f"digits+shots={k}"), suite_ref.load("digits")
        assert (sizes("train", suite), sizes("val", suite)) == ([k] * 10, [val] * 10)
        for name in ("train", "val"):
            labels = dict(zip(whole.split(name).ids, whole.split(name).labels.tolist(), strict=True))
            drawn = suite.split(name)
            assert [labels[example] for example in drawn.ids] == drawn.labels.tolist()
        assert suite.split("test").digest == whole.split("test").digest
        assert suite.counts["train"] == 10 * k


def test_fewer_shots_are_part_of_more_and_draws_differ() -> None:
    lists = {text: set(suite_ref.load(f"digits+{text}").split("train").ids)
             for text in ("shots=8", "shots=16", "shots=8+draw=2")}  # fmt: skip
    assert lists["shots=8"] < lists["shots=16"]
    assert len(lists["shots=8"] & lists["shots=8+draw=2"]) < 40


def test_a_list_depends_on_no_order_and_on_no_other_class() -> None:
    split = suite_ref.load("digits").split("train")
    drawn = split.take(few_shot.rows(split.ids, split.labels, 5, 1))
    order = np.random.default_rng(0).permutation(len(split))
    shuffled = split.take(order[split.labels[order] != 3])
    again = shuffled.take(few_shot.rows(shuffled.ids, shuffled.labels, 5, 1))
    assert set(again.ids) == {example for example, label in zip(drawn.ids, drawn.labels, strict=True) if label != 3}


def test_a_class_with_too_few_images_is_named() -> None:
    whole = suite_ref.load("digits")
    least = min(sizes("train", whole))
    assert suite_ref.load(f"digits+shots={least}").split("train")
    short = whole.classes[sizes("train", whole).index(least)]
    text = f"suite 'digits.shots={least + 1}': class '{short}' has {least} training images.*at most shots={least}"
    with pytest.raises(RbftError, match=text):
        suite_ref.load(f"digits+shots={least + 1}").split("train")


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Suite]]:
    """ImageNet with four images of each class to learn from, of which one is held out, in three layouts."""
    base = tmp_path_factory.mktemp("few-shot")
    leaves = tuple(
        forest.leaf(wnid, f"{wnid}_{n}", "JPEG", label)
        for label, wnid in enumerate(forest.wnids()) for n in (7 * label + 3, 12, 9_001, 40 + label)
    )  # fmt: skip
    kind = registry.load("suite", "imagenet", Suite)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{kind.__module__}.HELD_OUT", 1)
        patch.setattr(forest, "train", cache(lambda: leaves))
        forest.write(base / "folders/imagenet/train", leaves)
        forest.write(base / "folders/imagenet/val", forest.val())
        forest.pack(base / "parquet/imagenet-1k/data", forest.write_parquet, "parquet", 3)
        forest.pack(base / "tars/imagenet-1k-wds", forest.write_tar, "tar", 2)
        yield {name: suite_ref.load("imagenet+objectnet+shots=2", base / name, True)
               for name in ("folders", "parquet", "tars")}  # fmt: skip


def test_imagenet_has_one_list_in_every_layout(imagenets: dict[str, Suite]) -> None:
    first = imagenets["folders"]
    for split, n in (("train", 2), ("val", 1)):
        assert sizes(split, first) == [n] * 1000
        for suite in imagenets.values():
            assert suite.split(split).ids == first.split(split).ids
            assert suite.split(split).digest == first.split(split).digest
    assert first.shifts[-1] == "objectnet"
    assert first.counts["train"] == 2_000


def test_the_published_protocol_learns_from_the_same_images(imagenets: dict[str, Suite]) -> None:
    roles = imagenets["folders"].under("as-published")
    assert (roles.train, roles.select) == ("train", "test")  # what papers select on is not drawn
    assert "train-all" not in imagenets["folders"].known
    assert sizes("test", imagenets["folders"]) == [1] * 1000


def test_what_is_wrong_with_the_whole_tree_is_still_known(imagenets: dict[str, Suite]) -> None:
    suite = imagenets["folders"]
    assert "3,000 images" in suite.problems_of(suite.split("train"))[0]
    strict = suite_ref.load("imagenet+shots=2", suite.roots)
    with pytest.raises(RbftError, match="its card says"):
        strict.split("train")


def test_domainnet_has_few_images_of_each_class(tmp_path: Path) -> None:
    suite = suite_ref.load("domainnet+quickdraw+shots=1", forest.domainnet(tmp_path), True)
    assert (sizes("train", suite), sizes("val", suite)) == ([1] * 345, [1] * 345)
    assert suite.split("train").layout.endswith("split files, 1 of each class, draw 1")


def test_of_wilds_each_class_has_what_it_has(tmp_path: Path) -> None:
    forest_wilds.plant(tmp_path, "wilds-fmow")
    suite = suite_ref.load("wilds-fmow+shots=1", tmp_path, True)
    assert sizes("train", suite) == [1] * 62
    assert set(sizes("id_val", suite)) == {0, 1}
    assert {*suite.split("train").groups} == {*suite.split("test").groups}
    suite.check_ready()


def test_a_suite_of_ones_own_is_drawn_too(tmp_path: Path) -> None:
    build(tmp_path / "pets", Listing("val = 0.5\n" + BASE, ()))
    for text in (f"{tmp_path}/pets/suite.toml+shots=2", f"{tmp_path}/pets+draw=1+shots=2"):
        suite = suite_ref.load(text)
        assert (suite.name, suite_ref.name_of(text), suite.base) == ("pets+shots=2", "pets+shots=2", "pets")
        assert (sizes("train", suite), sizes("val", suite)) == ([2] * 3, [2] * 3)
        assert suite_ref.load(suite.reference).split("train").ids == suite.split("train").ids
    with pytest.raises(RbftError, match="class 'cat' has 3 training images"):
        suite_ref.load(f"{tmp_path}/pets/suite.toml+shots=4").split("train")


# -- from a run to a claim ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shelves")
def test_a_run_keeps_its_list_and_a_claim_holds_it(tiny_model: str, tmp_path: Path) -> None:
    words = f"--suite tiny+shots=5+draw=2 --model {tiny_model}"
    assert invoke(f"run --method ft {words}", tmp_path).exit_code == 0
    [run] = (tmp_path / "out/tiny+shots=5+draw=2").glob("*/*/seed-0")
    found = json.loads((run / "env.json").read_text())["data"]
    suite = suite_ref.load("tiny+shots=5+draw=2")
    for name in ("train", "val"):
        assert tuple(found[name]["ids"]) == suite.split(name).ids
    assert found["train"]["n"] == 15
    assert "ids" not in found["test"]
    boards = tmp_path / "boards"
    assert invoke(f"leaderboard add {run.parent} --root {boards}", tmp_path).exit_code == 0
    [(_, problems)] = audit.audit_all(boards, data=suite.roots).items()
    assert not problems
    card = ranking.card_of("tiny+shots=5+draw=2")
    assert card is not None
    assert card.note.startswith("5 of each class to learn from, up to 4 of each to select on, draw 2")


@pytest.mark.usefixtures("shelves")
def test_a_claim_of_another_list_is_found(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke(f"run --method ft --suite tiny+shots=5 --model {tiny_model}", tmp_path).exit_code == 0
    boards = tmp_path / "boards"
    assert invoke(f"leaderboard add {tmp_path / 'out'} --root {boards}", tmp_path).exit_code == 0
    real = few_shot.rows
    monkeypatch.setattr(few_shot, "rows", lambda ids, labels, k, draw: real(ids, labels, k, draw + 1))
    [(_, problems)] = audit.audit_all(boards, data=suite_ref.load("tiny").roots).items()
    assert any("learnt from, those of train are not those of tiny+shots=5 v1" in line for line in problems)


def test_show_and_check_know_the_name(tmp_path: Path) -> None:
    shown = invoke("show digits+shots=16", tmp_path).output
    assert "shots     16 of each class to learn from, up to 4 of each to select on, draw 1" in shown
    assert "images    train 160, test 547" in shown
    result = invoke("data check digits+shots=2", tmp_path)
    assert result.exit_code == 0
    assert "2 of each class, draw 1" in result.output
