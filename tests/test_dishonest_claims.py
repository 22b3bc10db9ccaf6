"""Claims whose every number follows from their files, and which no honest run gives: each is named by an audit."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from robustbench_ft.claims import audit, bundle, claim, claim_store, digests, plausible
from robustbench_ft.claims.claim_store import StoredClaim
from robustbench_ft.claims.rescore import draw
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.data import ArrayImages, Split
from robustbench_ft.suite import Card, Suite

WORLD = made.World(skills={name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft")}, n=40)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    claim_store.add([made.write(folder / "runs", WORLD)], folder / "boards", Trust("submitted"))
    return folder / "boards"


@pytest.fixture
def root(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "boards"))


def one(root: Path, method: str = "ft") -> StoredClaim:
    return next(found for found in claim_store.find(root) if found.place.name.rpartition("-")[0] == method)


def forge(stored: StoredClaim, record: Callable[[Any], object], column: str = "", value: object = None) -> StoredClaim:
    """Change every run of a claim, and make the claim anew from what is there then, with all its digests."""
    for seed in stored.seeds:
        folder = stored.root / stored.place.run(seed)
        content = json.loads((folder / bundle.RECORD).read_text())
        record(content)
        (folder / bundle.RECORD).write_text(json.dumps(content))
        if column:
            table = pq.read_table(folder / bundle.PREDICTIONS)
            values = table[column].to_pylist()
            values[0] = value
            index = table.column_names.index(column)
            changed = pa.array(values, table.schema.field(column).type)
            pq.write_table(table.set_column(index, column, changed), folder / bundle.PREDICTIONS)
    return remake(stored)


def remake(stored: StoredClaim) -> StoredClaim:
    fresh = StoredClaim(stored.root, stored.place)
    runs = [bundle.read(stored.root / stored.place.run(seed)) for seed in stored.seeds]
    fresh.path.write_text(json.dumps(claim.make(runs, fresh.files(), fresh.claim.trust).written()))
    return StoredClaim(stored.root, stored.place)


def problems(stored: StoredClaim) -> str:
    return "\n".join(audit.audit(stored))


def nothing(content: Any) -> None:
    pass


def test_an_honest_claim_that_is_made_anew_holds(root: Path) -> None:
    assert all(problems(forge(one(root, name), nothing)) == "" for name in WORLD.skills)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("confidence:final", 1.7, "a confidence outside of [0, 1]"),
        ("log_prob:final", 0.5, "a probability above 1"),
        ("sum_sq:final", 3.0, "a sum of squares that its top class does not allow"),
        ("sum_sq:final", 0.0, "a sum of squares that its top class does not allow"),
        ("confidence:final", 0.01, "candidate 'final'"),
    ],
)
def test_impossible_probabilities_are_named(column: str, value: float, says: str, root: Path) -> None:
    assert says in problems(forge(one(root), nothing, column, value))


def test_a_trained_method_that_calls_itself_deterministic_is_named(tmp_path: Path) -> None:
    made.write(tmp_path / "runs", replace(WORLD, skills={"ft": made.SKILLS["ft"]}, seeds=(4,)))
    for path in (tmp_path / "runs").rglob("cell.json"):
        edit(path, lambda c: c.update(deterministic=True))
    [stored] = claim_store.add([tmp_path / "runs"], tmp_path / "boards", Trust("submitted"))
    assert "it is marked as deterministic and was trained" in problems(stored)
    assert "it is marked as deterministic, method 'ft' is trained: every seed is another run" in held(stored)


def test_one_run_as_several_seeds_is_named(root: Path) -> None:
    stored = one(root)
    first = root / stored.place.run(0)
    for seed in stored.seeds[1:]:
        shutil.copy(first / bundle.PREDICTIONS, root / stored.place.run(seed) / bundle.PREDICTIONS)
    told = problems(forge(stored, nothing))
    assert "seeds 0 and 1 give the same probabilities on every split: they are one run" in told


def test_a_headline_that_nobody_set_is_named(tmp_path: Path) -> None:
    made.write(tmp_path / "runs", replace(WORLD, skills={"wise-ft": made.SKILLS["wise-ft"]}))
    for path in (tmp_path / "runs").rglob("metrics.json"):
        edit(path, lambda c: c.update(default="alpha-0.1"))
    [stored] = claim_store.add([tmp_path / "runs"], tmp_path / "boards", Trust("submitted"))
    told = problems(stored)
    assert "its headline 'alpha-0.1' is no setting of the method, and ID validation chooses another" in told


def test_a_headline_without_probabilities_is_named(root: Path) -> None:
    stored = one(root, "wise-ft")
    for seed in stored.seeds:
        edit(root / stored.place.run(seed) / bundle.RECORD, lambda c: c["summary"].update(default="alpha-0.1"))
    assert "keeps no probabilities of candidate 'alpha-0.1'" in problems(StoredClaim(root, stored.place))


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999"])
@pytest.mark.parametrize("key", ["ece", "nll"])
def test_a_number_without_end_is_named(key: str, value: str, root: Path) -> None:
    stored = one(root)
    content = json.loads(stored.path.read_text())
    content["results"]["rows"][0]["per_seed"][key]["ID"][0] = "HERE"
    stored.path.write_text(json.dumps(content).replace('"HERE"', value))
    assert str(stored.path) in problems(one(root))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_mark_of_verification_that_nobody_gives_is_named(root: Path) -> None:
    edit(one(root).path, lambda c: c["trust"].update(verified="retrained", verified_by="me"))
    assert "trust.verified" in problems(one(root))


class Made(Suite):
    """What `made` answers about."""

    card = Card("Made", "tests", "MIT", "made on the spot", counts={})
    version = WORLD.version
    shifts = made.SHIFTS
    classes = tuple(f"class {k}" for k in range(made.CLASSES))  # pyright: ignore
    templates = ("a {}",)  # pyright: ignore

    def load(self, name: str) -> Split:
        raise AssertionError("is replaced")

    def split(self, name: str) -> Split:
        shown = made.predictions(WORLD, "ft", 0, name, 0.0)
        return Split(name, ArrayImages(np.zeros((WORLD.n, 1, 1, 3), np.uint8)), shown.label, shown.ids)


def held(stored: StoredClaim, suite: Suite | None = None) -> str:
    """What a claim and a suite say of each other, images apart."""
    suites = {"shapes-v2": suite or Made("shapes")}
    found = audit.against_data(stored, None, suites)
    return "\n".join(line for line in found if not line.startswith("images "))


def test_roles_are_held_against_the_suite(root: Path) -> None:
    assert held(one(root)) == ""

    def moved(content: Any) -> None:
        splits = content["summary"]["splits"]
        splits["shifts"].remove("sketch")
        splits["extra"] = ["sketch"]

    forged = forge(one(root), moved)
    assert problems(forged) == ""  # its files agree with each other
    told = held(forged)
    assert "its shifts is painting, clipart, suite shapes v2 has painting, clipart, sketch" in told
    assert "its extra is sketch, suite shapes v2 has none" in told


def test_a_shift_that_was_left_out_is_named_and_build_says_so_in_one_line(root: Path) -> None:
    def dropped(content: Any) -> None:
        content["summary"]["splits"]["shifts"].remove("sketch")

    stored = one(root)
    for seed in stored.seeds:
        path = root / stored.place.run(seed) / bundle.PREDICTIONS
        table = pq.read_table(path)
        pq.write_table(table.filter(pa.array([name != "sketch" for name in table["split"].to_pylist()])), path)
        edit(root / stored.place.run(seed) / bundle.RECORD, dropped)
    forged = remake(stored)
    assert "its shifts is painting, clipart" in held(forged)
    done = CliRunner().invoke(main, ["leaderboard", "build", "--root", str(root)])
    assert isinstance(done.exception, SystemExit)
    [line] = [line for line in done.output.splitlines() if line.startswith("rbft: ")]
    assert "their splits are" in line


def test_a_class_that_the_suite_does_not_have_is_named(root: Path) -> None:
    forged = forge(one(root), nothing, "prediction:final", 999)
    assert "it answers class 999, the suite has 8" in held(forged)


def test_a_claim_on_a_suite_that_is_not_here_stops_no_other(root: Path) -> None:
    edit(one(root).path, lambda c: c["identity"].update(suite="pets"))
    [line] = audit.against_data(one(root), None, {})
    assert line.startswith("cannot be held against data: unknown suite 'pets'")


def test_a_file_is_no_suite_of_a_claim(root: Path) -> None:
    edit(one(root).path, lambda c: c["identity"].update(suite="evil.toml"))
    assert audit.against_data(one(root), None, {}) == ["'evil.toml' is a file and no registered suite"]


def test_images_to_rescore_are_drawn_anew_each_time() -> None:
    assert len({draw() for _ in range(20)}) == 20


def test_answers_that_are_possible_are_not_named() -> None:
    for method in ("ft", "zero-shot"):
        assert plausible.impossible(made.predictions(WORLD, method, 0, "test", 0.5)) == []


def test_digests_know_one_run_from_another(root: Path) -> None:
    runs = one(root).runs
    assert len({digests.probabilities_digest(run, "test") for run in runs}) == 3
