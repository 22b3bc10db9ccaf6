"""Learnt tokens in the blocks of both towers: each block puts its own in the place of those of the block before."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from robustbench_ft import Clip

Tokens = Sequence[Tensor]  # of the first block and of those after it, [M, W] each


def no_blocks(clip: Clip) -> str:
    """Why no tokens can be put into its image tower; empty where they can."""
    tower = clip.model.visual
    if not isinstance(tower, VisionTransformer):
        return (
            f"its image tower ({type(tower).__name__}) is no VisionTransformer of open_clip: tokens go into its blocks"
        )
    if tower.attn_pool is not None or tower.pool_type != "tok":
        return "its image tower pools all tokens, and learnt ones must not be among them"
    return ""


@contextmanager
def prompted(clip: Clip, image: Tokens = (), text: Tokens = ()) -> Generator[None, None, None]:
    """While this is open, `encode_image` sees the tokens `image`, and `encode_embedded` those of `text`.

    Image tokens stand behind the patches, before the first LayerNorm. Those of the text tower's first block are part
    of what `encode_embedded` is given, behind the start token: `text[0]` is not looked at.
    """
    with ExitStack() as stack:
        if image:
            first, tower = image[0], clip.model.visual
            stack.callback(_before(tower.ln_pre, lambda x: torch.cat([x, _rows(first, x)], dim=1)))
            for block, tokens in zip(tower.transformer.resblocks[1:], image[1:], strict=False):
                stack.callback(_before(block, lambda x, own=tokens: torch.cat([x[:, : -len(own)], _rows(own, x)], 1)))
        for block, tokens in zip(clip.model.transformer.resblocks[1:], text[1:], strict=False):
            stack.callback(_before(block, lambda x, own=tokens: _behind_start(x, own)))
        yield


def _behind_start(x: Tensor, own: Tensor) -> Tensor:
    """[K, L, W] with the tokens `own` [M, W] at places 1 to M."""
    return torch.cat([x[:, :1], _rows(own, x), x[:, 1 + len(own) :]], dim=1)


def _rows(tokens: Tensor, x: Tensor) -> Tensor:
    return tokens.to(x.dtype).expand(len(x), -1, -1)


def _before(module: Any, change: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """Change what enters a module; returns how to end it."""
    return module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:])).remove
