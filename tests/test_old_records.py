"""Records of earlier versions: read as they were meant, and where they are damaged, one typed line and no traceback."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import pytest
from click.testing import CliRunner

from robustbench_ft.cli.main import main
from robustbench_ft.compare import report
from robustbench_ft.record import store

LATER = {  # what 0.1 did not write
    "cell.json": ("partial", "suite_definition", "shared", "code", "schema"),
    "env.json": ("labels", "manifest", "schema"),
    "metrics.json": (
        "official",
        "views",
        "clusters",
        "selection_metric",
        "transductive",
        "id_val",
        "version",
        "schema",
    ),
}
ODD: list[Any] = [None, True, -1, 0, 2**70, 0.5, "", "x", "..", [], {}, [[]], "\0", "a" * 500]
TRIES = 24  # of each kind of damage


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of three methods, without digests and with the least that a record may say."""
    skills = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft")}
    folder = made.write(tmp_path_factory.mktemp("old"), made.World(skills=skills, n=30, seeds=(0, 1)))
    for name, later in LATER.items():
        for path in folder.rglob(name):
            content = json.loads(path.read_text())
            path.write_text(json.dumps({key: value for key, value in content.items() if key not in later}))
    return folder


def test_what_came_later_is_not_needed(old: Path, tmp_path: Path) -> None:
    skills = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft")}
    new = made.write(tmp_path, made.World(skills=skills, n=30, seeds=(0, 1)))
    [[mine], [theirs]] = [report.tables(store.find_records([folder])) for folder in (old, new)]
    assert [line.row.name for line in mine.lines] == [line.row.name for line in theirs.lines]
    assert [mine.texts(line) for line in mine.lines] == [theirs.texts(line) for line in theirs.lines]


def commands(runs: Path, scratch: Path) -> list[list[str]]:
    """Everything that reads records."""
    ft, wise = (next(runs.glob(f"*/*/{method}-*/seed-0")) for method in ("ft", "wise-ft"))
    return [
        ["report", str(runs)], ["report", str(runs), "--format", "json"], ["compare", str(runs)],
        ["compare", str(runs), "--headlines"], ["diff", str(ft), str(wise)], ["status", str(runs)],
        ["power", str(runs)], ["leaderboard", "add", str(runs), "--root", str(scratch / "boards"), "--replace"],
        ["export", str(ft), "--to", str(scratch / "export")], ["logs", "ft", "--runs", str(runs)],
    ]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def damaged(path: Path, how: str, draw: random.Random) -> bytes:
    """The content of a file after one fault."""
    whole = path.read_bytes()
    if how == "value":
        content = json.loads(whole)
        *above, last = draw.choice(list(places(content))[1:])
        holder = content
        for key in above:
            holder = holder[key]
        holder[last] = draw.choice(ODD)
        return json.dumps(content).encode()
    if how == "cut":
        return whole[: draw.randrange(len(whole) + 1)]
    flipped = bytearray(whole)
    for _ in range(draw.choice([1, 3, 30]) if flipped else 0):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


@pytest.mark.parametrize("how", ["flip", "cut", "value", "missing", "folder"])
def test_damage_is_one_line_whatever_reads_it(how: str, old: Path, tmp_path: Path) -> None:
    runs, draw = Path(shutil.copytree(old, tmp_path / "runs")), random.Random(how)
    files = [path for path in sorted(runs.rglob("*")) if path.is_file() and (how != "value" or path.suffix == ".json")]
    refused = 0
    for _ in range(TRIES):
        path = draw.choice(files)
        whole, content = path.read_bytes(), b""
        if how in ("missing", "folder"):
            path.unlink()
            if how == "folder":
                path.mkdir()
        else:
            content = damaged(path, how, draw)
            path.write_bytes(content)
        words = draw.choice(commands(runs, tmp_path))
        done = CliRunner().invoke(main, words)
        what = (words, path, content[-200:], done.output[-300:])
        assert done.exception is None or isinstance(done.exception, SystemExit), (*what, done.exc_info)
        said = [line for line in done.output.splitlines() if line.startswith("rbft: ")]
        assert len(said) == (done.exit_code != 0), what
        assert all(len(line) < 1100 for line in said), what
        refused += done.exit_code != 0
        if path.is_dir():
            path.rmdir()
        path.write_bytes(whole)
        shutil.rmtree(tmp_path / "export", ignore_errors=True)
    assert refused > 1
