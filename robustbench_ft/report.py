"""Tables from records: one row per method and setting, with intervals over seeds and examples. Torch-free."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from . import stats
from .errors import RbftError
from .stats import Estimate, Matrix
from .store import Record

BY_VAL = "by ID val"


@dataclass(frozen=True)
class Row:
    """One line of a table. Cells are accuracies in [0, 1] with their intervals, by column name."""

    name: str
    method: str
    setting: str  # what distinguishes it from other rows of the method
    candidates: tuple[str, ...]  # which candidate each seed contributed
    seeds: tuple[int, ...]
    cells: Mapping[str, Estimate]
    id_matrix: tuple[Matrix, ...]  # correctness on the ID test set, [S, n]
    ood_matrix: tuple[Matrix, ...]  # on each shift
    fit_seconds: float  # mean over seeds
    diverged: bool = False


@dataclass(frozen=True)
class Table:
    """All rows of one suite version and one model."""

    suite: str
    version: int
    model: str
    protocol: str
    shifts: tuple[str, ...]
    groups: tuple[str, ...]
    rows: tuple[Row, ...]
    curves: Mapping[str, Sequence[tuple[float, float, float]]]  # row -> (alpha, ID, mean OOD) along a family

    @property
    def columns(self) -> tuple[str, ...]:
        """ID, each shift, the mean of each group of shifts, the mean of all."""
        return ("ID", *self.shifts, *(f"mean {name}" for name in self.groups), "mean OOD")

    @property
    def title(self) -> str:
        return f"{self.suite} v{self.version}, model {self.model}, protocol {self.protocol}"


def tables(records: Iterable[Record]) -> list[Table]:
    """Group records into tables: numbers of different suite versions, models or protocols never meet."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        cell = record.cell
        key = (cell["suite"], cell["suite_version"], cell["model"]["name"], cell["model"]["weights"], cell["protocol"])
        groups.setdefault(key, []).append(record)
    return [_table(group) for _, group in sorted(groups.items())]


def _table(records: list[Record]) -> Table:
    by_digest: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        by_digest.setdefault(record.cell["digest"], []).append(record)
    _check_same_data(records)
    settings = _settings({digest: group[0].cell for digest, group in by_digest.items()})
    rows: list[Row] = []
    curves: dict[str, Sequence[tuple[float, float, float]]] = {}
    for digest, group in by_digest.items():
        meta = group[0].metrics
        rows.append(_row(group, tuple(r.metrics["default"] for r in group), settings[digest]))
        if meta["axis"]:
            curves[rows[-1].name] = _curve(group)
            rows.append(_row(group, tuple(r.metrics["id_val"] for r in group), f"{settings[digest]} {BY_VAL}".strip()))
    order = sorted(rows, key=lambda row: (row.method != "zero-shot", row.method, row.setting))
    cell, meta = records[0].cell, records[0].metrics
    return Table(
        suite=cell["suite"], version=cell["suite_version"], model=cell["model"]["name"], protocol=cell["protocol"],
        shifts=tuple(meta["splits"]["shifts"]), groups=tuple(meta["shift_groups"]), rows=tuple(order), curves=curves,
    )  # fmt: skip


def _row(group: Sequence[Record], candidates: tuple[str, ...], setting: str) -> Row:
    meta = group[0].metrics
    shifts: list[str] = meta["splits"]["shifts"]
    correct = {
        split: np.stack(
            [r.predictions(c, split).correct.astype(np.float64) for r, c in zip(group, candidates, strict=True)]
        )
        for split in (meta["splits"]["test"], *shifts)
    }
    identity = correct[meta["splits"]["test"]]
    cells = {"ID": stats.mean([identity])} | {split: stats.mean([correct[split]]) for split in shifts}
    for name, members in meta["shift_groups"].items():
        cells[f"mean {name}"] = stats.mean([correct[split] for split in members])
    cells["mean OOD"] = stats.mean([correct[split] for split in shifts])
    method = group[0].cell["method"]
    return Row(
        name=f"{method} ({setting})" if setting else method, method=method, setting=setting, candidates=candidates,
        seeds=tuple(r.seed for r in group), cells=cells, id_matrix=(identity,),
        ood_matrix=tuple(correct[split] for split in shifts),
        fit_seconds=float(np.mean([r.env["cost"]["fit_seconds"] for r in group])),
        diverged=any(stage["diverged"] for r in group for stage in r.env["stages"]),
    )  # fmt: skip


def _curve(group: Sequence[Record]) -> list[tuple[float, float, float]]:
    """(alpha, ID, mean OOD), means over seeds, along the family's axis."""
    splits = group[0].metrics["splits"]
    points: list[tuple[float, float, float]] = []
    for candidate, alpha in sorted(group[0].metrics["axis"].items(), key=lambda item: item[1]):
        scores = [r.metrics["candidates"][candidate] for r in group]
        identity = float(np.mean([s[splits["test"]]["accuracy"] for s in scores]))
        ood = float(np.mean([s[split]["accuracy"] for s in scores for split in splits["shifts"]]))
        points.append((alpha, identity, ood))
    return points


