"""A companion beside the last stage of another method: what makes `NAME+ema` and `NAME+path` possible."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from robustbench_ft import Candidates, Clip, Method, Run, TrainSet
from robustbench_ft.train import Companion

Kind = TypeVar("Kind", bound=Companion)


def fit_beside(
    method: Method, clip: Clip, data: TrainSet, run: Run, make: Callable[[Clip], Kind]
) -> tuple[Clip | Candidates, Kind]:
    """What `method` fits, and the companion that `make` gave for its last stage."""
    made: list[Kind] = []

    def beside(model: Clip) -> Kind:
        made.append(make(model))
        return made[-1]

    fitted = method.fit(clip, data, replace(run, companions=(*run.companions, beside)))
    return fitted, made[-1]
