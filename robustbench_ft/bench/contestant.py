"""The contestants of `rbft bench`: a bare loop and a step of each method, with a clock and a count of operations."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from robustbench_ft import clip as clips
from robustbench_ft.clip import Clip
from robustbench_ft.clip.copies import to_device
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
        """A copy of the model: random weights of a large one take seconds to draw."""
        clip = copy.deepcopy(self._loaded)
        clip.precision = self.precision
        return clip.make_faster(self.compiled, self.channels_last)

    @cached_property
    def _loaded(self) -> Clip:
        return clips.load(self.model).to(self.device)

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


class EnoughError(Exception):
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
        clock = _Clock(self.setting)
        self.steps(clock.of, clock.restart, clock.tick)
        return clock.laps

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
            images = (to_device(pixels[rows], device).float() / 255 - mean) / std
            loss = F.cross_entropy(clip.classify(clip.encode_image(images)), labels[to_device(rows, device)])
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
            self.fit(watch, watch.step, steps=2)
        if not watch.found:
            raise RbftError(f"method '{self.name}' takes no step that could be measured; leave it out")
        stage = max(watch.found, key=lambda name: watch.found[name])
        return Work(watch.found[stage], stage)

    def seconds(self, work: Work) -> Sequence[float]:
        watch = _Laps(work.stage, _Clock(self.setting))
        try:
            self.fit(watch, watch.step, watch.clock.of + 1)
        except EnoughError:
            return watch.clock.laps
        raise RuntimeError(f"{self.name} ended before {watch.clock.of} steps of its stage {work.stage}")

    def fit(self, log: Any, taken: Callable[[], None], steps: int) -> None:
        """Fit; `taken` is called after each update. A log would hear of it later, where a GPU is read seldom."""
        setting = self.setting
        method = self.kind(**self.fields, recipe=replace(setting.recipe, steps=steps))
        run = Run(0, setting.device, setting.precision, log=log, companions=(lambda _: _Beside(taken),))
        method.fit(setting.load(), self.data, run)

    def skips(self) -> str:
        """Why it cannot be run here; empty where it can."""
        if not self.kind.trains:
            return "it trains nothing"
        return self.kind(**self.fields, recipe=self.setting.recipe).skip(self.setting.load(), self.data)


class _Beside:
    """A companion that has no state."""

    def __init__(self, taken: Callable[[], None]) -> None:
        self.taken = taken

    def after_step(self, step: int, of: int) -> None:
        self.taken()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class _Stages:
    """Hears a fit's log: which stage it is in."""

    stage = ""

    def __call__(self, line: Mapping[str, Any]) -> None:
        if line["event"] == "start":
            self.stage = str(line["stage"])
            self.began()

    def began(self) -> None: ...


class _Count(_Stages):
    """Notes the operations of the last step of each stage."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter, self.found, self.last = counter, dict[str, int](), 0

    def began(self) -> None:
        self.last = self.counter.get_total_flops()

    def step(self) -> None:
        now = self.counter.get_total_flops()
        self.found[self.stage], self.last = now - self.last, now


class _Laps(_Stages):
    """Ends a fit once the steps of one stage are timed."""

    def __init__(self, wanted: str, clock: "_Clock") -> None:
        self.wanted, self.clock = wanted, clock

    def began(self) -> None:
        self.clock.restart()

    def step(self) -> None:
        if self.stage == self.wanted:
            self.clock.tick()
            if self.clock.laps:
                raise EnoughError


class _Clock:
    """Seconds of each counted step of a turn, in `laps` once it is over.

    A GPU is waited for before the first counted step and after the last, so its queue stays filled in between as it is
    in training, and every step counts as their mean.
    """

    def __init__(self, setting: Setting) -> None:
        self.device, self.now = setting.device, time.process_time if setting.cpu_time else time.perf_counter
        self.of = WARMUP + setting.steps
        self.restart()

    def restart(self) -> None:
        self.laps: list[float] = []
        self.at = [self.now()]

    def tick(self) -> None:
        done = len(self.at)
        if self.device.type == "cuda" and done in (WARMUP, self.of):
            torch.cuda.synchronize(self.device)
        self.at.append(self.now())
        if done < self.of:
            return
        counted = self.at[WARMUP:]
        self.laps = [after - before for before, after in pairwise(counted)]
        if self.device.type == "cuda":
            self.laps = [(counted[-1] - counted[0]) / len(self.laps)] * len(self.laps)


SIDES = {"cpu": 1024, "cuda": 8192}  # of the matrices that are multiplied to see what the device can do
PRODUCTS = 4
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def peak_flops(device: torch.device, precision: str, cpu_time: bool = False) -> float:
    """Floating-point operations per second of a square matrix product in this precision: the best of a few."""
    n = SIDES[device.type]
    a, b = (torch.randn(n, n, device=device, dtype=TYPES.get(precision, torch.float32)) for _ in range(2))
    now, times = time.process_time if cpu_time else time.perf_counter, list[float]()
    for _ in range(1 + PRODUCTS):
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(now())
    return 2 * n**3 / min(after - before for before, after in pairwise(times))
