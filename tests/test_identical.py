"""Two rows with the same answers are the same, however many seeds they have and whatever they are called."""

import shutil
from pathlib import Path

import made
import pytest

from robustbench_ft.compare import Comparison, compare, load
from robustbench_ft.compare.tables import main_table
from robustbench_ft.record import store


def no_op(root: Path, world: made.World) -> Comparison:
    """zero-shot beside a method that was trained with several seeds and never answers otherwise."""
    made.write(root, world)
    (source,) = root.glob("*/*/zero-shot-*/seed-0")
    for folder in root.glob("*/*/lipsum-*/seed-*"):
        shutil.rmtree(folder / "predictions")
        shutil.copytree(source / "predictions", folder / "predictions")
        told = store.read_json(folder / "metrics.json")
        store.write_json(folder / "metrics.json", told | {
            "candidates": store.read_json(source / "metrics.json")["candidates"],
        })  # fmt: skip
    (run_set,) = load(store.find_records([root]))
    return compare(run_set, "zero-shot")


@pytest.mark.parametrize("seeds", [2, 3, 6, 7, 10])
@pytest.mark.parametrize("n", [90, 147])
def test_a_method_that_changes_no_answer_is_its_start(seeds: int, n: int, tmp_path: Path) -> None:
    skills = {name: made.SKILLS[name] for name in ("zero-shot", "ft", "lipsum")}
    found = no_op(tmp_path, made.World(skills=skills, n=n, seeds=range(seeds)))
    (claim,) = [c for c in found.claims if c.row == "lipsum"]
    assert (claim.estimate.value, claim.estimate.half_width, claim.estimate.p) == (0.0, 0.0, 1.0)
    assert claim.p_adjusted == 1
    assert claim.verdict == "unresolved"
    lines = {line.row.name: line for line in found.lines}
    if seeds >= 3:
        assert lines["lipsum"].letters == lines["zero-shot"].letters
        assert lines["lipsum"].rank == lines["zero-shot"].rank
    row = next(row for row in main_table(found).body if row[0] == "lipsum")
    assert row[-1].startswith("same answers")
    assert all(c.estimate.value == 0 and c.p_adjusted == 1 for c in found.exploratory if c.row == "lipsum")
