"""Fails: zero-shot, or one of the ways in which a fit ends without a model."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from robustbench_ft import Clip, Method, Run, TrainSet
from robustbench_ft.train import train

WAYS = ("", "error", "exit", "vanish", "kill")


@dataclass(frozen=True)
class Fails(Method):
    """The seed says in which way, or `way` does; with `once`, a file that it makes, it fails the first time alone."""

    way: str = "seed"
    once: str = ""

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        clip.start_from_zero_shot(data.task)
        clip.train_only("head")
        way = WAYS[run.seed % len(WAYS)] if self.way == "seed" else self.way
        if self.once and Path(self.once).exists():
            way = ""
        if self.once:
            Path(self.once).touch()
        if way:
            print("the end is near", flush=True)
        if way == "error":
            raise ValueError("two\nlines")
        if way == "exit":
            sys.exit(0)
        if way == "vanish":
            os._exit(0)
        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return train(clip, data, lambda batch: {"nothing": clip.head.sum() * 0.0}, self.resolved, run)
