"""Mixed precision of an image tower: blocks in a short format on a float32 residual stream, all else in float32."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

BLOCKS = (("transformer",), ("trunk",), ("layer1", "layer2", "layer3", "layer4"))  # open_clip's ViTs, timm, ResNets
SHORT = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precision -> what blocks compute in; others: float32
TF32 = ("tf32", *SHORT)  # precisions whose float32 products a GPU may make in TF32, while training


@contextmanager
def blocks_in(tower: nn.Module, precision: str) -> Generator[None, None, None]:
    """While this is open, autocast is on inside the blocks of `tower`, whose outputs are float32 again.

    What enters a block is float32, so a pre-norm transformer adds branches in bfloat16 ('bf16') or float16 ('fp16') to
    a float32 stream. The first convolution, the last LayerNorm and the projection of open_clip's own towers stay
    outside. Other precisions change nothing.

    A teacher, evaluated without gradients, would take a fused attention whose rounding is another: a penalty would then
    pull where nothing has moved. In 16 bits all towers take the same kernels.
    """
    with ExitStack() as stack:
        if precision in SHORT:
            stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
        for block in blocks(tower) if precision in SHORT else ():
            for handle in _hook(block, SHORT[precision]):
                stack.callback(handle.remove)
        yield


def blocks(tower: nn.Module) -> list[nn.Module]:
    """The modules between the first convolution and the pooling; of a tower that is built otherwise, all of it."""
    for names in BLOCKS:
        found = [getattr(tower, name, None) for name in names]
        if all(isinstance(block, nn.Module) for block in found):
            return cast(list[nn.Module], found)
    return [tower]


def allow_tf32(device: torch.device, allowed: bool) -> bool:
    """Let a GPU multiply float32 matrices in TF32 from now on, or not; returns whether it did before.

    torch did so by default when the papers' code was run (1.7 to 1.11). A CPU never does.
    """
    if device.type != "cuda":
        return False
    before = bool(torch.backends.cuda.matmul.allow_tf32)
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    return before


def _hook(block: nn.Module, dtype: torch.dtype) -> tuple[Any, Any]:
    """Handles of the hooks that begin and end autocast around one block, also where it raises."""
    context = torch.autocast(next(block.parameters()).device.type, dtype=dtype)

    def enter(module: nn.Module, inputs: Any) -> None:
        context.__enter__()

    def leave(module: nn.Module, inputs: Any, output: Any) -> Any:
        context.__exit__(None, None, None)
        return output.float() if isinstance(output, Tensor) else output

    return block.register_forward_pre_hook(enter), block.register_forward_hook(leave, always_call=True)
