"""What makes a large batch fit on a small device. None of it changes what is computed, but for the order of sums."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import RbftError

# what torch's allocators on CPUs say where main memory is not enough, and its copies to and from a GPU
TOO_SMALL = ("can't allocate memory", "not enough memory", "cannot allocate memory", "out of memory")


@dataclass
class MicroBatch:
    """How many examples go through the model at once. The batch that an update is made of stays as it is.

    `auto` begins with what the recipe says, and halves where memory runs out; `size` is what it came to.
    """

    size: int = 0  # 0: what the recipe says, which may be the whole batch
    auto: bool = False

    def of(self, recipe: int) -> int:
        """Examples in one pass where the recipe says `recipe`; 0 is the whole batch."""
        return self.size or recipe

    def halve(self, examples: int) -> None:
        """Take half of the `examples` that did not fit. Raises `RbftError` where that was one."""
        if examples <= 1:
            raise RbftError(
                "one example does not fit into memory: take a smaller model, --grad-checkpointing or --low-memory"
            )
        self.size = (examples + 1) // 2


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory of a GPU or of the machine is not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TOO_SMALL)


def free(device: torch.device) -> None:
    """Give back what a failed pass has left behind."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def same_draws(device: torch.device, state: "Draws | None" = None) -> "Generator[Draws, None, None]":
    """Yield the state of torch's own generators; while this is open they go on from `state`, where one is given."""
    now = Draws.of(device)
    if state is None:
        yield now
        return
    state.restore()
    try:
        yield now
    finally:
        now.restore()


@dataclass(frozen=True)
class Draws:
    """The state of torch's own generators: what modules with dropout draw from."""

    device: torch.device
    cpu: Tensor
    gpu: Tensor | None

    @classmethod
    def of(cls, device: torch.device) -> "Draws":
        return cls(device, torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu, self.device)


def move_state(optimizer: torch.optim.Optimizer, home: bool) -> None:
    """Move the optimiser's tensors to the device of their parameters (`home`), or to main memory.

    Kept in main memory between steps, they come when activations are gone: the peak is the larger of the two and not
    their sum.
    """
    for parameter, state in optimizer.state.items():
        values: dict[str, Any] = state
        for name, value in values.items():
            if isinstance(value, Tensor) and value.dim():  # a step count stays where it is
                values[name] = value.to(parameter.device if home else "cpu")
