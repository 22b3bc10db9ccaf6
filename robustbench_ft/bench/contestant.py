"""The contestants of `rbft bench`: a bare loop and a step of each method, with a clock and a count of operations."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from robustbench_ft import clip as clips
from robustbench_ft.clip import Clip
from robustbench_ft.data import Split
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.model_ref import ModelRef
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import Suite

from . import flops

WARMUP = 2  # steps that are not counted


@dataclass(frozen=True)
class Setting:
    """What is measured, on what."""

    suite: Suite
    model: ModelRef
    device: torch.device
    precision: str
    batch: int
    steps: int  # counted steps of each contestant in each round, after `WARMUP` that are not
    rounds: int = 0  # 0: as many as fit into `step.SECONDS`
    compiled: bool = False
    channels_last: bool = False
    cpu_time: bool = False  # count the CPU seconds of this process, not those of the wall

    @property
    def recipe(self) -> Recipe:
        """The suite's, without validation, and long enough."""
        return replace(
            self.suite.recipe, batch=self.batch, steps=WARMUP + self.steps + 1, epochs=0, validate_every=0,
            select="last", lr=1e-4,
        )  # fmt: skip

    def load(self) -> Clip:
        clip = clips.load(self.model).to(self.device)
        clip.precision = self.precision
        return clip.make_faster(self.compiled, self.channels_last)

    def data(self) -> TrainSet:
        """A few batches of ID training, so that what a method does before its first step is short, too."""
        return TrainSet(
            _first(self.suite.split(self.suite.train), 2 * self.batch),
            _first(self.suite.split(self.suite.val), self.batch),
            Task(self.suite.classes, self.suite.templates),
            suite=self.suite.name,
        )


def _first(split: Split, n: int) -> Split:
    """`n` examples from all over the split, at most."""
    return split.take(np.linspace(0, len(split) - 1, min(n, len(split))).astype(np.int64))


@dataclass(frozen=True)
class Work:
    """One optimiser step, counted."""

    flops: int
    stage: str = ""  # which stage of the method it belongs to


class Contestant(Protocol):
    @property
    def name(self) -> str: ...

    def count(self) -> Work:
        """Take a step or two, and count the operations of the last."""
        ...

    def seconds(self, work: Work) -> Sequence[float]:
        """Of each counted step of one turn."""
        ...


class _EnoughError(Exception):
    """Ends a fit once its steps are counted."""


@dataclass(frozen=True)
class BareLoop:
    """The least a training loop can do on the same uint8 tensors: index, normalise, forward, backward, step."""

    setting: Setting
    data: TrainSet
    name: str = "bare loop"

    def count(self) -> Work:
        with flops.counter() as counter:
            totals: list[int] = []
            self.steps(2, lambda: None, lambda: totals.append(counter.get_total_flops()))
            return Work(totals[1] - totals[0])

    def seconds(self, work: Work) -> Sequence[float]:
        clock = _Clock(self.setting.device, self.setting.cpu_time)
        self.steps(WARMUP + self.setting.steps, clock.restart, clock.tick)
        return clock.laps[WARMUP:]

    def steps(self, n: int, began: Callable[[], None], done: Callable[[], None]) -> None:
        """Take `n` steps; `began` is called before the first, `done` after each."""
        clip, batch, device = self.setting.load(), self.setting.batch, self.setting.device
        clip.start_from_zero_shot(self.data.task)
        clip.train_only("image", "head")
        loader = Loader(clip, self.data.train)
        mean, std = loader.mean.to(device), loader.std.to(device)
        pixels = loader.read(range(len(self.data.train)))
        labels = torch.tensor(self.data.train.labels).to(device)
        optimizer = torch.optim.AdamW([p for p in clip.parameters() if p.requires_grad], lr=1e-4, fused=True)
        clip.train()
        began()
        for _ in range(n):
            rows = torch.randint(len(pixels), (batch,))
            images = (pixels[rows].to(device).float() / 255 - mean) / std
            loss = F.cross_entropy(clip.classify(clip.encode_image(images)), labels[rows.to(device)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done()


@dataclass(frozen=True)
class Steps:
    """Steps of a method's own `fit`, with its augmentation, clipping and logging; validation and checkpoints apart."""

    setting: Setting
    data: TrainSet
    name: str
    kind: type[Method]
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])  # settings that are not the default

    def count(self) -> Work:
        """Of the stage whose steps are the dearest: of LP-FT it is not the probe."""
        with flops.counter() as counter:
            watch = _Count(counter)
            self.fit(watch, steps=2)
        if not watch.found:
            raise RbftError(f"method '{self.name}' takes no step that could be measured; leave it out")
        stage = max(watch.found, key=lambda name: watch.found[name])
        return Work(watch.found[stage], stage)

    def seconds(self, work: Work) -> Sequence[float]:
        steps = WARMUP + self.setting.steps
        watch = _Laps(work.stage, steps, _Clock(self.setting.device, self.setting.cpu_time))
        try:
            self.fit(watch, steps + 1)
        except _EnoughError:
            return watch.clock.laps[WARMUP:]
        raise RuntimeError(f"{self.name} ended before {steps} steps of its stage {work.stage}")

    def fit(self, log: Any, steps: int) -> None:
        setting = self.setting
        method = self.kind(**self.fields, recipe=replace(setting.recipe, steps=steps))
        method.fit(setting.load(), self.data, Run(0, setting.device, setting.precision, log=log))

    def skips(self) -> str:
        """Why it cannot be run here; empty where it can."""
        if not self.kind.trains:
            return "it trains nothing"
        return self.kind(**self.fields, recipe=self.setting.recipe).skip(self.setting.load(), self.data)


class _Count:
    """Hears a fit's log, and notes the operations of the last step of each stage."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter, self.found, self.stage, self.last = counter, dict[str, int](), "", 0

    def __call__(self, line: Mapping[str, Any]) -> None:
        now = self.counter.get_total_flops()
        if line["event"] == "start":
            self.stage = str(line["stage"])
        if line["event"] == "step":
            self.found[self.stage] = now - self.last
        self.last = now


class _Laps:
    """Hears a fit's log, and ends it once `steps` steps of one stage are timed."""

    def __init__(self, stage: str, steps: int, clock: "_Clock") -> None:
        self.stage, self.steps, self.clock, self.now = stage, steps, clock, ""

    def __call__(self, line: Mapping[str, Any]) -> None:
        if line["event"] == "start":
            self.now = str(line["stage"])
            self.clock.restart()
        if line["event"] == "step" and self.now == self.stage:
            self.clock.tick()
            if len(self.clock.laps) == self.steps:
                raise _EnoughError


class _Clock:
    """Seconds between ticks, with the device's queue emptied at each."""

    def __init__(self, device: torch.device, cpu_time: bool = False) -> None:
        self.device, self.now = device, time.process_time if cpu_time else time.perf_counter
        self.restart()

    def restart(self) -> None:
        self.laps: list[float] = []
        self.last = self.now()

    def tick(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = self.now()
        self.laps.append(now - self.last)
        self.last = now


SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices that are multiplied to see what the device can do
PRODUCTS = 4
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def peak_flops(device: torch.device, precision: str, cpu_time: bool = False) -> float:
    """Floating-point operations per second of a square matrix product in this precision: the best of a few."""
    n = SIDES[device.type]
    a, b = (torch.randn(n, n, device=device, dtype=TYPES.get(precision, torch.float32)) for _ in range(2))
    clock = _Clock(device, cpu_time)
    clock.tick()
    for _ in range(PRODUCTS):
        torch.mm(a, b)
        clock.tick()
    return 2 * n**3 / min(clock.laps[1:])
