"""Claims: a round trip, every kind of tampering named, and nothing written for bad input."""

import hashlib
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
from click.testing import CliRunner, Result

from robustbench_ft import metrics, stats
from robustbench_ft.claims import audit, bundle, claim, claim_store, digests
from robustbench_ft.claims.claim_store import StoredClaim
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.compare.rows import by_oracle, by_validation
from robustbench_ft.record import store
from robustbench_ft.stats import Examples

TRUST = Trust("rerun")
METHODS = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "wise-ft")}
WORLD = made.World(skills=METHODS, n=60)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("records"), WORLD)


@pytest.fixture(scope="session")
def shelved(tmp_path_factory: pytest.TempPathFactory, records: Path) -> Path:
    root = tmp_path_factory.mktemp("shelved") / "boards"
    claim_store.add([records], root, TRUST)
    return root


@pytest.fixture
def root(shelved: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(shelved, tmp_path / "boards"))


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def one(root: Path, method: str = "ft") -> StoredClaim:
    return next(found for found in claim_store.find(root) if found.place.name.rpartition("-")[0] == method)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def edit_predictions(stored: StoredClaim, seed: int, column: str, split: str, change: Callable[[Any], None]) -> Path:
    """Change one column of one split, in place."""
    path = stored.root / stored.place.run(seed) / bundle.PREDICTIONS
    table = pq.read_table(path)
    values = table[column].to_pylist()
    rows = [k for k, name in enumerate(table["split"].to_pylist()) if name == split]
    part = [values[k] for k in rows]
    change(part)
    for k, value in zip(rows, part, strict=True):
        values[k] = value
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(values, table.schema.field(column).type)), path)
    return path


def problems(stored: StoredClaim) -> str:
    return "\n".join(audit.audit(StoredClaim(stored.root, stored.place)))


def test_a_claim_holds_and_says_what_the_records_say(root: Path, records: Path) -> None:
    assert not any(audit.audit_all(root).values())
    record = next(r for r in store.find_records([records]) if r.cell["method"] == "ft" and r.seed == 1)
    told = one(root).claim.results.rows[0]
    assert told.per_seed["accuracy"]["sketch"][1] == record.metrics["candidates"]["final"]["sketch"]["accuracy"]
    assert told.per_seed["nll"]["ID"][1] == pytest.approx(record.metrics["candidates"]["final"]["test"]["nll"])
    assert all(isinstance(value, float) for value in told.mean["ece"].values())


def test_the_interval_is_the_two_way_one_over_seeds_and_examples(root: Path, records: Path) -> None:
    found = [r for r in store.find_records([records]) if r.cell["method"] == "ft"]
    sets = [np.stack([r.predictions("final", split).correct for r in found]).astype(float) for split in made.SHIFTS]
    told = one(root).claim.results.rows[0].estimates["accuracy"]["mean OOD"]
    assert told.half_width == pytest.approx(stats.mean(sets).half_width)
    assert told.seeds == 3


