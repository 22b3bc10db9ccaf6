"""What a board is: rows that may be compared, with the numbers of their claims and what was found among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustbench_ft.data import Predictions
from robustbench_ft.metrics import Column, further_columns
from robustbench_ft.metrics.calibration import Bins, reliability
from robustbench_ft.stats import Estimate, Examples
from robustbench_ft.stats.multiplicity import ALPHA
from robustbench_ft.stats.ranks import RankInterval
from robustbench_ft.stats.robustness import EffectiveRobustness
from robustbench_ft.store import Json
from robustbench_ft.suite import Card

from . import claim, paper
from .claim import FIXED, ORACLE
from .shelf import Stored


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a board."""

    key: str  # joins tables, figures and switches
    name: str
    source: Stored
    result: Json  # one entry of the claim's results.rows
    ranked: bool
    letters: str = ""
    rank: RankInterval | None = None
    against: Estimate | None = None  # mean OOD minus the baseline's
    p_adjusted: float | None = None  # Holm, over all ranked rows against the baseline
    gain: Estimate | None = None  # OOD above the zero-shot-to-FT curve at the same ID accuracy
    effective: Mapping[str, EffectiveRobustness] | None = None

    @property
    def claim(self) -> Json:
        return self.source.content

    @property
    def method(self) -> str:
        return str(self.claim["identity"]["method"])

    @property
    def seeds(self) -> list[int]:
        return self.source.seeds

    @property
    def deterministic(self) -> bool:
        return bool(self.claim["identity"]["deterministic"])

    @property
    def oracle(self) -> bool:
        return self.result["selection"] == ORACLE

    @property
    def diverged(self) -> bool:
        return any(run["diverged"] for run in self.claim["runs"])

    @property
    def note(self) -> str:
        """What a reader must know about this row before its numbers."""
        few = "" if self.ranked else f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}, no claim"
        if self.oracle:
            few = "chosen on the shifts themselves: unranked"
        return ", ".join(part for part in (few, "diverged" if self.diverged else "") if part)

    def estimate(self, column: str, metric: str = "accuracy") -> Estimate:
        return Estimate(**self.result["estimates"][metric][column])

    def mean(self, metric: str, column: str) -> float | None:
        return self.result["mean"].get(metric, {}).get(column)

    @property
    def known_splits(self) -> set[str]:
        """What it was evaluated on, views in other label spaces included."""
        return set(self.claim["data"]["splits"])

    def further(self, column: Column) -> tuple[float, float | None]:
        """Mean over seeds and sd of a number beside accuracy."""
        columns = self.claim["results"]["columns"]  # ID splits go by other names there
        name = next(name for name, splits in columns.items() if splits == [column.split])
        return self.result["mean"][column.metric][name], self.result["sd"][column.metric][name]

    def cost(self, name: str) -> float | None:
        """Mean over seeds; None where a run did not measure it."""
        values = [run["cost"].get(name) for run in self.claim["runs"]]
        return None if None in values else float(np.mean(values))

    @property
    def curve(self) -> list[Json]:
        """Points along the family's alpha: on its first row only."""
        return self.claim["results"]["curve"] if self.result["selection"] == FIXED else []

    def correct(self, split: str) -> Examples:
        return claim.correct(self.source.runs, self.result["candidates"], split)

    def reliability(self, splits: Sequence[str]) -> Bins:
        """Confidence against accuracy, seeds and splits pooled."""
        chosen = zip(self.source.runs, self.result["candidates"], strict=True)
        found = [run.scored[split][name] for run, name in chosen for split in splits]
        return reliability(_pooled(found))


@dataclass(frozen=True, eq=False)
class Board:
    """Rows that may be compared."""

    suite: str
    version: int
    model: str  # with its pretrained tag
    weights: str
    protocol: str
    columns: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]  # ranked ones by mean OOD, then those without a claim
    baseline: str | None
    card: Card | None
    paper: tuple[paper.Row, ...]

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

    @property
    def further(self) -> tuple[Column, ...]:
        """Official metrics that are not accuracy, and other label spaces."""
        return further_columns(self.rows[0].source.runs[0].summary) if self.rows else ()

    @property
    def ranked(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.ranked)

    @property
    def bold(self) -> set[str]:
        """The best row and every row that shares its first letter: none of them is told apart from it."""
        return {row.key for row in self.ranked if "a" in row.letters}

    @property
    def underlined(self) -> str | None:
        """The best mean among the rows that are told apart from the best."""
        return next((row.key for row in self.ranked if row.key not in self.bold), None)


def _pooled(found: Sequence[Predictions]) -> Predictions:
    def join(name: str) -> Any:
        return np.concatenate([getattr(p, name) for p in found])

    names = ("label", "prediction", "confidence", "log_prob", "sum_sq", "top_classes", "top_probs")
    return Predictions(ids=tuple(i for p in found for i in p.ids), **{name: join(name) for name in names})


def caption(board: Board) -> str:
    """What the numbers are, in a few sentences."""
    counts = sorted({len(row.seeds) for row in board.rows if not row.deterministic})
    seeds = "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "no"
    pairs = len(board.ranked) * (len(board.ranked) - 1) // 2
    splits = board.rows[0].claim["data"]["splits"]
    sizes = ", ".join(f"{name} {splits[s]['n']:,}" for name, s in (("ID", board.columns["ID"][0]),
                                                                   *((s, s) for s in board.shifts)))  # fmt: skip
    return (
        f"Top-1 accuracy in %, ± half-width of the 95 % interval (two-way t over seeds and examples, unadjusted): "
        f"what a fresh training seed would give on fresh images of the same kind. {seeds} training seeds; images: "
        f"{sizes}. "
        f"Mean OOD: equal weights over {len(board.shifts)} shifts, ID not in it. Rows share a letter unless their mean "
        f"OOD differs at Holm-adjusted p < {ALPHA:g} (family: all {pairs} pairs, paired on images). Bold: not told "
        f"apart from the best; underlined: best of the rest. Rank: 95 % of bootstrap draws over seeds and images."
    )
