"""Which rows a table has: methods and settings, candidates of families, selection rules. Torch-free.

A row is a rule for choosing one (run, candidate) per seed. Rules that end in the same runs and candidates are one row
with several names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import RbftError
from .metrics.across import RULES, Setting
from .store import Record

BY_VAL = "alpha by ID val"
BY_OOD = "oracle: alpha by OOD"
Run = tuple[Record, str]  # and the candidate that the row takes from it


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method under one setting or one selection rule."""

    method: str
    setting: str  # what distinguishes it from other rows of the method
    selection: str  # 'fixed', or what was chosen on which data
    runs: tuple[Run, ...]  # by seed
    deterministic: bool
    oracle: bool = False  # chosen on OOD test data: shown, never ranked
    also: tuple[str, ...] = ()  # other rules that choose these very runs

    @property
    def name(self) -> str:
        return f"{self.method} ({self.setting})" if self.setting else self.method

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record, _ in self.runs)

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        return tuple((str(record.folder), candidate) for record, candidate in self.runs)


def arenas(records: Iterable[Record]) -> list[list[Record]]:
    """Records that may be compared, one list per suite and model. Mixed versions or protocols are an error."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        cell = record.cell
        try:
            key = cell["suite"], cell["model"]["name"], cell["model"]["weights"]
        except (KeyError, TypeError) as error:
            raise RbftError(f"{record.folder / 'cell.json'} is no cell of rbft: it lacks {error}") from error
        found.setdefault(key, []).append(record)
    for (suite, _, _), group in found.items():
        for what, field in (("versions of the suite", "suite_version"), ("protocols", "protocol")):
            values = sorted({str(record.cell[field]) for record in group})
            if len(values) > 1:
                raise RbftError(
                    f"runs on '{suite}' are of different {what} ({', '.join(values)}): their numbers never meet; "
                    "name folders of one of them"
                )
        _check_unique(group)
    return [found[key] for key in sorted(found)]


def rows(records: Sequence[Record]) -> list[Row]:
    """All rows of one arena, zero-shot first, then as methods' names and learning rates run."""
    by_digest: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        by_digest.setdefault(record.cell["digest"], []).append(record)
    named = settings({digest: group[0].cell for digest, group in by_digest.items()})
    made: list[Row] = []
    for digest, group in sorted(by_digest.items(), key=lambda item: _order(item[1][0])):
        made += _rows_of_cell(group, named[digest])
    made += [row for group in _grids(by_digest.values()) for row in _rows_of_grid(group)]
    return _merged(made)


