"""iWildCam, FMoW and Camelyon17: their tables, prompts and metrics, as the `wilds` package has them."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import run

import coded
import forest_wilds
import numpy as np
import pytest
from forest_wilds import FOLDERS
from PIL import Image
from wilds_oracle import SPLITS, agree, images, load, opened, paths

from robustbench_ft import metrics, suite_ref
from robustbench_ft.data import Predictions
from robustbench_ft.doctor.wilds import Package, guesses
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.prompts import Task

EACH = [pytest.param(suite, split, id=f"{suite}-{split}") for suite, splits in SPLITS.items() for split in splits]
REGIONS = ("Asia", "Europe", "Africa", "Americas", "Oceania")


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return forest_wilds.plant_all(tmp_path_factory.mktemp("forest"))


@pytest.fixture(scope="module")
def oracles(forest: Path) -> Iterator[dict[str, Package]]:
    with opened(forest) as packages:
        yield packages


# -- the tables, as the package reads them ----------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "name"), EACH)
def test_files_and_labels_are_those_of_the_package(
    suite: str, name: str, forest: Path, oracles: dict[str, Package]
) -> None:
    split, oracle = load(suite, forest).split(name), oracles[suite]
    theirs = images(oracle, name)
    assert len(split) == len(theirs) > 0
    assert len(set(split.labels)) > 1
    assert paths(split) == [path for path, _ in theirs] == oracle.paths(name)
    assert split.labels.tolist() == oracle.labels(name).tolist()
    assert [coded.label_of(image) for image in split.images.read(range(len(split)))] == split.labels.tolist()
    assert [coded.label_of(image) for _, image in theirs] == split.labels.tolist()


@pytest.mark.parametrize(("suite", "name"), EACH)
def test_metadata_are_those_of_the_package(suite: str, name: str, forest: Path, oracles: dict[str, Package]) -> None:
    split, oracle = load(suite, forest).split(name), oracles[suite]
    named = {"region"}
    assert set(split.groups) - named <= set(oracle.data.metadata_fields)
    for group in set(split.groups) - named:
        assert (split.groups[group] == oracle.column(name, group)).all(), group
    if suite == "wilds-fmow":
        texts = [oracle.data.metadata_map["region"][code] for code in oracle.column(name, "region")]
        assert [REGIONS[code] if code >= 0 else "Other" for code in split.groups["region"]] == texts
        assert (split.groups["region"] == oracle.codes(name, "region", REGIONS)).all()
        assert load(suite).group_names["region"] == REGIONS


def test_every_declared_group_names_the_package_fields(oracles: dict[str, Package]) -> None:
    for suite, oracle in oracles.items():
        assert set(oracle.data.split_dict) == set(SPLITS[suite])
        for column in load(suite).clusters.values():
            assert column in oracle.data.metadata_fields
    assert not load("wilds-fmow").clusters  # two years in each region would leave one degree of freedom


def test_classes_and_bundles_are_those_of_the_package(oracles: dict[str, Package]) -> None:
    fmow, camelyon, iwildcam = (load(name) for name in ("wilds-fmow", "wilds-camelyon17", "wilds-iwildcam"))
    assert list(fmow.classes) == sys.modules[type(oracles["wilds-fmow"].data).__module__].categories
    assert [len(s.classes) for s in (iwildcam, fmow, camelyon)] == [
        oracles[s.name].data.n_classes for s in (iwildcam, fmow, camelyon)
    ]
    for suite in (fmow, camelyon, iwildcam):
        [version] = oracles[suite.name].data.versions_dict.values()
        [source] = suite.card.sources
        assert source.origin.split()[2] in version["download_url"]
        assert source.size == f"{version['compressed_size']:,} bytes"
        assert set(source.splits) == set(suite.places) == set(suite.card.counts) == set(SPLITS[suite.name])


def test_fmow_files_are_numbered_by_rows_of_the_whole_table(forest: Path) -> None:
    rows = forest_wilds.read_table(forest / "fmow_v1.1" / "rgb_metadata.csv")
    before = 0
    for k, row in enumerate(rows):
        before += row["split"] == "seq"
        if row["split"] == "train" and row["timestamp"] < "2013" and before:
            split = load("wilds-fmow", forest).split("train")
            assert split.labels[split.ids.index(f"rgb_img_{k}")] == forest_wilds.CATEGORIES.index(row["category"])
            return
    raise AssertionError("no sequestered row lies before a train row")


def test_fmow_rows_of_odd_years_are_in_no_split(forest: Path) -> None:
    suite = load("wilds-fmow", forest)
    rows = forest_wilds.read_table(forest / "fmow_v1.1" / "rgb_metadata.csv")
    used = {name for split in SPLITS["wilds-fmow"] for name in suite.split(split).ids}
    left = {(r["split"], r["timestamp"][:4]) for k, r in enumerate(rows) if f"rgb_img_{k}" not in used}
    assert {split for split, _ in left} == {"seq", "train", "val", "test"}
    assert {year for split, year in left if split == "test"} <= {"2013", "2014", "2015"}
    assert {year for split, year in left if split == "val"} <= {"2016", "2017"}


def test_prompts_are_those_of_wise_ft_and_clip() -> None:
    fmow = Task(load("wilds-fmow").classes, load("wilds-fmow").templates)
    assert len(fmow.templates) == 16
    k = fmow.classes.index("office_building")
    texts = fmow.texts[16 * k : 16 * (k + 1)]
    assert texts[:6] == [
        "satellite photo of a office_building.", "aerial photo of a office_building.",
        "satellite photo of an office building.", "aerial photo of an office building.",
        "satellite photo of a office_building in asia.", "aerial photo of a office_building in asia.",
    ]  # fmt: skip
    assert texts[-2:] == ["a photo of a office_building.", "office_building."]
    assert "aerial photo of a water treatment facility." in fmow.texts
    assert load("wilds-iwildcam").classes[:2] == ("empty", "white-lipped peccary")
    assert Task(("empty",), load("wilds-iwildcam").templates).texts == ["a photo of empty.", "empty in the wild."]
    assert len(load("wilds-camelyon17").templates) == 1


# -- metrics, as the package computes them ----------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "name"), EACH)
def test_official_metrics_are_those_of_the_package(
    suite: str, name: str, forest: Path, oracles: dict[str, Package]
) -> None:
    kind = load(suite, forest)
    predictions = guesses(kind.split(name), len(kind.classes))
    agree(kind, name, metrics.score(predictions), oracles[suite].scores(name, predictions.prediction))


def test_region_other_and_empty_regions_never_are_the_worst(forest: Path, oracles: dict[str, Package]) -> None:
    """Every image of the tree's OOD test set is right but the one in 'Other'; Oceania has no image there."""
    split = load("wilds-fmow", forest).split("test")
    region = split.groups["region"]
    assert (region == -1).sum() == 1
    assert set(region) == {-1, 0, 1, 2, 3}
    wrong = np.where(region == -1, (split.labels + 1) % 62, split.labels)
    ours = metrics.score(replace(guesses(split, 62), prediction=wrong))
    theirs = oracles["wilds-fmow"].scores("test", wrong)
    assert ours["worst_group:region"] == theirs["acc_worst_region"] == 1
    assert theirs["acc_region:Other"] == theirs["count_region:Oceania"] == 0
    assert ours["accuracy"] == pytest.approx(1 - 1 / len(split))