def _settings(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What sets each cell apart from the others of its method, e.g. 'lr=0.0001'; families also name their candidate."""
    flat = {
        digest: {**(cell["recipe"] or {}), **cell["settings"], "precision": cell["precision"]}
        for digest, cell in cells.items()
    }
    named: dict[str, str] = {}
    for digest, own in flat.items():
        rivals = [flat[d] for d, cell in cells.items() if cell["method"] == cells[digest]["method"]]
        differing = [key for key in own if any(rival.get(key) != own[key] for rival in rivals)]
        if "alpha" in own and "alpha" not in differing:
            differing.append("alpha")
        named[digest] = ", ".join(
            f"{key}={own[key]:g}" if isinstance(own[key], float) else f"{key}={own[key]}" for key in differing
        )
    return named


def _check_same_data(records: Sequence[Record]) -> None:
    """Rows are compared example by example, so they must have been evaluated on the same examples."""
    reference = records[0].env["data"]
    for record in records[1:]:
        for split, entry in record.env["data"].items():
            if split in reference and reference[split]["digest"] != entry["digest"]:
                raise RbftError(
                    f"{record.folder} and {records[0].folder} were evaluated on different data (split '{split}'): "
                    "report them apart, or run one of them again"
                )


def footnote(table: Table) -> str:
    """What the numbers are, in one line."""
    counts = sorted({len(row.seeds) for row in table.rows if row.method != "zero-shot"})
    seeds = (
        f"{counts[0]} seeds"
        if len(counts) == 1
        else f"{'-'.join(map(str, (counts[0], counts[-1])))} seeds"
        if counts
        else ""
    )
    return (
        f"Top-1 accuracy in %, +- half-width of the 95 % two-way t interval over seeds and examples ({seeds or 'no training'}; "
        "one seed: examples only). Mean OOD weighs the shifts equally; ID is not in it."
    )


def cell_text(estimate: Estimate) -> str:
    """'71.3 +- 0.4'; two decimals where the standard error is below 0.1 points."""
    digits = 1 if 100 * estimate.se >= 0.1 or estimate.se == 0 else 2
    return f"{100 * estimate.value:.{digits}f} ± {100 * estimate.half_width:.{digits}f}"


def markdown(table: Table) -> str:
    """The table as GitHub Markdown."""
    head = ["method", "seeds", *table.columns, "fit s"]
    body = [
        [row.name + (" (diverged)" if row.diverged else ""), str(len(row.seeds)), *(cell_text(row.cells[c]) for c in table.columns),
         f"{row.fit_seconds:.1f}"]
        for row in table.rows
    ]  # fmt: skip
    align = ("left", *("right" for _ in head[1:]))
    text = tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)
    return f"**{table.title}**\n\n{text}\n\n{footnote(table)}\n"


def as_json(found: Sequence[Table]) -> str:
    """Every number of the tables, unrounded; `differences` compares each row with the row called 'ft'."""
    content = [
        {
            "suite": t.suite, "version": t.version, "model": t.model, "protocol": t.protocol,
            "rows": [
                {"name": r.name, "method": r.method, "seeds": r.seeds, "candidates": r.candidates, "diverged": r.diverged,
                 "fit_seconds": r.fit_seconds, "cells": {name: asdict(e) for name, e in r.cells.items()}}
                for r in t.rows
            ],
            "curves": t.curves,
        }
        for t in found
    ]  # fmt: skip
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def against(table: Table, baseline: str) -> str:
    """Differences to one row, paired on examples, as Markdown. They are exploratory: nothing is corrected for their number."""
    rows = {row.name: row for row in table.rows} | {row.method: row for row in reversed(table.rows)}
    if baseline not in rows:
        raise RbftError(f"no row '{baseline}' in {table.title}; rows: {', '.join(row.name for row in table.rows)}")
    base = rows[baseline]
    body: list[list[str]] = []
    for row in table.rows:
        if row is base:
            continue
        found = [stats.difference(getattr(row, name), getattr(base, name)) for name in ("id_matrix", "ood_matrix")]
        body.append([row.name, *(f"{100 * e.value:+.1f} ± {100 * e.half_width:.1f} (p {e.p:.2g})" for e in found)])
    text = tabulate(body, ["method", "ID", "mean OOD"], tablefmt="github", disable_numparse=True)
    return (
        f"**{table.title}: difference to {base.name}, points**\n\n{text}\n\nPaired on examples, seeds independent; "
        "95 % intervals and p values unadjusted for the number of rows.\n"
    )
