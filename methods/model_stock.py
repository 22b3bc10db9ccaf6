"""Model Stock: a few fits, averaged and pulled to the start by the angle between them (Jang, Yun, Han, ECCV 2024)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_ft import Candidates, Clip, Run, TrainSet

from ._members import Members, State, fixed, mean, named

NOTHING = 1e-20  # the norm of what did not move


@dataclass(frozen=True)
class ModelStock(Members):
    """Each tensor has a ratio t of its own, from the cosine c of the angle between the members' differences to theta0.

    For more than two members, the angles of all pairs are averaged, as fusion_bench does; of one member t is 1. The
    paper also merges again and again while it trains; this is the merge at the end. How often it merges, and what then
    becomes of the optimisers' moments and of the schedule, no released code says: the authors' repository
    (naver-ai/model-stock@e4d75af) is a README.
    """

    equation: ClassVar[str] = "theta = t mean_k theta_k + (1 - t) theta0,  t = k c / (1 + (k - 1) c), per tensor"
    source: ClassVar[str] = "Jang, Yun, Han, ECCV 2024; tanganke/fusion_bench@54c9e8c, method/model_stock"
    oracle: ClassVar[str] = "merges.npz: fusion_bench@54c9e8c; the authors' repository holds no code"
    traps: ClassVar[tuple[str, ...]] = (
        "a negative cosine gives a t below 0, or a huge one near c = -1 / (k - 1): `clip_ratio` keeps t in [0, 1]",
        "fusion_bench adds 1e-8 to the product of the norms: for a bias after few small steps it is most of that, so "
        "the cosine and t come out near 0; here nothing is added",
        "members that differ only in the order of images are nearly parallel on small data: t is nearly 1",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {
        "stock": ("members", 1, "ft"),
        "uniform": ("members", 1, "ft"),
    }

    members: int = 2  # fits in one cell
    clip_ratio: bool = True  # keep t in [0, 1]

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        start, ends = self.states(clip, data, run)
        soups = {"uniform": fixed(mean(ends)), "stock": fixed(self.stock(start, ends))}
        return Candidates(clip, named(ends) | soups, default="stock")

    def stock(self, start: State, ends: Sequence[State]) -> State:
        """The merged state."""
        centre = mean(ends)
        ratios = {name: self.ratio([end[name] - start[name] for end in ends]) for name in start}
        return {name: t * centre[name] + (1 - t) * start[name] for name, t in ratios.items()}

    def ratio(self, moves: Sequence[Tensor]) -> Tensor:
        """t of one tensor, from what each member has moved it by."""
        k = len(moves)
        if k == 1:
            return torch.ones((), device=moves[0].device)
        cosine = torch.stack([angle(a, b) for a, b in combinations(moves, 2)]).mean().cos()
        t = k * cosine / ((k - 1) * cosine + 1)
        return (t.clamp(0, 1) if self.clip_ratio else t).to(moves[0].dtype)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Between two tensors of one shape, in radians; a right one where one of them is zero."""
    cosine = F.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0, eps=NOTHING)
    return cosine.clamp(-1, 1).acos()
