"""Compute the tables of docs/statistics.md from committed files, with numpy and scipy alone.

    python docs/worked.py [--check]

It imports nothing of robustbench_ft: the worked example is a second computation of a number that the board shows.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "statistics.md"
STUDY = ROOT / "docs" / "results" / "statistics_study.md"
RUNS = ROOT / "leaderboards" / "shapes-v2" / "predictions" / "embedded"
SHIFTS = ("painting", "clipart", "infograph", "sketch", "quickdraw")
A, B = "lipsum-79328115", "ft-be9a761b"
BLOCK = re.compile(r"<!-- worked: (?P<name>\S+) -->\n.*?<!-- end -->", re.DOTALL)


def correct(claim: str) -> dict[str, np.ndarray]:
    """Shift -> correctness [S, n] of the runs of a claim, seeds in order, examples in the order of their ids."""
    runs: dict[str, list[np.ndarray]] = {shift: [] for shift in SHIFTS}
    for path in sorted((RUNS / claim).glob("seed-*/predictions.parquet")):
        stored = pq.read_table(path, columns=["split", "id", "label", "prediction:final"]).sort_by("id")
        split, label, prediction = (stored[name].to_numpy() for name in ("split", "label", "prediction:final"))
        for shift in SHIFTS:
            runs[shift].append((label == prediction)[split == shift].astype(np.float64))
    return {shift: np.stack(found) for shift, found in runs.items()}


def interaction(scores: np.ndarray) -> float:
    """MSR / n of scores [S, n]: what single examples add to the variance between runs."""
    seeds, n = scores.shape
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((residual**2).sum()) / ((n - 1) * (seeds - 1)) / n


def difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Every quantity of the two-way t interval of a - b on the mean over the shifts, by its name in the page."""
    sets = len(a)
    d = {shift: a[shift].mean(axis=0) - b[shift].mean(axis=0) for shift in a}
    ex = {shift: float(d[shift].var(ddof=1)) / len(d[shift]) for shift in d}
    noise = {name: {shift: interaction(y) for shift, y in row.items()} for name, row in (("A", a), ("B", b))}
    suite = {name: np.mean([y.mean(axis=1) for y in row.values()], axis=0) for name, row in (("A", a), ("B", b))}
    seeds = {name: len(runs) for name, runs in suite.items()}
    s2 = {name: float(runs.var(ddof=1)) for name, runs in suite.items()}
    debiased = {name: max(0.0, s2[name] - sum(noise[name].values()) / sets**2) for name in s2}
    v_seed = sum(debiased[name] / seeds[name] for name in s2)
    v_ex = sum(ex.values()) / sets**2
    spread = sum((s2[name] / seeds[name]) ** 2 / (seeds[name] - 1) for name in s2)
    spread += sum((v / sets**2) ** 2 / (len(d[shift]) - 1) for shift, v in ex.items())
    value, variance = float(suite["A"].mean() - suite["B"].mean()), v_seed + v_ex
    df = max(1.0, variance**2 / spread)
    quantile, se = float(stats.t.ppf(0.975, df)), variance**0.5
    return {
        "d": {shift: float(gap.mean()) for shift, gap in d.items()}, "ex": ex, "noise": noise, "suite": suite,
        "s2": s2, "debiased": debiased, "v_seed": v_seed, "v_ex": v_ex, "value": value, "se": se, "df": df,
        "quantile": quantile, "half_width": quantile * se, "p": float(2 * stats.t.sf(abs(value) / se, df)),
    }  # fmt: skip


def worked_sets() -> str:
    """One line per shift: both accuracies, the difference, and the parts of the variances that come from images."""
    a, b = correct(A), correct(B)
    found = difference(a, b)
    body = [
        (shift, f"{len(a[shift][0]):,}", f"{100 * a[shift].mean():.2f}", f"{100 * b[shift].mean():.2f}",
         f"{100 * found['d'][shift]:+.2f}", f"{1e4 * found['ex'][shift]:.4f}",
         f"{1e4 * found['noise']['A'][shift]:.4f}", f"{1e4 * found['noise']['B'][shift]:.4f}")
        for shift in SHIFTS
    ]  # fmt: skip
    header = ("shift", "n", "lipsum, %", "ft, %", "D, points", "var(d)/n", "MSR/n, lipsum", "MSR/n, ft")
    return table(header, body)


def worked_steps() -> str:
    """Every step from the suite means of the runs to the interval and its p."""
    found = difference(correct(A), correct(B))
    s2, debiased = found["s2"], found["debiased"]

    def runs(name: str) -> str:
        return ", ".join(f"{100 * value:.2f}" for value in found["suite"][name])

    low, high = (100 * (found["value"] + sign * found["half_width"]) for sign in (-1, 1))
    return table(("step", "value"), [
        ("suite means of the runs of lipsum, seeds 0 to 4, %", runs("A")),
        ("suite means of the runs of ft, seeds 0 to 4, %", runs("B")),
        ("D, points", f"{100 * found['value']:+.3f}"),
        ("s²: lipsum, ft", f"{1e4 * s2['A']:.4f}, {1e4 * s2['B']:.4f}"),
        ("s² less Σ MSR/n / 25: lipsum, ft", f"{1e4 * debiased['A']:.4f}, {1e4 * debiased['B']:.4f}"),
        ("V_seed", f"{1e4 * found['v_seed']:.4f}"),
        ("V_ex = Σ var(d)/n / 25", f"{1e4 * found['v_ex']:.4f}"),
        ("standard error √(V_seed + V_ex), points", f"{100 * found['se']:.3f}"),
        ("df", f"{found['df']:.2f}"),
        ("t quantile at .975", f"{found['quantile']:.4f}"),
        ("half-width, points", f"{100 * found['half_width']:.3f}"),
        ("95 % interval, points", f"{low:.2f} to {high:.2f}"),
        ("p, not adjusted", f"{found['p']:.2e}"),
    ])  # fmt: skip


def study_first() -> str:
    """The first table of the study, with the command that made the page."""
    text = STUDY.read_text(encoding="utf-8")
    lines = text.partition("\n\n| cell |")[2].partition("\n\n")[0]
    return "| cell |" + lines


def study_summary() -> str:
    """What each part of the study found of the test that is used: replicates, and the range of its type-I error."""
    text = STUDY.read_text(encoding="utf-8")
    found = re.findall(
        r"^\*\*(.+?)\*\*: (\d+) replicates per cell, s\.e\. ([.\d]+); "
        r"type-I error of the last test ([.\d]+ to [.\d]+)\.$",
        text, re.MULTILINE,
    )  # fmt: skip
    header = ("simulated", "replicates per cell", "Monte Carlo s.e.", "type-I error at .05")
    return table(header, [(name, count, error, span) for name, count, error, span in found])


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ("---", *["---:"] * (len(header) - 1))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *body))


BLOCKS: Mapping[str, Callable[[], str]] = {
    "sets": worked_sets, "steps": worked_steps, "study": study_first, "summary": study_summary,
}  # fmt: skip


def filled(text: str) -> str:
    """`text` with every marked block computed again."""
    return BLOCK.sub(lambda m: f"<!-- worked: {m['name']} -->\n{BLOCKS[m['name']]()}\n<!-- end -->", text)


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before)
    if "--check" in sys.argv:
        sys.exit(before != after)
    PAGE.write_text(after, encoding="utf-8")
