"""The comparison: differences, tests, letters and ranks. Everything is computed again when a row is added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import ACCURACY
from robustbench_ft.stats import power, ranks, seeds
from robustbench_ft.stats.intervals import Estimate, Examples, Resamples, Sample, difference, mean
from robustbench_ft.stats.letters import compact_letters, readable
from robustbench_ft.stats.multiplicity import ALPHA, benjamini_hochberg, holm
from robustbench_ft.stats.ranks import RankInterval

from .load import OFFICIAL, RunSet, examples_of
from .rows import Row
from .text import MISSING

MIN_SEEDS_FOR_TEST, MIN_SEEDS_FOR_LETTERS = 2, 3  # seeds per method; deterministic rows need one


@dataclass(frozen=True)
class Claim:
    """A row against the baseline on one mean, or on one test set."""

    row: str
    on: str  # 'mean OOD', a split, or 'mean <kind of shift>'
    estimate: Estimate
    paired_seeds: bool
    tested: bool  # False: a one-seed row, no claim
    p_adjusted: float | None
    verdict: str  # 'higher', 'lower', 'unresolved', 'no claim'
    step: float | None  # level of the correction's first step; None: not tested

    @property
    def detectable(self) -> float | None:
        """The difference that is found with 80 % power at the correction's first step."""
        return None if self.step is None else power.detectable_with(self.estimate.se, self.estimate.df, self.step)


@dataclass(frozen=True)
class Cell:
    """One row on one column."""

    estimate: Estimate
    sd: float | None  # over seeds, ddof 1
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    row: Row
    cells: Mapping[str, Cell]
    missing: tuple[str, ...]
    status: str  # 'ranked', or why it is not
    letters: str
    rank: RankInterval | None
    diverged: bool
    accuracies: Mapping[str, Cell]  # columns whose official metric is another one, by accuracy


@dataclass(frozen=True, eq=False)
class Comparison:
    """All of one run_set. `pairs` are the rows that share letters, best first."""

    run_set: RunSet
    baseline: Row | None  # None: nothing is compared with one row
    family: str
    lines: tuple[Line, ...]  # ranked best first, then the rest
    claims: tuple[Claim, ...]  # on the mean over shifts
    exploratory: tuple[Claim, ...]  # on single shifts and on kinds of shift
    pairs: tuple[str, ...]
    p_raw: np.ndarray  # [M, M]
    p_holm: np.ndarray
    draws: int
    drawn: str  # how
    resampled: Mapping[str, np.ndarray]  # rows of `pairs` -> draws [R] of their mean, higher is better
    permutation: Mapping[str, float | int | str]  # what a rank test of seeds could do with this design

    @property
    def lettered(self) -> bool:
        """Whether letters tell anything: they are readable while they are 26 at most."""
        return readable(line.letters for line in self.lines)

    @property
    def baseline_name(self) -> str:
        return self.baseline.name if self.baseline else MISSING

    @property
    def family_size(self) -> int:
        chosen = self.claims if self.family == "ood-mean" else self.exploratory
        return sum(claim.tested for claim in chosen)


def compare(
    run_set: RunSet, baseline: str | Row | None, family: str = "ood-mean", exact: bool = False, explore: bool = True
) -> Comparison:
    """Every row against the baseline, every pair for letters, ranks from bootstrap draws.

    Without `explore` single shifts are not compared and lines have no cells: boards have theirs from claims.
    """
    base = find_row(run_set, baseline) if isinstance(baseline, str) else baseline
    if base and not run_set.complete(base):
        raise RbftError(
            f"baseline '{base.name}' lacks predictions on {', '.join(run_set.missing(base))}: nothing can be compared "
            "with it; run its cells again"
        )
    others = [row for row in run_set.rows if row is not base] if base else []
    columns = {name: splits for name, splits in columns_of(run_set).items() if name not in ("ID", "mean OOD")}
    means = [_claim(run_set, row, base, "mean OOD", run_set.shifts) for row in others if base and run_set.complete(row)]
    cells = [
        _claim(run_set, row, base, name, splits)
        for row in others
        for name, splits in columns.items()
        if base and explore and not set(splits) & set(run_set.missing(row))
    ]
    confirm_means = family == "ood-mean"
    means = _adjusted(run_set, means, "holm" if confirm_means else "bh")
    cells = _adjusted(run_set, cells, "bh" if confirm_means else "holm")
    eligible = _by_value(run_set, [row for row in run_set.rows if status(run_set, row) == "ranked"])
    raw, adjusted, letters = _pairs(run_set, eligible)
    drawn, draws, how = _draws(run_set, eligible, exact)
    rank = ranks.rank_intervals(drawn) if drawn else {}
    rest = [row for row in run_set.rows if row not in eligible]
    rest.sort(key=lambda row: row.oracle)
    lines = tuple(
        line_of(run_set, row, letters.get(row.name, ""), rank.get(row.name), explore) for row in (*eligible, *rest)
    )
    return Comparison(
        run_set, base, family, lines, tuple(means), tuple(cells), tuple(row.name for row in eligible), raw, adjusted,
        draws, how, drawn, _permutation(base, means, family, cells),
    )  # fmt: skip


