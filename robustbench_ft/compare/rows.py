"""Rows of a table: methods and settings, candidates of families, selection rules. Torch-free.

A row is a rule that chooses one (run, candidate) per seed. If two rules choose the same runs, they share one row; the
other names are in `also`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_ft.errors import RbftError
from robustbench_ft.metrics.across import RULES, Setting
from robustbench_ft.record.store import Record
from robustbench_ft.record.summary import CellRecord, Summary

BY_VAL = "{} by ID val"
BY_REPORTED = "{} by the reported ID set"
BY_OOD = "oracle: {} by OOD"
Run = tuple[Record, str]  # and the candidate that the row takes from it
_CHANGED = re.compile(r"--set ([a-z0-9_, ]+)")  # in a cell's `recipe_source`


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

    @property
    def config(self) -> CellRecord:
        """The configuration of its first seed."""
        return self.runs[0][0].config

    @property
    def recipe(self) -> Mapping[str, Any] | None:
        """The training recipe of its first seed; None for a method that trains nothing."""
        return self.config.recipe

    @property
    def headline(self) -> bool:
        """True if every run answers with its method's default: no companion, and no other alpha."""
        return not self.oracle and all(candidate == record.summary.default for record, candidate in self.runs)

    @property
    def transductive(self) -> bool:
        """True if an answer of the method may depend on other test images."""
        return any(record.summary.transductive for record, _ in self.runs)


def run_sets(records: Iterable[Record], apart: bool = False) -> list[list[Record]]:
    """Records that may be compared, one list per suite and model.

    Mixed versions of a suite or protocols are an error, or with `apart` lists of their own.
    """
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        cell = record.config
        key = cell.suite, cell.model.name, cell.model.weights
        further = (str(cell.suite_version), cell.protocol) if apart else ()
        found.setdefault((*key, *further), []).append(record)
    for (suite, *_), group in found.items():
        versions = {str(record.config.suite_version) for record in group}
        protocols = {record.config.protocol for record in group}
        for what, values in (("versions of the suite", sorted(versions)), ("protocols", sorted(protocols))):
            if len(values) > 1:
                raise RbftError(
                    f"runs on '{suite}' are of different {what} ({', '.join(values)}): their numbers never meet; "
                    "name folders of one of them"
                )
        _check_unique(group)
        _check_alike(group)
        _check_code(group)
        _check_weights(group)
    return [found[key] for key in sorted(found)]


def rows(records: Sequence[Record], grids: bool = True) -> list[Row]:
    """All rows of one run_set, zero-shot first, then by method and learning rate; `grids`: also rules over rates."""
    by_digest = by_setting(records)
    named = settings({digest: group[0].config for digest, group in by_digest.items()})
    made: list[Row] = []
    for digest, group in sorted(by_digest.items(), key=lambda item: _order(item[1][0])):
        made += _rows_of_cell(group, named[digest])
    if grids:
        made += [row for group in _grids(by_digest.values()) for row in _rows_of_grid(group)]
    return merged(made)


