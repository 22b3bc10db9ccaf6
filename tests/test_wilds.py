"""iWildCam, FMoW and Camelyon17: as the `wilds` package reads and scores them, from the table to the report."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import coded
import forest_wilds
import numpy as np
import pytest
import tiny
from click.testing import CliRunner, Result
from forest_wilds import FOLDERS
from PIL import Image
from wilds_cases import CASES, Case
from wilds_oracle import Oracle, package, paths, region_codes

from robustbench_ft import checks, metrics, registry, report, runner, store, suite_ref
from robustbench_ft.board import audit, shelf
from robustbench_ft.cli import main
from robustbench_ft.data import Predictions, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.places import Roots
from robustbench_ft.suite import Suite, Task

SPLITS = {
    "wilds-iwildcam": ("train", "val", "test", "id_val", "id_test"),
    "wilds-fmow": ("train", "val", "test", "id_val", "id_test"),
    "wilds-camelyon17": ("train", "val", "test", "id_val"),
}
EACH = [pytest.param(suite, split, id=f"{suite}-{split}") for suite, splits in SPLITS.items() for split in splits]
COUNTS = {name: suite_ref.load(name).card.counts for name in FOLDERS}
REGIONS = ("Asia", "Europe", "Africa", "Americas", "Oceania")


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forest")
    for suite in FOLDERS:
        forest_wilds.plant(root, suite)
    return root


@pytest.fixture(scope="module")
def oracles(forest: Path) -> Iterator[dict[str, Oracle]]:
    with package():
        yield {suite: Oracle(suite, forest) for suite in FOLDERS}


@pytest.fixture(scope="module")
def counted(forest: Path) -> Iterator[None]:
    """The cards count what the small trees hold, so that nothing is partial."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            suite = suite_ref.load(name, forest, partial=True)
            counts = {split: len(suite.split(split)) for split in suite.card.counts}
            patch.setattr(type(suite), "card", replace(suite.card, counts=counts))
        runner._load.cache_clear()  # pyright: ignore[reportPrivateUsage]
        yield
    runner._load.cache_clear()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(scope="module")
