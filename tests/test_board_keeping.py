"""Boards over time: a stranger's row moves nobody's, and claims of older versions are made again."""

import json
import shutil
from pathlib import Path
from typing import Any

import made
import pytest
from click.testing import CliRunner

from robustbench_ft.board import build, ranking
from robustbench_ft.board import text as board_text
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main

TRUST = Trust("rerun")
METHODS = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft", "lipsum")}


def rbft(*words: object) -> str:
    done = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


# -- a stranger's row -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kept")
    boards = root / "boards"
    made.write(root / "runs", made.World(skills=METHODS, n=120))
    claims = claim_store.add([root / "runs"], boards, TRUST)
    stored = {one.claim.identity.method: one.place.name for one in claims}
    text = f'[embedded]\nbaseline = "{stored["ft"]}"\ncurve = "{stored["wise-ft"]}"\n'
    (boards / "shapes-v2" / claim_store.BOARD).write_text(text)
    return root


@pytest.fixture
def keepers(kept: Path, tmp_path: Path) -> Path:
    """A board of three methods, whose keepers named its baseline, beside the runs: a copy to change."""
    return Path(shutil.copytree(kept, tmp_path, dirs_exist_ok=True)) / "boards"


def stranger(boards: Path, **options: Any) -> None:
    """An ft that is better on shifts, with two more seeds than anybody else."""
    world = made.World(skills={"ft": (1.9, 0.8)}, n=120, changed={"steps": 20}, seeds=(0, 1, 2, 3, 4), **options)
    claim_store.add([made.write(boards.parent / "strangers", world)], boards, Trust("submitted", "A stranger"))


@pytest.mark.parametrize("named", [True, False], ids=["board.toml", "no board.toml"])
def test_a_strangers_row_moves_no_other_difference(keepers: Path, named: bool) -> None:
    if not named:
        (keepers / "shapes-v2" / claim_store.BOARD).unlink()
    before = {row.name: row for row in ranking.boards(claim_store.find(keepers))[0].rows}
    stranger(keepers)
    board = ranking.boards(claim_store.find(keepers))[0]
    after = {row.name: row for row in board.rows}
    assert board.baseline == "ft"
    assert after.keys() - before.keys() == {"ft (steps=20)"}
    assert after["ft (steps=20)"].estimate("mean OOD").value > after["ft"].estimate("mean OOD").value
    for name, row in before.items():
        assert after[name].against == row.against
        assert after[name].gain == row.gain


def test_a_row_off_the_recipe_says_so_alone_too(tmp_path: Path) -> None:
    stranger(tmp_path / "boards")
    board = ranking.boards(claim_store.find(tmp_path / "boards"))[0]
    assert [row.name for row in board.rows] == ["ft (steps=20)"]
    assert board.baseline is None
    stranger(tmp_path / "boards", lr=1e-2)
    board = ranking.boards(claim_store.find(tmp_path / "boards"))[0]
    assert {row.name for row in board.rows} == {"ft (steps=20, lr=0.0003)", "ft (steps=20, lr=0.01)"}
    assert "No differences are shown: 0 claims of ft, and board.toml names none" in board_text.markdown(board)


def test_keepers_notes_stand_under_the_table(keepers: Path) -> None:
    path = keepers / "shapes-v2" / claim_store.BOARD
    path.write_text(f'{path.read_text()}notes = ["lp-ft: an <earlier> row was another."]\n')
    rbft("leaderboard", "build", "--root", keepers)
    assert "lp-ft: an <earlier> row was another." in (keepers / "shapes-v2.md").read_text()
    assert "an &lt;earlier&gt; row" in (keepers / "site" / "shapes-v2.html").read_text()


@pytest.mark.parametrize(
    ("content", "says"),
    [('[embedded]\nbaseline = "ft-00000000"\n', None), ('[embedded]\nbase = "ft"\n', "unknown key 'base'"),
     ("[embedded]\nbaseline = 3\n", "names of claims"), ("[embedded\n", "is not valid TOML")],
)  # fmt: skip
def test_a_wrong_board_toml_is_one_line(keepers: Path, content: str, says: str | None) -> None:
    (keepers / "shapes-v2" / claim_store.BOARD).write_text(content)
    done = CliRunner().invoke(main, ["leaderboard", "build", "--root", str(keepers)])
    if says is None:
        assert (
            "board.toml names the baseline ft-00000000, which has no claim here"
            in (keepers / "shapes-v2.md").read_text()
        )
    else:
        assert done.exit_code == 2
        [line] = done.output.strip().splitlines()
        assert says in line


# -- claims of older versions -----------------------------------------------------------------------------------------


def older(one: claim_store.StoredClaim) -> None:
    content = json.loads(one.path.read_text())
    content["schema"] = 1
    content["training"]["selection"] = "ID validation"
    one.path.write_text(json.dumps(content))


def test_refresh_makes_older_claims_again_and_nothing_else(keepers: Path) -> None:
    before = {one.path: one.path.read_bytes() for one in claim_store.find(keepers)}
    for one in claim_store.find(keepers):
        older(one)
    done = CliRunner().invoke(main, ["leaderboard", "verify", "--root", str(keepers)])
    assert done.exit_code == 2
    assert "run `rbft leaderboard refresh`" in done.output
    assert "4 claims changed" in rbft("leaderboard", "refresh", "--root", keepers)
    assert {path: path.read_bytes() for path in before} == before
    assert "0 claims changed" in rbft("leaderboard", "refresh", "--root", keepers)


def test_refresh_blesses_no_other_predictions(keepers: Path) -> None:
    one = next(one for one in claim_store.find(keepers) if one.place.name.startswith("lipsum"))
    path = keepers / one.place.run(1) / "predictions.parquet"
    path.write_bytes((keepers / one.place.run(0) / "predictions.parquet").read_bytes())
    before = one.path.read_bytes()
    done = CliRunner().invoke(main, ["leaderboard", "refresh", "--root", str(keepers)])
    assert done.exit_code == 2
    assert str(path) in done.output
    assert one.path.read_bytes() == before


def test_building_reads_each_parquet_file_once(keepers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_ft.claims import bundle

    read: list[Path] = []

    def counted(path: Path, *args: Any, **options: Any) -> Any:
        read.append(path)
        return original(path, *args, **options)

    original = bundle.pq.ParquetFile
    monkeypatch.setattr(bundle.pq, "ParquetFile", counted)
    build.files(keepers)
    assert len(read) == len(set(read)) == 10
