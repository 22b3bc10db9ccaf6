"""Error ratios by factor (ImageNet-X): as the authors define them, from stored predictions; faults of the files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
from click.testing import CliRunner, Result

from robustbench_ft.cli.main import main
from robustbench_ft.compare import factors, report
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store

NAMES = ("pose", "background", "person_blocking")  # three of the sixteen
LEFT_OUT = 7  # images


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skills = {name: made.SKILLS[name] for name in ("zero-shot", "ft")}
    return made.write(tmp_path_factory.mktemp("runs"), made.World(skills=skills, n=150))


def annotations(runs: Path) -> list[dict[str, Any]]:
    """Of most ID images, with the keys of imagenet_x_val_multi_factor.jsonl; nobody has the last factor."""
    found = store.find_records([runs])[0].predictions("final", "test")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(found))[:130].tolist()
    return [
        {"file_name": f"{found.ids[k]}.JPEG", "class": int(found.label[k]), "pose": int(rng.random() < 0.8),
         "background": int(rng.random() < 0.3), "person_blocking": 0, "justification": "close up", "one_word": ""}
        for k in order
    ]  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "imagenet_x_val_multi_factor.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prototypical_paths.csv").write_text(
        "\n".join(["file_name", *(row.get("file_name", "") for row in rows[:LEFT_OUT])]) + "\n"
    )
    return path


def invoke(runs: Path, *words: object) -> Result:
    return CliRunner().invoke(main, ["report", str(runs), *map(str, words)])


def test_ratios_are_those_of_the_authors_definition(runs: Path, tmp_path: Path) -> None:
    """Error on the images of a factor over error on all annotated ones, prototypes left out, in plain loops. On the
    published predictions of four models (facebookresearch/imagenetx@6403d41, model_predictions/base) all 64 ratios
    were within 1e-15 of those that results/val/multi_factor/base/class implies."""
    rows = annotations(runs)
    path = write(tmp_path, rows)
    found = factors.read(path, tmp_path / "prototypical_paths.csv")
    assert found.names == NAMES
    for record in store.find_records([runs]):
        answers = record.predictions("final", "test")
        right = dict(zip(answers.ids, answers.correct.tolist(), strict=True))
        wrong = [(row, not right[row["file_name"].removesuffix(".JPEG")]) for row in rows[LEFT_OUT:]]
        average = sum(miss for _, miss in wrong) / len(wrong)
        ours = factors.ratios(record, "final", "test", found)
        for name in NAMES[:2]:
            own = [miss for row, miss in wrong if row[name] == 1]
            assert ours[name] == pytest.approx(sum(own) / len(own) / average, abs=1e-12)
        assert np.isnan(ours["person_blocking"])


@pytest.mark.parametrize("style", ["terminal", "markdown"])
def test_reports_show_them_worst_first(style: str, runs: Path, tmp_path: Path) -> None:
    path = write(tmp_path, annotations(runs))
    done = invoke(runs, "--factors", path, "--format", style)
    assert done.exit_code == 0, done.output
    table = factors.text(report.tables(store.find_records([runs]))[0], factors.read(path))
    assert [line[0] for line in table.body][-1] == "person_blocking"
    assert set(table.body[-1][2:]) == {"—"}
    assert float(table.body[0][2].split()[0]) >= float(table.body[1][2].split()[0])
    said = " ".join(done.output.split())  # a terminal breaks lines
    assert table.title in said
    assert "all 130 images that imagenet_x_val_multi_factor.jsonl describes" in said
    assert "(sd " in table.body[0][3]


def first(rows: list[dict[str, Any]], **changed: object) -> list[dict[str, Any]]:
    return [{**rows[0], **changed}, *rows[1:]]


FAULTS: dict[str, tuple[Callable[[list[dict[str, Any]]], list[dict[str, Any]]], str]] = {
    "label": (lambda rows: first(rows, **{"class": 10**6}), "gives 1 of 130 images of split 'test' another label than"),
    "other images": (lambda rows: [{**row, "file_name": f"x/{k}.png"} for k, row in enumerate(rows)], "describes no"),
    "no name": (lambda rows: [{"pose": 1}, *rows], "line 1 names no image under 'file_name'; get the official"),
    "twice": (lambda rows: [*rows, rows[0]], "describes 1 images twice; get the official file again"),
    "no factor": (lambda rows: [{"file_name": row["file_name"], "pose": 2} for row in rows], "no column that is 0"),
    "empty": (lambda rows: [], "describes no image"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault: str, runs: Path, tmp_path: Path) -> None:
    change, text = FAULTS[fault]
    done = invoke(runs, "--factors", write(tmp_path, change(annotations(runs))))
    assert done.exit_code == 2, done.output
    [line] = done.stderr.splitlines()[-1:]
    assert text in line


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--without", "a.csv"), "--without needs it"),
        (("--factors", "a.jsonl", "--format", "json"), "prints text (not json)"),
        (("--factors", "a.jsonl"), "cannot read a.jsonl"),
    ],
)
def test_options_that_do_not_fit(words: tuple[str, ...], text: str, runs: Path) -> None:
    done = invoke(runs, *words)
    assert done.exit_code == 2
    assert text in done.stderr


def test_a_line_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"file_name": "a.JPEG", "pose": 1}\n{oops\n')
    with pytest.raises(RbftError, match=r"a.jsonl, line 2 is no JSON: .*; get the official file again"):
        factors.read(tmp_path / "a.jsonl")