def wordy_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny CLIP with the words of all prompts."""
    from robustbench_ft.embedded.words import _WORD  # pyright: ignore[reportPrivateUsage]

    texts = [text for name in FOLDERS for text in Task(load(name).classes, load(name).templates).texts]
    words = sorted({word for text in texts for word in _WORD.findall(text.lower())})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "WORDS", tuple(words))
        return f"local-dir:{tiny.write_model(tmp_path_factory.mktemp('wordy') / 'tiny')}"


@pytest.fixture(scope="module")
def records(
    forest: Path, counted: None, wordy_model: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[store.Record]]:
    """zero-shot, ft and lipsum on each suite, two seeds, from the command line."""
    out = tmp_path_factory.mktemp("runs")
    words = ["run", *(w for name in FOLDERS for w in ("--suite", name)), "--root", str(forest), "--out", str(out)]
    words += [word for method in ("zero-shot", "ft", "lipsum") for word in ("--method", method)]
    words += ["--seeds", "0-1", "--precision", "fp32"]
    words += ["--model", wordy_model, "--set", "steps=2", "--set", "batch=8", "--set", "validate_every=1"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = store.find_records([out])
    return {name: [record for record in found if record.cell["suite"] == name] for name in FOLDERS}


def load(name: str, root: Path | None = None, partial: bool = True) -> Suite:
    return suite_ref.load(name, root, partial)


def guesses(split: Split, n_classes: int) -> Predictions:
    """Right on about half of the images."""
    rng = np.random.default_rng(len(split))
    n = len(split)
    prediction = np.where(rng.random(n) < 0.5, split.labels, rng.integers(0, n_classes, n))
    ones, tops = np.ones(n, np.float32), prediction[:, None]
    return Predictions(
        split.ids, split.labels, prediction, ones, -ones, ones, tops, ones[:, None], split.groups
    )  # fmt: skip


# -- the tables, as the package reads them ----------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "name"), EACH)
def test_files_and_labels_are_those_of_the_package(
    suite: str, name: str, forest: Path, oracles: dict[str, Oracle]
) -> None:
    split, oracle = load(suite, forest).split(name), oracles[suite]
    theirs = oracle.images(name)
    assert len(split) == len(theirs) > 0
    assert len(set(split.labels)) > 1
    assert paths(split) == [path for path, _ in theirs]
    assert split.labels.tolist() == oracle.labels(name)
    assert [coded.label_of(image) for image in split.images.read(range(len(split)))] == split.labels.tolist()
    assert [coded.label_of(image) for _, image in theirs] == split.labels.tolist()


@pytest.mark.parametrize(("suite", "name"), EACH)
def test_metadata_are_those_of_the_package(suite: str, name: str, forest: Path, oracles: dict[str, Oracle]) -> None:
    split, oracle = load(suite, forest).split(name), oracles[suite]
    named = {"region", "region_year"}
    assert set(split.groups) - named <= set(oracle.data.metadata_fields)
    for group in set(split.groups) - named:
        assert (split.groups[group] == oracle.column(name, group)).all(), group
    if suite == "wilds-fmow":
        region = region_codes(oracle.data, REGIONS)[oracle.column(name, "region")]
        assert (split.groups["region"] == region).all()
        pairs = {(r, y): c for r, y, c in zip(region, split.groups["year"], split.groups["region_year"], strict=True)}
        assert len(set(pairs.values())) == len(pairs)
        assert load(suite).group_names["region"] == REGIONS


def test_every_declared_group_names_the_package_fields(oracles: dict[str, Oracle]) -> None:
    for suite, oracle in oracles.items():
        assert set(oracle.data.split_dict) == set(SPLITS[suite])
        declared = {"region_year": "region"}
        for column in load(suite).clusters.values():
            assert declared.get(column, column) in oracle.data.metadata_fields


def test_classes_and_bundles_are_those_of_the_package(oracles: dict[str, Oracle]) -> None:
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
    suite: str, name: str, forest: Path, oracles: dict[str, Oracle]
) -> None:
    kind = load(suite, forest)
    predictions = guesses(kind.split(name), len(kind.classes))
    agree(kind, name, metrics.score(predictions), oracles[suite].eval(name, predictions.prediction))


def agree(suite: Suite, split: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    """All that the package prints of a split, and that the official metric is one of these numbers."""
    same = {
        "wilds-iwildcam": {"accuracy": "acc_avg", "macro_f1": "F1-macro_all", "macro_recall": "recall-macro_all"},
        "wilds-fmow": {
            "accuracy": "acc_avg", "worst_group:region": "acc_worst_region", "worst_group:year": "acc_worst_year",
        },
        "wilds-camelyon17": {"accuracy": "acc_avg", "worst_group:slide": "acc_wg"},
    }[suite.name]  # fmt: skip
    for name, other in same.items():
        assert ours[name] == pytest.approx(theirs[other], rel=1e-6), (name, ours[name], theirs[other])
    assert suite.metric_of(split) in same
    official = {"wilds-iwildcam": "macro_f1", "wilds-camelyon17": "accuracy"}.get(
        suite.name, "worst_group:region" if split in ("val", "test") else "accuracy"
    )
    assert suite.metric_of(split) == official or split == "train"


def test_region_other_and_empty_regions_never_are_the_worst(forest: Path, oracles: dict[str, Oracle]) -> None:
    """Every image of the tree's OOD test set is right but the one in 'Other'; Oceania has no image there."""
    split = load("wilds-fmow", forest).split("test")
    region = split.groups["region"]
    assert (region == -1).sum() == 1
    assert set(region) == {-1, 0, 1, 2, 3}
    wrong = np.where(region == -1, (split.labels + 1) % 62, split.labels)
    ours = metrics.score(replace(guesses(split, 62), prediction=wrong))
    theirs = oracles["wilds-fmow"].eval("test", wrong)
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


# -- the whole path ---------------------------------------------------------------------------------------------------


def test_stored_predictions_have_the_official_score(
    records: dict[str, list[store.Record]], forest: Path, oracles: dict[str, Oracle]
) -> None:
    for name, found in records.items():
        suite = load(name, forest)
        assert {(r.cell["method"], int(r.cell["seed"])) for r in found} >= {
            ("zero-shot", 0), ("ft", 0), ("ft", 1), ("lipsum", 0), ("lipsum", 1),
        }  # fmt: skip
        for record in found:
            assert record.metrics["official"] == {split: suite.metric_of(split) for split in suite.splits}
            for split in suite.splits:
                stored = record.predictions("final", split)
                assert stored.ids == suite.split(split).ids
                assert stored.label.tolist() == oracles[name].labels(split)
                assert set(stored.groups) == set(suite.split(split).groups)
                scores = record.metrics["candidates"]["final"][split]
                agree(suite, split, scores, oracles[name].eval(split, stored.prediction))


def test_no_record_is_partial_and_all_say_what_was_read(records: dict[str, list[store.Record]]) -> None:
    for found in records.values():
        for record in found:
            assert not record.cell.get("partial")
            for data in record.env["data"].values():
                assert "partial" not in data
                assert data["layout"].endswith("metadata.csv")


def test_ood_validation_is_stored_and_is_in_no_mean(records: dict[str, list[store.Record]]) -> None:
    for name, found in records.items():
        splits = found[0].metrics["splits"]
        test = "id_val" if name == "wilds-camelyon17" else "id_test"
        assert splits == {"val": "id_val", "test": test, "shifts": ["test"], "extra": ["val"]}
        assert found[0].metrics["clusters"] == dict(load(name).clusters)


def test_reports_name_the_official_metric(records: dict[str, list[store.Record]]) -> None:
    shown = {
        "wilds-iwildcam": "test: macro-F1", "wilds-fmow": "test: worst-region accuracy", "wilds-camelyon17": "test",
    }  # fmt: skip
    for name, found in records.items():
        [table] = report.tables(found)
        assert shown[name] in report.markdown(table)
    done = CliRunner().invoke(main, ["compare", str(records["wilds-fmow"][0].folder.parents[3]), "--baseline", "ft"])
    assert done.exit_code == 0, done.output


