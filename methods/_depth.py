"""How deep in an image tower each of its tensors lies: before the blocks, in one of them, or after them."""

import re

from torch import nn

# open_clip's ViTs; timm's transformers, and its stages of CNNs; open_clip's ResNets
BLOCK = re.compile(r"(?:transformer\.resblocks|trunk\.blocks|trunk\.stages|trunk\.layers)\.(\d+)\.|layer([1-4])\.")
STEM = re.compile(
    r"(?:class_embedding|positional_embedding|ln_pre|patchnorm_pre_ln|conv[1-3]|bn[1-3])\b"
    r"|trunk\.(?:stem|patch_embed|cls_token|reg_token|pos_embed|norm_pre)"
)
UNKNOWN = "its image tower has no blocks by a name that is known"


def depths(tower: nn.Module) -> dict[str, int]:
    """Name in `tower` -> 0 before the blocks, 1 to L in a block, L + 1 after them; empty where no block is known.

    Blocks are those of a transformer, or the stages of a CNN. What has no known place before them lies after them:
    the last norm, the pooling, the projection.
    """
    blocks: dict[str, int] = {}
    for name, _ in tower.named_parameters():
        if match := BLOCK.match(name):
            first, second = match.groups()
            blocks[name] = int(first) + 1 if first else int(second)
    last = max(blocks.values(), default=0)
    rest = {n: 0 if STEM.match(n) else last + 1 for n, _ in tower.named_parameters() if n not in blocks}
    return blocks | rest if blocks else {}


def count(places: dict[str, int]) -> int:
    """L, the number of blocks. Something always lies behind them: a norm or a projection."""
    return max(places.values(), default=1) - 1
