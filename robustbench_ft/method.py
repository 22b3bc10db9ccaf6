"""The contract of a method: a frozen dataclass of hyper-parameters with `fit`, and what `fit` is given.

`fit` sees ID train and ID validation. No path leads from it to a shift: `TrainSet` holds none, and suites and drawing
are sealed until the last prediction is made.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from .clip import Clip, State
from .data import Split
from .progress import Progress
from .prompts import Task
from .recipe import Recipe
from .suite import ACCURACY


@dataclass(frozen=True)
class TrainSet:
    """ID data, and the classes and prompts that name its labels."""

    train: Split
    val: Split  # selects checkpoints and candidates; never trained on
    task: Task
    metric: str = ACCURACY  # of `val`: what checkpoints are selected by, a name of `metrics.score`


@dataclass(frozen=True)
class Run:
    """What one execution of `fit` may rely on besides the data."""

    seed: int
    device: torch.device
    precision: str = "fp32"  # or 'bf16': autocast in the blocks of the image tower, while training
    folder: Path | None = None  # for resume checkpoints; None: keep none
    progress: Progress = field(default_factory=Progress)
    log: Callable[[Mapping[str, Any]], None] = lambda line: None
    checkpoint_seconds: float = 30.0
    stopped: Callable[[], bool] = lambda: False  # asked after every step; True ends the fit in good order
    workers: int = 0  # threads that decode images; 0: as many as there are cores
    gpu_decode: bool = False  # decode training JPEGs on the GPU

    def generator(self, stream: str, step: int = 0) -> torch.Generator:
        """A CPU generator for one named stream at one step: the same wherever and whenever it is asked for.

        Streams are hashed from (seed, name, step), so a new one moves no other and nothing needs saving to resume.
        """
        digest = hashlib.sha256(f"{self.seed}/{stream}/{step}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True)
class Family:
    """Several models that one fit gives, e.g. the alphas of WiSE-FT: one module, and a state for each candidate."""

    clip: Clip
    members: Mapping[str, Callable[[], State]]  # candidate name -> its tensors, made when needed
    default: str  # the method's headline row
    axis: Mapping[str, float] = field(default_factory=dict[str, float])  # candidate -> its alpha, for curves

    def use(self, candidate: str) -> Clip:
        """The module with this candidate's tensors in place."""
        self.clip.restore(self.members[candidate]())
        return self.clip


@dataclass(frozen=True)
class Method(ABC):
    """One way to fine-tune. Fields are its hyper-parameters: `--set name=value` checks names and types against them."""

    version: ClassVar[int] = 1  # raise it whenever a number could change
    trains: ClassVar[bool] = True  # False: nothing is fitted, so there is no recipe and no seed to vary
    transductive: ClassVar[bool] = False  # True: a prediction depends on the other images of its split
    published: ClassVar[Mapping[str, Recipe]] = {}  # suite name -> the authors' recipe

    recipe: Recipe | None = None  # resolved by the plan before `fit`: --set, the method's own, or the suite's

    @abstractmethod
    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Family:
        """Train `clip` in place and return it, or a family of candidates."""

    def skip(self, clip: Clip) -> str:
        """Why this method cannot be used with this model; empty when it can. Asked before a record is begun."""
        return ""

    def problems(self) -> list[str]:
        """What is wrong with the values of the fields, one line each; empty when nothing is."""
        return []

    @property
    def resolved(self) -> Recipe:
        """The recipe, once the plan has put it in place."""
        if self.recipe is None:
            raise ValueError(f"{type(self).__name__} has no recipe yet: the plan resolves it before fit")
        return self.recipe
