"""A finished search in words and numbers: budgets, winners, the expected best of n trials, the frontier. Torch-free."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from robustbench_ft import __version__
from robustbench_ft.compare import report as engine
from robustbench_ft.compare import tradeoffs
from robustbench_ft.compare.load import RunSet, run_set_of
from robustbench_ft.compare.rows import merged, rows
from robustbench_ft.compare.text import MISSING, Text, number
from robustbench_ft.compare.text import interval as shown_interval
from robustbench_ft.compare.text import markdown as text_markdown
from robustbench_ft.compare.verdicts import line_of
from robustbench_ft.record.store import Record
from robustbench_ft.stats.best_of import BestOf

from . import fresh
from .choose import RULES, Entrant, Outcome, entrants
from .search import Search, Trial
from .winner import file_name

BASELINE = "ft"
FEW = 6  # columns of a curve's table


@dataclass(frozen=True)
class Tuned:
    """Everything about one suite and model."""

    search: Search
    trials: tuple[Trial, ...]
    entrants: tuple[Entrant, ...]
    out: Path  # of the records

    @property
    def folder(self) -> Path:
        """Where tables, figure and recipes of this search lie."""
        suite, model = self.trials[0].run_set
        return self.out / suite / model / f"tuning-{self.search.tuning_seed}"

    def recipes(self) -> dict[str, Path]:
        """Name -> path of the recipe of each winner."""
        tuned = [entrant for entrant in self.entrants if entrant.tuned]
        return {name: self.folder / name for one in tuned for name in (file_name(one, rule) for rule in RULES)}

    @cached_property
    def winners(self) -> engine.Table:
        """The table of what is chosen."""
        chosen = merged([row for entrant in self.entrants for row in entrant.rows()])
        run_set = run_set_of(list({str(r.folder): r for row in chosen for r, _ in row.runs}.values()), given=chosen)
        return engine.Table(run_set, tuple(line_of(run_set, row) for row in run_set.rows), {})

    @cached_property
    def every(self) -> RunSet:
        """All trials: headlines and families. What else a method leaves, like the last step of a mean, is no setting
        of it.
        """
        found: dict[str, Record] = {}
        for entrant in self.entrants:
            found |= {str(r.folder): r for outcome in entrant.outcomes for r, _ in outcome.runs}
        records = list(found.values())
        kept = [row for row in rows(records, grids=False) if all(_is_own(*run) for run in row.runs)]
        return run_set_of(records, given=kept)

    @cached_property
    def curves(self) -> Mapping[str, Sequence[BestOf]]:
        """Tuned entrant -> the expected best of 1..N trials."""
        names = (*self.trials[0].run_set, self.search.tuning_seed)
        return {entrant.name: entrant.curve(*names) for entrant in self.entrants if entrant.tuned}

    @cached_property
    def confirmed(self) -> tuple[fresh.Fresh, ...]:
        """The winners over fresh seeds, for each rule; nothing where none were asked for."""
        seeds = self.search.fresh_seeds
        return fresh.confirm(self.entrants, seeds, self.out, self.baseline) if seeds else ()

    @property
    def baseline(self) -> str:
        """The method that others are compared with."""
        methods = [entrant.method for entrant in self.entrants]
        return BASELINE if BASELINE in methods else methods[0]

    @cached_property
    def beyond(self) -> tradeoffs.Beyond:
        """The frontiers over all trials and alphas."""
        return tradeoffs.Beyond("", (), {}, *tradeoffs.frontiers(self.every, self.baseline), {}, {})


def _is_own(record: Record, candidate: str) -> bool:
    return candidate == record.summary.default or candidate in record.summary.axis


def tuned(search: Search, trials: Sequence[Trial], out: Path) -> list[Tuned]:
    """One for each suite and model, in the order of the plan, from the records under `out`."""
    found: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.run_set, []).append(trial)
    return [Tuned(search, tuple(some), entrants(some, out), out) for some in found.values()]


def sections(found: Tuned) -> list[Text]:
    """All tables but that of the winners."""
    made = [budget(found)]
    if found.curves:
        made.append(_curve(found, "Expected best ID validation of n random trials, %", _best, _CURVE))
        made.append(_curve(found, "Mean OOD of the trial so chosen, %", _other, _CHOSEN))
    return made + tradeoffs.sections(found.beyond) + fresh.sections(found.confirmed)


def budget(found: Tuned) -> Text:
    """What each method was given, and where it looked."""
    body: list[tuple[str, ...]] = []
    for entrant in found.entrants:
        if not entrant.headline:
            continue
        spaces = entrant.outcomes[0].trial.spaces
        looked = "; ".join(f"{setting} {space.text}" for setting, space in spaces.items())
        runs = {str(r.folder): r for outcome in entrant.outcomes for r, _ in outcome.runs}
        seconds = sum(record.environment.cost.fit_seconds for record in runs.values())
        trials = number(len(entrant.outcomes)) if entrant.tuned else MISSING
        body.append((entrant.method, trials, number(len(runs)), number(seconds, ".0f"), looked or "not tuned"))
    seeds = len(found.trials[0].cells)
    return Text(
        "Budget", ("method", "trials", "runs", "fit s", "ranges"), tuple(body),
        f"Random search with tuning seed {found.search.tuning_seed}: the same number of trials for every method that "
        f"has a range, {seeds} training seed{'s' * (seeds != 1)} each.",
    )  # fmt: skip


_CURVE = (
    "What n of these trials, drawn with replacement, reach on average (Dodge et al., 2019); in brackets 95 % bootstrap "
    "intervals over the trials, which know nothing of seeds and examples and end at the best trial seen."
)
_CHOSEN = "Mean OOD accuracy of the trial that is best on ID validation among n; intervals as above."


def _curve(found: Tuned, title: str, cell: Callable[[BestOf], str], caption: str) -> Text:
    most = max(map(len, found.curves.values()))
    shown = [*[n for n in (2**k for k in range(FEW - 1)) if n < most], most]
    body = [(name, *(cell(curve[n - 1]) for n in shown)) for name, curve in found.curves.items()]
    return Text(title, ("method", *(f"n = {n}" for n in shown)), tuple(body), caption)


def _best(one: BestOf) -> str:
    return _interval(one.best, one.best_interval)


def _other(one: BestOf) -> str:
    return _interval(one.other, one.other_interval)


def _interval(value: float, ends: tuple[float, float]) -> str:
    low, high = 100 * ends[0], 100 * ends[1]
    return shown_interval(f"{100 * value:.1f} [{low:.1f}, {high:.1f}]", 100 * value, low, high)


def markdown(found: Tuned) -> str:
    """Every table as GitHub Markdown, that of the winners first."""
    return "\n".join([engine.markdown(found.winners, val=True), *map(text_markdown, sections(found))])


def as_json(found: Tuned) -> str:
    """Every number, unrounded, with trials, ranges, winners and curves."""
    suite, model = found.trials[0].run_set
    content = {
        "rbft": __version__, "suite": suite, "model": model, "tuning_seed": found.search.tuning_seed,
        "seeds": [cell.seed for cell in found.trials[0].cells],
        "entrants": [_entrant(found, entrant) for entrant in found.entrants],
        "winners": json.loads(engine.as_json([found.winners]))[0],
        "frontiers": tradeoffs.as_json(found.beyond)["frontiers"],
    }  # fmt: skip
    if found.search.fresh_seeds:
        content["fresh"] = {"seeds": list(found.search.fresh_seeds), **fresh.as_json(found.confirmed)}
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _entrant(found: Tuned, entrant: Entrant) -> dict[str, Any]:
    chosen = {
        rule: {"trial": entrant.chosen(rule).trial.index, "recipe": file_name(entrant, rule)}
        for rule in (RULES if entrant.tuned else ())
    }
    return {
        "name": entrant.name, "method": entrant.method, "tuned": entrant.tuned, "chosen": chosen,
        "ranges": {setting: space.text for setting, space in entrant.outcomes[0].trial.spaces.items()},
        "trials": [_outcome(outcome) for outcome in entrant.outcomes],
        "expected_best": [asdict(one) for one in found.curves.get(entrant.name, ())],
    }  # fmt: skip


def _outcome(outcome: Outcome) -> dict[str, Any]:
    trial, setting = outcome.trial, outcome.setting
    return {
        "trial": trial.index, "settings": dict(trial.settings), "digest": trial.cell.digest,
        "folders": [cell.folder.as_posix() for cell in trial.cells],
        "candidates": [candidate for _, candidate in outcome.runs],
        "lr": setting.lr, "id_val": setting.accuracy, "id": outcome.identity, "mean_ood": outcome.ood,
    }  # fmt: skip
