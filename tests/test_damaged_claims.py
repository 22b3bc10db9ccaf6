"""Files of a leaderboards folder that were damaged: one line each, with the file and the key."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made
import pytest
from click.testing import CliRunner

from robustbench_ft.board import paper
from robustbench_ft.claims import audit, bundle, claim, claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError

COMMITTED = Path(__file__).parent.parent / "leaderboards"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damaged")
    claim_store.add(
        [made.write(root / "runs", made.World(skills={"ft": (1.0, 0.1)}, n=30))], root / "boards", Trust("rerun")
    )
    return root / "boards"


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "boards")
    return tmp_path / "boards"


def one_line(root: Path, *words: str) -> str:
    """What `rbft leaderboard WORDS` complains of."""
    done = CliRunner().invoke(main, ["leaderboard", *words, "--boards", str(root)], catch_exceptions=False)
    assert done.exit_code == 2
    (line,) = [line for line in done.output.splitlines() if line.startswith("rbft: ")]
    return line


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def lost(*keys: str | int) -> Callable[[Any], object]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def put(value: object, *keys: str | int) -> Callable[[Any], object]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


ROW = ("results", "rows", 0)
CLAIMS = {
    "no part": (lost("results"), "is no claim: it lacks results"),
    "newer": (put(3, "schema"), "has schema 3, this version reads 2: update robustbench_ft"),
    "older": (put(1, "schema"), "has schema 1, this version reads 2; run `rbft leaderboard refresh`"),
    "no method": (lost("identity", "method"), "identity.method: field required"),
    "a key mistyped": (lambda c: c["data"].update(split=c["data"].pop("splits")), "data.splits: field required"),
    "text for a number": (put("1", "identity", "suite_version"), "identity.suite_version: input should be a valid int"),
    "a number for a text": (put(3, "training", "recipe_source"), "training.recipe_source: input should be a valid str"),
    "no seeds": (put([], "training", "seeds"), "training.seeds: list should have at least 1 item"),
    "no digest": (lost("data", "splits", "sketch", "ids_sha256"), "data.splits.sketch.ids_sha256: field required"),
    "no cost": (lost("runs", 1, "cost", "fit_seconds"), "runs.1.cost.fit_seconds: field required"),
    "no standard error": (lost(*ROW, "estimates", "nll", "ID", "se"), "results.rows.0.estimates.nll.ID.se: field requ"),
    "a text as estimate": (put("x", *ROW, "estimates", "nll", "ID"), "results.rows.0.estimates.nll.ID: input should"),
    "a candidate too few": (put(["final"], *ROW, "candidates"), "results.rows.0.candidates: has 1 entries for 3 seeds"),
    "a column of nothing": (
        put(["gone"], "results", "columns", "ID"),
        "results.columns.ID: 'gone' is no split of data",
    ),
    "no mean": (lost("results", "columns", "mean OOD"), "results.columns: lacks 'mean OOD'"),
    "no origin": (lost("trust", "origin"), "trust.origin: field required"),
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_damaged_claim_is_one_line_with_file_and_key(root: Path, kind: str) -> None:
    change, says = CLAIMS[kind]
    (stored,) = claim_store.find(root)
    edit(stored.path, change)
    for command in ("verify", "build"):
        line = one_line(root, command)
        assert str(stored.path) in line
        assert says in line


@pytest.mark.parametrize("content", ["", "[]", "null", "3", "{"])
def test_what_is_no_claim_at_all_is_one_line(root: Path, content: str) -> None:
    (stored,) = claim_store.find(root)
    stored.path.write_text(content)
    assert str(stored.path) in one_line(root, "build")


RUNS = {
    "no cell": (lost("cell"), "its content: input should be an object"),
    "no digest": (lost("cell", "digest"), "digest: field required"),
    "no clusters": (lost("summary", "clusters"), "clusters: field required"),
    "no resolution": (lost("summary", "resolution"), "resolution: field required"),
    "no splits": (lost("summary", "splits"), "splits: field required"),
    "threads as text": (put("two", "env", "threads"), "threads: input should be a valid integer"),
    "no git state": (lost("env", "git", "dirty"), "git.dirty: field required"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_damaged_run_is_one_line_with_file_and_key(root: Path, kind: str) -> None:
    change, says = RUNS[kind]
    (stored,) = claim_store.find(root)
    path = root / stored.place.run(1) / bundle.RECORD
    edit(path, change)
    line = one_line(root, "build")
    assert str(path) in line
    assert says in line


BOARDS = {
    "an unknown key": ('[embedded]\nbase = "ft"', "unknown key 'base'"),
    "of another model too": ('[embedded]\nbaseline = "ft"\n[other]\ncurves = "x"', "unknown key 'curves'"),
    "a number": ("[embedded]\nbaseline = 3", "[embedded] baseline"),
    "no table": ('baseline = "ft"', "unknown key 'baseline'"),
    "newer": ("schema = 2\n[embedded]", "has schema 2, this version reads 1: update robustbench_ft"),
}


@pytest.mark.parametrize("kind", BOARDS)
def test_a_damaged_board_file_is_one_line_with_file_and_key(root: Path, kind: str) -> None:
    content, says = BOARDS[kind]
    path = root / "shapes-v2" / claim_store.BOARD
    path.write_text(content)
    line = one_line(root, "build")
    assert str(path) in line
    assert says in line


PAPERS = {
    "no value": (lost(1, "value"), "1.value: field required"),
    "a text for a number": (put("81.3", 0, "value"), "0.value: input should be a valid number"),
    "not finite": (put(float("nan"), 0, "std"), "0.std: input should be a finite number"),
    "no list": (None, "its content: input should be a valid array"),
}


@pytest.mark.parametrize("kind", PAPERS)
def test_damaged_rows_of_papers_are_one_line_with_file_and_key(tmp_path: Path, kind: str) -> None:
    change, says = PAPERS[kind]
    content = json.loads((COMMITTED / paper.FILE).read_text())[:3]
    if change is not None:
        change(content)
    (tmp_path / paper.FILE).write_text(json.dumps(content if change else {"rows": content}))
    with pytest.raises(RbftError) as caught:
        paper.load(tmp_path / paper.FILE)
    assert str(tmp_path / paper.FILE) in str(caught.value)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_field_that_is_not_of_a_claim_is_named_by_the_audit(root: Path) -> None:
    (stored,) = claim_store.find(root)
    edit(stored.path, put(1, "identity", "mehtod"))
    line = f"{stored.path}: identity.mehtod is not a field of a claim; correct the name, or leave it out"
    assert audit.audit(claim_store.find(root)[0]) == [line]


def test_fields_that_earlier_claims_leave_out_still_verify(root: Path) -> None:
    (stored,) = claim_store.find(root)
    for keys in (("trust", "notes"), ("trust", "verified_by"), ("data", "roles", "extra")):
        edit(stored.path, lambda content, keys=keys: dig(content, keys[:-1]).pop(keys[-1], None))
    found = claim_store.find(root)[0]
    assert found.claim.trust == Trust("rerun")
    assert audit.audit(found) == []


def dig(content: Any, keys: tuple[str | int, ...]) -> Any:
    for key in keys:
        content = content[key]
    return content


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*/embedded/*.json")), ids=lambda path: path.stem)
def test_a_committed_claim_is_written_as_it_was_read(path: Path, tmp_path: Path) -> None:
    stored = claim_store.StoredClaim(COMMITTED, claim.ClaimPath(path.parents[1].name, path.parent.name, path.stem))
    text = json.dumps(stored.claim.written(), indent=2, sort_keys=True, allow_nan=False) + "\n"
    assert text == path.read_text()
