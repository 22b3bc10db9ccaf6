"""What a comparison comes to for somebody who has to choose one method, in sentences."""

from collections.abc import Sequence

from robustbench_ft.stats.power import detectable, example_floor

from .designs import RowDesign, designs
from .tables import unit_of
from .text import points
from .verdicts import MIN_SEEDS_FOR_LETTERS, Comparison, Line

SHARE = 0.7  # of what can be detected: above it, more seeds would change little


def advice(found: Comparison) -> list[str]:
    """Which row to take, how sure that is, and what would make it surer."""
    ranked = [line for line in found.lines if line.status == "ranked"]
    trained = [line for line in ranked if line.row.recipe is not None]
    if len(ranked) < 2 or not trained:
        return [
            f"none: fewer than two methods have the {MIN_SEEDS_FOR_LETTERS} seeds that an order needs; run more with "
            "--seeds 0-4."
        ]  # fmt: skip
    best, unit, sign = trained[0], unit_of(found.run_set), 1 if found.run_set.higher_is_better else -1
    said = [_first(found, best, trained[1:], len(ranked))]
    said += [f"Without training, {line.row.name}: {_both(line, unit)}." for line in ranked if line.row.recipe is None]
    top = max(trained, key=lambda line: sign * line.cells["ID"].estimate.value)
    said += [f"The best ID among trained rows has {top.row.name}: {_both(top, unit)}."] if top is not best else []
    return [*said, *filter(None, [_surer(designs(found.run_set), best, unit)])]


def _both(line: Line, unit: float) -> str:
    """'75.7 ± 1.8 on ID and 59.0 ± 1.3 under shift'"""
    identity, ood = (points(line.cells[column].estimate, unit=unit) for column in ("ID", "mean OOD"))
    return f"{identity} on ID and {ood} under shift"


def _first(found: Comparison, best: Line, others: Sequence[Line], ranked: int) -> str:
    place = ""
    if best.rank is not None:
        low, high = best.rank.low, best.rank.high
        place = f" (rank {low if low == high else f'{low}-{high}'} of {ranked} rows by mean OOD)"
    start = f"of what was trained, {best.row.name} is best under shift: {_both(best, unit_of(found.run_set))}{place}"
    if not found.lettered or not others:
        return f"{start}."
    tied = [line.row.name for line in others if set(line.letters) & set(best.letters)]
    if not tied:
        return f"{start}; tests tell it from all other trained rows."
    which = ", ".join(tied) if len(tied) < len(others) else "any other trained row"
    return f"{start}. These runs cannot tell it from {which}: choose among them by cost or ID."


def _surer(rows: Sequence[RowDesign], best: Line, unit: float) -> str:
    """Whether more seeds or more images would tell methods apart."""
    row = next((one for one in rows if one.row is best.row and one.design), None)
    row = row or next((one for one in rows if one.design), None)
    if row is None or row.design is None:
        return ""
    least, floor = detectable(row.design, len(row.row.runs)), example_floor(row.design)
    what = f"Two methods like {row.row.name} must differ by {unit * least:.2g} to be told apart with these runs"
    if floor > SHARE * least:
        return f"{what}, and by {unit * floor:.2g} with any number of seeds: more test images are what would help."
    return f"{what}, by {unit * floor:.2g} with any number of seeds: more seeds would help."
