"""SWAD: the mean of all weights from the valley of the ID validation loss to its end (Cha et al., NeurIPS 2021)."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.train import Batches, train

from .ft import FT

State = dict[str, Tensor]
CHUNK = 256  # images of ID validation in one forward pass


@dataclass(frozen=True)
class SWAD(FT):
    """FT, with the mean over a stretch of its path that the loss on ID validation chooses.

    The path is cut into `evaluations` segments, each with the mean of its weights and the loss at its end. The valley
    begins at the first segment whose loss is the least of `n_converge` in a row, and ends where the least of
    `n_tolerance` in a row exceeds their mean times 1 + `tolerance`. Where it never begins, the mean of the last segment
    is taken. The whole path is needed, so the last weights are kept whatever the recipe's `select` says. Up to
    `n_tolerance` + 2 copies of the weights are held, and stand in checkpoints; the authors stop training where the
    valley ends, while here it goes on for the row 'last'.
    """

    averages: ClassVar[bool] = False  # it is one
    equation: ClassVar[str] = (
        "theta = mean of theta_t, t_s <= t <= t_e;  t_s: val loss the least of n_converge, "
        "t_e: least of n_tolerance above (1 + tolerance) mean of the n_converge"
    )
    source: ClassVar[str] = (
        "Cha et al., NeurIPS 2021; khanrc/swad@252190e, domainbed/swad.py, domainbed/trainer.py, config.yaml"
    )
    oracle: ClassVar[str] = "swad.npz: swad@252190e"
    traps: ClassVar[tuple[str, ...]] = (
        "the released code counts some segments around t_s twice and skips others; kept here",
        "it averages the means of segments, not iterates; the first segment has one iterate",
        "its tolerance is 0.3, but 0.2 on VLCS; how often it evaluates differs between data sets",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"last": ("tolerance", 0.3, "ft")}

    evaluations: int = 15  # of the run, beside the one after its first step: 1,000 steps of DomainNet's 15,000
    n_converge: int = 3  # N_s
    n_tolerance: int = 6  # N_e
    tolerance: float = 0.3  # r

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start(clip, data)
        average = ValleyAverage(clip, data, self, run)
        recipe = replace(self.resolved, select="last")
        last = train(clip, data, self.objective(clip, data, run), recipe, run, companions=[average]).snapshot()
        found = average.valley.finished()
        return Candidates(clip, {"last": lambda: last, "swad": lambda: found}, default="swad")

    def problems(self) -> list[str]:
        counts = {"evaluations": self.evaluations, "n_converge": self.n_converge, "n_tolerance": self.n_tolerance}
        found = [f"{name}={value} must be at least 1" for name, value in counts.items() if value < 1]
        return found + ([] if self.tolerance >= 0 else [f"tolerance={self.tolerance} must be at least 0"])


@dataclass
class Mean:
    """A running mean of weights. Its first update overwrites what it began with, as in the released code."""

    state: State
    n: int = 0

    def add(self, other: State) -> None:
        """Take in one more set of weights, in place."""
        self.n += 1
        for name, mean in self.state.items():
            mean.copy_(other[name] if self.n == 1 else mean + (other[name] - mean) / self.n)

    def copy(self) -> "Mean":
        return Mean({name: tensor.clone() for name, tensor in self.state.items()}, self.n)


@dataclass
class Segment:
    """The mean of the weights between two evaluations, the number of the second, and the loss there."""

    state: State
    place: int
    loss: float


@dataclass
class Valley:
    """LossValley of the released code: told of each segment, it says which are averaged."""

    n_converge: int
    n_tolerance: int
    tolerance: float
    recent: "deque[Segment]" = field(default_factory=deque[Segment])  # the last n_tolerance or n_converge
    mean: Mean | None = None  # once the loss has converged
    began: int = -1  # place of the segment at which it has
    threshold: float = 0.0
    dead: bool = False  # the valley has ended
    seen: int = 0

    def add(self, state: State, loss: float) -> None:
        """Hear of the next segment."""
        if self.dead:
            return
        self.recent.append(Segment(state, self.seen, loss))
        self.seen += 1
        while len(self.recent) > max(self.n_converge, self.n_tolerance):
            self.recent.popleft()
        if self.mean is None:
            if self.seen >= self.n_converge:
                self.converge()
            return
        window = self.smooth()
        if window[0].place < self.began:
            return
        if min(segment.loss for segment in window) > self.threshold:
            self.dead = True
        else:
            self.mean.add(window[0].state)

    def state_dict(self) -> dict[str, Any]:
        mean = None if self.mean is None else {"state": self.mean.state, "n": self.mean.n}
        return vars(self) | {"recent": [vars(segment) for segment in self.recent], "mean": mean}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        for name in ("began", "threshold", "dead", "seen"):
            setattr(self, name, state[name])
        self.recent = deque(Segment(on_cpu(s["state"]), s["place"], s["loss"]) for s in state["recent"])
        self.mean = None if state["mean"] is None else Mean(on_cpu(state["mean"]["state"]), state["mean"]["n"])

    def smooth(self) -> list[Segment]:
        """The last `n_tolerance` segments."""
        return list(self.recent)[-self.n_tolerance :]

    def converge(self) -> None:
        """Begin the valley where the oldest of the last `n_converge` segments has the least loss."""
        window = list(self.recent)[-self.n_converge :]
        losses = [segment.loss for segment in window]
        if losses.index(min(losses)) != 0:
            return
        self.began, self.mean = window[0].place, Mean(window[0].state).copy()
        self.threshold = sum(losses) / len(losses) * (1 + self.tolerance)
        if self.n_tolerance < self.n_converge:
            early = window[1 : 1 + self.n_converge - self.n_tolerance]
        else:
            more = self.n_tolerance - self.n_converge
            early = self.smooth()[: more + 1] if more else []
            above = [k for k, segment in enumerate(early) if segment.loss > self.threshold]
            early = early[(above[-1] + 1 if above else 0) + 1 :]
        for segment in early:
            self.mean.add(segment.state)

    def finished(self) -> State:
        """The weights of the whole valley, once the last segment was heard of. May be asked for again."""
        if self.mean is None:
            return self.recent[-1].state
        mean, rest = self.mean.copy(), [] if self.dead else self.smooth()[1:]
        for k, segment in enumerate(rest):
            if min(later.loss for later in rest[k:]) > self.threshold:
                break
            mean.add(segment.state)
        return mean.state


class ValleyAverage:
    """A companion of training: averages a segment, evaluates at its end, and tells the valley."""

    def __init__(self, clip: Clip, data: TrainSet, method: SWAD, run: Run) -> None:
        self.clip, self.evaluations = clip, method.evaluations
        self.valley = Valley(method.n_converge, method.n_tolerance, method.tolerance)
        self.segment = Mean(clip.snapshot())
        once = replace(method.resolved, augment="none", shuffle=False, steps=0, epochs=1, batch=CHUNK)
        self.val, self.n = Batches(clip, data.val, once, run.branch("val")), len(data.val)

    @torch.no_grad()
    def after_step(self, step: int, of: int) -> None:
        now = self.clip.snapshot()
        self.segment.add(now)
        if step % max(1, of // self.evaluations) and step + 1 < of:
            return
        self.valley.add(on_cpu(self.segment.state), self.loss())
        self.segment = Mean(now)

    @torch.no_grad()
    def loss(self) -> float:
        """Mean cross-entropy of ID validation; infinite where it is not finite, which `train` reports."""
        training = self.clip.training
        self.clip.eval()
        with self.clip.exact():
            batches = (self.val(step) for step in range(math.ceil(self.n / CHUNK)))
            parts = [F.cross_entropy(self.clip.classify(b.features), b.labels, reduction="sum") for b in batches]
        self.clip.train(training)
        mean = float(torch.stack(parts).sum()) / self.n
        return mean if math.isfinite(mean) else math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"segment": dict(self.segment.state), "n": self.segment.n, "valley": self.valley.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.segment = Mean({name: tensor.clone() for name, tensor in state["segment"].items()}, state["n"])
        self.valley.load_state_dict(state["valley"])


def on_cpu(state: State) -> State:
    """The same tensors in main memory: there are many of them."""
    return {name: tensor.cpu() for name, tensor in state.items()}
