"""WiSE-FT: FT, then the straight line in weight space back to the zero-shot model (Wortsman et al., 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from robustbench_ft import Candidates, Clip, Method, RbftError, Run, TrainSet
from robustbench_ft.clip import interpolate
from robustbench_ft.recipe import R_WISE, Recipe

from .ft import FT

ALIASES = ("wise",)
GRID = tuple(round(0.1 * k, 1) for k in range(11))


State = dict[str, Tensor]


@dataclass(frozen=True)
class WiseFT(FT):
    """theta = (1 - alpha) * zero-shot + alpha * fine-tuned, head included. Every alpha of the grid is a candidate."""

    averages: ClassVar[bool] = False  # it returns a line, not a single model
    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_WISE}
    equation: ClassVar[str] = "theta = (1 - alpha) theta0 + alpha theta_FT, of all weights and the head"
    source: ClassVar[str] = "Wortsman et al., CVPR 2022; mlfoundations/wise-ft@58b7a4b, src/wise_ft.py"
    oracle: ClassVar[str] = "wiseft_merge.npz: wise-ft@58b7a4b"
    traps: ClassVar[tuple[str, ...]] = (
        "alpha chosen on ID validation ends near 1 and gives the gain away; alpha chosen on shifts is an oracle row",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {
        "alpha-1": ("alpha", 1.0, "ft"),
        "alpha-0": ("alpha", 0.0, "zero-shot"),
    }

    alpha: float = 0.5  # of the headline row; the paper's choice when nothing may be tuned

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start(clip, data)
        zero_shot = clip.snapshot()
        return self.line(clip, zero_shot, self.tune(clip, data, run).snapshot())

    def around(self, method: Method, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        """`NAME+wise-ft`: the line from zero-shot to what `method` gives, along all that it moved."""
        clip.start_from_zero_shot(data.task, method.resolved.head)
        zero_shot = _floats(clip)
        tuned = _headline(method.fit(clip, data, run))
        moved = tuned.snapshot().keys() | {"head", "bias"}
        after = {name: tensor for name, tensor in _floats(tuned).items() if name in zero_shot}
        names = [name for name in after if name in moved or not after[name].equal(zero_shot[name])]
        return self.line(tuned, {name: zero_shot[name] for name in names}, {name: after[name] for name in names})

    def line(self, clip: Clip, zero_shot: State, tuned: State) -> Candidates:
        """All candidates between two states."""
        axis = {f"alpha-{alpha:g}": alpha for alpha in sorted({*GRID, self.alpha})}
        members = {name: partial(interpolate, zero_shot, tuned, alpha) for name, alpha in axis.items()}
        return Candidates(clip, members, default=f"alpha-{self.alpha:g}", axis=axis)

    def problems(self) -> list[str]:
        return [] if 0 <= self.alpha <= 1 else [f"alpha={self.alpha} must be between 0 and 1"]


def _floats(clip: Clip) -> State:
    """Copies of all parameters and buffers that are not counts."""
    return {n: t.detach().clone() for n, t in clip.state_dict().items() if t.is_floating_point()}


def _headline(fitted: Clip | Candidates) -> Clip:
    """The model of the headline row, with its tensors in place."""
    model = fitted.use(fitted.default) if isinstance(fitted, Candidates) else fitted
    if not isinstance(model, Clip):
        raise RbftError("'+wise-ft' needs weights, and what was fitted answers with several models: `single_model`")
    return model
