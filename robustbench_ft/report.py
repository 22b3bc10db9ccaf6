"""Tables from records: one row per method and setting, with intervals over seeds and examples. Torch-free."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from . import stats
from .data import Predictions
from .errors import RbftError
from .metrics import further_columns
from .rows import BY_VAL, check_same_data, join, settings
from .stats import Estimate
from .stats.intervals import Examples
from .store import Record

MATRICES = ("id_matrix", "ood_matrix")
FURTHER = "Official metrics that are not accuracy, and other label spaces, in %: means over seeds, no intervals."


@dataclass(frozen=True)
class Row:
    """One line of a table. Cells are accuracies in [0, 1] with their intervals, by column name."""

    name: str
    method: str
    setting: str  # what distinguishes it from other rows of the method
    candidates: tuple[str, ...]  # which candidate each seed contributed
    seeds: tuple[int, ...]
    cells: Mapping[str, Estimate]
    id_matrix: tuple[Examples, ...]  # correctness on the ID test set, [S, n]
    ood_matrix: tuple[Examples, ...]  # on each shift
    fit_seconds: float  # mean over seeds
    sort_key: tuple[float, bool, str]  # learning rate, then setting
    diverged: bool
    deterministic: bool
    further: Mapping[str, tuple[float, ...]]  # title -> value by seed


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
    further: tuple[str, ...] = ()  # titles of official metrics that are not accuracy, and of other label spaces
    partial: bool = False  # the data were not complete

    def columns(self, val: bool = False) -> tuple[str, ...]:
        """ID validation if wanted, ID, each shift, the mean of each group of shifts, the mean of all."""
        return (
            *(("ID val",) if val else ()),
            "ID",
            *self.shifts,
            *(f"mean {name}" for name in self.groups),
            "mean OOD",
        )

    @property
    def title(self) -> str:
        note = " (partial data: no claim)" if self.partial else ""
        return f"{self.suite} v{self.version}, model {self.model}, protocol {self.protocol}{note}"


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
    check_same_data(records)
    named = settings({digest: group[0].cell for digest, group in by_digest.items()})
    rows: list[Row] = []
    curves: dict[str, Sequence[tuple[float, float, float]]] = {}
    for digest, group in by_digest.items():
        meta = group[0].metrics
        setting, fixed = named[digest], meta["default"].replace("-", "=", 1)
        if not meta["axis"]:
            rows.append(_row(group, tuple(r.metrics["default"] for r in group), setting))
            continue
        # a family has two rows: its fixed candidate, and the one each seed's ID validation chooses
        rows.append(_row(group, tuple(r.metrics["default"] for r in group), join(setting, fixed)))
        curves[rows[-1].name] = _curve(group)
        rows.append(_row(group, tuple(r.metrics["id_val"] for r in group), join(setting, BY_VAL)))
    # zero-shot first, then as the methods' names run; settings stay in the order of their values
    order = sorted(rows, key=lambda row: (row.method != "zero-shot", row.method, row.sort_key))
    cell, meta = records[0].cell, records[0].metrics
    return Table(
        suite=cell["suite"], version=cell["suite_version"], model=cell["model"]["name"], protocol=cell["protocol"],
        shifts=tuple(meta["splits"]["shifts"]), groups=tuple(meta["shift_groups"]), rows=tuple(order), curves=curves,
        further=tuple(column.title for column in further_columns(meta)), partial=bool(cell.get("partial")),
    )  # fmt: skip


def _row(group: Sequence[Record], candidates: tuple[str, ...], setting: str) -> Row:
    meta = group[0].metrics
    shifts: list[str] = meta["splits"]["shifts"]
    correct = {
        split: _correct([r.predictions(c, split) for r, c in zip(group, candidates, strict=True)],
                        meta.get("clusters", {}).get(split))
        for split in (meta["splits"]["val"], meta["splits"]["test"], *shifts)
    }  # fmt: skip
    identity = correct[meta["splits"]["test"]]
    cells = {"ID val": stats.mean([correct[meta["splits"]["val"]]]), "ID": stats.mean([identity])} | {
        split: stats.mean([correct[split]]) for split in shifts
    }
    for name, members in meta["shift_groups"].items():
        cells[f"mean {name}"] = stats.mean([correct[split] for split in members])
    cells["mean OOD"] = stats.mean([correct[split] for split in shifts])
    method = group[0].cell["method"]
    return Row(
        name=f"{method} ({setting})" if setting else method, method=method, setting=setting, candidates=candidates,
        seeds=tuple(r.seed for r in group), cells=cells, id_matrix=(identity,),
        ood_matrix=tuple(correct[split] for split in shifts),
        fit_seconds=float(np.mean([r.env["cost"]["fit_seconds"] for r in group])),
        sort_key=(float((group[0].cell["recipe"] or {}).get("lr", 0.0)), setting.endswith(BY_VAL), setting),
        deterministic=group[0].cell["deterministic"],
        diverged=any(stage["diverged"] for r in group for stage in r.env["stages"]),
        further={
            column.title: tuple(
                float(r.metrics["candidates"][c][column.split][column.metric])
                for r, c in zip(group, candidates, strict=True)
            )
            for column in further_columns(meta)
        },
    )  # fmt: skip


def _correct(runs: Sequence[Predictions], cluster: str | None) -> Examples:
    """[S, n], with the clusters that the suite declares."""
    codes = np.unique(runs[0].groups[cluster], return_inverse=True)[1].astype(np.int64) if cluster else None
    return Examples(np.stack([run.correct.astype(np.float64) for run in runs]), codes)


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


def footnote(table: Table) -> str:
    """What the numbers are, in one line."""
    counts = sorted({len(row.seeds) for row in table.rows if row.method != "zero-shot"})
    seeds = "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "no"
    return (
        f"Top-1 accuracy in %, ± half-width of the 95 % two-way t interval over seeds and examples ({seeds} training "
        f"seed{'' if seeds == '1' else 's'}; one seed: examples only). Mean OOD: equal weights, ID not in it."
    )


def cell_text(estimate: Estimate) -> str:
    """'71.3 ± 0.4'; two decimals where the standard error is below 0.1 points."""
    digits = 1 if 100 * estimate.se >= 0.1 or estimate.se == 0 else 2
    return f"{100 * estimate.value:.{digits}f} ± {100 * estimate.half_width:.{digits}f}"


def header(table: Table, val: bool = False) -> list[str]:
    """Column titles of the printed table."""
    return ["method", "seeds", *table.columns(val), "fit s"]


def line(table: Table, row: Row, val: bool = False) -> list[str]:
    """One row as text, under `header`."""
    name = f"{row.name} (diverged)" if row.diverged else row.name
    return [name, str(len(row.seeds)), *(cell_text(row.cells[c]) for c in table.columns(val)), f"{row.fit_seconds:.1f}"]


def further_line(table: Table, row: Row) -> list[str]:
    """One row of official metrics and other label spaces: means over seeds, with the sd where there are several."""
    cells = [row.further[title] for title in table.further]
    sds = [f" (sd {100 * np.std(values, ddof=1):.1f})" if len(values) > 1 else "" for values in cells]
    return [row.name, *(f"{100 * np.mean(values):.1f}{sd}" for values, sd in zip(cells, sds, strict=True))]


def markdown(table: Table, val: bool = False) -> str:
    """The table as GitHub Markdown."""
    head = header(table, val)
    align = ("left", *("right" for _ in head[1:]))
    body = [line(table, row, val) for row in table.rows]
    text = tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=align)
    whole = f"**{table.title}**\n\n{text}\n\n{footnote(table)}\n"
    if not table.further:
        return whole
    body = [further_line(table, row) for row in table.rows]
    align = ("left", *("right" for _ in table.further))
    more = tabulate(body, ["method", *table.further], tablefmt="pipe", disable_numparse=True, colalign=align)
    return f"{whole}\n{more}\n\n{FURTHER}\n"


def as_json(found: Sequence[Table]) -> str:
    """Every number of the tables, unrounded."""
    return json.dumps([_plain(table) for table in found], indent=2, sort_keys=True) + "\n"


def _plain(table: Table) -> dict[str, Any]:
    shared = {name: getattr(table, name) for name in ("suite", "version", "model", "protocol", "curves")}
    named = ("name", "method", "setting", "seeds", "candidates", "diverged", "fit_seconds", "further")
    rows = [
        {name: getattr(row, name) for name in named}
        | {"cells": {column: asdict(estimate) for column, estimate in row.cells.items()}}
        for row in table.rows
    ]
    return shared | {"rows": rows}


def against(table: Table, baseline: str) -> str:
    """Differences to one row, paired on examples, as Markdown; exploratory: not corrected for their number."""
    rows = {row.name: row for row in table.rows} | {row.method: row for row in reversed(table.rows)}
    if baseline not in rows:
        raise RbftError(f"no row '{baseline}' in {table.title}; rows: {', '.join(row.name for row in table.rows)}")
    base = rows[baseline]
    body = [
        [row.name, *(_difference_text(row, base, name) for name in MATRICES)] for row in table.rows if row is not base
    ]
    text = tabulate(body, ["method", "ID", "mean OOD"], tablefmt="pipe", disable_numparse=True)
    return (
        f"**{table.title}: difference to {base.name}, points**\n\n{text}\n\nPaired on examples, seeds independent; "
        "95 % intervals and p values not adjusted for the number of rows. One seed of a trained method is no claim.\n"
    )


def _difference_text(row: Row, base: Row, matrix: str) -> str:
    found = stats.difference(getattr(row, matrix), getattr(base, matrix))
    text = f"{100 * found.value:+.1f} ± {100 * found.half_width:.1f}"
    if any(len(r.seeds) < 2 and not r.deterministic for r in (row, base)):
        return f"{text} (1 seed)"
    return f"{text} (p {found.p:.2g})"
