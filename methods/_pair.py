"""Two models that answer together: the zero-shot model and its fine-tuned self."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.train import FeatureBatches

from .ft import FT

State = dict[str, Tensor]
COLDEST, HOTTEST = 0.01, 100.0


@dataclass(frozen=True)
class Pair:
    """Frozen copies of both models, and what fine-tuning moved."""

    before: Clip
    tuned: Clip
    start: State
    end: State

    def save(self, folder: Path, note: Mapping[str, Any]) -> None:
        """Write both as folders of their own, 'zero-shot' and 'tuned'; `note` says how they answer together."""
        self.before.save(folder / "zero-shot", note)
        self.tuned.save(folder / "tuned", note)

    def alone(self, scorer: Any) -> Candidates:
        """`scorer` as the only candidate, where the pair was loaded again."""
        return Candidates(self.tuned, {"final": lambda: scorer}, "final")

    def ends(self) -> dict[str, Callable[[], State]]:
        """The two models alone, as candidates."""
        return {"zero-shot": lambda: dict(self.start), "ft": lambda: dict(self.end)}


@dataclass(frozen=True)
class Temperatures:
    """What the logits of each model are divided by."""

    before: float = 1.0
    tuned: float = 1.0


@dataclass(frozen=True)
class Together(ABC):
    """Answers for an image with the logits of both models; each tower runs once for all candidates."""

    pair: Pair
    heat: Temperatures

    @cached_property
    def towers(self) -> tuple[Clip, Clip]:
        return self.pair.before, self.pair.tuned

    def logits(self, images: Tensor) -> Tensor:
        return self.answer(lambda logits: logits, *(tower.encode_image(images) for tower in self.towers))

    def answer(self, reduce: Any, *features: Tensor) -> Tensor:
        """Logits [B, K'] from unit features [B, D] of both towers; `reduce` keeps the classes of the split."""
        logits = (reduce(tower.classify(f)) for tower, f in zip(self.towers, features, strict=True))
        before, tuned = (each / t for each, t in zip(logits, (self.heat.before, self.heat.tuned), strict=True))
        return self.mix(before, tuned, features[1])

    @abstractmethod
    def mix(self, before: Tensor, tuned: Tensor, features: Tensor) -> Tensor:
        """Logits of the mixture from those of both models, each over its temperature; `features` are the tuned ones."""


def fit_pair(method: FT, clip: Clip, data: TrainSet, run: Run) -> Pair:
    """The pair of zero-shot and FT."""
    method.start(clip, data)
    start, before = clip.snapshot(), _exact_copy(clip)
    end = method.tune(clip, data, run).snapshot()
    return Pair(before, _exact_copy(clip), start, end)


def load_pair(load: Callable[[str], Clip]) -> Pair:
    """The pair that `Pair.save` wrote; `load` gives the model of a subfolder."""
    before, tuned = load("zero-shot"), load("tuned")
    tuned.train_only("image", "head")  # what `fit_pair` trained
    end, start = tuned.snapshot(), dict(before.state_dict())
    for parameter in tuned.parameters():
        parameter.requires_grad_(False)
    return Pair(before, tuned, {name: start[name] for name in end}, end)


def _exact_copy(clip: Clip) -> Clip:
    twin = clip.frozen_copy()
    twin.precision = "fp32"  # a copy of a model that computes otherwise while it is trained
    return twin


@torch.no_grad()
def calibrated(pair: Pair, before: FeatureBatches, tuned: FeatureBatches) -> Temperatures:
    """Temperatures at which each model's mean confidence on ID validation is its accuracy there."""
    labels = torch.tensor(before.data.val.labels)
    logits = (pair.before.classify(before.val).cpu(), pair.tuned.classify(tuned.val).cpu())
    return Temperatures(*(temperature(each, labels) for each in logits))


@torch.no_grad()
def temperature(logits: Tensor, labels: Tensor) -> float:
    """T at which the mean of max softmax(logits / T) is the accuracy; logits [N, K], labels [N].

    An accuracy that no T from 0.01 to 100 reaches gets the nearer end.
    """
    logits = logits.double()
    right = float((logits.argmax(dim=-1) == labels).double().mean())

    def gap(log_t: float) -> float:
        return float((logits / np.exp(log_t)).softmax(dim=-1).amax(dim=-1).mean()) - right

    low, high = float(np.log(COLDEST)), float(np.log(HOTTEST))
    if gap(low) <= 0:  # confidence falls as T rises
        return COLDEST
    if gap(high) >= 0:
        return HOTTEST
    return float(np.exp(brentq(gap, low, high)))


def mixed(before: Tensor, tuned: Tensor, weight: Tensor) -> Tensor:
    """log((1 - w) p_before + w p_tuned) from logits [B, K]; `weight` is one number, or [B, 1]."""
    return torch.logaddexp(tuned.log_softmax(dim=-1) + weight.log(), before.log_softmax(dim=-1) + (1 - weight).log())
