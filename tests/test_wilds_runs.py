"""iWildCam, FMoW and Camelyon17 on small trees: runs, records, reports, boards; bad data."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import forest_wilds
import pytest
import tiny
from click.testing import CliRunner, Result
from forest_wilds import FOLDERS
from wilds_cases import CASES, Case
from wilds_oracle import agree, load, opened

from robustbench_ft import checks, registry, suite_ref
from robustbench_ft.claims import audit, claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.compare import report
from robustbench_ft.doctor.wilds import Package
from robustbench_ft.images.roots import Roots
from robustbench_ft.prompts import Task
from robustbench_ft.record import store
from robustbench_ft.suite import Suite

COUNTS = {name: suite_ref.load(name).card.counts for name in FOLDERS}


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return forest_wilds.plant_all(tmp_path_factory.mktemp("forest"))


@pytest.fixture(scope="module")
def oracles(forest: Path) -> Iterator[dict[str, Package]]:
    with opened(forest) as packages:
        yield packages


@pytest.fixture(scope="module")
def counted(forest: Path) -> Iterator[None]:
    """The cards count what the small trees hold, so that nothing is partial."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            suite = suite_ref.load(name, forest, partial=True)
            counts = {split: len(suite.split(split)) for split in suite.card.counts}
            patch.setattr(type(suite), "card", replace(suite.card, counts=counts))
        yield


@pytest.fixture(scope="module")
def wordy_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny CLIP with the words of all prompts."""
    from robustbench_ft.embedded.vocabulary import WORD

    texts = [text for name in FOLDERS for text in Task(load(name).classes, load(name).templates).texts]
    words = sorted({word for text in texts for word in WORD.findall(text.lower())})
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
    words += ["--set", "warmup_steps=0", "--set", "lr=1e-2"]  # else no seed moves a weight before the first validation
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = store.find_records([out])
    return {name: [record for record in found if record.cell["suite"] == name] for name in FOLDERS}


# -- the whole path ---------------------------------------------------------------------------------------------------


def test_stored_predictions_have_the_official_score(
    records: dict[str, list[store.Record]], forest: Path, oracles: dict[str, Package]
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
                assert stored.label.tolist() == oracles[name].labels(split).tolist()
                assert set(stored.groups) == set(suite.split(split).groups)
                scores = record.metrics["candidates"]["final"][split]
                agree(suite, split, scores, oracles[name].scores(split, stored.prediction))


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
    claim_store.add([runs], tmp_path, Trust("rerun"))
    assert not any(audit.audit_all(tmp_path, data=Roots((forest,))).values())
    done = CliRunner().invoke(main, ["leaderboard", "build", "--root", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "test: worst-region accuracy" in (tmp_path / "wilds-fmow-v2.md").read_text()
    assert "test: macro-F1" in (tmp_path / "wilds-iwildcam-v2.md").read_text()
    assert "validation number" in (tmp_path / "wilds-camelyon17-v1.md").read_text()


def test_camelyon17_selects_and_reports_on_the_whole_id_validation_set(
    records: dict[str, list[store.Record]], forest: Path, oracles: dict[str, Package]
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
    *_, line = lines = done.output.strip().splitlines()
    assert [text for text in lines if text.startswith("rbft: ")] == [line]  # what is planned comes before
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
    return CliRunner().invoke(main, words)