def test_camelyon17_vectors_are_scored_as_by_wilds() -> None:
    folder = Path(__file__).with_name("vectors")
    said = json.loads((folder / "wilds.json").read_text())["camelyon17"]["results"]
    with np.load(folder / "wilds.npz") as file:
        arrays = {key: file[f"camelyon17/{key}"] for key in ("y_true", "y_pred", "metadata")}
    n = len(arrays["y_true"])
    ones = np.ones(n, np.float32)
    ours = metrics.score(Predictions(
        tuple(map(str, range(n))), arrays["y_true"], arrays["y_pred"], ones, -ones, ones, arrays["y_pred"][:, None],
        ones[:, None], {"slide": arrays["metadata"][:, 1]},
    ))  # fmt: skip
    assert ours["accuracy"] == pytest.approx(said["acc_avg"], rel=1e-6)
    assert ours["worst_group:slide"] == pytest.approx(said["acc_wg"], rel=1e-6)


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_do_not_depend_on_where_the_files_lie(name: str, forest: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(forest / FOLDERS[name])
    moved = Roots((), tuple((f"{name}/{split}", tmp_path / "moved") for split in SPLITS[name]))
    for split in SPLITS[name]:
        ids = suite_ref.load(name, moved, True).split(split).ids
        assert ids == load(name, forest).split(split).ids


@pytest.mark.parametrize("where", ["", "wilds", "data"])
@pytest.mark.parametrize("name", FOLDERS)
def test_trees_are_found_where_people_keep_them(name: str, where: str, forest: Path, tmp_path: Path) -> None:
    (tmp_path / where).mkdir(exist_ok=True)
    (tmp_path / where / FOLDERS[name]).symlink_to(forest / FOLDERS[name])
    load(name, tmp_path).check_ready()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_release_file_is_not_needed_and_nothing_is_written(name: str, forest: Path, tmp_path: Path) -> None:
    place = forest_wilds.copy(forest / FOLDERS[name], tmp_path)
    next(place.glob("RELEASE*")).unlink()
    before = sorted(tmp_path.rglob("*"))
    load(name, tmp_path).check_ready()
    with pytest.raises(MissingDataError):
        load(name, place / "elsewhere").check_ready()
    with pytest.raises(MissingDataError):
        load(name, place / "patches").check_ready()
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_of_the_package_reaches_a_user(forest: Path) -> None:
    """No torch, no pandas, no thread, no environment variable, Pillow's guard in place."""
    code = f"""
import os, sys, threading
from PIL import Image
guard, environment = Image.MAX_IMAGE_PIXELS, dict(os.environ)
from robustbench_ft import suite_ref
for name in {list(FOLDERS)!r}:
    suite_ref.load(name, __import__("pathlib").Path({str(forest)!r}), True).check_ready()
assert guard == Image.MAX_IMAGE_PIXELS and environment == dict(os.environ)
assert [t.name for t in threading.enumerate() if not t.daemon] == ["MainThread"]
assert not {{"wilds", "torch", "pandas", "outdated"}} & {{*sys.modules}}
"""
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Image.MAX_IMAGE_PIXELS is not None


def test_published_protocol_is_the_one_of_wise_ft_and_flyp() -> None:
    for name in ("wilds-iwildcam", "wilds-fmow"):
        assert (load(name).under("as-published").train, load(name).under("as-published").select) == ("train", "id_val")
    with pytest.raises(RbftError, match="'wilds-camelyon17' has no published protocol to follow"):
        load("wilds-camelyon17").under("as-published")


def test_counts_of_the_cards_add_up_to_the_published_totals() -> None:
    """FMoW has 141,696 images outside the sequestered split; Camelyon17 has 455,954 patches."""
    assert sum(load("wilds-fmow").card.counts.values()) == 141_696
    assert sum(load("wilds-camelyon17").card.counts.values()) == 455_954
    assert load("wilds-iwildcam").card.counts["train"] == 129_809
