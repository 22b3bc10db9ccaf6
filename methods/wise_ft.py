"""WiSE-FT: FT, then the straight line in weight space back to the zero-shot model (Wortsman et al., 2022)."""

from dataclasses import dataclass
from functools import partial

from robustbench_ft import Clip, Family, Run, TrainSet
from robustbench_ft.clip import interpolate

from .ft import FT

GRID = tuple(round(0.1 * k, 1) for k in range(11))


@dataclass(frozen=True)
class WiseFT(FT):
    """theta = (1 - alpha) * zero-shot + alpha * fine-tuned, head included. Every alpha of the grid is a candidate."""

    alpha: float = 0.5  # of the headline row; the paper's choice when nothing may be tuned

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Family:
        self.start(clip, data)
        zero_shot = clip.snapshot()
        tuned = self.tune(clip, data, run).snapshot()
        axis = {f"alpha-{alpha:g}": alpha for alpha in sorted({*GRID, self.alpha})}
        members = {name: partial(interpolate, zero_shot, tuned, alpha) for name, alpha in axis.items()}
        return Family(clip, members, default=f"alpha-{self.alpha:g}", axis=axis)

    def problems(self) -> list[str]:
        return [] if 0 <= self.alpha <= 1 else [f"alpha={self.alpha} must be between 0 and 1"]
