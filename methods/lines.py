"""LiNeS: scale what fine-tuning moved by depth, early layers least (Wang et al., ICLR 2025)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from robustbench_ft import Candidates, Clip, Run, TrainSet

from ._members import State
from .ft import FT

GRID = tuple(round(0.1 * k, 1) for k in range(11))
LAYER = re.compile(r"\.(?:resblocks|blocks|stages|layers)\.(\d+)\.|\.layer(\d+)\.")  # open_clip's and timm's towers


@dataclass(frozen=True)
class LiNeS(FT):
    """Layer l of L keeps alpha + (1 - alpha) * l / (L - 1) of its move: the last all of it, the first alpha.

    Everything outside the layers keeps alpha, as in the released code: patches, positions, the last norm, the
    projection, and here also the head, which the released code does not train. Layers are transformer blocks; of
    convolutional towers, stages. The embedded model has three.
    """

    averages: ClassVar[bool] = False
    equation: ClassVar[str] = "theta_l = theta0_l + s_l tau_l,  s_l = alpha + (1 - alpha) l / (L - 1), l = 0 .. L - 1"
    source: ClassVar[str] = "Wang et al., ICLR 2025; wang-kee/LiNeS@43a7bdd, src/eval/eval.py"
    oracle: ClassVar[str] = "merges.npz: LiNeS@43a7bdd"
    traps: ClassVar[tuple[str, ...]] = (
        "alpha is chosen there with labels of control tasks; ID validation alone chooses 1, so it is fixed here",
        "the released code finds a layer by '.0.', '.1.' ... anywhere in a name: in towers with stages and blocks that "
        "is the block's number where it is the smaller one",
        "alpha 0 is not the zero-shot model: the last layers stay tuned",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"alpha-1": ("alpha", 1.0, "ft")}

    alpha: float = 0.5  # of the headline row

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start(clip, data)
        start = clip.snapshot()
        end = self.tune(clip, data, run).snapshot()
        axis = {f"alpha-{alpha:g}": alpha for alpha in sorted({*GRID, self.alpha})}
        members = {name: partial(scaled, start, end, alpha) for name, alpha in axis.items()}
        return Candidates(clip, members, default=f"alpha-{self.alpha:g}", axis=axis)

    def skip(self, clip: Clip, data: TrainSet) -> str:
        known = depths(name for name, _ in clip.named_parameters() if name.startswith("model.visual."))
        return "" if len(set(known.values())) > 1 else "no numbered layers were found in its image tower"

    def problems(self) -> list[str]:
        return [] if 0 <= self.alpha <= 1 else [f"alpha={self.alpha} must be between 0 and 1"]


def scaled(start: State, end: State, alpha: float) -> State:
    """The state whose layers keep a part of their moves that grows with depth."""
    depth = depths(start)
    kept = {name: alpha + (1 - alpha) * depth[name] if name in depth else alpha for name in start}
    return {name: (1 - kept[name]) * tensor + kept[name] * end[name] for name, tensor in start.items()}


def depths(names: Iterable[str]) -> dict[str, float]:
    """Name -> l / (L - 1) of its layer, in [0, 1]; names outside the layers are left out."""
    found = {name: LAYER.search(name) for name in names}
    layers = {name: int(match[1] or match[2]) for name, match in found.items() if match}
    first, last = (min(layers.values()), max(layers.values())) if layers else (0, 0)
    return {name: (layer - first) / max(1, last - first) for name, layer in layers.items()}
