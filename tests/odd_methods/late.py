"""Late: leaves a candidate behind that reads a shift when it is made, after fit has returned."""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_ft import Candidates, Clip, Method, Run, TrainSet
from robustbench_ft.clip import State
from robustbench_ft.suite_ref import load as load_suite


@dataclass(frozen=True)
class Late(Method):
    """Its only member asks the suite for a split."""

    trains: ClassVar[bool] = False
    split: str = "dim"

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        clip.start_from_zero_shot(data.task)

        def member() -> State:
            load_suite("tiny").split(self.split)
            return clip.snapshot()

        return Candidates(clip, {"only": member}, "only")
