"""How far a model has moved from where it began: of weights, of features, of what passes through its blocks."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_ft import Clip


def tower(clip: Clip) -> list[Tensor]:
    """The parameters of the image tower that are trained; its head is not among them."""
    return [p for p in clip.model.visual.parameters() if p.requires_grad]


def copies(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Their values as they are now."""
    return [p.detach().clone() for p in parameters]


def squared_distance(now: list[Tensor], before: list[Tensor], roots: list[Tensor] | None = None) -> Tensor:
    """Sum of (theta - theta0)^2 over all tensors, each number weighted by the square of its root; a scalar."""
    moved = torch._foreach_sub(now, before)  # pyright: ignore
    if roots is not None:
        moved = torch._foreach_mul(moved, roots)  # pyright: ignore
    return torch.stack(torch._foreach_norm(moved)).square().sum()  # pyright: ignore


def kl(before: Tensor, now: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(before / T) || softmax(now / T)), mean over the rows of [B, K] logits; nats, a scalar."""
    p, q = ((logits / temperature).log_softmax(dim=-1) for logits in (before, now))
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


@contextmanager
def recorded(modules: Sequence[nn.Module]) -> Generator[list[Tensor], None, None]:
    """While this is open, what `modules` give is added to a list, in the order in which they run, float32."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append((output[0] if isinstance(output, tuple) else output).float())

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
