"""A method whose headline is chosen on ID validation, as merges choose lambda, is named by the rule."""

from pathlib import Path

import made

from robustbench_ft.compare.rows import rows
from robustbench_ft.record import store

METHODS = {name: made.SKILLS[name] for name in ("zero-shot", "wise-ft")}


def merges(out: Path, chosen: dict[int, str]) -> list[str]:
    """Rows of a merge: candidates along lambda, and each seed's headline is what its ID validation rates best."""
    made.write(out, made.World(skills=METHODS, n=40, seeds=tuple(chosen)))
    for folder in out.glob("*/*/wise-ft-*/seed-*"):
        seed = int(folder.name.removeprefix("seed-"))
        told = store.read_json(folder / "metrics.json")
        told["candidates"] = {n.replace("alpha", "lambda"): scores for n, scores in told["candidates"].items()}
        told["axis"] = {n.replace("alpha", "lambda"): value for n, value in told["axis"].items()}
        told["candidates"][chosen[seed]]["val"]["accuracy"] = 1.5
        store.write_json(folder / "metrics.json", told | {"default": chosen[seed], "id_val": chosen[seed]})
    return [row.name for row in rows(store.find_records([out])) if row.method == "wise-ft" and not row.oracle]


def test_seeds_that_choose_apart_are_one_row_by_rule(tmp_path: Path) -> None:
    assert merges(tmp_path, {0: "lambda-0.3", 1: "lambda-0.4"}) == ["wise-ft (lambda by ID val)"]


def test_seeds_that_choose_alike_name_what_they_chose(tmp_path: Path) -> None:
    assert merges(tmp_path, {0: "lambda-0.3", 1: "lambda-0.3"}) == ["wise-ft (lambda=0.3)"]


def test_the_oracle_row_names_the_axis(tmp_path: Path) -> None:
    merges(tmp_path, {0: "lambda-0.3", 1: "lambda-0.4"})
    assert "wise-ft (oracle: lambda by OOD)" in [row.name for row in rows(store.find_records([tmp_path]))]
