"""`rbft bench`: what the harness and each method cost, side by side with a bare loop in one process.

All contestants take turns step by step, so a machine that speeds up or slows down does so for all of them; the figures
to quote are the ratios of medians.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from . import clip as clips
from . import registry
from .clip import Clip
from .environment import describe
from .loader import Loader
from .method import Method, Run, TrainSet
from .model_ref import ModelRef
from .progress import Progress
from .recipe import Recipe
from .suite import Suite, Task


@dataclass(frozen=True)
class Setting:
    """What is measured, on what."""

    suite: Suite
    model: ModelRef
    device: torch.device
    precision: str
    batch: int
    steps: int  # counted steps of each contestant, after `WARMUP` that are not


WARMUP = 3


class _EnoughError(Exception):
    """Ends a fit once its steps are counted."""


def measure(setting: Setting, methods: tuple[str, ...], progress: Progress) -> str:
    """Median seconds per optimiser step of a bare loop and of each method, as Markdown, with the machine."""
    data = TrainSet(
        setting.suite.split(setting.suite.train),
        setting.suite.split(setting.suite.val),
        Task(setting.suite.classes, setting.suite.templates),
    )
    contestants: dict[str, Callable[[], list[float]]] = {"bare loop": lambda: _bare(setting, data)}
    for name in methods:
        contestants[name] = lambda name=name: _fit(setting, data, name)
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    repeats = 3
    with progress.bar("bench", repeats * len(contestants), "turns") as advance:
        for _ in range(repeats):
            for name, contestant in contestants.items():
                rounds[name] += contestant()
                advance(1, name)
    return _table(setting, {name: statistics.median(times) for name, times in rounds.items()})


def _load(setting: Setting) -> Clip:
    clip = clips.load(setting.model).to(setting.device)
    clip.bf16 = setting.precision == "bf16"
    return clip


def _bare(setting: Setting, data: TrainSet) -> list[float]:
    """The least a training loop can do on the same uint8 tensors: index, normalise, forward, backward, step."""
    clip = _load(setting)
    clip.start_from_zero_shot(data.task)
    clip.train_only("image", "head")
    loader = Loader(clip, data.train)
    pixels = loader.read(range(min(len(data.train), setting.batch * 4)))
    labels = torch.from_numpy(data.train.labels[: len(pixels)]).to(setting.device)
    optimizer = torch.optim.AdamW([p for p in clip.parameters() if p.requires_grad], lr=1e-4, fused=True)
    clip.train()
    clock = _Clock(setting.device)
    for _ in range(WARMUP + setting.steps):
        rows = torch.randint(len(pixels), (setting.batch,))
        images = (pixels[rows].to(setting.device).float() / 255 - loader.mean.to(setting.device)) / loader.std.to(
            setting.device
        )
        loss = F.cross_entropy(clip.classify(clip.encode_image(images)), labels[rows.to(setting.device)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        clock.tick()
    return clock.laps[WARMUP:]


def _fit(setting: Setting, data: TrainSet, name: str) -> list[float]:
    """Steps of a method's own `fit`, with its augmentation, clipping and logging; validation and checkpoints apart."""
    kind = registry.load("method", name, Method)
    steps = WARMUP + setting.steps
    recipe: Recipe = replace(
        setting.suite.recipe, batch=setting.batch, steps=steps + 1, validate_every=0, select="last", lr=1e-4
    )
    clock = _Clock(setting.device)

    def log(line: Mapping[str, object]) -> None:
        if line["event"] == "step":
            clock.tick()
            if len(clock.laps) == steps:
                raise _EnoughError
        if line["event"] == "start":
            clock.restart()  # of several stages the last one counts, which runs through all weights

    try:
        kind(recipe=recipe).fit(_load(setting), data, Run(0, setting.device, setting.precision, log=log))
    except _EnoughError:
        return clock.laps[WARMUP:]
    raise RuntimeError(f"{name} ended before {steps} steps")


class _Clock:
    """Seconds between ticks, with the device's queue emptied at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        self.laps: list[float] = []
        self.last = time.perf_counter()

    def tick(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.laps.append(now - self.last)
        self.last = now


def _table(setting: Setting, medians: Mapping[str, float]) -> str:
    bare, ft = medians["bare loop"], medians.get("ft", float("nan"))
    lines = [
        f"{setting.model.label} on {setting.suite.name}, batch {setting.batch}, {setting.precision}, medians of "
        f"{3 * setting.steps} steps",
        "",
        "| contestant | ms/step | images/s | / bare loop | / ft |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {1000 * s:.1f} | {setting.batch / s:.0f} | {s / bare:.3f} | {s / ft:.3f} |"
        for name, s in medians.items()
    ]
    machine = describe(setting.device)
    kept = {name: machine[name] for name in ("cpu", "gpu", "threads", "python")} | {
        "torch": machine["packages"]["torch"]
    }
    return "\n".join([*lines, "", json.dumps(kept)])
