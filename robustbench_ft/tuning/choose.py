"""What the trials reached, and which of them ID validation chooses, by the rules of every table. Torch-free."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustbench_ft.compare.report import mean_of
from robustbench_ft.compare.rows import Row, Run, by_val_text, by_validation, join, setting_of, text_of
from robustbench_ft.metrics.across import Setting, select_best, select_one_se
from robustbench_ft.record.store import Record
from robustbench_ft.stats.best_of import BestOf, best_of

from .search import Trial


@dataclass(frozen=True)
class Rule:
    """A way to choose a trial by ID validation."""

    name: str
    select: Callable[[Sequence[Setting]], int]


RULES: Mapping[str, Rule] = {
    "best": Rule("best ID val", select_best),
    "one-se": Rule("smallest lr within one SE", select_one_se),
}


@dataclass(frozen=True)
class Outcome:
    """One trial, with the candidate that is taken from each of its runs. Numbers are means over seeds, in [0, 1]."""

    trial: Trial
    runs: tuple[Run, ...]  # by seed

    @property
    def setting(self) -> Setting:
        """Learning rate and ID validation, as the rules take them."""
        each = [setting_of(*run) for run in self.runs]
        return Setting(each[0].lr, float(np.mean([one.accuracy for one in each])), each[0].n)

    @property
    def identity(self) -> float:
        """On the ID test set."""
        return mean_of(self.runs, (self.runs[0][0].summary.splits.test,))

    @property
    def ood(self) -> float:
        """Mean over the shifts."""
        return mean_of(self.runs, self.runs[0][0].summary.splits.shifts)


@dataclass(frozen=True)
class Entrant:
    """A method with all its trials. A family enters twice: with its headline, and with the alpha by ID validation."""

    method: str
    pick: str  # which candidate, in words; '' where there is one
    headline: bool  # the method's own candidate; False: the one that ID validation chooses
    outcomes: tuple[Outcome, ...]  # by trial

    @property
    def name(self) -> str:
        return join(self.method, self.pick)

    @property
    def tuned(self) -> bool:
        return bool(self.outcomes[0].trial.spaces)

    def candidate(self, record: Record) -> str:
        """The candidate that this entrant takes from a run."""
        return record.summary.default if self.headline else by_validation(record.summary)

    def chosen(self, rule: str) -> Outcome:
        """The trial that a rule chooses."""
        return self.outcomes[RULES[rule].select([outcome.setting for outcome in self.outcomes])]

    def winners(self) -> dict[int, tuple[Outcome, tuple[str, ...]]]:
        """Trial -> what it reached, and the rules that choose it."""
        found: dict[int, tuple[Outcome, tuple[str, ...]]] = {}
        for rule in RULES:
            outcome = self.chosen(rule)
            before = found.get(outcome.trial.index, (outcome, ()))[1]
            found[outcome.trial.index] = outcome, (*before, rule)
        return found

    def rows(self) -> list[Row]:
        """One row for each trial that a rule chooses, or the only one of a method that is not tuned."""
        if not self.tuned:
            return [self._row(self.outcomes[0], join(self.pick, "not tuned"), "fixed")]
        made: list[Row] = []
        for outcome, rules in self.winners().values():
            said = "both rules" if len(rules) == len(RULES) else RULES[rules[0]].name
            text = join(self.pick, f"{said}: {text_of(outcome.trial.settings)}")
            made.append(self._row(outcome, text, f"id_val of {len(self.outcomes)}"))
        return made

    def _row(self, outcome: Outcome, text: str, selection: str) -> Row:
        return Row(self.method, text, selection, outcome.runs, outcome.trial.cell.deterministic)

    def curve(self, *names: object) -> list[BestOf]:
        """The expected best ID validation of n trials, and the mean OOD of the trial so chosen, for n = 1..N."""
        settings = [outcome.setting for outcome in self.outcomes]
        values, rates = [s.accuracy for s in settings], [s.lr for s in settings]
        return best_of(values, [outcome.ood for outcome in self.outcomes], rates, *names, self.name)


def entrants(trials: Sequence[Trial], out: Path) -> tuple[Entrant, ...]:
    """All entrants of one suite and model, from the records under `out`."""
    by_method: dict[str, list[Trial]] = {}
    for trial in trials:
        by_method.setdefault(trial.method, []).append(trial)
    read: dict[Path, Record] = {}  # trials may share a cell

    def record(folder: Path) -> Record:
        return read.setdefault(folder, Record(out / folder))

    made: list[Entrant] = []
    for method, some in by_method.items():
        records = [(trial, [record(cell.folder) for cell in trial.cells]) for trial in some]
        told = records[0][1][0].summary
        headline = [Outcome(trial, tuple((r, r.summary.default) for r in rs)) for trial, rs in records]
        made.append(Entrant(method, told.default.replace("-", "=", 1) if told.axis else "", True, tuple(headline)))
        if told.axis:
            by_val = [Outcome(trial, tuple((r, by_validation(r.summary)) for r in rs)) for trial, rs in records]
            made.append(Entrant(method, by_val_text(told), False, tuple(by_val)))
    return tuple(made)
