"""Damaged JSON of a record is one line that names file and field, whichever command reads it; old records are read."""

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner

from robustbench_ft.claims.claim_store import find_runs
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store
from robustbench_ft.record.store import Record

REPO = Path(__file__).parent.parent
FILES = ("cell.json", "env.json", "metrics.json")
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3.5,
    10**30,
    "",
    "x",
    "a/b",
    "\0",
    [],
    ["x"],
    [None],
    {},
    {"x": 1},
    {"x": []},
)
MUTATIONS = 300
COMMANDS = ("report {a} {b} {c}", "compare {a} {b} {c}", "diff {a} {b}", "power {a} {b} {c}")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a family, and zero-shot."""
    root = tmp_path_factory.mktemp("sound")
    world = synthetic.World(n=12, clusters=3)
    synthetic.write(root, world, {"zero-shot": 0.5, "ft": 0.8, "wise-ft": 0.9}, seeds=2, alphas=(0.0, 0.5, 1.0))
    return root


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, by its path."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one place removed, renamed or given another value."""
    whole: dict[str, Any] = {"": copy.deepcopy(value)}
    path: tuple[Any, ...] = ("", *rng.choice(list(places(value))))
    parent: Any = whole
    for key in path[:-1]:
        parent = parent[key]
    how = rng.choice(("remove", "rename", "value", "value", "value"))
    if how == "value" or len(path) == 1 or isinstance(parent, list):
        parent[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    else:
        kept = parent.pop(path[-1])
        parent |= {} if how == "remove" else {f"{path[-1]}x": kept}
    return whole[""]


@pytest.mark.parametrize("part", range(6))
def test_no_mutation_of_a_record_is_a_traceback(part: int, sound: Path, tmp_path: Path) -> None:
    refused = 0
    for k in range(part, MUTATIONS, 6):
        rng = random.Random(k)
        root = tmp_path / str(k)
        shutil.copytree(sound, root)
        folders = sorted(path.parent for path in root.rglob("done"))
        a, b, c = rng.sample(folders, 3)
        path = a / FILES[k % 3]
        path.write_text(json.dumps(mutated(json.loads(path.read_text()), rng)))
        for command in COMMANDS:
            done = CliRunner().invoke(main, command.format(a=a, b=b, c=c).split())
            problem = f"mutation {k} of {path}, {command}: {done.exception!r}"
            assert done.exception is None or isinstance(done.exception, SystemExit), problem
            assert done.exit_code in (0, 1, 2), problem
            assert done.exit_code == 0 or 0 < len(done.stderr.strip().splitlines()) < 4, f"{problem} {done.stderr}"
            refused += str(path) in done.stderr
        shutil.rmtree(root)
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("cell.json", ("seed",), "four", "seed: input should be a valid integer"),
        ("cell.json", ("model", "name"), None, "model.name: input should be a valid string"),
        ("cell.json", ("recipe", "lr"), "fast", "recipe.lr: is no number"),
        ("cell.json", ("digest",), ..., "digest: field required"),
        ("env.json", ("data", "test"), {}, "data.test.digest: field required"),
        ("env.json", ("cost", "fit_seconds"), "1", "cost.fit_seconds: input should be a valid number"),
        ("metrics.json", ("splits", "shifts"), "dim", "splits.shifts: input should be a valid"),
        ("metrics.json", ("default",), "best", "candidates: lacks 'best'"),
        ("metrics.json", ("candidates", "final", "val"), {}, "candidates.final.val: lacks 'accuracy'"),
        ("metrics.json", ("official",), {"val": "luck"}, "official: no metric is called 'luck'"),
        ("metrics.json", (), [], "its content: input should be"),
    ],
)  # fmt: skip
def test_a_damaged_field_is_named_with_its_file(
    name: str, path: tuple[str, ...], value: Any, said: str, sound: Path, tmp_path: Path
) -> None:
    [folder] = [p.parent for p in sound.rglob("done") if p.parts[-3].startswith("ft-") and p.parts[-2] == "seed-0"]
    copied = Path(shutil.copytree(folder, tmp_path / "run"))
    whole: Any = {"": json.loads((copied / name).read_text())}
    parent, key = whole, ""
    for step in path:
        parent, key = parent[key], step
    if value is ...:
        del parent[key]
    else:
        parent[key] = value
    (copied / name).write_text(json.dumps(whole[""]))
    record, typed = Record(copied), {"cell.json": "config", "env.json": "environment", "metrics.json": "summary"}
    with pytest.raises(RbftError) as caught:
        getattr(record, typed[name])
    assert str(caught.value).startswith(f"{copied / name} is damaged: {said}"), str(caught.value)
    assert str(caught.value).endswith("; run the cell again")


def test_a_newer_schema_is_not_guessed_at(sound: Path, tmp_path: Path) -> None:
    folder = next(sound.rglob("done")).parent
    copied = Path(shutil.copytree(folder, tmp_path / "run"))
    store.write_json(copied / "env.json", {**json.loads((copied / "env.json").read_text()), "schema": 99})
    with pytest.raises(RbftError, match=r"env\.json has schema 99, this version reads 1: update robustbench_ft"):
        _ = Record(copied).environment


def test_records_of_committed_claims_are_read_typed() -> None:
    for record in find_runs([REPO / "leaderboards" / "digits-v1"]):
        assert record.config.suite == "digits"
        assert record.environment.data["test"].n == 547
        assert record.summary.default in record.summary.candidates
        assert record.environment.cost.fit_seconds > 0


def test_a_damaged_record_of_a_claim_is_named(tmp_path: Path) -> None:
    source = next((REPO / "leaderboards" / "digits-v1").rglob("record.json")).parent
    copied = Path(shutil.copytree(source, tmp_path / "seed-0"))
    whole = json.loads((copied / "record.json").read_text())
    for part, key in (("cell", "method"), ("env", "stages"), ("summary", "default"), ("summary", "clusters")):
        hurt = copy.deepcopy(whole)
        del hurt[part][key]
        (copied / "record.json").write_text(json.dumps(hurt))
        with pytest.raises(RbftError, match=rf"record\.json is damaged: .*{key}.*; restore the file"):
            find_runs([copied])
