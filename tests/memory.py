"""Memory of one training step of a full-size model on the CPU, counted beforehand and measured.

    python tests/memory.py [--out docs/results/memory.md]

Each line is a process of its own: FT with random weights and images, two updates, its peak above what the process held
before the step.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

BATCH = 32
CASES: dict[str, dict[str, Any]] = {
    "whole batch": {}, "--micro-batch 8": {"micro": 8}, "--grad-checkpointing": {"again": True},
    "--micro-batch 8 --grad-checkpointing": {"micro": 8, "again": True},
}  # fmt: skip


def status(name: str) -> float:
    """VmRSS or VmHWM of this process, MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) / 1024


def step(model: str, micro: int = 0, again: bool = False) -> dict[str, float]:
    """Two updates of FT: in the second, moments and activations are there at once; MiB."""
    import torch

    from robustbench_ft import checks, clip, model_ref, registry
    from robustbench_ft.data import ArrayImages, Split
    from robustbench_ft.memory import MicroBatch
    from robustbench_ft.method import Method, Run, TrainSet

    found = clip.load(model_ref.resolve(model, "random"))
    if again:
        found.checkpoint_gradients()
    size, log = found.image_size, list[Any]()
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3)).astype(np.uint8)
    split = Split("train", ArrayImages(pixels), np.arange(BATCH) % 3, tuple(map(str, range(BATCH))))
    few = Split("val", ArrayImages(pixels[:2]), np.arange(2), ("a", "b"))
    recipe = replace(checks.RECIPE, steps=2, batch=BATCH, augment="none", validate_every=0, lr=1e-5)
    run = Run(0, torch.device("cpu"), micro_batch=MicroBatch(micro), log=log.append)
    kind = registry.load("method", "ft", Method)
    before = status("VmRSS")
    kind(recipe=recipe).fit(found, TrainSet(split, few, checks.TASK), run)
    return {"peak": status("VmHWM") - before, **log[-1]["memory_mib"]}


@click.command()
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--model", default="ViT-B-32")
@click.option("--case", hidden=True)
def main(out: Path | None, model: str, case: str | None) -> None:
    """Measure every case and write the table."""
    if case:
        click.echo(json.dumps(step(model, **CASES[case])))
        return
    from robustbench_ft import needs

    each = (needs.activations(model) or 0) / 2**20
    lines = [
        "`python tests/memory.py`", "",
        f"{model}, random weights, float32, one thread, CPU, FT, two updates of batch {BATCH}. Counted: gradients and "
        f"moments of what is trained, and {each:.0f} MiB of activations for each image that passes at once. Measured: "
        "the peak of the process above what it held before `fit`; it holds the first weights a second time, and what "
        "kernels need meanwhile.", "",
        "| step | gradients and moments | weights kept | activations, counted | together | measured peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, options in CASES.items():
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "RBFT_CACHE": cache}
            words = [sys.executable, __file__, "--model", model, "--case", name]
            done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        found = json.loads(done.stdout.splitlines()[-1])
        held, kept = found["gradients"] + found["optimizer"], found["gradients"]
        active = None if "again" in options else each * (options.get("micro") or BATCH)
        counted = ["not counted", "—"] if active is None else [f"{active:.0f}", f"{held + kept + active:.0f}"]
        lines.append(f"| {name} | {held:.0f} | {kept:.0f} | {counted[0]} | {counted[1]} | {found['peak']:.0f} |")
        click.echo(lines[-1], err=True)
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
