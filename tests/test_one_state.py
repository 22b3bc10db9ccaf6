"""What is not of one state is never averaged, and never stands beside each other without a word."""

import json
from pathlib import Path

import made
import pytest
from click.testing import CliRunner

from robustbench_ft.board import ranking, table
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.compare import report, rows
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store

SKILLS = {"zero-shot": (0.4, 0.2), "ft": (1.8, -0.3), "lipsum": (1.7, 0.45)}


def write(out: Path, **changed: object) -> Path:
    return made.write(out, made.World(**{"skills": SKILLS, "n": 120, **changed}))  # pyright: ignore[reportArgumentType]


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def seed(out: Path, method: str, k: int) -> Path:
    [folder] = out.glob(f"*/*/{method}-*/seed-{k}")
    return folder


def said(words: str) -> str:
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 0, done.output
    return done.output


WARNING = "Runs are not of one state"


def test_runs_of_one_state_need_no_word(tmp_path: Path) -> None:
    write(tmp_path, code="a" * 64)
    for command in ("report", "compare"):
        assert WARNING not in said(f"{command} {tmp_path}")


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("cell.json", {"method_version": 2}, "version of ft (1, 2)"),
        ("cell.json", {"code": {"sha256": "b" * 64, "files": {}}}, "code of ft (aaaaaaaa, bbbbbbbb)"),
        ("cell.json", {"code": None}, "code of ft (aaaaaaaa, not noted)"),
        ("cell.json", {"shared": {"crop": 2}}, ""),
        ("metrics.json", {"version": 7}, "list of metrics ("),
        ("metrics.json", {"schema": 0}, "schema of records (0/1, 1)"),
        ("env.json", {"schema": 0}, "schema of records (0/1, 1)"),
    ],
)
def test_rows_of_several_states_are_told_in_one_sentence(
    name: str, values: dict[str, object], told: str, tmp_path: Path
) -> None:
    """The same method under two learning rates, of which one is of another state."""
    write(tmp_path / "a", code="a" * 64)
    write(tmp_path / "b", code="a" * 64, lr=1e-3, skills={"ft": (1.6, 0.1)})
    for k in range(3):
        edit(seed(tmp_path / "b", "ft", k), name, **values)
    for command, options in (("report", ""), ("compare", "--baseline lipsum")):
        output = " ".join(said(f"{command} {tmp_path} {options}").split())
        if told:
            assert output.count(WARNING) == 1, output
            assert told in output
            assert "run the older ones again" in output
        else:
            assert WARNING not in output


@pytest.mark.parametrize(("code", "told"), [("a", ""), ("b", "code of ft (aaaaaaaa, bbbbbbbb)")])
def test_a_board_tells_it_too(code: str, told: str, tmp_path: Path) -> None:
    write(tmp_path / "a", code="a" * 64)
    write(tmp_path / "b", code=code * 64, lr=1e-3, skills={"ft": (1.6, 0.1)})
    claims = claim_store.add([tmp_path / "a", tmp_path / "b"], tmp_path / "boards", Trust("rerun"))
    said_there = table.caption(ranking.boards(claims)[0])
    assert (WARNING in said_there) == bool(told)
    assert told in said_there


def test_learning_rates_are_not_chosen_among_two_states_of_a_method(tmp_path: Path) -> None:
    write(tmp_path / "a", code="a" * 64, skills={"ft": (1.8, -0.3)})
    write(tmp_path / "b", code="b" * 64, skills={"ft": (1.6, 0.1)}, lr=1e-3)
    made_rows = rows.rows(store.find_records([tmp_path]))
    assert not any("ID val" in name for row in made_rows for name in (row.setting, *row.also))
    assert [row.name for row in made_rows] == ["ft (lr=0.0003)", "ft (lr=0.001)"]
    write(tmp_path / "c", code="a" * 64, skills={"ft": (1.6, 0.1)}, lr=1e-3)
    both = rows.rows(store.find_records([tmp_path / "a", tmp_path / "c"]))
    assert any("ID val" in name for row in both for name in (row.setting, *row.also))  # rules that choose a rate


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"recipe": {"lr": 1e-3, "steps": 240, "batch": 128, "head": "unit"}}, "lr 0.0003 and 0.001"),
        ({"method_version": 2}, "version 1 and 2"),
        ({"precision": "bf16"}, "precision fp32 and bf16"),
        ({"settings": {"strength": 2}}, "strength None and 2"),
        ({"schema": 0}, "schema 1 and 0"),
    ],
)
def test_seeds_that_only_say_they_are_of_one_row_are_not_averaged(
    values: dict[str, object], told: str, tmp_path: Path
) -> None:
    write(tmp_path)
    edit(seed(tmp_path, "ft", 1), "cell.json", **values)
    with pytest.raises(RbftError, match=f"call themselves seeds of one configuration, and differ: {told}; report"):
        report.tables(store.find_records([tmp_path]))
