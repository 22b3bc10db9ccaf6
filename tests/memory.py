"""Memory of one training step of a full-size model, counted beforehand and measured.

    python tests/memory.py [--out docs/results/memory.md]
    python tests/memory.py --device cuda --model ViT-B-16 --batch 128 --precision bf16

FT with random weights and images, two updates, the peak above what was held before the step. On a CPU each line is a
process of its own, as a process gives little back; on a GPU its allocator tells.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

Case = Mapping[str, Any]
CASES: dict[str, Case] = {
    "whole batch": {}, "--micro-batch 8": {"micro": 8}, "--grad-checkpointing": {"again": True},
    "--micro-batch 8 --grad-checkpointing": {"micro": 8, "again": True},
}  # fmt: skip
LOW: dict[str, Case] = {"--low-memory": {"low": True}, "--micro-batch 8 --low-memory": {"micro": 8, "low": True}}


def status(name: str) -> float:
    """VmRSS or VmHWM of this process, MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1]) / 1024


def held(device: Any, peak: bool = False) -> float:
    """MiB now, or at most since the last `begin`."""
    import torch

    if device.type == "cpu":
        return status("VmHWM" if peak else "VmRSS")
    return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20


def step(found: Any, batch: int, precision: str, case: Case) -> dict[str, float]:
    """Two updates of FT: in the second, moments and activations are there at once; MiB."""
    import torch

    from robustbench_ft import checks, environment, registry
    from robustbench_ft.data import ArrayImages, Split
    from robustbench_ft.memory import MicroBatch
    from robustbench_ft.method import Method, Run, TrainSet

    if case.get("again"):
        found.checkpoint_gradients()
    size, log, device = found.image_size, list[Any](), found.device
    found.precision = precision
    environment.use(precision, device)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.uint8)
    split = Split("train", ArrayImages(pixels), np.arange(batch) % 3, tuple(map(str, range(batch))))
    few = Split("val", ArrayImages(pixels[:2]), np.arange(2), ("a", "b"))
    recipe = replace(checks.RECIPE, steps=2, batch=batch, augment="none", validate_every=0, lr=1e-5)
    run = Run(
        0, device, precision, micro_batch=MicroBatch(case.get("micro", 0)), log=log.append,
        low_memory=case.get("low", False),
    )  # fmt: skip
    kind = registry.load("method", "ft", Method)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = held(device)
    kind(recipe=recipe).fit(found, TrainSet(split, few, checks.TASK), run)
    return {"peak": held(device, peak=True) - before, **log[-1]["memory_mib"]}


def alone(model: str, batch: int, name: str) -> dict[str, float]:
    """A case on the CPU, in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RBFT_CACHE": cache}
        words = [sys.executable, __file__, "--model", model, "--batch", str(batch), "--case", name]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


@click.command()
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--model", default="ViT-B-32")
@click.option("--batch", default=32)
@click.option("--device", default="cpu")
@click.option("--precision", default="fp32")
@click.option("--case", hidden=True)
def main(out: Path | None, model: str, batch: int, device: str, precision: str, case: str | None) -> None:
    """Measure every case and write the table."""
    import torch

    from robustbench_ft import clip, model_ref, needs

    if case or device != "cpu":
        loaded = clip.load(model_ref.resolve(model, "random")).to(device)
    if case:
        click.echo(json.dumps(step(loaded, batch, precision, CASES[case])))  # pyright: ignore
        return
    each = (needs.activations(model) or 0) / 2**20
    where = "one thread, CPU" if device == "cpu" else torch.cuda.get_device_name()
    lines = [
        f"{model}, random weights, {precision}, {where}, FT, two updates of batch {batch}. Counted: gradients and "
        f"moments of what is trained, and {each:.0f} MiB of activations for each image that passes at once, in float32 "
        "and with attention as products of matrices. Measured: the peak above what was held before `fit`; it holds the "
        "first weights a second time, and what kernels need meanwhile.", "",
        "| step | gradients and moments | weights kept | activations, counted | together | measured peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, options in (CASES if device == "cpu" else {**CASES, **LOW}).items():
        here = None if device == "cpu" else copy.deepcopy(loaded)  # pyright: ignore
        found = step(here, batch, precision, options) if here else alone(model, batch, name)
        # what --low-memory keeps elsewhere comes back for the update, when activations are gone
        moments = 0.0 if options.get("low") else found["optimizer"]
        beside, kept = found["gradients"] + moments, found["gradients"]
        active = None if "again" in options else each * (options.get("micro") or batch)
        counted = ["not counted", "—"] if active is None else [f"{active:.0f}", f"{beside + kept + active:.0f}"]
        lines.append(f"| {name} | {beside:.0f} | {kept:.0f} | {counted[0]} | {counted[1]} | {found['peak']:.0f} |")
        click.echo(lines[-1], err=True)
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if out:
        out.write_text("`python tests/memory.py`\n\n" + text, encoding="utf-8")


if __name__ == "__main__":
    main()
