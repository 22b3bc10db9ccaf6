"""The board: rows that may be compared, the numbers of their claims, and comparisons between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robustbench_ft.claims import claim
from robustbench_ft.claims.claim_store import StoredClaim
from robustbench_ft.claims.schema import FIXED, ORACLE, Claim, CurvePoint, RowResult
from robustbench_ft.compare.load import OFFICIAL, RunSet
from robustbench_ft.compare.tables import REPORTED, metric_title
from robustbench_ft.compare.text import recipes_line, sizes_line, span, states_line
from robustbench_ft.metrics import ACCURACY, Column, Derived, derived_columns, further_columns
from robustbench_ft.metrics.calibration import Bins, equal_width
from robustbench_ft.stats import Estimate, Examples
from robustbench_ft.stats.multiplicity import ALPHA
from robustbench_ft.stats.ranks import RankInterval
from robustbench_ft.stats.robustness import EffectiveRobustness
from robustbench_ft.stats.stability import Resolution
from robustbench_ft.suite import Card

from . import paper

REFERENCE = "zero-shot"  # the method that every fine-tuned row is seen against: shown, lettered, never ranked
REFERENCE_PART, RANKED_PART, UNRANKED_PART, PAPER_PART = "reference", "ranked", "unranked", "paper"


@dataclass(frozen=True)
class Cost:
    """What a row cost, means over seeds; rates are images per second."""

    fit: float | None  # seconds
    fit_rate: float | None
    evaluation_rate: float | None
    memory: float | None  # peak, MiB
    parameters: float | None  # trained
    passes: float | None  # of the image tower for each image predicted


def _mean(values: Sequence[float | None]) -> float | None:
    """None if one of them is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a board."""

    key: str  # joins tables, figures and switches
    name: str
    source: StoredClaim
    result: RowResult  # one entry of the claim's results.rows
    status: str  # 'ranked', or why it is not
    also: tuple[str, ...] = ()  # other selection rules that end in the same runs
    transductive: bool = False
    recipe: int = 0  # which of the board's recipes it was trained with; 0: none
    letters: str = ""
    rank: RankInterval | None = None  # among ranked rows without the reference
    tied: int | None = None  # 1 + the number of those above it that are told apart from it
    first_over_shifts: float | None = None  # share of resamples of the shifts in which its mean OOD is the highest
    against: Estimate | None = None  # mean OOD minus the baseline's
    p_adjusted: float | None = None  # Holm, over all rows that are tested against the baseline
    gain: Estimate | None = None  # OOD above the zero-shot-to-FT curve at the same ID accuracy
    on_curve: bool = False  # it is a point of that curve
    effective: Mapping[str, EffectiveRobustness] | None = None

    @property
    def ranked(self) -> bool:
        return self.status == "ranked"

    @property
    def reference(self) -> bool:
        """True for the line that others are seen against: nothing was trained, so it wins and loses nothing."""
        return self.method == REFERENCE

    @property
    def kind(self) -> str:
        """Which part of a table it stands in: a reader's sorting moves no row from one to another."""
        return REFERENCE_PART if self.reference else RANKED_PART if self.ranked else UNRANKED_PART

    @property
    def claim(self) -> Claim:
        return self.source.claim

    @property
    def method(self) -> str:
        return self.claim.identity.method

    @property
    def seeds(self) -> list[int]:
        return self.source.seeds

    @property
    def deterministic(self) -> bool:
        return self.claim.identity.deterministic

    @property
    def oracle(self) -> bool:
        return self.result.selection == ORACLE

    @property
    def diverged(self) -> bool:
        return any(run.diverged for run in self.claim.runs)

    @property
    def note(self) -> str:
        """Remarks on a row that a reader needs before its numbers."""
        words = [f"= {', '.join(self.also)}"] if self.also else []
        if self.oracle:
            words.append("chosen on the shifts themselves: unranked")
        elif self.transductive:
            words.append("transductive: its answers depend on other test images, unranked")
        elif not self.ranked:
            words.append(f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}, no claim")
        return ", ".join([*words, *(["diverged"] if self.diverged else [])])

    def estimate(self, column: str, metric: str = OFFICIAL) -> Estimate:
        """A column's number by its official metric, or by another one."""
        found = self.result.estimates
        return found.get(metric, found[ACCURACY])[column]

    def mean(self, metric: str, column: str) -> float | None:
        return self.result.mean.get(metric, {}).get(column)

    @property
    def known_splits(self) -> set[str]:
        """Splits that the row was evaluated on, with views in other label spaces."""
        return set(self.claim.data.splits)

    def further(self, column: Column | Derived) -> tuple[float, float | None]:
        """Mean over seeds and sd of a number beside accuracy; of one that is made of several splits, the mean alone."""
        columns = self.claim.results.columns  # ID splits go by other names there
        names = {splits[0]: name for name, splits in columns.items() if len(splits) == 1}
        if isinstance(column, Column):
            name = names[column.split]
            return self.result.mean[column.metric][name], self.result.sd[column.metric][name]
        return column.of({split: {ACCURACY: self.result.mean[ACCURACY][name]} for split, name in names.items()}), None

    @property
    def cost(self) -> Cost:
        """Means over seeds; None where a run did not measure it."""
        runs = [run.cost for run in self.claim.runs]
        return Cost(
            fit=_mean([cost.fit_seconds for cost in runs]),
            fit_rate=_mean([cost.fit_images_per_second for cost in runs]),
            evaluation_rate=_mean([cost.evaluate_images_per_second for cost in runs]),
            memory=_mean([cost.peak_memory_mib for cost in runs]),
            parameters=_mean([cost.trained_parameters for cost in runs]),
            passes=self._passes,
        )

    @property
    def _passes(self) -> float | None:
        """Records state those of the default candidate; where that takes several, others may take fewer."""
        found = _mean([run.cost.passes for run in self.claim.runs])
        return found if found == 1 or self.result.selection == FIXED else None

    @property
    def curve(self) -> list[CurvePoint]:
        """Points along the family's alpha: on its first row only."""
        return self.claim.results.curve if self.result.selection == FIXED else []

    def correct(self, split: str) -> Examples:
        return claim.correct(self.source.runs, self.result.candidates, split)

    def reliability(self, splits: Sequence[str]) -> Bins:
        """Confidence against accuracy, seeds and splits pooled."""
        chosen = zip(self.source.runs, self.result.candidates, strict=True)
        found = [run.scored[split][name] for run, name in chosen for split in splits]
        return equal_width(np.concatenate([p.confidence for p in found]), np.concatenate([p.correct for p in found]))