def find_row(run_set: RunSet, name: str) -> Row:
    """The row of this name, or the only row of this method that was not chosen on the shifts."""
    exact = [row for row in run_set.rows if name in (row.name, *(f"{row.method} ({other})" for other in row.also))]
    if exact:
        return exact[0]
    named = [row for row in run_set.rows if row.method == name and not row.oracle]
    fixed = [row for row in named if row.selection == "fixed"]
    for found in (named, fixed):
        if len(found) == 1:
            return found[0]
    known = ", ".join(f"'{row.name}'" for row in (named or run_set.rows))
    problem = f"'{name}' names {len(named)} rows" if named else f"no row '{name}'"
    raise RbftError(f"{problem} in {run_set.title}; rows: {known}")


def claims_allowed(row: Row, least: int = MIN_SEEDS_FOR_TEST) -> bool:
    """True if the row is deterministic or has at least `least` seeds: one run describes a checkpoint, not a method."""
    return row.deterministic or len(row.runs) >= least


def status(run_set: RunSet, row: Row) -> str:
    if row.oracle:
        return "oracle"
    if not run_set.complete(row):
        return f"missing {', '.join(split for split in run_set.missing(row) if split in run_set.shifts)}"
    if row.transductive:
        return "transductive"
    if not claims_allowed(row, MIN_SEEDS_FOR_LETTERS):
        return f"{len(row.runs)} seed{'s' if len(row.runs) > 1 else ''}"
    return "ranked"


def difference_of(run_set: RunSet, a: Row, b: Row, splits: Sequence[str]) -> Estimate:
    """a - b on the mean of these splits, paired on examples and, where runs belong together, on seeds."""
    return difference(run_set.sets(a, splits), run_set.sets(b, splits), run_set.paired(a, b))


def _claim(run_set: RunSet, row: Row, base: Row, on: str, splits: Sequence[str]) -> Claim:
    found = difference_of(run_set, row, base, splits)
    tested = all(claims_allowed(one) and not one.oracle and not one.transductive for one in (row, base))
    return Claim(row.name, on, found, run_set.paired(row, base), tested, None, "no claim", None)


def _adjusted(run_set: RunSet, found: Sequence[Claim], how: str) -> list[Claim]:
    """Add to each tested claim its adjusted p, a verdict and the difference that the test could have detected."""
    tested = [claim for claim in found if claim.tested]
    adjust = holm if how == "holm" else benjamini_hochberg
    values = dict(zip(map(id, tested), adjust([c.estimate.p for c in tested]), strict=True)) if tested else {}
    made: list[Claim] = []
    for claim in found:
        if not claim.tested:
            made.append(claim)
            continue
        p, e = float(values[id(claim)]), claim.estimate
        verdict = "unresolved" if p >= ALPHA else "higher" if e.value > 0 else "lower"
        step = ALPHA / len(tested)  # the first step of either correction
        made.append(Claim(claim.row, claim.on, e, claim.paired_seeds, True, p, verdict, step))
    return made


def _by_value(run_set: RunSet, eligible: Sequence[Row]) -> list[Row]:
    sign = -1 if run_set.higher_is_better else 1
    return sorted(eligible, key=lambda row: (sign * mean(run_set.sets(row)).value, row.name))


