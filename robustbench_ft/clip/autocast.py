"""Mixed precision of an image tower: blocks in bfloat16 on a float32 residual stream, all else in float32."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

BLOCKS = (("transformer",), ("trunk",), ("layer1", "layer2", "layer3", "layer4"))  # open_clip's ViTs, timm, ResNets


@contextmanager
def blocks_in_bf16(tower: nn.Module) -> Generator[None, None, None]:
    """While this is open, autocast is on inside the blocks of `tower`, whose outputs are float32 again.

    What enters a block is float32, so a pre-norm transformer adds bfloat16 branches to a float32 stream. The first
    convolution, the last LayerNorm and the projection of open_clip's own towers stay outside.
    """
    with ExitStack() as stack:
        for block in blocks(tower):
            for handle in _hook(block):
                stack.callback(handle.remove)
        yield


def blocks(tower: nn.Module) -> list[nn.Module]:
    """The modules between the first convolution and the pooling; of a tower that is built otherwise, all of it."""
    for names in BLOCKS:
        found = [getattr(tower, name, None) for name in names]
        if all(isinstance(block, nn.Module) for block in found):
            return cast(list[nn.Module], found)
    return [tower]


def _hook(block: nn.Module) -> tuple[Any, Any]:
    """Handles of the hooks that begin and end autocast around one block, also where it raises."""
    context = torch.autocast(next(block.parameters()).device.type, dtype=torch.bfloat16)

    def enter(module: nn.Module, inputs: Any) -> None:
        context.__enter__()

    def leave(module: nn.Module, inputs: Any, output: Any) -> Any:
        context.__exit__(None, None, None)
        return output.float() if isinstance(output, Tensor) else output

    return block.register_forward_pre_hook(enter), block.register_forward_hook(leave, always_call=True)