@dataclass(frozen=True, eq=False)
class Board:
    """Rows that may be compared."""

    suite: str
    version: int
    model: str  # with its pretrained tag
    weights: str
    protocol: str
    columns: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]  # the reference, ranked ones, then those without a claim
    run_set: RunSet
    baseline: str | None
    no_baseline: str  # why there is none
    card: Card | None
    paper: tuple[paper.Row, ...]
    notes: tuple[str, ...] = ()  # its keepers' own sentences
    resolution: Resolution | None = None
    by_gain: bool = False  # ranked rows stand by gain at equal ID; else by mean OOD
    p_pairs: Mapping[frozenset[str], float] = field(default_factory=dict[frozenset[str], float])  # by two rows' names
    curve: str = ""  # the row whose curve gains are measured from

    @property
    def name(self) -> str:
        return f"{self.suite}-v{self.version}"

    @property
    def title(self) -> str:
        return f"{self.suite} v{self.version}, {self.model}, protocol {self.protocol}"

    @property
    def shifts(self) -> tuple[str, ...]:
        return self.columns["mean OOD"]

    @property
    def shown_columns(self) -> tuple[str, ...]:
        """Means first: they are what rows are ordered by."""
        groups = [name for name in self.columns if name.startswith("mean ") and name != "mean OOD"]
        return ("mean OOD", *groups, "ID", *self.shifts)

    def title_of(self, column: str) -> str:
        """A column's name, with its metric where that is not accuracy."""
        return self.run_set.column(self.columns[column][0]) if column in ("ID", *self.shifts) else column

    @property
    def recipes(self) -> dict[int, Mapping[str, Any]]:
        """Number -> recipe of the first row that was trained with it."""
        found: dict[int, Mapping[str, Any]] = {}
        for row in self.rows:
            if row.recipe:
                found.setdefault(row.recipe, row.claim.training.recipe or {})
        return dict(sorted(found.items()))

    @property
    def further(self) -> tuple[Column | Derived, ...]:
        """Numbers beside the official metrics."""
        if not self.rows:
            return ()
        told = self.rows[0].source.runs[0].record["summary"]
        return (*further_columns(told), *derived_columns(told))

    @property
    def ranked(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.ranked)

    @property
    def placed(self) -> tuple[Row, ...]:
        """Rows that have a rank, best mean OOD first."""
        found = [row for row in self.ranked if row.rank]
        return tuple(sorted(found, key=lambda row: (-row.estimate("mean OOD").value, row.name)))

    @property
    def bold(self) -> set[str]:
        """Rows of tied rank 1: no fine-tuned row is told apart above them."""
        return {row.key for row in self.ranked if row.tied == 1}

    @property
    def underlined(self) -> str | None:
        """The best mean among the fine-tuned rows that are not bold."""
        return next((row.key for row in self.placed if row.key not in self.bold), None)


