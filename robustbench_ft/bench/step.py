"""`rbft bench`: what the harness and each method cost, side by side with a bare loop in one process.

All contestants take turns in several rounds and are compared within each, so a machine that speeds up or slows down
does so for all of them; the figures to quote are the ratios.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from robustbench_ft import clip as clips
from robustbench_ft import registry
from robustbench_ft.clip import Clip
from robustbench_ft.environment import describe
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.model_ref import ModelRef
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.progress import Progress
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import Suite


@dataclass(frozen=True)
class Setting:
    """What is measured, on what."""

    suite: Suite
    model: ModelRef
    device: torch.device
    precision: str
    batch: int
    steps: int  # counted steps of each contestant in each round, after `WARMUP` that are not


WARMUP = 3
ROUNDS = 15


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
    rounds: list[dict[str, float]] = []
    with progress.bar("bench", ROUNDS * len(contestants), "turns") as advance:
        for _ in range(ROUNDS):
            rounds.append({})
            for name, contestant in contestants.items():
                rounds[-1][name] = statistics.median(contestant())
                advance(1, name)
    return _table(setting, rounds)


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
    labels = torch.tensor(data.train.labels[: len(pixels)]).to(setting.device)
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
    clock, stages = _Clock(setting.device), [""]

    def log(line: Mapping[str, object]) -> None:
        if line["event"] == "start":
            stages.append(str(line["stage"]))
            clock.restart()
        if line["event"] == "step" and stages[-1] == "fit":  # stages before it, like a linear probe, do not count
            clock.tick()
            if len(clock.laps) == steps:
                raise _EnoughError

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


def _table(setting: Setting, rounds: Sequence[Mapping[str, float]]) -> str:
    lines = [
        f"{setting.model.label} on {setting.suite.name}, batch {setting.batch}, {setting.precision}: medians over "
        f"{len(rounds)} rounds of {setting.steps} steps; behind a ratio the middle half of the rounds",
        "",
        "| contestant | ms/step | images/s | / bare loop | / ft |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in rounds[0]:
        seconds = statistics.median(round_[name] for round_ in rounds)
        ratios = [_ratio(rounds, name, reference) for reference in ("bare loop", "ft")]
        lines.append(f"| {name} | {1000 * seconds:.1f} | {setting.batch / seconds:.0f} | {' | '.join(ratios)} |")
    machine = describe(setting.device)
    kept = {name: machine[name] for name in ("cpu", "gpu", "threads", "python")} | {
        "torch": machine["packages"]["torch"]
    }
    return "\n".join([*lines, "", json.dumps(kept)])


def _ratio(rounds: Sequence[Mapping[str, float]], name: str, reference: str) -> str:
    """Median over rounds, with the middle half of them."""
    if reference not in rounds[0]:
        return "—"
    found = [round_[name] / round_[reference] for round_ in rounds]
    low, middle, high = statistics.quantiles(found, n=4)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"
