"""Merges of several fits by their task vectors: theta0 + scale * m(tau_1 .. tau_K), tau_k = theta_k - theta0."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from robustbench_ft import Candidates, Clip, Run, TrainSet

from ._members import Members, State, rating

CHOSEN = -1.0  # value of `Merge.scale`
Vector = State  # a task vector: what a fit moved each tensor by


@dataclass(frozen=True)
class Merge(Members):
    """Every scale of the grid is a candidate 'lambda-...'; the headline is the one that ID validation rates best.

    All that the members move is merged, head included; logit_scale does not move in them.
    """

    grid: ClassVar[tuple[float, ...]] = tuple(round(0.1 * k, 1) for k in range(11))

    scale: float = CHOSEN  # lambda of the headline; -1: the best of the grid on ID validation, of equals the smallest

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        start, ends = self.states(clip, data, run)
        vectors = [{name: end[name] - tensor for name, tensor in start.items()} for end in ends]
        return self.line(clip, data, run, start, self.merged(vectors, run))

    def line(self, clip: Clip, data: TrainSet, run: Run, start: State, vector: Vector) -> Candidates:
        """All candidates along one merged vector."""
        scales = sorted({*self.grid} | ({self.scale} if self.scale != CHOSEN else set()))
        axis = {f"lambda-{scale:g}": scale for scale in scales}
        members = {name: partial(add, start, vector, scale) for name, scale in axis.items()}
        best = f"lambda-{self.scale:g}"
        if self.scale == CHOSEN:
            rate = rating(clip, data, run)
            rates = {name: rate(state()) for name, state in members.items()}
            best = max(rates, key=lambda name: rates[name])  # of equals the first
            run.log({"event": "lambda", "chosen": axis[best], "ratings": rates})
        return Candidates(clip, members, default=best, axis=axis)

    def merged(self, vectors: Sequence[Vector], run: Run) -> Vector:
        """m of the members' task vectors."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        ok = self.scale == CHOSEN or self.scale >= 0
        return super().problems() + ([] if ok else [f"scale={self.scale} must be at least 0, or -1 to choose it"])


def add(start: State, vector: Vector, scale: float) -> State:
    """start + scale * vector."""
    return {name: tensor + scale * vector[name] for name, tensor in start.items()}


def total(vectors: Sequence[Vector]) -> Vector:
    """Sum of task vectors."""
    return {name: sum((v[name] for v in vectors[1:]), vectors[0][name]) for name in vectors[0]}