def recipe_groups(rows: Sequence[Row], baseline: str) -> dict[str, int]:
    """Row name -> number of its recipe, the learning rate apart: 1 is the baseline's, then as rows come; 0: none."""

    def key(row: Row) -> str:
        recipe: Mapping[str, Any] | None = row.claim.training.recipe
        return "" if recipe is None else repr(sorted((k, v) for k, v in recipe.items() if k != "lr"))

    order = [""] + [key(row) for row in sorted(rows, key=lambda row: row.name != baseline)]
    numbers = {text: k for k, text in enumerate(dict.fromkeys(order))}
    return {row.name: numbers[key(row)] for row in rows}


def caption(board: Board) -> str:
    """Sentences that say what the numbers are."""
    seeds = span([len(row.seeds) for row in board.rows if not row.deterministic])
    pairs = len(board.ranked) * (len(board.ranked) - 1) // 2
    splits = board.rows[0].claim.data.splits
    sizes = ", ".join(f"{name} {splits[s].n:,}" for name, s in (("ID", board.columns["ID"][0]),
                                                                   *((s, s) for s in board.shifts)))  # fmt: skip
    title = metric_title(board.run_set)
    rows = board.run_set.rows
    notes = [recipes_line(rows), states_line(rows), REPORTED if board.run_set.selects_on_reported else "",
             sizes_line(board.run_set.n)]  # fmt: skip
    return " ".join([
        f"{title[0].upper()}{title[1:].replace(', %', ' in %')}, ± half-width of the 95 % interval (two-way t over "
        f"seeds and examples, unadjusted): what a fresh training seed would give on fresh images of the same kind. "
        f"{seeds} training seeds; images: {sizes}. "
        f"Mean OOD: equal weights over {len(board.shifts)} shifts, ID not in it. Rows share a letter unless their mean "
        f"OOD differs at Holm-adjusted p < {ALPHA:g} (family: all {pairs} pairs, paired on images). Tied rank: 1 + the "
        f"number of rows told apart above a row; bold: tied rank 1; underlined: best of the rest. Rank: 95 % of "
        f"bootstrap draws over seeds and images. Both by mean OOD, among rows in which something was trained.",
        *(note for note in notes if note),
    ])  # fmt: skip
