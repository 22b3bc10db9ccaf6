"""A record is one thing: damage to any of its files is named by every command that reads it, never averaged over."""

import random
import shutil
from pathlib import Path
from subprocess import run

import made
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from robustbench_ft.cli.main import main
from robustbench_ft.record import digests, store

FLIPS = 40


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refusal(result: Result) -> str:
    """The one line of a command that failed in good order."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    [line] = [line for line in result.output.splitlines() if line.startswith("rbft: ")]
    assert len(line) < 500
    return line


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.write(
        tmp_path_factory.mktemp("runs"),
        made.World(skills={name: made.SKILLS[name] for name in ("ft", "wise-ft")}, n=40),
    )
    for done in folder.rglob("done"):
        store.mark_done(done.parent)
    return folder


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "runs"))


def commands(runs: Path, tmp_path: Path) -> dict[str, Result]:
    """What every reader of records says."""
    return {
        "report": rbft("report", runs),
        "compare": rbft("compare", runs),
        "add": rbft("leaderboard", "add", runs, "--root", tmp_path / "boards"),
    }


def test_what_is_whole_is_read(copy: Path, tmp_path: Path) -> None:
    assert {name: done.exit_code for name, done in commands(copy, tmp_path).items()} == dict.fromkeys(
        ("report", "compare", "add"), 0
    )


def test_done_is_what_sha256sum_reads(copy: Path) -> None:
    folder = next(copy.rglob("done")).parent
    checked = run(["sha256sum", "--check", "--strict", "done"], cwd=folder, capture_output=True, text=True, check=True)
    assert checked.stdout.count(": OK") == len([p for p in folder.rglob("*") if p.is_file()]) - 1


def files(runs: Path) -> list[Path]:
    """Those of one seed of each method that tables read."""
    return [p for p in sorted(runs.rglob("seed-1/**/*")) if p.is_file() and p.name not in ("done", "log.jsonl")]


NAMES = ["cell.json", "env.json", "metrics.json", "final/sketch.parquet", "final/val.parquet", "alpha-0.5/test.parquet"]


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "missing", "swapped"])
@pytest.mark.parametrize("name", NAMES)
def test_damage_to_any_file_is_named_by_all_who_read_it(name: str, how: str, copy: Path, tmp_path: Path) -> None:
    path = next(p for p in files(copy) if p.as_posix().endswith(name))
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "swapped":
        other = Path(str(path).replace("seed-1", "seed-0"))
        path.write_bytes(other.read_bytes())
        if path.read_bytes() == whole:
            pytest.skip("both seeds hold the same file")
    else:
        path.write_bytes(
            {"flipped": flipped(whole, len(whole) // 2), "cut": whole[: len(whole) // 2], "empty": b""}[how]
        )
    for command, result in commands(copy, tmp_path).items():
        if name.endswith("val.parquet") and command != "add":
            continue  # tables have its scores from metrics.json
        line = refusal(result)
        assert str(path) in line or "are the same cell" in line, command  # two cell.json of one seed


def flipped(whole: bytes, place: int) -> bytes:
    changed = bytearray(whole)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def test_flips_of_single_bits_are_found_wherever_they_are(copy: Path) -> None:
    draw = random.Random(0)
    record = store.find_records([next(copy.rglob("seed-1"))])[0]
    paths = files(record.folder.parent)
    for _ in range(FLIPS):
        path = draw.choice(paths)
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, draw.randrange(len(whole))))
        told = digests.damage(record.folder, whole=True)
        assert told.startswith(str(path)), path
        path.write_bytes(whole)
    assert digests.damage(record.folder, whole=True) == ""


def test_pages_of_predictions_have_checksums_of_their_own(tmp_path: Path) -> None:
    """Also for other readers of these files, who know nothing of `done`."""
    path = tmp_path / "dim.parquet"
    store.write_predictions(path, made.predictions(made.World(n=2000), "ft", 0, "dim", 0.0))
    whole, table, silent = path.read_bytes(), pq.read_table(path), 0
    places = random.Random(0).sample(range(len(whole)), 60)
    for place in places:
        path.write_bytes(flipped(whole, place))
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                silent += not file.read().equals(table)
        except (OSError, ValueError):
            pass
    assert silent == 0


def test_a_list_of_digests_that_is_damaged_is_named(copy: Path) -> None:
    done = next(copy.rglob("done"))
    for content in (done.read_bytes()[:-10] + b"\n\n", b"hello\n", b"\xff\xfe"):
        done.write_bytes(content)
        assert str(done) in refusal(rbft("report", copy))


def test_a_file_that_was_added_to_a_record_is_no_part_of_it(copy: Path) -> None:
    folder = next(copy.rglob("wise-ft*/seed-1"))
    lines = [line for line in (folder / "done").read_text().splitlines(keepends=True) if "alpha-0.5/sketch" not in line]
    (folder / "done").write_text("".join(lines))
    assert "is no part of the record" in refusal(rbft("report", copy))


def test_records_of_old_are_read_and_that_is_said_once(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    for done in folder.rglob("done"):
        done.write_bytes(b"")
    for command in ("report", "compare"):
        result = rbft(command, folder)
        assert result.exit_code == 0
        [line] = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
        assert "and 5 more are of an older version, without digests of all files" in line


@pytest.mark.usefixtures("shelves")
def test_run_names_damage_to_what_it_did_before_and_can_mend_it(tiny_model: str, tmp_path: Path) -> None:
    words = ("run", "--method", "zero-shot", "--suite", "tiny", "--model", tiny_model, "--out", tmp_path / "out")
    assert rbft(*words).exit_code == 0
    [folder] = [path.parent for path in (tmp_path / "out").rglob("done")]
    for name in ("metrics.json", "predictions/final/dim.parquet"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, len(whole) // 2))
        line = refusal(rbft(*words))
        assert str(path) in line
        done = rbft(*words, "--rerun")
        assert done.exit_code == 0, done.output
        assert path.read_bytes() == whole
    (folder / "env.json").unlink()
    assert f"{folder / 'env.json'} is missing" in refusal(rbft(*words))