def settings(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What sets each cell apart from the others of its method, e.g. 'lr=0.0001'. By digest."""
    flat = {
        digest: {**(cell["recipe"] or {}), **cell["settings"], "precision": cell["precision"]}
        for digest, cell in cells.items()
    }
    named: dict[str, str] = {}
    for digest, own in flat.items():
        rivals = [flat[d] for d, cell in cells.items() if cell["method"] == cells[digest]["method"]]
        differing = {k: v for k, v in own.items() if k != "alpha" and any(rival.get(k) != v for rival in rivals)}
        named[digest] = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in differing.items())
    return named


def join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _rows_of_cell(group: Sequence[Record], setting: str) -> list[Row]:
    """A family has its fixed candidate, the one each seed's ID validation chooses, and the one no one may choose."""
    cell, meta = group[0].cell, group[0].metrics
    fixed = tuple((r, str(r.metrics["default"])) for r in group)
    row = Row(cell["method"], setting, "fixed", fixed, bool(cell["deterministic"]))
    if not meta["axis"]:
        return [row]
    named = replace(row, setting=join(setting, meta["default"].replace("-", "=", 1)))
    by_val = replace(
        row, setting=join(setting, BY_VAL), selection="id_val", runs=tuple((r, str(r.metrics["id_val"])) for r in group)
    )
    by_ood = tuple((r, _best_ood(r)) for r in group)
    oracle = replace(row, setting=join(setting, BY_OOD), selection="oracle", runs=by_ood, oracle=True)
    return [named, by_val, oracle]


def _best_ood(record: Record) -> str:
    shifts: list[str] = record.metrics["splits"]["shifts"]
    scores = record.metrics["candidates"]
    return max(record.metrics["axis"], key=lambda c: sum(scores[c][split]["accuracy"] for split in shifts))


def _grids(cells: Iterable[Sequence[Record]]) -> list[list[Sequence[Record]]]:
    """Cells that differ in their learning rate only, where there are several."""
    found: dict[str, list[Sequence[Record]]] = {}
    for group in cells:
        cell = group[0].cell
        if cell["recipe"]:
            rest = {k: v for k, v in cell["recipe"].items() if k != "lr"}
            key = repr((cell["method"], sorted(rest.items()), sorted(cell["settings"].items()), cell["precision"]))
            found.setdefault(key, []).append(group)
    return [groups for groups in found.values() if len(groups) > 1]


def _rows_of_grid(groups: Sequence[Sequence[Record]]) -> list[Row]:
    """Selection is inside the seed: each seed chooses its own learning rate on its own ID validation (1.14)."""
    by_seed: dict[int, list[Record]] = {}
    for group in groups:
        for record in group:
            by_seed.setdefault(record.seed, []).append(record)
    complete = {seed: found for seed, found in sorted(by_seed.items()) if len(found) == len(groups)}
    if not complete:
        return []
    cell, family = groups[0][0].cell, bool(groups[0][0].metrics["axis"])
    made: list[Row] = []
    for rule, choose in RULES.items():
        for which in ("default", "id_val") if family else ("default",):
            runs: list[Run] = []
            for found in complete.values():
                places = [(r, str(r.metrics[which])) for r in found]
                runs.append(places[choose([_setting(*place) for place in places])])
            text = join(rule, "" if not family else BY_VAL if which == "id_val" else "fixed alpha")
            made.append(Row(cell["method"], text, f"id_val of {len(groups)}", tuple(runs), False))
    return made


def _setting(record: Record, candidate: str) -> Setting:
    val: str = record.metrics["splits"]["val"]
    return Setting(
        float(record.cell["recipe"]["lr"]),
        float(record.metrics["candidates"][candidate][val]["accuracy"]),
        int(record.env["data"][val]["n"]),
    )


def _merged(made: Sequence[Row]) -> list[Row]:
    """The first row of those with the same runs stays and says what else it is; an oracle row never lends its name."""
    kept: dict[tuple[tuple[str, str], ...], Row] = {}
    for row in sorted(made, key=lambda row: row.oracle):
        if row.key not in kept:
            kept[row.key] = row
        elif not row.oracle:
            kept[row.key] = replace(kept[row.key], also=(*kept[row.key].also, row.setting))
    # in the order they were made
    return [kept[row.key] for row in made if kept[row.key].name == row.name]


def _order(record: Record) -> tuple[bool, str, float, str]:
    cell = record.cell
    lr = float((cell["recipe"] or {}).get("lr", 0.0))
    return cell["method"] != "zero-shot", cell["method"], lr, repr(sorted(cell["settings"].items()))


def _check_unique(group: Sequence[Record]) -> None:
    seen: dict[tuple[str, int], Record] = {}
    for record in group:
        key = record.cell["digest"], record.seed
        if key in seen:
            raise RbftError(
                f"{record.folder} and {seen[key].folder} are the same cell (method '{record.cell['method']}', seed "
                f"{record.seed}): a run counts once; name one of the two folders"
            )
        seen[key] = record


def curve_runs(records: Sequence[Record]) -> dict[str, list[tuple[float, tuple[Run, ...]]]]:
    """Family cell's digest -> its candidates in order of alpha, each with its runs by seed."""
    by_digest: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        if record.metrics["axis"]:
            by_digest.setdefault(record.cell["digest"], []).append(record)
    return {
        digest: [
            (float(alpha), tuple((record, candidate) for record in group))
            for candidate, alpha in sorted(group[0].metrics["axis"].items(), key=lambda item: item[1])
        ]
        for digest, group in by_digest.items()
    }


def check_same_data(records: Sequence[Record]) -> None:
    """Rows are compared example by example, so they must have been evaluated on the same examples."""
    reference: dict[str, tuple[str, Record]] = {}
    for record in records:
        if record.cell.get("suite_definition") != records[0].cell.get("suite_definition"):
            raise RbftError(
                f"{records[0].folder} and {record.folder} were run on two states of suite '{record.cell['suite']}': "
                "its suite.toml, or the images it names, changed in between; report them apart, or run the older again"
            )
        for split, entry in record.env["data"].items():
            digest, first = reference.setdefault(split, (entry["digest"], record))
            if digest != entry["digest"]:
                raise RbftError(
                    f"{record.folder} and {first.folder} were evaluated on different data (split '{split}'): "
                    "report them apart, or run one of them again"
                )


def selection_summary(row: Row) -> str:
    """Which candidates its seeds contributed, e.g. 'alpha-0.5 x5'."""
    names, counts = np.unique([candidate for _, candidate in row.runs], return_counts=True)
    return ", ".join(f"{name} x{count}" for name, count in zip(names, counts, strict=True))
