"""Low-rank updates beside linear layers, convolutions and attention, and merged into their weights at the end."""

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION = re.compile(r"resblocks\.\d+\.attn$|blocks\.\d+\.attn\.qkv$")  # of open_clip; of timm, q, k and v in one


class LowRank(nn.Module):
    """scale * B A for each of `parts` equal parts of a layer's outputs; A is uniform, B is 0 (Hu et al., ICLR 2022).

    A's entries are within 1 / sqrt(inputs), as Kaiming's with slope sqrt(5). Each part drops inputs on its own.
    """

    def __init__(
        self, outputs: int, inputs: int, parts: int, rank: int, scale: float, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        uniform = 2 * torch.rand(parts, rank, inputs, generator=generator) - 1
        self.a = nn.Parameter(uniform / math.sqrt(inputs))  # [parts, r, inputs]
        self.b = nn.Parameter(torch.zeros(parts, outputs // parts, rank))
        self.scale, self.dropout = scale, dropout

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> what is added to the outputs, [..., outputs]."""
        parts = zip(self.a, self.b, strict=True)
        return self.scale * torch.cat([F.linear(F.linear(self.drop(x), a), b) for a, b in parts], dim=-1)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def delta(self) -> Tensor:
        """What is added to the weights, [outputs, inputs]."""
        return self.scale * (self.b @ self.a).flatten(0, 1)


class _Beside(nn.Module):
    """A layer and its update; takes the layer's place while it is trained."""

    def __init__(self, base: Any, low: LowRank) -> None:
        super().__init__()
        self.base, self.low = base, low


class _Linear(_Beside):
    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.low(x)


class _Conv(_Beside):
    def forward(self, x: Tensor) -> Tensor:
        base, kernel = self.base, self.low.delta().view_as(self.base.weight)
        update = F.conv2d(self.low.drop(x), kernel, None, base.stride, base.padding, base.dilation, base.groups)
        return base(x) + update


class _Attention(_Beside):
    """Self-attention of `nn.MultiheadAttention`, with updates of q, k and v."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        base = self.base
        x = query if base.batch_first else query.transpose(0, 1)  # [N, L, W]
        packed = F.linear(x, base.in_proj_weight, base.in_proj_bias) + self.low(x)
        q, k, v = (part.unflatten(-1, (base.num_heads, -1)).transpose(1, 2) for part in packed.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask)
        out = base.out_proj(mixed.transpose(1, 2).flatten(2))
        return (out if base.batch_first else out.transpose(0, 1)), None


def attention(tower: nn.Module) -> list[str]:
    """Names in `tower` of the attention of every block."""
    return [name for name, _ in tower.named_modules() if ATTENTION.search(name)]


def layers(tower: nn.Module) -> list[str]:
    """Names in `tower` of all linear layers and convolutions but the first, which sees pixels."""
    return [name for name, module in tower.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][1:]


def install(
    tower: nn.Module, names: list[str], rank: int, scale: float, dropout: float, generator: torch.Generator
) -> dict[str, _Beside]:
    """Put an update beside each of these layers; `merge` takes them away again."""
    beside: dict[str, _Beside] = {}
    for name in names:
        layer: Any = tower.get_submodule(name)
        weight: Tensor = layer.in_proj_weight if isinstance(layer, nn.MultiheadAttention) else layer.weight
        parts = 3 if ATTENTION.search(name) else 1
        low = LowRank(len(weight), weight[0].numel(), parts, rank, scale, dropout, generator).to(weight.device)
        kind = _Attention if isinstance(layer, nn.MultiheadAttention) else _Conv if weight.ndim == 4 else _Linear
        beside[name] = kind(layer, low)
        _put(tower, name, beside[name])
    return beside


@torch.no_grad()
def merge(tower: nn.Module, beside: dict[str, _Beside]) -> None:
    """Add each update to its layer's weights, and put the layer back in its place."""
    for name, one in beside.items():
        weight = one.base.in_proj_weight if isinstance(one, _Attention) else one.base.weight
        weight += one.low.delta().view_as(weight)
        _put(tower, name, one.base)


def _put(tower: nn.Module, name: str, module: nn.Module) -> None:
    place, _, own = name.rpartition(".")
    setattr(tower.get_submodule(place), own, module)
