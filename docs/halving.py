"""What a short run tells of a long one: `python docs/halving.py SHORT LONG` writes docs/results/halving.md.

SHORT and LONG are folders of `rbft tune` with the same trials and another number of steps.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from robustbench_ft.record.store import Record

TARGET = Path(__file__).resolve().parent / "results" / "halving.md"
HEADER = """\
# Would successive halving choose the same?

Made by `python docs/halving.py short long` from two searches with the same trials:

    rbft tune --method ft --method lipsum --suite digits --trials 8 --set steps=20 --out short
    rbft tune --method ft --method lipsum --suite digits --trials 8 --set steps=80 --out long

Kept: the better half by ID validation after the short run, as halving would. One training seed, a small suite.
"""


@dataclass(frozen=True)
class Trial:
    """One finished cell."""

    method: str
    settings: str
    lr: float
    steps: int
    val: float
    ood: float


def trials(folder: Path) -> dict[tuple[str, str], Trial]:
    """By method and settings: what `rbft tune` ran into `folder`, smallest learning rate first."""
    found: list[Trial] = []
    for done in folder.rglob("done"):
        record = Record(done.parent)
        config, summary = record.config, record.summary
        recipe, scores = config.recipe or {}, summary.candidates[summary.default]
        own = [f"{name} {value:.3g}" for name, value in config.settings.items() if isinstance(value, float)]
        ood = float(np.mean([scores[split]["accuracy"] for split in summary.splits.shifts]))
        settings = ", ".join((f"lr {recipe['lr']:.2e}", *own))
        val = scores[summary.splits.val]["accuracy"]
        found.append(Trial(config.method, settings, recipe["lr"], recipe["steps"], val, ood))
    return {(t.method, t.settings): t for t in sorted(found, key=lambda t: (t.method, t.lr))}


def text(short: dict[tuple[str, str], Trial], long: dict[tuple[str, str], Trial]) -> str:
    """The page: a row for each trial, and a line for each method."""
    pairs = [(short[key], long[key]) for key in long if key in short]
    early, late = pairs[0][0].steps, pairs[0][1].steps
    rows = [
        f"| method | settings | ID val, {early} steps | ID val, {late} steps | mean OOD, {late} steps | kept |",
        "|:--|:--|--:|--:|--:|:--|",
    ]
    facts: list[str] = []
    for method in dict.fromkeys(after.method for _, after in pairs):
        own = [pair for pair in pairs if pair[1].method == method]
        kept = sorted(own, key=lambda pair: -pair[0].val)[: len(own) // 2]
        rows += [
            f"| {method} | {b.settings} | {b.val:.1%} | {a.val:.1%} | {a.ood:.1%} | {'yes' if (b, a) in kept else ''} |"
            for b, a in own
        ]
        rho = float(spearmanr([b.val for b, _ in own], [a.val for _, a in own]).statistic)
        best, ood = max(a.val for _, a in own), max(a.ood for _, a in own)
        facts.append(
            f"- {method}: rank correlation of ID validation at the two lengths {rho:.2f}. Best ID validation of the "
            f"kept {max(a.val for _, a in kept):.1%}, of all {best:.1%}. Smallest learning rate of the kept "
            f"{min(a.lr for _, a in kept):.1e}, of all {min(a.lr for _, a in own):.1e}. Highest mean OOD of the kept "
            f"{max(a.ood for _, a in kept):.1%}, of all {ood:.1%}."
        )
    return "\n".join((HEADER, *rows, "", *facts)) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(*(trials(Path(folder)) for folder in sys.argv[1:3])), encoding="utf-8")
