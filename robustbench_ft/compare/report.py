"""Tables of records: a line per row, with intervals over seeds and examples. Presents what `compare` computes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robustbench_ft.metrics import Column, Derived, derived_columns, further_columns
from robustbench_ft.record.store import Record
from robustbench_ft.stats import Estimate
from robustbench_ft.stats import mean as interval

from . import tables as compare_tables
from .load import RunSet, given_of, run_set_of, sample_of
from .rows import Row, curve_runs, run_sets
from .text import MISSING, Text, grid, number, p_text, points, recipes_line, sizes_line, span, starred, states_line
from .verdicts import Line, difference_of, find_row, line_of

FURTHER = (
    "Beside the official metrics: accuracy, further splits and label spaces, in %: means over seeds, no intervals."
)
OOD = "mean OOD"


@dataclass(frozen=True, eq=False)
class Table:
    """All rows of one suite version and one model, under one protocol."""

    run_set: RunSet
    lines: tuple[Line, ...]
    curves: Mapping[str, Sequence[tuple[float, float, float]]]  # row -> (alpha, ID, mean OOD) along a family

    @property
    def title(self) -> str:
        return self.run_set.title

    @property
    def further(self) -> tuple[Column | Derived, ...]:
        """Numbers beside the official metrics."""
        told = self.run_set.records[0].metrics
        return (*further_columns(told), *derived_columns(told))

    def columns(self, val: bool = False) -> tuple[str, ...]:
        """ID validation if wanted, ID, each shift, the mean of each group of shifts, the mean of all."""
        groups = (f"mean {name}" for name in self.run_set.groups)
        return (*(("ID val",) if val else ()), "ID", *self.run_set.shifts, *groups, OOD)

    def estimate(self, line: Line, column: str) -> Estimate | None:
        """A line's number in a column; None where its predictions are missing."""
        if column == "ID val":
            sample = sample_of(self.run_set, line.row.runs, self.run_set.val)
            return None if sample is None else interval([sample])
        cell = line.cells.get(column)
        return None if cell is None else cell.estimate

    def header(self, val: bool = False) -> list[str]:
        """Titles of the printed columns."""
        run_set = self.run_set
        named = {"ID": run_set.column(run_set.test), **{split: run_set.column(split) for split in run_set.shifts}}
        return ["method", "seeds", *(named.get(column, column) for column in self.columns(val)), "fit s"]

    def texts(self, line: Line, val: bool = False) -> list[str]:
        """One line as text, under `header`."""
        found = (self.estimate(line, column) for column in self.columns(val))
        cells = [MISSING if estimate is None else points(estimate) for estimate in found]
        return [shown_name(line), number(len(line.row.runs)), *cells, number(fit_seconds(line.row), ".1f")]

    def further_texts(self, line: Line) -> list[str]:
        """The numbers beside the official metrics: means over seeds, with the sd where there are several."""
        cells = [further_values(line.row, column) for column in self.further]
        sds = [f" (sd {100 * np.std(values, ddof=1):.1f})" if len(values) > 1 else "" for values in cells]
        return [
            line.row.name,
            *(starred(number(100 * float(np.mean(v)), ".1f"), sd) for v, sd in zip(cells, sds, strict=True)),
        ]


def tables(records: Iterable[Record], headlines: bool = False) -> list[Table]:
    """Tables of records: numbers of different suite versions, models or protocols never meet in one.

    With `headlines`, each method has the row of its default candidate only.
    """
    return [_table(group, headlines) for group in run_sets(records, apart=True)]


def _table(records: Sequence[Record], headlines: bool) -> Table:
    run_set = run_set_of(records, given=given_of(records, True, headlines))
    lines = tuple(line_of(run_set, row) for row in run_set.rows if not row.oracle)
    return Table(run_set, lines, _curves(run_set))


def _curves(run_set: RunSet) -> dict[str, Sequence[tuple[float, float, float]]]:
    """(alpha, ID, mean OOD) along each family, means over seeds, under the name of the family's first row."""
    found: dict[str, Sequence[tuple[float, float, float]]] = {}
    for digest, members in curve_runs(run_set.records).items():
        # the fixed candidate first; a merge whose seeds chose each their own has none
        own = sorted(
            (row for row in run_set.rows if row.config.digest == digest), key=lambda row: row.selection != "fixed"
        )
        name = own[0].name
        found[name] = [
            (alpha, mean_of(runs, (run_set.test,)), mean_of(runs, run_set.shifts)) for alpha, runs in members
        ]  # fmt: skip
    return found


def mean_of(runs: Sequence[tuple[Record, str]], splits: Sequence[str]) -> float:
    """The mean over runs and splits of the official metrics."""
    return float(
        np.mean(
            [
                record.summary.candidates[candidate][split][record.summary.official_of(split)]
                for record, candidate in runs
                for split in splits
            ]
        )
    )


def shown_name(line: Line) -> str:
    """A row's name with what a reader must know of it."""
    found = passes(line.row)
    several = f"{found:g} forward passes" if found and found != 1 else ""
    marks = (("diverged", line.diverged), ("transductive", line.row.transductive), (several, several))
    notes = [word for word, holds in marks if holds]
    return f"{line.row.name} ({', '.join(notes)})" if notes else line.row.name


