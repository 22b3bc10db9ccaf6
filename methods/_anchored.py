"""AdamW that knows where its parameters began: what optimisers that pull or project towards theta0 are built on."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustbench_ft import Clip
from robustbench_ft.recipe import Recipe

HEAD = ("head", "bias")


class Anchored(torch.optim.AdamW):
    """`step` is AdamW's own, then `after` acts on the held parameters: groups say with 'held' whether they are."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], recipe: Recipe, weight_decay: float) -> None:
        super().__init__(
            [dict(group) for group in groups], lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps,
            weight_decay=weight_decay, fused=True,
        )  # fmt: skip
        # not part of the state: `fit` starts at theta0 also when it resumes
        held = [p for group in self.param_groups if group["held"] for p in group["params"]]
        self.starts: dict[Tensor, Tensor] = {p: p.detach().clone() for p in held}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        held = [p for p in self.starts if p.grad is not None]
        starts = [self.starts[p] for p in held]
        before = self.before(held, starts)
        loss = super().step(closure)
        self.after(held, starts, before)
        return loss

    def before(self, held: list[Tensor], starts: list[Tensor]) -> Any:
        """What `after` must know of the parameters that `step` is going to move."""
        return None

    def after(self, held: list[Tensor], starts: list[Tensor], before: Any) -> None:
        """Act on the parameters that have a gradient, in place; `starts` is where they began."""
        raise NotImplementedError


def away(held: list[Tensor], starts: list[Tensor]) -> list[Tensor]:
    """theta - theta0 of each tensor."""
    return [p - start for p, start in zip(held, starts, strict=True)]


def groups_of(clip: Clip, hold_head: bool) -> list[dict[str, Any]]:
    """All that moves in two groups, tower and head, in the order of depth: the image projection comes last."""
    moving = {name: p for name, p in clip.named_parameters() if p.requires_grad}
    tower = sorted((name for name in moving if name not in HEAD), key=lambda name: name == "model.visual.proj")
    groups = [
        {"params": [moving[name] for name in tower], "held": True},
        {"params": [moving[name] for name in HEAD if name in moving], "held": hold_head},
    ]
    return [group for group in groups if group["params"]]