def by_setting(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Digest of a configuration -> its runs by seed."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        found.setdefault(record.config.digest, []).append(record)
    return found


def settings(cells: Mapping[str, CellRecord]) -> dict[str, str]:
    """Names what each cell changes, e.g. 'lr=0.0001', by digest.

    A cell that follows the declared recipe shows nothing, so that another's row renames none. Where that leaves two
    cells of a method alike, they show everything in which they differ.
    """
    flat = {digest: _values(cell) for digest, cell in cells.items()}
    named = {digest: text_of(_changed(cells[digest], own)) for digest, own in flat.items()}
    for digest, own in flat.items():
        rivals = [d for d, cell in cells.items() if cell.method == cells[digest].method]
        texts = [text_of(_changed(cells[d], flat[d])) for d in rivals]
        if len(set(texts)) < len(texts):
            differing = {k: v for k, v in own.items() if k != "alpha" and any(flat[d].get(k) != v for d in rivals)}
            text = text_of(_changed(cells[digest], own) | differing)
            alike = any(d != digest and flat[d] == own for d in rivals)  # they differ in what no row shows
            named[digest] = join(text, digest[:8]) if alike else text
    return named


def _values(cell: CellRecord) -> dict[str, Any]:
    """Everything that can set two cells of a method apart; `version` is the method's."""
    further = {"precision": cell.precision, "version": cell.method_version, **cell.shared}
    return {**(cell.recipe or {}), **cell.settings, **further}


def _changed(cell: CellRecord, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that were set by hand, as `recipe_source` names them, in the order of the recipe."""
    found = _CHANGED.search(cell.recipe_source)
    names = {name.strip() for name in found[1].split(",")} if found else set[str]()
    base = re.search(r"--recipe (\S+?)(?:,|$)", cell.recipe_source)
    changed = {name: value for name, value in values.items() if name in names and name != "alpha"}
    return ({"recipe": base[1]} if base else {}) | changed


def text_of(values: Mapping[str, Any]) -> str:
    """Settings as rows name them: 'lr=0.0001, strength=2'."""
    shown = {k: v for k, v in values.items() if not (k in ("steps", "epochs") and not v)}  # 0: counted the other way
    return ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())


def join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def reported_selection(summary: Summary) -> bool:
    """True if candidates are selected on images that a column of the table reports."""
    return summary.splits.val in (summary.splits.test, *summary.splits.shifts)


def choose(values: Mapping[str, float], axis: Mapping[str, float]) -> str:
    """The candidate with the highest value; of equals the one with the smallest alpha, then by name."""
    names = sorted(values, key=lambda name: (axis.get(name, 0.0), name))
    return max(names, key=values.__getitem__)


def by_validation(summary: Summary) -> str:
    """The candidate that ID validation chooses, by the metric that the protocol selects by."""
    val, metric = summary.splits.val, selection_metric(summary)
    return choose({name: found[val][metric] for name, found in summary.candidates.items()}, summary.axis)


def selection_metric(summary: Summary) -> str:
    """The metric by which candidates and learning rates are chosen on ID validation."""
    return summary.selection_metric or summary.official_of(summary.splits.val)


def by_oracle(summary: Summary) -> str:
    """The alpha with the best mean of the shifts' official metrics: nobody may choose it."""
    shifts, scores = summary.splits.shifts, summary.candidates
    means = {name: sum(scores[name][s][summary.official_of(s)] for s in shifts) for name in summary.axis}
    return choose(means, summary.axis)


def _rows_of_cell(group: Sequence[Record], setting: str) -> list[Row]:
    """A family has its fixed candidate, the one each seed's ID validation chooses, and the one no one may choose."""
    cell, told = group[0].config, group[0].summary
    fixed = tuple((r, r.summary.default) for r in group)
    row = Row(cell.method, setting, "fixed", fixed, cell.deterministic)
    others = [
        replace(row, setting=join(setting, name), runs=tuple((r, name) for r, _ in fixed))
        for name in told.candidates
        if name not in told.axis and name != told.default
    ]
    if not told.axis:
        return [row, *others]
    word = axis_word(told)
    own = [r.summary.default for r in group]  # merges choose theirs on ID validation, each seed its own
    said = told.default.replace("-", "=", 1) if len(set(own)) == 1 else f"{word} of each seed"
    named = replace(row, setting=join(setting, said))
    by_val = replace(
        row, setting=join(setting, by_val_text(told)), selection="id_val",
        runs=tuple((r, by_validation(r.summary)) for r in group),
    )  # fmt: skip
    by_ood = tuple((r, by_oracle(r.summary)) for r in group)
    oracle = replace(row, setting=join(setting, BY_OOD.format(word)), selection="oracle", runs=by_ood, oracle=True)
    chosen = len(set(own)) > 1 and named.runs == by_val.runs
    return [*([] if chosen else [named]), by_val, oracle, *others]


def by_val_text(summary: Summary) -> str:
    """What the rule that chooses an alpha on ID validation is called."""
    return (BY_REPORTED if reported_selection(summary) else BY_VAL).format(axis_word(summary))


def axis_word(summary: Summary) -> str:
    """What candidates lie along, 'alpha' or 'lambda': the beginning of their names."""
    return next(iter(summary.axis), "alpha").partition("-")[0]


def _grids(cells: Iterable[Sequence[Record]]) -> list[list[Sequence[Record]]]:
    """Cells that differ in their learning rate only, where there are several."""
    found: dict[str, list[Sequence[Record]]] = {}
    for group in cells:
        cell = group[0].config
        if cell.recipe:
            rest = {k: v for k, v in cell.recipe.items() if k != "lr"}
            code = cell.code.sha256 if cell.code else ""
            apart = cell.method, cell.method_version, cell.precision, code
            key = repr((apart, sorted(rest.items()), sorted(cell.settings.items()), cell.shared))
            found.setdefault(key, []).append(group)
    return [groups for groups in found.values() if len(groups) > 1]


def _rows_of_grid(groups: Sequence[Sequence[Record]]) -> list[Row]:
    """Selects inside the seed: each seed chooses its own learning rate on its own ID validation."""
    by_seed: dict[int, list[Record]] = {}
    for group in groups:
        for record in group:
            by_seed.setdefault(record.seed, []).append(record)
    complete = {seed: found for seed, found in sorted(by_seed.items()) if len(found) == len(groups)}
    if not complete:
        return []
    cell, told = groups[0][0].config, groups[0][0].summary
    made: list[Row] = []
    for rule, select in RULES.items():
        for fixed in (True, False) if told.axis else (True,):
            runs: list[Run] = []
            for found in complete.values():
                places = [(r, r.summary.default if fixed else by_validation(r.summary)) for r in found]
                runs.append(places[select([setting_of(*place) for place in places])])
            said = rule.replace("ID val", "the reported ID set") if reported_selection(told) else rule
            text = join(said, "" if not told.axis else f"fixed {axis_word(told)}" if fixed else by_val_text(told))
            made.append(Row(cell.method, text, f"id_val of {len(groups)}", tuple(runs), False))
    return made


def setting_of(record: Record, candidate: str) -> Setting:
    """The learning rate of a run, and what its candidate reached on ID validation."""
    told, recipe, data = record.summary, record.config.recipe or {}, record.environment.data
    val = told.splits.val
    score = told.candidates[candidate][val][selection_metric(told)]
    n = data[val].n if val in data else -1
    if n < 1:
        raise RbftError(f"{record.folder / 'env.json'} does not say how many images '{val}' has; run the cell again")
    return Setting(float(recipe.get("lr", 0.0)), score, n)


def merged(made: Sequence[Row]) -> list[Row]:
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
    cell = record.config
    lr = float((cell.recipe or {}).get("lr", 0.0))
    return cell.method != "zero-shot", cell.method, lr, repr(sorted(cell.settings.items()))


def _check_unique(group: Sequence[Record]) -> None:
    seen: dict[tuple[str, int], Record] = {}
    for record in group:
        key = record.config.digest, record.seed
        if key in seen:
            raise RbftError(
                f"{record.folder} and {seen[key].folder} are the same cell (method '{record.config.method}', seed "
                f"{record.seed}): a run counts once; name one of the two folders"
            )
        seen[key] = record


def _check_alike(group: Sequence[Record]) -> None:
    """Seeds of one row have one configuration: a digest is what a record says of itself, and is not believed."""
    seen: dict[str, tuple[Record, Mapping[str, Any]]] = {}
    for record in group:
        cell = record.config
        own = {**_values(cell), "deterministic": cell.deterministic, "schema": cell.schema, "method": cell.method}
        first, known = seen.setdefault(cell.digest, (record, own))
        names = [name for name in {**known, **own} if known.get(name) != own.get(name)]
        if names:
            shown = ", ".join(f"{name} {known.get(name)} and {own.get(name)}" for name in names[:3])
            raise RbftError(
                f"{first.folder} and {record.folder} call themselves seeds of one configuration, and differ: {shown}; "
                "report them apart, or run one of them again"
            )


def _check_code(group: Sequence[Record]) -> None:
    """Seeds of one row come from one state of the method's source; a record without its digest is taken as it is."""
    seen: dict[str, tuple[Record, str]] = {}
    for record in group:
        code = record.config.code
        if code is None:
            continue
        first, known = seen.setdefault(record.config.digest, (record, code.sha256))
        if known != code.sha256:
            raise RbftError(
                f"{first.folder} and {record.folder} were run with two states of method '{record.config.method}': "
                "they make no row together; run the older one again with `rbft run --rerun`"
            )


def _check_weights(group: Sequence[Record]) -> None:
    """One name may stand for other weights on another day; runs that did not note which are taken as they are."""
    noted = [(record, record.environment.weights) for record in group]
    found = [(record, weights) for record, weights in noted if weights is not None]
    for record, weights in found:
        first, known = found[0]
        if weights.sha256 != known.sha256:
            raise RbftError(
                f"{first.folder} and {record.folder} began with other weights, which '{record.config.model.name}' "
                f"stood for: {known.file} at {known.revision[:8]} and {weights.file} at {weights.revision[:8]}; name a "
                "revision (hf-hub:ORG/NAME@REVISION), and run the older again"
            )


def curve_runs(records: Sequence[Record]) -> dict[str, list[tuple[float, tuple[Run, ...]]]]:
    """Family cell's digest -> its candidates in order of alpha, each with its runs by seed."""
    families = by_setting([record for record in records if record.summary.axis])
    return {
        digest: [
            (alpha, tuple((record, candidate) for record in group))
            for candidate, alpha in sorted(group[0].summary.axis.items(), key=lambda item: item[1])
        ]
        for digest, group in families.items()
    }


def check_same_data(records: Sequence[Record]) -> None:
    """Rows are compared example by example, so they must have been evaluated on the same examples."""
    reference: dict[str, tuple[str, Record]] = {}
    for record in records:
        if record.config.suite_definition != records[0].config.suite_definition:
            raise RbftError(
                f"{records[0].folder} and {record.folder} were run on two states of suite '{record.config.suite}': "
                "its suite.toml, or the images it names, changed in between; report them apart, or run the older again"
            )
        for split, entry in record.environment.data.items():
            digest, first = reference.setdefault(split, (entry.digest, record))
            if digest != entry.digest:
                raise RbftError(
                    f"{record.folder} and {first.folder} were evaluated on different data (split '{split}'): "
                    "report them apart, or run one of them again"
                )