def test_where_examples_come_together_the_interval_is_over_clusters(tmp_path: Path) -> None:
    world = made.World(skills={"ft": (1.0, 0.0), "lipsum": (0.9, 0.2)}, n=60, cluster=6)
    claim_store.add([made.write(tmp_path / "runs", world)], tmp_path / "boards", TRUST)
    stored = one(tmp_path / "boards")
    told = stored.claim.results.rows[0].estimates["accuracy"]["sketch"]
    found = [r for r in store.find_records([tmp_path / "runs"]) if r.cell["method"] == "ft"]
    scores = np.stack([r.predictions("final", "sketch").correct for r in found])
    assert told.half_width == pytest.approx(stats.mean([Examples(scores, np.arange(60) // 6)]).half_width)
    assert told.half_width != pytest.approx(stats.mean([Examples(scores)]).half_width)
    assert stored.claim.data.splits["sketch"].clusters == "camera"
    assert not problems(stored)


def test_a_family_has_a_fixed_row_a_chosen_row_and_its_curve(root: Path) -> None:
    results = one(root, "wise-ft").claim.results
    assert [row.selection for row in results.rows] == ["fixed", "id_val", "oracle"]
    assert [point.alpha for point in results.curve] == list(made.ALPHAS)
    run = one(root, "wise-ft").runs[0]
    assert len(run.choices["test"]) == 11
    assert set(run.scored["test"]) == {
        "alpha-0.5",
        by_validation(run.numbers),
        by_oracle(run.numbers),
    }  # only what rows need


def test_adding_the_same_records_again_changes_nothing(root: Path, records: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    claim_store.add([records], root, TRUST)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_stored_column_gives_back_its_metrics(root: Path, records: Path) -> None:
    record = next(r for r in store.find_records([records]) if r.cell["method"] == "ft")
    run = one(root).runs[0]
    assert metrics.score(run.scored["sketch"]["final"]) == metrics.score(record.predictions("final", "sketch"))


NUMBERS = {
    "results.rows[0].mean.accuracy.sketch": lambda c: c["results"]["rows"][0]["mean"]["accuracy"],
    "results.rows[0].sd.nll.sketch": lambda c: c["results"]["rows"][0]["sd"]["nll"],
    "results.rows[0].per_seed.brier.sketch": lambda c: c["results"]["rows"][0]["per_seed"]["brier"],
    "results.rows[0].estimates.accuracy.sketch": lambda c: c["results"]["rows"][0]["estimates"]["accuracy"],
}


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_that_was_changed_is_named(root: Path, path: str) -> None:
    def change(content: Any) -> None:
        place = NUMBERS[path](content)
        value = place["sketch"]
        if isinstance(value, list):
            value[0] += 0.01
        elif isinstance(value, dict):
            value["half_width"] *= 0.5
        else:
            place["sketch"] = value + 1e-6

    edit(one(root).path, change)
    assert path in problems(one(root))


def change_cost(content: Any) -> None:
    content["runs"][1]["cost"]["fit_seconds"] = 1.0


def change_recipe(content: Any) -> None:
    content["training"]["recipe"]["lr"] = 1e-5


def change_weights(content: Any) -> None:
    content["identity"]["weights"] = "0" * 64


def drop_a_number(content: Any) -> None:
    del content["results"]["rows"][0]["mean"]["accuracy"]["sketch"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (change_cost, "runs[1].cost.fit_seconds is 1.0, its files give"),
        (change_recipe, "training.recipe.lr"),
        (change_weights, "identity.weights"),
        (drop_a_number, "results.rows[0].mean.accuracy.sketch is missing"),
    ],
)
def test_a_field_that_was_changed_is_named(root: Path, change: Callable[[Any], None], name: str) -> None:
    edit(one(root).path, change)
    assert name in problems(one(root))


def flip(values: list[int]) -> None:
    values[3] = (values[3] + 1) % made.CLASSES


def test_a_prediction_that_was_changed_is_named(root: Path) -> None:
    edit_predictions(one(root), 1, "prediction:final", "sketch", flip)
    found = problems(one(root))
    assert "seed 1, split 'sketch': predictions changed" in found
    assert "seed 1: file predictions.parquet is not the one" in found


def test_a_probability_that_was_changed_is_named(root: Path) -> None:
    def surer(values: list[float]) -> None:
        values[0] = 0.999

    edit_predictions(one(root), 2, "confidence:final", "test", surer)
    assert "seed 2, split 'test': probabilities changed" in problems(one(root))


def test_a_label_that_was_changed_is_named_with_its_example(root: Path) -> None:
    edit_predictions(one(root), 0, "label", "painting", flip)
    assert "seed 0, split 'painting': labels changed: row 3 has" in problems(one(root))


def test_an_example_id_that_was_changed_is_named(root: Path) -> None:
    def rename(values: list[str]) -> None:
        values[5] = "made/painting/other"

    edit_predictions(one(root), 0, "id", "painting", rename)
    told = "example ids changed: row 5 has made/painting/other, seed 1 has made/painting/00005"
    assert told in problems(one(root))


def test_shuffled_rows_are_noticed(root: Path) -> None:
    def shift(values: list[str]) -> None:
        values.append(values.pop(0))

    edit_predictions(one(root), 0, "id", "painting", shift)
    assert "split 'painting': example ids changed" in problems(one(root))


def test_a_forger_who_mends_the_file_digest_is_still_caught(root: Path) -> None:
    stored = one(root)
    path = edit_predictions(stored, 1, "prediction:final", "sketch", flip)

    def mend(content: Any) -> None:
        content["runs"][1]["files"][bundle.PREDICTIONS] = digests.file_digest(path)

    edit(stored.path, mend)
    assert "seed 1, split 'sketch': predictions changed" in problems(stored)

    def mend_more(content: Any) -> None:
        digest = digests.predictions_digest(one(root).runs[1], "sketch")
        content["runs"][1]["content"]["sketch"]["predictions_sha256"] = digest

    edit(stored.path, mend_more)
    assert "results.rows[0]" in problems(stored)


def test_seeds_that_are_listed_and_not_stored_or_the_other_way_are_named(root: Path) -> None:
    def listed(content: Any) -> None:
        content["training"]["seeds"] = [0, 1, 7]

    edit(one(root).path, listed)
    found = problems(one(root))
    assert "seed 7 is listed and not stored" in found
    assert "seed 2 is stored and not listed" in found


def test_a_run_that_was_left_out_is_named(root: Path) -> None:
    shutil.rmtree(root / one(root).place.run(2))
    assert "seed 2 is listed and not stored" in problems(one(root))


def test_an_edited_configuration_does_not_match_its_digest(root: Path) -> None:
    def slower(content: Any) -> None:
        content["cell"]["recipe"]["lr"] = 1e-5

    edit(root / one(root).place.run(0) / bundle.RECORD, slower)
    found = problems(one(root))
    assert "seed 0: record.json: the configuration does not match its digest" in found
    assert "seeds 0 and 1 of one claim differ in 'recipe'" in found


@pytest.mark.parametrize("key", ["suite_version", "protocol"])
def test_runs_of_different_suite_versions_or_protocols_make_no_claim(root: Path, key: str) -> None:
    def other(content: Any) -> None:
        content["cell"][key] = {"suite_version": 3, "protocol": "as-published"}[key]

    edit(root / one(root).place.run(1) / bundle.RECORD, other)
    assert f"differ in '{key}'" in problems(one(root))


def test_a_claim_in_the_folder_of_another_version_is_named(root: Path) -> None:
    shutil.move(root / "shapes-v2", root / "shapes-v3")
    found = claim_store.find(root)[0]
    assert "the claim is about shapes-v2 and lies in shapes-v3" in problems(found)


def test_a_truncated_file_is_one_line(root: Path) -> None:
    path = root / one(root).place.run(0) / bundle.PREDICTIONS
    path.write_bytes(path.read_bytes()[:-200])
    found = problems(one(root))
    assert "seed 0: cannot read" in found
    assert "restore the file" in found


def test_verify_names_the_claim_and_exits_with_2(root: Path) -> None:
    assert rbft("leaderboard", "verify", "--root", root).exit_code == 0
    edit_predictions(one(root), 1, "prediction:final", "sketch", flip)
    done = rbft("leaderboard", "verify", "--root", root)
    assert done.exit_code == 2
    assert f"rbft: {one(root).place.file}: seed 1, split 'sketch': predictions changed" in done.output
    assert "2 of 3 claims hold" in done.output


def test_a_mark_says_how_far_a_claim_was_verified(root: Path) -> None:
    assert rbft("leaderboard", "verify", "--root", root, "--mark", "A. Keeper").exit_code == 0
    assert one(root).claim.trust.verified == "metrics"
    assert one(root).claim.trust.verified_by == "A. Keeper"
    assert not problems(one(root))


def add(tmp_path: Path, *records: Path) -> Result:
    return rbft("leaderboard", "add", *records, "--root", tmp_path / "boards")


def refused(done: Result, tmp_path: Path, *words: str) -> None:
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1, done.output
    assert all(word in done.output for word in words), done.output
    assert not (tmp_path / "boards").exists()


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    refused(add(tmp_path, tmp_path / "runs"), tmp_path, "no finished cell")
    (tmp_path / "claims").mkdir()
    for command in ("verify", "build"):
        done = rbft("leaderboard", command, "--root", tmp_path / "claims")
        assert done.exit_code == 2
        assert "no claim" in done.output
    assert not list((tmp_path / "claims").iterdir())


def test_records_on_different_data_never_share_a_board(tmp_path: Path) -> None:
    a = made.write(tmp_path / "a", made.World(skills={"ft": (1.0, 0.0)}, n=20))
    b = made.write(tmp_path / "b", made.World(skills={"lipsum": (1.0, 0.0)}, n=20, data="other"))
    refused(add(tmp_path, a, b), tmp_path, "lipsum", "ft", "other example ids", "same data")


def test_a_seed_given_twice_is_refused(tmp_path: Path) -> None:
    a = made.write(tmp_path / "a", made.World(skills={"ft": (1.0, 0.0)}, n=20, seeds=(0,)))
    shutil.copytree(a, tmp_path / "b")
    refused(add(tmp_path, a, tmp_path / "b"), tmp_path, "seed 0 was given twice")


def test_a_record_with_a_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    a = made.write(tmp_path / "a", made.World(skills={"ft": (1.0, 0.0)}, n=20))
    next(a.rglob("sketch.parquet")).write_bytes(b"PAR1")
    refused(add(tmp_path, a), tmp_path, "cannot read predictions", "sketch.parquet")


def test_other_runs_of_a_configuration_need_replace(tmp_path: Path) -> None:
    a = made.write(tmp_path / "a", made.World(skills={"ft": (1.0, 0.0)}, n=20))
    b = made.write(tmp_path / "b", made.World(skills={"ft": (1.0, 0.0)}, n=20, seeds=range(5)))
    assert add(tmp_path, a).exit_code == 0
    done = add(tmp_path, b)
    assert done.exit_code == 2
    assert "exists with seeds [0, 1, 2]" in done.output
    assert rbft("leaderboard", "add", b, "--root", tmp_path / "boards", "--replace").exit_code == 0
    assert claim_store.find(tmp_path / "boards")[0].seeds == [0, 1, 2, 3, 4]
    assert not any(audit.audit_all(tmp_path / "boards").values())


def test_models_in_folders_are_known_by_their_hash_not_by_a_path(tmp_path: Path) -> None:
    record = made.write(tmp_path / "a", made.World(skills={"ft": (1.0, 0.0)}, n=20, seeds=(0,)))
    cell = next(record.rglob("cell.json"))

    def local(content: Any) -> None:
        content["model"]["name"] = "local-dir:/home/someone/clip"

    edit(cell, local)
    claim_store.add([record], tmp_path / "boards", TRUST)
    stored = claim_store.find(tmp_path / "boards")[0]
    assert stored.claim.identity.model == "local-dir:clip"
    assert "/home/" not in "".join(p.read_text() for p in (tmp_path / "boards").rglob("*.json"))
    assert not audit.audit(stored)


def test_the_digest_of_predictions_is_that_of_its_definition_for_ids_of_any_length(root: Path) -> None:
    run = one(root).runs[0]
    n = len(run.any("sketch").ids)
    for ids in (run.any("sketch").ids, tuple(f"{k:d}é" if k % 3 else f"long/{k}" for k in reversed(range(n)))):
        scored = {"sketch": {"final": replace(run.any("sketch"), ids=ids)}}
        choice = run.choices["sketch"]["final"]
        parts: list[bytes] = []
        for k in sorted(range(n), key=ids.__getitem__):
            name = ids[k].encode()
            parts += [len(name).to_bytes(4, "little"), name, int(choice[k]).to_bytes(4, "little")]
        other = bundle.Bundle(run.record, run.typed, scored, {"sketch": {"final": choice}})
        assert digests.predictions_digest(other, "sketch") == hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_digest_of_a_configuration_is_the_plans_own() -> None:
    from robustbench_ft import plan

    cell = plan.make(plan.Request(method=("ft",), suite=("shapes",)))[0]
    assert claim.config_digest(cell.to_json()) == cell.digest
