"""Path: fine-tune, and keep the weights of equally spaced steps as candidates (learning curves, diagnostics)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from robustbench_ft import Candidates, Clip, Method, RbftError, Run, TrainSet

from ._beside import fit_beside
from .ft import FT


@dataclass(frozen=True)
class TrainingPath(FT):
    """FT, whose weights after `points` equally spaced updates are candidates 'step-<n>'; 'end' is FT itself.

    'end' is what FT alone returns, the headline row. Where the recipe selects the best checkpoint, 'end' is that one,
    and the last 'step-<n>' is the end of training. `NAME+path` follows the last stage of another method.

    It watches and changes nothing. Memory of the host holds `points` copies of all that moves, and so does each resume
    checkpoint; with `select = "best"` it is twice as much. `rbft run --save-candidates` keeps their weights.
    """

    averages: ClassVar[bool] = False  # the path has many models, so it has no one path to average
    equation: ClassVar[str] = "theta_n for n = round(k N / points), k = 1 ... points, of N updates; and what FT returns"
    source: ClassVar[str] = "no paper: it shows the path of a method, as Fig. 1 of Nam, Heo, Lee, ICLR 2024 does"
    oracle: ClassVar[str] = "none: its weights are held to those of ft, and to those of a run that was stopped there"
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"end": ("points", 1, "ft")}

    points: int = 5  # of training that are kept

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        return self.around(FT(self.recipe), clip, data, run)

    def around(self, method: Method, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        """`NAME+path`: the steps of the last stage of `method`."""
        fitted, walk = fit_beside(method, clip, data, run, lambda model: Walk(model, self.points))
        if not isinstance(fitted, Clip):
            raise RbftError(
                f"{type(method).__name__} gives several models, and only a single one has a path; use NAME+path with a "
                "method of one model, e.g. ft or lipsum"
            )
        end = fitted.snapshot()
        steps = {f"step-{n}": lambda n=n: walk.seen[n] for n in sorted(walk.seen)}
        return Candidates(fitted, {**steps, "end": lambda: end}, default="end")

    def problems(self) -> list[str]:
        return [] if self.points >= 1 else [f"points={self.points} must be at least 1"]


class Walk:
    """A companion of training: the weights after each of the steps that are kept, on the CPU.

    What was seen stays seen: selecting an earlier checkpoint as the best takes back none of the later steps.
    """

    def __init__(self, clip: Clip, points: int) -> None:
        self.clip, self.points = clip, points
        self.seen: dict[int, dict[str, Tensor]] = {}  # number of updates made -> all that moves

    def after_step(self, step: int, of: int) -> None:
        if step + 1 in {round(k * of / self.points) for k in range(1, self.points + 1)}:
            self.seen[step + 1] = {name: tensor.cpu() for name, tensor in self.clip.snapshot().items()}

    def state_dict(self) -> dict[str, Any]:
        return {str(n): weights for n, weights in self.seen.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], /) -> None:
        self.seen |= {int(n): {name: t.cpu() for name, t in weights.items()} for n, weights in state.items()}
