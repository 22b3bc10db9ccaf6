"""What may make an image tower faster, at the price of other rounding: compiled blocks, and pixels stored last."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from .autocast import blocks

BACKEND = "inductor"  # of torch.compile
_compiled: "WeakKeyDictionary[nn.Module, Callable[..., Any]]" = WeakKeyDictionary()


@contextmanager
def compiled_blocks(tower: nn.Module) -> Generator[None, None, None]:
    """While this is open, the blocks of `tower` run as torch.compile made them.

    They are set in place for one forward pass only: a copy of the tower that is made later has blocks of its own.
    Hooks inside a block are compiled with it, so what methods record at several depths stays.
    """
    torch._dynamo.config.skip_nnmodule_hook_guards = False  # pyright: ignore
    chosen = blocks(tower)
    for block in chosen:
        block.forward = _compiled_forward(block)
    try:
        yield
    finally:
        for block in chosen:
            del block.forward  # the class's own shows again


def _compiled_forward(block: nn.Module) -> Callable[..., Any]:
    if block not in _compiled:
        forward, held = type(block).forward, ref(block)  # a strong reference would keep the block for ever

        def call(*inputs: Any, **options: Any) -> Any:
            return forward(held(), *inputs, **options)

        _compiled[block] = torch.compile(call, backend=BACKEND)
    return _compiled[block]


def store_channels_last(tower: nn.Module) -> None:
    """Store the tower's convolutions with channels last, in place; their values stay."""
    tower.to(memory_format=torch.channels_last)  # pyright: ignore


def channels_last(images: Tensor) -> Tensor:
    """[B, 3, H, W], the same values with channels last in memory."""
    return images.contiguous(memory_format=torch.channels_last)