def _pairs(run_set: RunSet, eligible: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Raw and Holm-adjusted p of all pairs [M, M], and the letters they give."""
    m = len(eligible)
    raw, adjusted = np.ones((m, m)), np.ones((m, m))
    upper = np.triu_indices(m, 1)
    if m > 1:
        p = [difference_of(run_set, a, b, run_set.shifts).p for a, b in combinations(eligible, 2)]  # as triu_indices
        raw[upper], adjusted[upper] = p, holm(p)
        raw, adjusted = np.minimum(raw, raw.T), np.minimum(adjusted, adjusted.T)
    letters = compact_letters(adjusted) if m > 1 else [""] * m
    return raw, adjusted, {row.name: text for row, text in zip(eligible, letters, strict=True)}


def _draws(run_set: RunSet, eligible: Sequence[Row], exact: bool) -> tuple[dict[str, np.ndarray], int, str]:
    """Row -> draws of its suite mean, higher is better; how many, and of which kind."""
    if len(eligible) < 2:
        return {}, 0, "none"
    draws = ranks.EXACT_DRAWS if exact else ranks.DRAWS
    per_set: list[Mapping[str, np.ndarray]] = []
    kinds: set[str] = set()
    for split in run_set.shifts:
        samples = {row.name: run_set.samples[row.name][split] for row in eligible}
        examples = {name: x.scores for name, x in samples.items() if isinstance(x, Examples)}
        if not examples:
            per_set.append({name: x.draws.T for name, x in samples.items() if isinstance(x, Resamples)})
            kinds.add("exact")
            continue
        test = ranks.TestSet(split, examples, run_set.clusters[split])
        kinds.add("exact" if exact or ranks.needs_exact(test) else "Gaussian")
        per_set.append(ranks.example_draws(run_set.stream, test, draws, exact))
    least = min(len(next(iter(drawn.values()))) for drawn in per_set)
    # rows whose runs belong together share their seeds' weights
    streams = {row.name: "|".join(_stable(run_set, row)) for row in eligible}
    found = ranks.suite_draws(run_set.stream, [{k: v[:least] for k, v in drawn.items()} for drawn in per_set], streams)
    sign = 1 if run_set.higher_is_better else -1
    return {name: sign * values for name, values in found.items()}, least, " and ".join(sorted(kinds))


def _stable(run_set: RunSet, row: Row) -> list[str]:
    """Names of the settings that a row's runs were trained with, wherever their folders lie."""
    by_folder = {str(record.folder): record for record in run_set.records}
    found = [by_folder[folder].cell for folder in run_set.origin(row)]
    return list(dict.fromkeys(f"{cell['method']}-{cell['digest'][:8]}" for cell in found))


def columns_of(run_set: RunSet) -> dict[str, tuple[str, ...]]:
    """Column -> the splits that it is the equal-weight mean of; ID is in no mean."""
    columns = {"ID": (run_set.test,), **{split: (split,) for split in run_set.shifts}}
    return (
        columns | {f"mean {name}": members for name, members in run_set.groups.items()} | {"mean OOD": run_set.shifts}
    )


def line_of(run_set: RunSet, row: Row, letters: str = "", rank: RankInterval | None = None, cells: bool = True) -> Line:
    """One row of the table, with the letters and the rank that were found among all rows."""
    missing = set(run_set.missing(row))
    present = {name: splits for name, splits in columns_of(run_set).items() if cells and not set(splits) & missing}
    diverged = any(stage["diverged"] for record, _ in row.runs for stage in record.env["stages"])
    beside = {
        name: splits
        for name, splits in present.items()
        if run_set.metric == OFFICIAL and any(run_set.metric_of(split) != ACCURACY for split in splits)
    }
    return Line(
        row, {name: _cell(run_set.sets(row, splits)) for name, splits in present.items()}, run_set.missing(row),
        status(run_set, row), letters, rank, diverged,
        {name: _cell(examples_of(run_set, row.runs, splits) or []) for name, splits in beside.items()},
    )  # fmt: skip


def _cell(sets: Sequence[Sample]) -> Cell:
    runs = np.mean([sample.runs for sample in sets], axis=0)
    sd = float(runs.std(ddof=1)) if len(runs) > 1 else None
    return Cell(mean(sets), sd, tuple(map(float, runs)))


def _permutation(
    base: Row | None, means: Sequence[Claim], family: str, cells: Sequence[Claim]
) -> dict[str, float | int | str]:
    """The least p that an exact rank or permutation test of seed means could give, against Holm's first step."""
    size = sum(claim.tested for claim in (means if family == "ood-mean" else cells))
    if base is None or not size or base.deterministic or len(base.runs) < MIN_SEEDS_FOR_TEST:
        return {"family": size, "power": "not defined"}
    least, step = seeds.minimum_p_unpaired(len(base.runs)), ALPHA / size
    return {
        "family": size, "seeds": len(base.runs), "minimum_p": least, "first_step": step,
        "power": "possible" if least < step else "impossible", "seeds_needed": seeds.least_seeds(size),
    }  # fmt: skip
