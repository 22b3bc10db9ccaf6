"""FT-strong: FT whose rate falls with depth, without decay of vectors, averaged (FT-CLIP; Dong et al., 2022)."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import train

from ._depth import UNKNOWN, count, depths
from .ema import Average
from .ft import FT

ALIASES = ("ft-clip",)
EMA_SHARE = 0.16  # the paper's mean forgets in 1 / (1 - 0.9998) = 5,000 steps, 16 % of ViT-B/16's 31,250
R_B16 = Recipe(
    lr=6e-4, weight_decay=0.05, epochs=50, batch=2_048, warmup_steps=6_250, schedule="wise-ft", label_smoothing=0.1,
    head="scaled", augment="crop-flip", select="last",
)  # fmt: skip
R_L14 = Recipe(
    lr=4e-4, weight_decay=0.05, epochs=30, batch=2_048, warmup_steps=3_125, schedule="wise-ft", label_smoothing=0.1,
    head="scaled", augment="crop-flip", select="last",
)  # fmt: skip
LAYER_DECAY_L14 = 0.65  # goes with R_L14; 0.6 goes with R_B16
UNDECAYED = ("positional_embedding", "class_embedding", "pos_embed", "cls_token")


@dataclass(frozen=True)
class FTStrong(FT):
    """FT as the authors of FT-CLIP tuned it: layer i of L learns at lr * layer_decay^(L + 1 - i).

    i is 0 before the blocks, 1 to L in them, and L + 1 behind them and in the head. Tensors of one dimension, biases
    and position embeddings are not decayed. The headline is the running mean of the weights, as theirs is.

    Left out of the published recipe, for want of a name here: RandAugment (m 9, std 0.5), colour jitter 0.4, random
    erasing 0.25, and the ends of the schedule at 1e-6 instead of 0. Theirs begins with a random head on the mean of
    the patch tokens, without CLIP's projection; here it is FT's zero-shot head on CLIP's own feature.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_B16}
    averages: ClassVar[bool] = False  # it is one
    equation: ClassVar[str] = "L = CE(scale W F(x), y);  lr_i = lr layer_decay^(L + 1 - i);  mean of the weights"
    source: ClassVar[str] = "Dong et al., arXiv 2212.06138; LightDXY/FT-CLIP@3f9cefa, optim_factory.py, scripts/"
    oracle: ClassVar[str] = (
        "layers.npz: rates and decays of get_parameter_groups, FT-CLIP@3f9cefa; its training run needs deepspeed"
    )
    traps: ClassVar[tuple[str, ...]] = (
        "the published 85.7 is the mean's best epoch on the test set; its last one has 84.7, the weights themselves "
        "84.3 (logs/CLIP_B16.log)",
        "the released models of 224 px freeze their first convolution (models/finetune_clip.py)",
        "neither code nor logs hold a number on a shift",
    )

    layer_decay: float = 0.6  # d
    ema_decay: float = 0.0  # of the mean; 0: forgets over the same share of the run as the paper's 0.9998
    freeze_conv1: bool = True  # the first convolution stays as it was

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start(clip, data)
        average = Average(clip, self.ema_decay or self.matched_decay(len(data.train)))
        loss = self.objective(clip, data, run)
        tuned = train(clip, data, loss, self.resolved, run, optimizer=self.optimizer, companions=[average])
        last = tuned.snapshot()
        return Candidates(clip, {"last": lambda: last, "ema": lambda: average.mean}, default="ema")

    def matched_decay(self, n: int) -> float:
        """0.9998 over the paper's number of steps, and less over fewer; `n` training images."""
        return max(0.0, 1 - 1 / (EMA_SHARE * max(1, self.resolved.total_steps(n))))

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        first = next((module for module in clip.model.visual.modules() if isinstance(module, nn.Conv2d)), None)
        if self.freeze_conv1 and first is not None:
            first.requires_grad_(False)

    def optimizer(self, clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
        """AdamW with one group for each pair of a depth and a decay."""
        places = {f"model.visual.{name}": place for name, place in depths(clip.model.visual).items()}
        last = count(places) + 1
        groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in clip.named_parameters():
            if parameter.requires_grad:
                kept = parameter.ndim == 1 or name.endswith((".bias", *UNDECAYED))
                groups[places.get(name, last), kept].append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters, "lr_scale": self.layer_decay ** (last - place),
                    "weight_decay": 0.0 if kept else recipe.weight_decay,
                }
                for (place, kept), parameters in groups.items()
            ],
            lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True,
        )  # fmt: skip

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if depths(clip.model.visual) else UNKNOWN

    def problems(self) -> list[str]:
        found = [] if 0 < self.layer_decay <= 1 else [f"layer_decay={self.layer_decay} must be above 0, and at most 1"]
        return found + ([] if 0 <= self.ema_decay < 1 else [f"ema_decay={self.ema_decay} must be in [0, 1)"])
