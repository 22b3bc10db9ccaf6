"""What a step leaves on the device to be read: its loss terms and its gradient norm.

To read a number, the host waits for all that the GPU was given. So on a GPU the numbers of `EVERY` steps are read
together. What keeps the last good weights meanwhile is a flag on the device: where it is up, the optimiser's own kernel
leaves the weights alone, and it stays up. On a CPU each step is read before its update, and nothing is deferred.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

EVERY = 16  # steps that are read together, on a GPU


@dataclass(frozen=True)
class Taken:
    """A step whose gradients are there."""

    step: int
    lr: float
    terms: Mapping[str, Tensor]
    norm: Tensor  # of all gradients
    images: int

    @cached_property
    def values(self) -> dict[str, float]:
        """The terms as numbers. Reading them waits for the device."""
        return {name: term.item() for name, term in self.terms.items()}

    @cached_property
    def grad_norm(self) -> float:
        return self.norm.item()

    @property
    def is_finite(self) -> bool:
        return math.isfinite(sum(self.values.values())) and math.isfinite(self.grad_norm)

    def line(self, scaled: bool) -> dict[str, Any]:
        """Of the log; with a scaled loss, a step whose gradients overflowed was skipped."""
        skipped = {"skipped": True} if scaled and not math.isfinite(self.grad_norm) else {}
        return {
            "event": "step", "step": self.step, "lr": self.lr, "loss": sum(self.values.values()), **self.values,
            "grad_norm": self.grad_norm, **skipped,
        }  # fmt: skip


class Guard:
    """A flag on the device: up from the first step on that is not finite. The optimiser is told of it in each step."""

    def __init__(self, device: torch.device) -> None:
        self.up = torch.zeros((), device=device)

    def watch(self, taken: Taken, optimizer: torch.optim.Optimizer) -> None:
        """Raise the flag where this step is not finite, and let the fused kernel read it as GradScaler's."""
        found = torch.stack([*taken.terms.values(), taken.norm]).sum()
        self.up = torch.maximum(self.up, 1 - found.isfinite().float())
        told: Any = optimizer
        told.grad_scale, told.found_inf = None, self.up


def steps_read_together(optimizer: torch.optim.Optimizer, device: torch.device, scaled: bool) -> int:
    """1 on a CPU, with a scaled loss (fp16), and where the optimiser's kernel knows of no flag."""
    knows = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
    return EVERY if device.type == "cuda" and knows and not scaled else 1
