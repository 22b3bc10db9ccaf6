"""Places inside an image tower where features of several depths are read: the stem, and the ends of four quarters."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from robustbench_ft import Clip

Stem = Literal["patches", "embedded"]  # what the first convolution gives, or what enters the first block
STEMS: dict[Stem, tuple[str, ...]] = {"patches": ("conv1", "patch_embed"), "embedded": ("ln_pre", "norm_pre")}
NONE_KNOWN = "its image tower has neither blocks nor stages of a known name, so features have no depths"


def places(clip: Clip, stem: Stem) -> list[nn.Module]:
    """The stem, and the blocks that end each quarter of a transformer, or the stages of a convolutional network.

    In the order in which they run; empty for a tower that is built otherwise. A convolutional network has one stem.
    """
    trunk: Any = getattr(clip.model.visual, "trunk", clip.model.visual)
    blocks = getattr(getattr(trunk, "transformer", None), "resblocks", getattr(trunk, "blocks", None))
    if blocks is not None:
        first = next((getattr(trunk, name) for name in STEMS[stem] if hasattr(trunk, name)), None)
        ends = sorted({-(-len(blocks) * k // 4) - 1 for k in (1, 2, 3, 4)})
        return [] if first is None else [first, *(blocks[end] for end in ends)]
    if hasattr(trunk, "stages"):
        return [trunk.stem, *trunk.stages]
    if hasattr(trunk, "layer4"):
        return [trunk.avgpool, trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
    return []


@contextmanager
def exact_where_rounded(*clips: Clip) -> Generator[None, None, None]:
    """While this is open, convolutional towers compute in float32, also where training computes in 16 bits.

    The residual stream of a transformer is float32 there. What a convolution gives is not: rounded to bfloat16, early
    features of two models that are near to each other differ by less than the rounding, and the gradient of their
    difference was off by half.
    """
    with ExitStack() as stack:
        for clip in clips:
            trunk: Any = getattr(clip.model.visual, "trunk", clip.model.visual)
            if not hasattr(trunk, "transformer") and not hasattr(trunk, "blocks"):
                stack.enter_context(clip.exact())
        yield


def tokens(features: Tensor) -> Tensor:
    """[B, C, H, W] or [B, L, C] -> [B, L, C]"""
    return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features
