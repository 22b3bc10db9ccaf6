"""Makes the study of docs/results/gpu.md: cells in float32 and bfloat16, beside the same cells on another device.

    rbft run --suite digits --seeds 0-4 --method ft --method lipsum --precision fp32 --device cuda --out runs/gpu
    (also bf16, and shapes)
    python docs/gpu_study.py runs/gpu --beside runs/many

Reads `cell.json`, `metrics.json` and `env.json` of each record. Seeds are the sample: a difference is paired by seed,
its interval is Student's over seeds.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from scipy import stats

PRECISIONS = ("fp32", "bf16")
WHERE = ("ID", "mean OOD")


@dataclass(frozen=True)
class Cell:
    """One record."""

    suite: str
    method: str
    digest: str
    precision: str
    seed: int
    accuracies: dict[str, float]  # of each split, in %
    cost: dict[str, float]
    device: str

    @property
    def scores(self) -> dict[str, float]:
        shifts = [value for name, value in self.accuracies.items() if name not in ("test", "val")]
        return {"ID": self.accuracies["test"], "mean OOD": sum(shifts) / len(shifts)}


def cells(folder: Path) -> Iterator[Cell]:
    """All records below a folder."""
    for path in sorted(folder.rglob("metrics.json")):
        cell, metrics, env = (json.loads((path.parent / f"{n}.json").read_text()) for n in ("cell", "metrics", "env"))
        found: dict[str, Any] = metrics["candidates"]["final"]
        yield Cell(
            cell["suite"], cell["method"], path.parent.parent.name, cell["precision"], cell["seed"],
            {name: 100 * values["accuracy"] for name, values in found.items()}, env["cost"], env["gpu"] or env["cpu"],
        )  # fmt: skip


def interval(values: Sequence[float]) -> str:
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.2f} ± {half:.2f}"


def by_precision(found: Sequence[Cell]) -> Iterator[str]:
    """A row for each suite and method, then the lead of Lipsum-FT over FT in each precision."""
    yield "| suite | method | | fp32 | bf16 | bf16 - fp32 |\n|---|---|---|---:|---:|---:|"
    at = {(c.suite, c.method, c.precision, c.seed): c for c in found}
    seeds = sorted({c.seed for c in found})
    suites, methods = sorted({c.suite for c in found}), sorted({c.method for c in found})
    for suite in suites:
        for method in methods:
            for where in WHERE:
                a, b = ([at[suite, method, p, k].scores[where] for k in seeds] for p in PRECISIONS)
                apart = interval([y - x for x, y in zip(a, b, strict=True)])
                means = f"{statistics.mean(a):.2f} | {statistics.mean(b):.2f}"
                yield f"| {suite} | {method} | {where} | {means} | {apart} |"
        for where in WHERE:
            leads = [
                interval([at[suite, "lipsum", p, k].scores[where] - at[suite, "ft", p, k].scores[where] for k in seeds])
                for p in PRECISIONS
            ]
            yield f"| {suite} | lipsum - ft | {where} | {leads[0]} | {leads[1]} | |"


def by_device(found: Sequence[Cell], other: Sequence[Cell]) -> Iterator[str]:
    """A row for each row of cells that both have: how far accuracies are apart."""
    yield "| suite | method | seeds | ID, mean (largest) | mean OOD, mean (largest) | a single split, largest |"
    yield "|---|---|---:|---:|---:|---:|"
    there = {(c.suite, c.digest, c.seed): c for c in other}
    pairs = [(c, there[key]) for c in found if (key := (c.suite, c.digest, c.seed)) in there]
    for suite, method in sorted({(c.suite, c.method) for c, _ in pairs}):
        mine = [(a, b) for a, b in pairs if (a.suite, a.method) == (suite, method)]
        columns: list[str] = []
        for where in WHERE:
            apart = [a.scores[where] - b.scores[where] for a, b in mine]
            columns.append(f"{statistics.mean(apart):+.2f} ({max(map(abs, apart)):.2f})")
        worst = max(abs(a.accuracies[s] - b.accuracies[s]) for a, b in mine for s in a.accuracies)
        yield f"| {suite} | {method} | {len(mine)} | {' | '.join(columns)} | {worst:.2f} |"


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True))
@click.option("--beside", multiple=True, type=click.Path(path_type=Path, exists=True))
def main(runs: Path, beside: tuple[Path, ...]) -> None:
    """Print both tables."""
    found = [c for c in cells(runs) if c.method in ("ft", "lipsum")]
    click.echo("\n".join(by_precision(found)))
    if beside:
        other = [c for folder in beside for c in cells(folder) if c.method in ("ft", "lipsum")]
        click.echo("\n" + "\n".join(by_device(found, other)))


if __name__ == "__main__":
    main()
