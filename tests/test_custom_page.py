"""The worked example of docs/custom-suite.md: its file and its commands, run beside folders such as it shows."""

import json
import re
from dataclasses import fields
from pathlib import Path

import coded
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from robustbench_ft import registry, suite_ref
from robustbench_ft.cli.main import main
from robustbench_ft.compare import report
from robustbench_ft.custom.form import Columns, Form, Place
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "custom-suite.md").read_text(encoding="utf-8")
SHOP = ("ice_cream", "mug", "umbrella")
CAMERAS = ("north", "yard", "gate")


def block(marker: str) -> str:
    """The code block of the page that follows a marker."""
    return PAGE.partition(f"<!-- {marker} -->")[2].partition("```")[2].partition("\n")[2].partition("```")[0]


def rbft(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder, beside which its commands are run; the first `rbft new suite` has been."""
    folder = tmp_path_factory.mktemp("page") / "shop"
    for split, n in (("train", 16), ("night", 5)):
        for k, name in enumerate(SHOP):
            for i in range(n):
                coded.write(folder / split / name / f"{split}-{i}.png", k)
    rows = ["path,label,camera"]
    for i in range(15):
        coded.write(folder / "photos" / f"{i:04}.png", i % 3)
        rows.append(f"photos/{i:04}.png,{SHOP[i % 3]},{CAMERAS[i % 2 if i < 12 else 2]}")
    (folder / "field.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def drafted(shop: Path) -> str:
    """What `rbft new suite` printed."""
    done = rbft("new", "suite", str(shop))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def page_runs(shop: Path, drafted: str) -> dict[str, str]:
    """Command line of the page -> what it printed."""
    (shop / "suite.toml").write_text(block("suite"), encoding="utf-8")
    said: dict[str, str] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shop.parent)
        for line in block("commands").strip().splitlines():
            done = rbft(*line.split()[1:])
            assert done.exit_code == 0, (line, done.output)
            said[line] = done.output
    torch.set_num_threads(threads)
    return said


@pytest.fixture(scope="module")
def records(shop: Path, page_runs: dict[str, str]) -> list[store.Record]:
    return store.find_records([shop.parent / "runs"])


def test_the_first_file_is_written_from_what_lies_there(shop: Path, drafted: str) -> None:
    test = round(16 * 0.2)  # of each class
    val = round((16 - test) * 0.1)
    assert f"splits   train {3 * (16 - test - val)}, val {3 * val}, test {3 * test}, field 15, night 15" in drafted
    assert "classes  3: ice cream, mug, umbrella" in drafted
    assert f"--suite {shop}" in drafted
    assert "new suite shop" in PAGE


def test_the_pages_commands_run(page_runs: dict[str, str]) -> None:
    assert [line.split()[1] for line in page_runs] == ["data", "show", "run", "report", "compare"]
    check, show, run, table, compared = page_runs.values()
    assert "ready: rbft run --method lipsum --suite shop/suite.toml" in check
    assert "classes   3: ice cream, mug, umbrella" in show
    assert "metric    field: worst_group:camera (official)" in show
    assert "test is held out of train: 20% of each class" in show
    for text in (run, table):
        assert "shop v1" in text
        assert "lipsum" in text
        assert "field: worst-camera accuracy" in text
        assert "night: mean per-class recall" in text
    assert "camera" in compared


def test_labels_are_those_in_the_pixels(shop: Path, page_runs: dict[str, str]) -> None:
    suite = suite_ref.load(str(shop))
    assert suite.classes == ("ice cream", "mug", "umbrella")
    for name in (suite.train, *suite.splits):
        split = suite.split(name)
        assert len(set(split.labels)) == 3
        assert [coded.label_of(image) for image in split.images.read(range(len(split)))] == split.labels.tolist()


def test_records_hold_classes_groups_and_what_is_official(shop: Path, records: list[store.Record]) -> None:
    assert len(records) == 5
    suite = suite_ref.load(str(shop))
    for record in records:
        assert record.cell["suite_definition"] == suite.definition
        assert record.env["labels"]["classes"] == list(suite.classes)
        assert record.env["labels"]["group_names"] == {"camera": sorted(CAMERAS)}
        assert record.metrics["official"]["field"] == "worst_group:camera"
        assert record.metrics["clusters"] == {"field": "camera"}
        found = record.predictions("final", "field")
        of_file = [row.split(",") for row in (shop / "field.csv").read_text().splitlines()[1:]]
        assert found.ids == tuple(f"field/{path}" for path, _, _ in of_file)
        assert [sorted(CAMERAS)[code] for code in found.groups["camera"]] == [camera for _, _, camera in of_file]
        by_camera = [found.correct[found.groups["camera"] == code].mean() for code in range(3)]
        assert record.metrics["candidates"]["final"]["field"]["worst_group:camera"] == pytest.approx(min(by_camera))


def test_what_is_learned_on_train_is_right_on_the_shifts(records: list[store.Record]) -> None:
    """The images carry their labels, so a mix-up between folders, manifest and classes would show here."""
    for record in records:
        if record.cell["method"] == "ft":
            found = record.metrics["candidates"]["final"]
            assert min(found[split]["accuracy"] for split in ("test", "night", "field")) > 0.9


def test_tables_resample_whole_clusters(records: list[store.Record]) -> None:
    """Three cameras: the interval of `field` is a jackknife by hand; its df, the effective number of cameras less 1."""
    [record] = [r for r in records if r.cell["method"] == "zero-shot"]
    found = record.predictions("final", "field")
    centred, cameras = found.correct - found.correct.mean(), found.groups["camera"]
    units = [centred[cameras == k].sum() / (1 - (cameras == k).mean()) for k in range(3)]
    expected = (2 / 3 * np.square(units).sum()) ** 0.5 / len(found)
    shown = report.tables([record])[0].lines[0].accuracies["field"].estimate  # its official metric is another
    assert shown.se == pytest.approx(expected)
    assert shown.df == pytest.approx(1 / sum((cameras == k).mean() ** 2 for k in range(3)) - 1)


def test_the_page_names_every_key() -> None:
    keys = set(re.findall(r"`(\w+)`", "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))))
    assert {f.name for kind in (Form, Place) for f in fields(kind)} <= keys
    assert all(f.name in PAGE for f in fields(Columns))


def test_states_of_a_suite_never_meet(records: list[store.Record], tmp_path: Path) -> None:
    cell = {**records[0].cell, "suite_definition": "0", "digest": "0" * 8}
    folder = tmp_path / "seed-0"
    folder.mkdir()
    for name in ("env.json", "metrics.json"):
        (folder / name).write_bytes((records[0].folder / name).read_bytes())
    (folder / "cell.json").write_text(json.dumps(cell))
    with pytest.raises(
        RbftError, match=r"were run on two states of suite 'shop': its suite.toml, or the images it names"
    ):
        report.tables([*records, store.Record(folder)])


def test_a_file_may_be_named_in_several_ways(
    shop: Path, page_runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    definitions = {
        suite_ref.load(text).definition for text in (".", "./suite.toml", "suite.toml", str(shop), "../shop/")
    }
    assert len(definitions) == 1
    assert all(not suite_ref.is_file(name) for name in registry.entries("suite"))