def test_boards_hold_and_verify_them(records: dict[str, list[store.Record]], forest: Path, tmp_path: Path) -> None:
    runs = records["wilds-fmow"][0].folder.parents[3]
    shelf.add([runs], tmp_path, {"origin": "rerun"})
    assert not any(audit.audit_all(tmp_path, data=Roots((forest,))).values())
    done = CliRunner().invoke(main, ["leaderboard", "build", "--root", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "test: worst-region accuracy" in (tmp_path / "wilds-fmow-v1.md").read_text()
    assert "test: macro-F1" in (tmp_path / "wilds-iwildcam-v1.md").read_text()
    assert "validation number" in (tmp_path / "wilds-camelyon17-v1.md").read_text()


def test_camelyon17_selects_and_reports_on_the_whole_id_validation_set(
    records: dict[str, list[store.Record]], forest: Path, oracles: dict[str, Oracle]
) -> None:
    suite = load("wilds-camelyon17", forest)
    assert suite.val == suite.test == "id_val"
    assert "the ID column is a validation number" in " ".join(suite.card.note.split())
    for name in ("id_val", "val", "test"):
        n = {len(record.predictions("final", name)) for record in records["wilds-camelyon17"]}
        assert n == {len(oracles["wilds-camelyon17"].rows(name))}


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", FOLDERS)
def test_suite_keeps_the_contract(name: str, forest: Path) -> None:
    for check in checks.check_suite(load(name, forest, partial=False)):
        check.run()


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
        assert (load(name).trainer("as-published"), load(name).selector("as-published")) == ("train", "id_val")
    with pytest.raises(RbftError, match="'wilds-camelyon17' has no published protocol to follow"):
        load("wilds-camelyon17").selector("as-published")


def test_counts_of_the_cards_add_up_to_the_published_totals() -> None:
    """FMoW has 141,696 images outside the sequestered split; Camelyon17 has 455,954 patches."""
    assert sum(COUNTS["wilds-fmow"].values()) == 141_696
    assert sum(COUNTS["wilds-camelyon17"].values()) == 455_954
    assert COUNTS["wilds-iwildcam"]["train"] == 129_809


# -- data that are not as they should be ------------------------------------------------------------------------------


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_data_are_refused_in_one_line(case: Case, forest: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "runs"
    root.mkdir()
    place = forest_wilds.copy(forest / FOLDERS[case.suite], root)
    words = case.spoil(place) or ["--root", str(root)]
    before = sorted(root.rglob("*"))
    done = invoke(["run", "--suite", case.suite, "--method", "zero-shot", "--out", str(out), *words])
    assert done.exit_code == 2, done.output
    [line] = done.output.strip().splitlines()
    assert line.startswith("rbft: ")
    for text in (str(tmp_path), *case.says):
        assert text in line, line
    assert not out.exists()
    assert sorted(root.rglob("*")) == before


@pytest.mark.usefixtures("counted")
def test_absent_images_are_left_out_only_when_that_is_allowed(wordy_model: str, forest: Path, tmp_path: Path) -> None:
    forest_wilds.copy(forest / FOLDERS["wilds-fmow"], tmp_path)
    split = load("wilds-fmow", tmp_path).split("test")
    Path(split.images.name(3)).unlink()
    words = ["run", "--suite", "wilds-fmow", "--method", "zero-shot", "--model", wordy_model, "--root", str(tmp_path)]
    done = invoke([*words, "--out", str(tmp_path / "runs"), "--allow-partial"])
    assert done.exit_code == 0, done.output
    [record] = store.find_records([tmp_path / "runs"])
    data = record.env["data"]["test"]
    assert record.cell["partial"]
    assert data["n"] == len(split) - 1
    assert data["layout"] == "rgb_metadata.csv, 1 of its images absent"
    assert data["partial"] == [f"split 'test' has {len(split) - 1} images, its card says {len(split)}"]
    assert split.ids[3] not in record.predictions("final", "test").ids


def test_small_trees_are_refused_by_the_official_counts(forest: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            kind: Any = registry.load("suite", name, Suite)
            patch.setattr(kind, "card", replace(kind.card, counts=COUNTS[name]))
            done = invoke(["run", "--suite", name, "--method", "zero-shot", "--root", str(forest), "--out",
                           str(tmp_path / "runs")])  # fmt: skip
            assert done.exit_code == 2
            assert f"images, its card says {COUNTS[name]['train']:,} in {forest / FOLDERS[name]};" in done.output
            assert "--allow-partial runs on it" in done.output
    assert not (tmp_path / "runs").exists()


def invoke(words: list[str]) -> Result:
    runner._load.cache_clear()  # pyright: ignore[reportPrivateUsage]
    return CliRunner().invoke(main, words)
