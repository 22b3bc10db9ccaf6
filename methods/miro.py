"""MIRO: FT that keeps what every depth says about the pre-trained features (Cha et al., ECCV 2022)."""

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import LossTerms, Objective, train

from ._drift import recorded
from ._places import NONE_KNOWN, places, tokens
from .ft import FT

START, FLOOR = 0.1, 1e-5  # of the variances


@dataclass(frozen=True)
class MIRO(FT):
    """nll + strength * sum over depths of the Gaussian nll of the pre-trained features, given the tuned ones.

    Means are the tuned features themselves, and variances are trained, one for each channel, at ten times the learning
    rate. Depths are those of the authors' 'stem_block': the first convolution, and the last block of each quarter (the
    stages, in a convolutional network). Batch-mean terms with log variances: the penalty may be negative.

    The authors train a random head on several domains of DomainBed; here it starts as FT does, from the zero-shot head.
    Their strengths are 0.1 (OfficeHome, TerraIncognita, DomainNet) and 0.01 (PACS, VLCS). The variances stay beside the
    model as 'miro', and are not saved with it.
    """

    equation: ClassVar[str] = (
        "L = CE + strength sum_l mean[(f_l - f0_l)^2 / var_l + log var_l] / 2,  var_l = softplus(b_l) + 1e-5"
    )
    source: ClassVar[str] = "Cha, Lee, Park, Chun, ECCV 2022; khanrc/miro@5238455, domainbed/algorithms/miro.py"
    oracle: ClassVar[str] = "miro.npz: khanrc/miro@5238455"
    traps: ClassVar[tuple[str, ...]] = (
        "the paper speaks of all layers; the released setting takes the stem and four blocks",
        "its leave-one-domain-out numbers are of a model trained on several domains, and stand beside no ID-only row",
    )
    # no reduces_to: at strength 0 the weights are FT's to the bit (tests), but the variances are there as well

    strength: float = 0.1  # lambda
    variance_rate: float = 10.0  # learning rate of the variances, in that of the model

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        self.start(clip, data)
        return train(clip, data, self.objective(clip, data, run), self.resolved, run, optimizer=self.adamw)

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        clip.miro = nn.ParameterList(variances(clip)).to(clip.device)

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, anchor = super().objective(clip, data, run), clip.frozen_copy()

        def loss(batch: Batch) -> LossTerms:
            with torch.no_grad(), recorded(places(anchor, "patches")) as before:
                anchor.encode_image(batch.images)
            with recorded(places(clip, "patches")) as now:
                terms = fine_tuning(batch)
            gap = torch.stack([surprise(*three) for three in zip(now, before, beside(clip), strict=True)]).sum()
            return {**terms, "information": self.strength * gap}

        return loss

    def adamw(self, clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
        own, names = list(beside(clip)), dict(clip.named_parameters())
        model = [p for name, p in names.items() if p.requires_grad and not name.startswith("miro.")]
        groups = [{"params": model}, {"params": own, "lr_scale": self.variance_rate}]
        return torch.optim.AdamW(
            groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, weight_decay=recipe.weight_decay,
            fused=True,
        )  # fmt: skip

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if places(clip, "patches") else NONE_KNOWN

    def problems(self) -> list[str]:
        rules = {"strength": self.strength >= 0, "variance_rate": self.variance_rate > 0}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]


def beside(clip: Clip) -> nn.ParameterList:
    """The b_l of all depths, which hang beside the model."""
    return cast(nn.ParameterList, clip.miro)


@torch.no_grad()
def variances(clip: Clip) -> list[Tensor]:
    """Where the b_l [C] of all depths begin: at a variance of 0.1."""
    with recorded(places(clip, "patches")) as seen:
        clip.encode_image(torch.zeros(1, 3, clip.image_size, clip.image_size, device=clip.device))
    return [torch.full((tokens(f).shape[-1],), math.log(math.expm1(START - FLOOR))) for f in seen]


def surprise(now: Tensor, before: Tensor, b: Tensor) -> Tensor:
    """mean[(f - f0)^2 / var + log var] / 2 of features of one depth, [B, L, C] or [B, C, H, W]; a scalar."""
    variance = F.softplus(b) + FLOOR  # [C]
    return ((tokens(now) - tokens(before)).square() / variance + variance.log()).mean() / 2
