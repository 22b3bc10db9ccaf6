"""The optimiser of the few-shot methods that come from CoOp's code: SGD with momentum."""

from dataclasses import replace

import torch

from robustbench_ft import Clip
from robustbench_ft.recipe import Recipe

MOMENTUM = (
    0.9  # Dassl's default, which no configuration changes (KaiyangZhou/Dassl.pytorch@0031929, config/defaults.py)
)


def few_shot(epochs: int, batch: int, rate: float, weight_decay: float) -> dict[str, Recipe]:
    """What CoOp's code, and code made from it, does with 16 images of each class of ImageNet, as near as a recipe is.

    Their first epoch is constant at 1e-5 where ours rises, their rate falls once an epoch and not at every step, and
    their crops are torchvision's (8 to 100 % of the area).
    """
    return {
        "imagenet+shots=16": Recipe(
            lr=rate, weight_decay=weight_decay, epochs=epochs, batch=batch, warmup_fraction=1 / epochs,
            schedule="lipsum", augment="crop-flip", select="last",
        )
    }  # fmt: skip


def sgd(clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD over everything that has gradients; decay is added to the gradient."""
    moving = [p for p in clip.parameters() if p.requires_grad]
    return torch.optim.SGD(moving, lr=recipe.lr, momentum=MOMENTUM, weight_decay=recipe.weight_decay)


def with_rate(recipe: Recipe, rate: float, weight_decay: float) -> Recipe:
    """The recipe with SGD's own rate and decay: those that it states are AdamW's."""
    return replace(recipe, lr=rate, weight_decay=weight_decay)
