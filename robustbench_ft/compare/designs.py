"""Tables of `rbft power`: detectable differences and seeds needed (docs/statistics.md, 'What a design can show')."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from robustbench_ft.stats.intervals import difference, mean
from robustbench_ft.stats.multiplicity import ALPHA
from robustbench_ft.stats.power import Design, detectable, example_floor, seeds_needed
from robustbench_ft.stats.seeds import least_seeds, sd_interval

from .load import RunSet
from .rows import Row
from .text import MISSING, Text, number

SEEDS = (3, 5, 10)
DELTAS = (0.005, 0.01, 0.02)  # differences that a reader may care about


@dataclass(frozen=True)
class RowDesign:
    """One row as a member of a comparison: its seed sd and what examples leave unsure."""

    row: Row
    sd: float | None  # of the suite mean, ddof 1; None for one seed
    design: Design | None


def designs(run_set: RunSet) -> list[RowDesign]:
    """Every trained, complete row against typical rivals: V_ex is the median over its pairs with other methods."""
    usable = [row for row in run_set.rows if run_set.complete(row) and not row.oracle]
    examples: dict[str, list[tuple[float, float]]] = {row.name: [] for row in usable}
    for a, b in combinations(usable, 2):
        if a.method != b.method:
            found = difference(run_set.sets(a), run_set.sets(b))
            for row in (a, b):
                examples[row.name].append((found.v_examples, float(run_set.sets(row)[0].df)))
    made: list[RowDesign] = []
    for row in usable:
        if row.deterministic:
            continue
        runs = np.mean([sample.runs for sample in run_set.sets(row)], axis=0)
        sd = float(runs.std(ddof=1)) if len(runs) > 1 else None
        rivals = [v for v, _ in examples[row.name]] or [2 * mean(run_set.sets(row)).v_examples]
        df = float(sum(sample.df for sample in run_set.sets(row)))
        design = None if sd is None else Design(sd, float(np.median(rivals)), df)
        made.append(RowDesign(row, sd, design))
    return made


def power_table(run_set: RunSet, family: int) -> Text:
    """Minimal detectable differences by seeds, and seeds by difference, at the first Holm step of `family` tests."""
    alpha = ALPHA / family
    header = (
        "method", "seeds", "seed sd", "95 % of sd", *(f"MDE at S={s}" for s in SEEDS), "floor",
        *(f"seeds for {100 * d:g} pt" for d in DELTAS),
    )  # fmt: skip
    body = tuple(_line(found, alpha) for found in designs(run_set))
    caption = (
        f"Points of mean OOD, {run_set.metric} metric; two methods with this row's seed sd and median disagreement "
        f"with other methods; 80 % power, two-sided alpha .05 / {family} (Holm's first step of {family} tests); floor: "
        "even endless seeds cannot detect less, more images could; never: these images do not suffice. An sd "
        "from few seeds is itself unsure. "
        f"An exact rank test in this family needs {least_seeds(family)} seeds per method."
    )
    return Text(f"{run_set.title}: what these runs could show", header, body, caption)


def _line(found: RowDesign, alpha: float) -> tuple[str, ...]:
    row, design, sd = found.row, found.design, found.sd
    if design is None or sd is None:
        return (row.name, number(1), "1 seed: unknown", *[MISSING] * (2 + len(SEEDS) + len(DELTAS)))
    low, high = sd_interval(sd, len(row.runs))
    needed = [seeds_needed(design, delta, alpha) for delta in DELTAS]
    return (
        row.name, number(len(row.runs)), number(100 * sd, ".2f"), f"{100 * low:.2f}-{100 * high:.2f}",
        *(number(100 * detectable(design, s, alpha), ".2f") for s in SEEDS),
        number(100 * example_floor(design, alpha), ".2f"),
        *("never" if n is None else number(n) for n in needed),
    )  # fmt: skip
