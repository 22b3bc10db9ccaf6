"""LDIFS: FT that keeps the features of several depths where they were (Mukhoti et al., TMLR 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.recipe import R_WISE, Recipe
from robustbench_ft.train import LossTerms, Objective

from ._drift import recorded
from ._places import NONE_KNOWN, exact_where_rounded, places, tokens
from .ft import FT

FLOOR = 1e-10  # added to norms

Over = Literal["tokens", "channels"]


@dataclass(frozen=True)
class LDIFS(FT):
    """nll + strength * mean over depths of the squared distance of normalised features to the pre-trained ones.

    Five depths, as in the authors' code: what enters the first block, and the last block of each quarter (the stem and
    the stages, in a convolutional network, for which they have none). The output of the tower is not among them.

    That code normalises along the tokens, each channel by itself (`unit` 'tokens'), and takes the mean over all
    tokens and channels; LPIPS, its model, normalises along the channels. The authors start from a linear probe unless
    told otherwise; here training starts from the zero-shot head, their `--zs-init`. A convolutional tower computes in
    float32 here, whatever the precision.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": replace(R_WISE, lr=1e-5, batch=128)}
    equation: ClassVar[str] = "L = CE + strength mean_x mean_l mean_tc (u_l - u0_l)^2,  u = f / |f| along the tokens"
    source: ClassVar[str] = "Mukhoti, Gal, Torr, Dokania, TMLR 2024; omegafragger/ldifs_code@c7e82a4, loss/ldifs.py"
    oracle: ClassVar[str] = "ldifs.npz: ldifs_code@c7e82a4"
    traps: ClassVar[tuple[str, ...]] = (
        "the released code normalises along dimension 1, which is the channels of a map, but the tokens of a ViT",
        "it cuts 12 blocks in four by number: of 24 blocks it would leave the upper half out",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    strength: float = 10.0  # lambda
    unit: Over = "tokens"  # normalise along the tokens or along the channels

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, anchor = super().objective(clip, data, run), clip.frozen_copy()

        def loss(batch: Batch) -> LossTerms:
            with exact_where_rounded(clip, anchor):
                with torch.no_grad(), recorded(places(anchor, "embedded")) as before:
                    anchor.encode_image(batch.images)
                with recorded(places(clip, "embedded")) as now:
                    terms = fine_tuning(batch)
            return {**terms, "depth_gap": self.strength * depth_gap(now, before, self.unit)}

        return loss

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if places(clip, "embedded") else NONE_KNOWN

    def problems(self) -> list[str]:
        return [] if self.strength >= 0 else [f"strength={self.strength} must be at least 0"]


def depth_gap(now: list[Tensor], before: list[Tensor], unit: Over) -> Tensor:
    """Mean over depths of the mean squared difference of normalised features, a scalar."""
    pairs = zip(now, before, strict=True)
    gaps = [(normalised(f, unit) - normalised(f0, unit)).square().mean() for f, f0 in pairs]
    return torch.stack(gaps).mean()


def normalised(features: Tensor, unit: Over) -> Tensor:
    """[B, L, C] or [B, C, H, W] -> [B, L, C], with norm 1 along the tokens or the channels."""
    x = tokens(features)
    return x / (torch.linalg.vector_norm(x, dim=1 if unit == "tokens" else 2, keepdim=True) + FLOOR)
