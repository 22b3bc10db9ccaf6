"""How fast and how big: `rbft compare` on made-up records, macro-F1 by resamples, beside naive bootstraps.

    python tests/scale.py [--out docs/results/scale.md]

Records are written first; every measured step runs in a process of its own, with one BLAS thread, and reports its peak
memory. Naive loops are timed over a few draws and extrapolated, which is said.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import synthetic
from scipy import stats as scipy_stats

import robustbench_ft.compare as compare
from robustbench_ft.compare import scores
from robustbench_ft.record import store
from robustbench_ft.stats import macro_f1, ranks
from robustbench_ft.stats.streams import generator

METHODS, SEEDS, SPLITS, N, DRAWS = 10, 5, 6, 50_000, 10_000
CLASSES, F1_N, F1_DRAWS, RUNS = 182, 42_000, 2_000, 50
FEW = 20  # draws of a naive loop that are timed


def make(root: Path) -> None:
    """10 methods x 5 seeds x 6 shifts x 50,000 examples."""
    world = synthetic.World(name="big", shifts=tuple(f"shift-{k}" for k in range(SPLITS)), n=N, sizes={"val": 1000})
    skills = {"ft": 1.0, **{f"method-{k}": 1.0 + 0.02 * k for k in range(1, METHODS)}}
    synthetic.write(root, world, skills, SEEDS)


def run_compare(root: Path) -> str:
    """What `rbft compare` does, from files to tables."""
    (run_set,) = compare.load(store.find_records([root]))
    found = compare.compare(run_set, "ft")
    return f"{len(found.pairs)} rows, {len(found.pairs) * (len(found.pairs) - 1) // 2} pairs, {found.draws} draws"


def run_exact(root: Path) -> str:
    (run_set,) = compare.load(store.find_records([root]))
    found = compare.compare(run_set, "ft", exact=True)
    return f"{found.draws} multinomial draws of all rows"


def run_read(root: Path) -> str:
    """Parquet to checked correctness, nothing else."""
    records = store.find_records([root])
    files = 0
    for split in records[0].metrics["splits"]["shifts"]:
        reader = scores.SplitReader(split)
        for record in records:
            reader.read(record, "final")
            files += 1
    return f"{files} files of {N:,} rows"


def run_macro_f1(root: Path) -> str:
    rng = generator("scale", "macro-f1")
    shares = rng.dirichlet(np.full(CLASSES, 0.3))
    label = np.concatenate([np.arange(CLASSES), rng.choice(CLASSES, F1_N - CLASSES, p=shares)])
    wrong = rng.choice(CLASSES, (RUNS, F1_N), p=shares)
    predictions = np.where(rng.random((RUNS, F1_N)) < 0.75, label, wrong)
    drawn = macro_f1.macro_f1_draws(label, predictions, F1_DRAWS, "scale")
    sd = float(drawn[0].draws.std(ddof=1))
    linear = float(macro_f1.influence(label, predictions[0]).std(ddof=1) / F1_N**0.5)
    return f"{RUNS} runs, {CLASSES} classes, n = {F1_N:,}, {F1_DRAWS} draws; s.e. {sd:.4f}, linearised {linear:.4f}"


def _answers(root: Path) -> list[np.ndarray]:
    records = store.find_records([root])
    made: list[np.ndarray] = []
    for split in records[0].metrics["splits"]["shifts"]:
        reader = scores.SplitReader(split)
        made.append(np.stack([s for r in records if (s := reader.read(r, "final")) is not None]))
    return made


def run_naive(root: Path) -> str:
    """Gather by index and average, draw by draw, all runs at once: timed over a few draws."""
    sets, rng = _answers(root), generator("scale", "naive")
    began = time.monotonic()
    for _ in range(FEW):
        for runs in sets:
            runs[:, rng.integers(N, size=N)].mean(axis=1)
    seconds = (time.monotonic() - began) / FEW
    return f"{seconds * DRAWS:.0f} s for {DRAWS:,} draws, extrapolated from {FEW}"


def run_gaussian(root: Path) -> str:
    """The draws that `rbft compare` takes for ranks, alone."""
    sets = _answers(root)
    began = time.monotonic()
    for k, runs in enumerate(sets):
        ranks.example_draws("scale", ranks.TestSet(str(k), {"all": runs}), DRAWS)
    return f"{time.monotonic() - began:.2f} s for {DRAWS:,} draws"


def run_scipy(root: Path) -> str:
    """One vector of one set, percentile, by blocks: it has no way to share draws among runs."""
    vector = _answers(root)[0][0].astype(float)
    began = time.monotonic()
    scipy_stats.bootstrap((vector,), np.mean, n_resamples=FEW * 10, batch=20, method="percentile", rng=1)
    seconds = (time.monotonic() - began) / (FEW * 10)
    every = seconds * DRAWS * METHODS * SEEDS * SPLITS
    return (
        f"{seconds * DRAWS:.0f} s for {DRAWS:,} draws of one run on one set, extrapolated from {FEW * 10}; "
        f"{every / 60:.0f} min for all runs and sets, without pairing; its default (BCa) asks for n x (n - 1) numbers"
    )


STEPS: dict[str, Callable[[Path], str]] = {
    "rbft compare, Parquet to tables": run_compare,
    "of it: reading and checking Parquet": run_read,
    "rbft compare --exact-bootstrap": run_exact,
    "macro-F1 resamples": run_macro_f1,
    "Gaussian draws": run_gaussian,
    "naive bootstrap: gather and average": run_naive,
    "scipy.stats.bootstrap": run_scipy,
}


def peak_mib() -> float:
    """Peak memory of this process since it began: ru_maxrss would also count the parent's peak."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@click.command()
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--step", type=click.Choice(list(STEPS)), hidden=True)
@click.option("--root", type=click.Path(path_type=Path), hidden=True)
def main(out: Path | None, step: str | None, root: Path | None) -> None:
    """Measure every step and write the table."""
    if step and root:
        began, cpu = time.monotonic(), time.process_time()
        said = STEPS[step](root)
        click.echo(
            json.dumps(
                {
                    "said": said,
                    "seconds": time.monotonic() - began,
                    "cpu": time.process_time() - cpu,
                    "peak": peak_mib(),
                }
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        text = _table(Path(folder))
    click.echo(text)
    if out:
        out.write_text(text, encoding="utf-8")


def _table(root: Path) -> str:
    lines = [
        "`python tests/scale.py`", "",
        f"{METHODS} methods x {SEEDS} seeds x {SPLITS} test sets x {N:,} examples, made up; {os.cpu_count()} cores, "
        "one thread, other jobs running; each line a process of its own. Seconds are for what was run; an "
        "extrapolation is called one.", "",
        "| step | seconds | CPU seconds | peak MiB | what |", "|---|---:|---:|---:|---|",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for step in STEPS:
        command = [sys.executable, __file__, "--step", step, "--root", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found = json.loads(done.stdout)
        lines.append(
            f"| {step} | {found['seconds']:.1f} | {found['cpu']:.1f} | {found['peak']:.0f} | {found['said']} |"
        )
        click.echo(lines[-1], err=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