def fit_seconds(row: Row) -> float:
    """Seconds of training, mean over seeds."""
    return float(np.mean([record.environment.cost.fit_seconds for record, _ in row.runs]))


def passes(row: Row) -> float | None:
    """Forward passes of the image tower for each image predicted; None where the record does not say it.

    It states those of the default candidate. Where that takes several, others may take fewer.
    """
    found = max(record.environment.cost.passes for record, _ in row.runs)
    return found if found == 1 or row.selection == "fixed" else None


def further_values(row: Row, column: Column | Derived) -> list[float]:
    """A number beside the official metrics, by seed."""
    return [column.of(record.summary.candidates[candidate]) for record, candidate in row.runs]


def footnote(table: Table) -> str:
    """Sentences that say what the numbers are."""
    run_set = table.run_set
    seeds = span([len(line.row.runs) for line in table.lines if not line.row.deterministic])
    title = compare_tables.metric_title(run_set)
    notes = [
        recipes_line([line.row for line in table.lines]),
        states_line([line.row for line in table.lines]),
        compare_tables.REPORTED if run_set.selects_on_reported else "",
        sizes_line({("ID" if split == run_set.test else split): n for split, n in run_set.n.items()}),
    ]
    return " ".join([
        f"{title[0].upper()}{title[1:].replace(', %', ' in %')}, ± half-width of the 95 % two-way t interval over "
        f"seeds and examples ({seeds} training seed{'' if seeds == '1' else 's'}; one seed: examples only). Mean OOD: "
        "equal weights, ID not in it.",
        *(note for note in notes if note),
    ])  # fmt: skip


def markdown(table: Table, val: bool = False) -> str:
    """The table as GitHub Markdown."""
    body = [[cell.replace("|", "\\|") for cell in table.texts(line, val)] for line in table.lines]
    text = grid(table.header(val), body, "pipe")
    whole = f"**{table.title}**\n\n{text}\n\n{footnote(table)}\n"
    if not table.further:
        return whole
    head = ["method", *(column.title for column in table.further)]
    return f"{whole}\n{grid(head, [table.further_texts(line) for line in table.lines], 'pipe')}\n\n{FURTHER}\n"


def as_json(found: Sequence[Table]) -> str:
    """Every number of the tables, unrounded."""
    return json.dumps([_plain(table) for table in found], indent=2, sort_keys=True) + "\n"


def _plain(table: Table) -> dict[str, Any]:
    run_set = table.run_set
    rows = [
        {
            "name": line.row.name, "method": line.row.method, "setting": line.row.setting,
            "seeds": list(line.row.seeds), "candidates": [candidate for _, candidate in line.row.runs],
            "also": list(line.row.also), "diverged": line.diverged, "transductive": line.row.transductive,
            "fit_seconds": fit_seconds(line.row), "passes": passes(line.row), "recipe": line.row.recipe,
            "further": {column.title: further_values(line.row, column) for column in table.further},
            "cells": {column: asdict(found) for column in table.columns(val=True)
                      if (found := table.estimate(line, column)) is not None},
        }
        for line in table.lines
    ]  # fmt: skip
    return {
        "suite": run_set.suite, "version": run_set.version, "model": run_set.model, "protocol": run_set.protocol,
        "metrics": {split: run_set.metric_of(split) for split in run_set.n}, "n": dict(run_set.n),
        "curves": table.curves, "rows": rows,
    }  # fmt: skip


def sections(table: Table, val: bool = False, baseline: str | None = None) -> list[Text]:
    """All tables of a report; with `baseline`, that of differences to this row too."""
    made = [Text(table.title, tuple(table.header(val)), _body(table.texts(line, val) for line in table.lines),
                 footnote(table))]  # fmt: skip
    if table.further:
        head = ("method", *(column.title for column in table.further))
        body = _body(table.further_texts(line) for line in table.lines)
        made.append(Text(f"{table.title}: further numbers", head, body, FURTHER))
    return made + ([against(table, baseline)] if baseline else [])


def _body(lines: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, lines))


def against(table: Table, baseline: str) -> Text:
    """Differences to one row, paired on examples; exploratory: not corrected for their number."""
    run_set = table.run_set
    base = find_row(run_set, baseline)
    others = [line for line in table.lines if line.row is not base]
    body = _body((line.row.name, *(_difference(run_set, line.row, base, s) for s in ((run_set.test,), run_set.shifts)))
                 for line in others)  # fmt: skip
    paired = [line.row.name for line in others if run_set.paired(line.row, base)]
    seeds = f"seeds of {', '.join(paired)} paired (same training runs)" if paired else "seeds independent"
    return Text(
        f"{table.title}: difference to {base.name}, points", ("method", "ID", OOD), body,
        f"Paired on examples, {seeds}; 95 % intervals and p values not adjusted for the number of rows. One seed of a "
        "trained method is no claim.",
    )  # fmt: skip


def _difference(run_set: RunSet, row: Row, base: Row, splits: Sequence[str]) -> str:
    if {*run_set.missing(row), *run_set.missing(base)} & set(splits):
        return MISSING
    found = difference_of(run_set, row, base, splits)
    text = points(found, signed=True)
    if any(len(r.runs) < 2 and not r.deterministic for r in (row, base)):
        return starred(text, " (1 seed)")
    return starred(text, f" (p {p_text(found.p)})")
