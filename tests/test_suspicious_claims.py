"""Rows that repeat, copy or choose, each planted and named; honest rows are not."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from test_dishonest_claims import edit, forge, nothing, one, problems, remake

from robustbench_ft.claims import audit, bundle, claim_store
from robustbench_ft.claims.claim_store import StoredClaim
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main

BOARDS = Path(__file__).parent.parent / "leaderboards"
WORLD = made.World(skills={name: made.SKILLS[name] for name in ("zero-shot", "ft", "lipsum", "wise-ft")}, n=120)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    claim_store.add([made.write(folder / "runs", WORLD)], folder / "boards", Trust("submitted"))
    return folder / "boards"


@pytest.fixture
def root(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "boards"))


def table_of(stored: StoredClaim, seed: int) -> Path:
    return stored.root / stored.place.run(seed) / bundle.PREDICTIONS


def told(root: Path, stored: StoredClaim) -> str:
    return "\n".join(audit.remarks(claim_store.find(root)).get(stored.place.file.as_posix(), []))


def test_honest_rows_are_not_named(root: Path) -> None:
    assert audit.remarks(claim_store.find(root)) == {}
    assert not any(audit.audit_all(root).values())


def test_committed_claims_are_not_named() -> None:
    assert audit.remarks(claim_store.find(BOARDS)) == {}


def test_a_split_copied_from_another_seed_is_named(root: Path) -> None:
    stored = one(root)
    source, target = pq.read_table(table_of(stored, 0)), pq.read_table(table_of(stored, 1))
    rows = pa.array([name == "sketch" for name in source["split"].to_pylist()])
    rest = pa.array([name != "sketch" for name in source["split"].to_pylist()])
    pq.write_table(pa.concat_tables([target.filter(rest), source.filter(rows)]), table_of(stored, 1))
    said = problems(remake(stored))
    assert "seeds 0 and 1 give the same probabilities on sketch and not elsewhere: one was copied" in said


def test_predictions_of_another_method_are_named(root: Path) -> None:
    stored, other = one(root, "lipsum"), one(root, "ft")
    for seed in stored.seeds:
        shutil.copy(table_of(other, seed), table_of(stored, seed))
    remake(stored)
    found = audit.audit_all(root)
    assert f"seed 0 gives the probabilities of {other.place.file}, seed 0: one is a copy" in "\n".join(
        found[stored.place.file.as_posix()]
    )
    assert found[other.place.file.as_posix()] == []


def test_a_setting_that_makes_two_methods_one_is_a_remark(root: Path) -> None:
    def weak(content: Any) -> None:
        content["cell"]["settings"] = {"strength": 0.0}

    stored, other = one(root, "lipsum"), one(root, "ft")
    for seed in stored.seeds:
        shutil.copy(table_of(other, seed), table_of(stored, seed))
    forge(stored, weak)
    assert "one is a copy, or their settings make them one method" in told(root, stored)


def test_gaps_between_seeds_are_told(tmp_path: Path) -> None:
    world = replace(WORLD, skills={"ft": made.SKILLS["ft"]}, seeds=(0, 3, 7))
    [stored] = claim_store.add([made.write(tmp_path / "runs", world)], tmp_path / "boards", Trust("submitted"))
    assert told(stored.root, stored) == "its seeds are 0, 3, 7: what 1, 2, 4, 5, 6 gave is not told"


def test_seeds_that_are_one_run_with_a_few_changes_are_told(root: Path) -> None:
    stored = one(root)
    for seed in stored.seeds[1:]:
        table = pq.read_table(table_of(stored, 0))
        rng = np.random.default_rng(seed)
        moved = np.array(table["log_prob:final"]) - rng.uniform(0, 1e-2, len(table))  # other digests, same answers
        index = table.column_names.index("log_prob:final")
        pq.write_table(table.set_column(index, "log_prob:final", pa.array(moved, pa.float32())), table_of(stored, seed))
    remake(stored)
    assert "seeds 0 and 1 differ on 0 of the" in told(root, stored)


def test_a_headline_beyond_all_members_of_its_family_is_told(root: Path) -> None:
    stored = one(root, "wise-ft")
    for seed in stored.seeds:
        table = pq.read_table(table_of(stored, seed))
        perfect = table["label"].cast(pa.int32())
        table = table.append_column("prediction:final", perfect)
        for score in bundle.SCORES:
            table = table.append_column(f"{score}:final", table[f"{score}:alpha-0.5"])
        pq.write_table(table, table_of(stored, seed))
        edit(
            stored.root / stored.place.run(seed) / bundle.RECORD,
            lambda content: content["summary"].update(default="final"),
        )
    remake(stored)
    assert "its headline 'final' is right on more images than all members of its family together" in told(root, stored)


def test_a_learning_rate_that_id_validation_does_not_prefer_is_told(tmp_path: Path) -> None:
    good = replace(WORLD, skills={"ft": (1.8, -0.3)})
    bad = replace(WORLD, skills={"ft": (0.2, 1.5)}, lr=1e-5)  # better on the shifts, where nobody may look
    runs = [made.write(tmp_path / name, world) for name, world in (("good", good), ("bad", bad))]
    claim_store.add(runs, tmp_path / "boards", Trust("submitted"))
    [(name, lines)] = audit.remarks(claim_store.find(tmp_path / "boards")).items()
    chosen = next(c for c in claim_store.find(tmp_path / "boards") if c.place.file.as_posix() != name)
    assert lines == [f"ID validation prefers the learning rate 0.0003 of {chosen.place.name} to the one of this row"]


def test_one_claim_is_verified_alone(root: Path) -> None:
    broken = one(root, "lipsum")
    broken.path.write_text("no JSON")
    whole = CliRunner().invoke(main, ["leaderboard", "verify", "--root", str(root)])
    assert whole.exit_code == 2
    alone = CliRunner().invoke(main, ["leaderboard", "verify", "--root", str(root), "--only", one(root).place.name])
    assert alone.exit_code == 0, alone.output
    assert alone.output == f"ok       {one(root).place.file}\n1 of 1 claims hold (metrics)\n"
    none = CliRunner().invoke(main, ["leaderboard", "verify", "--root", str(root), "--only", "nobody"])
    assert (none.exit_code, none.output.count("\n")) == (2, 1)


def test_a_forged_row_that_is_honest_stays_unnamed(root: Path) -> None:
    assert problems(forge(one(root), nothing)) == ""
