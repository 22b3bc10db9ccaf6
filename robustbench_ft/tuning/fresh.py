"""The winners of a search, run again with seeds that it has not seen, and compared for each rule. Torch-free.

A winner's ID validation is the best of N, and what it reaches under shift is one draw of the training seed. Only seeds
that chose nothing tell what its settings are worth.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustbench_ft.cell import Cell
from robustbench_ft.compare import report as engine
from robustbench_ft.compare import tables, tradeoffs
from robustbench_ft.compare.load import run_set_of
from robustbench_ft.compare.rows import Row, join, merged, text_of
from robustbench_ft.compare.text import Text
from robustbench_ft.compare.tradeoffs import LINE
from robustbench_ft.compare.verdicts import Comparison, compare
from robustbench_ft.record.store import Record

from .choose import RULES, Entrant


@dataclass(frozen=True, eq=False)
class Fresh:
    """What one rule chose for each method, over seeds that had no part in the choice."""

    rule: str
    comparison: Comparison
    beyond: tradeoffs.Beyond

    @property
    def table(self) -> engine.Table:
        """As the figures take it."""
        return engine.Table(self.comparison.run_set, self.comparison.lines, {})


def cells(entrants: Iterable[Entrant], seeds: Sequence[int]) -> tuple[Cell, ...]:
    """The cells of all winners, each once, seed by seed: what is cut short has an equal number of seeds so far."""
    winners = {cell.digest: cell for entrant in entrants for rule in RULES for cell in (_cell(entrant, rule),)}
    found = (made for k in range(len(seeds)) for cell in winners.values() for made in _seeded(cell, seeds)[k : k + 1])
    return tuple(found)


def _cell(entrant: Entrant, rule: str) -> Cell:
    return entrant.chosen(rule).trial.cell


def _seeded(cell: Cell, seeds: Sequence[int]) -> tuple[Cell, ...]:
    """One for each seed; what is deterministic is the cell of the search."""
    return (cell,) if cell.deterministic else tuple(replace(cell, seed=seed) for seed in seeds)


def confirm(entrants: Sequence[Entrant], seeds: Sequence[int], out: Path, baseline: str) -> tuple[Fresh, ...]:
    """Compare the winners of each rule with that of method `baseline`, from the records of `cells` under `out`.

    Gains at matched ID accuracy are measured from the line of weights of WiSE-FT's winner, where there is one.
    """
    read: dict[Path, Record] = {}

    def record(cell: Cell) -> Record:
        return read.setdefault(out / cell.folder, Record(out / cell.folder))

    return tuple(_fresh(rule, entrants, seeds, record, baseline) for rule in RULES)


def _fresh(
    rule: str, entrants: Sequence[Entrant], seeds: Sequence[int], record: Callable[[Cell], Record], baseline: str
) -> Fresh:
    made = [
        _row(entrant, rule, [record(cell) for cell in _seeded(_cell(entrant, rule), seeds)]) for entrant in entrants
    ]
    base = next(row for row, entrant in zip(made, entrants, strict=True) if entrant.method == baseline)
    rows = merged(made)
    records = list({str(r.folder): r for row in rows for r, _ in row.runs}.values())
    found = compare(run_set_of(records, given=rows), base)
    line = next((_cell(e, rule).digest for e in entrants if e.method == LINE and e.headline), "")
    gains = replace(tradeoffs.beyond(found, line), places=(), frontiers=(), refusal="")  # one setting for each method
    return Fresh(rule, found, gains)


def _row(entrant: Entrant, rule: str, records: Sequence[Record]) -> Row:
    trial = entrant.chosen(rule).trial
    text = join(entrant.pick, text_of(trial.settings) if entrant.tuned else "not tuned")
    runs = tuple((record, entrant.candidate(record)) for record in records)
    selection = f"id_val of {len(entrant.outcomes)}" if entrant.tuned else "fixed"
    return Row(entrant.method, text, selection, runs, trial.cell.deterministic)


def sections(found: Iterable[Fresh]) -> list[Text]:
    """For each rule: the comparison, and the gains at matched ID accuracy."""
    made: list[Text] = []
    for one in found:
        for text in (tables.main_table(one.comparison), *tradeoffs.sections(one.beyond)):
            made.append(replace(text, title=f"{RULES[one.rule].name}, fresh seeds: {text.title}"))
    return made


def as_json(found: Iterable[Fresh]) -> Mapping[str, Any]:
    """Rule -> every number, as `rbft compare --format json` gives it."""
    return {one.rule: tables.as_json(one.comparison) | tradeoffs.as_json(one.beyond) for one in found}
