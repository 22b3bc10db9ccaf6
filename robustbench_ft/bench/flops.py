"""Counts the floating-point operations of matrix products, convolutions and attention, as torch runs them."""

from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


def counter() -> FlopCounterMode:
    """While it is open, `get_total_flops()` rises; a multiplication and an addition count as two.

    Two kernels that torch's own counter passes over are counted, too: attention on a CPU, and the fused attention of a
    tower that is evaluated without gradients, which is every teacher.
    """
    ops: Any = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            ops._scaled_dot_product_flash_attention_for_cpu: _attention,
            ops._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
            ops._native_multi_head_attention: _whole_attention,
        },
    )


def _attention(q: Shape, k: Shape, v: Shape, *rest: Any, **options: Any) -> int:
    return flop_counter.sdpa_flop_count(q, k, v)


def _attention_backward(gradient: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **options: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(gradient, q, k, v)


def _whole_attention(q: Shape, k: Shape, v: Shape, width: int, *rest: Any, **options: Any) -> int:
    """Three projections, two products of attention, and the projection of what they give; queries [B, L, width]."""
    rows, length = q[0] * q[1], k[1]
    return 2 * rows * width * 4 * width + 4 * rows * length * width
