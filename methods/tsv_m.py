"""TSV-M: merge the leading singular vectors of all fits, made orthogonal (Gargiulo et al., CVPR 2025)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_ft import Run

from ._merges import Merge, Vector


@dataclass(frozen=True)
class TsvM(Merge):
    """Each matrix keeps the first rank / K singular triplets of each member; tensors of other shapes are averaged.

    Convolution kernels have four dimensions, so in a convolutional tower only the projections are merged this way. The
    head is a matrix and is merged as one; the released code merges image towers, whose heads are text embeddings.
    """

    equation: ClassVar[str] = "m = polar(U) S polar(V),  U, S, V the first r/K triplets of each tau_k side by side"
    source: ClassVar[str] = "Gargiulo et al., CVPR 2025; AntoAndGar/task_singular_vectors@a6c9718, TSVM_utils.py"
    oracle: ClassVar[str] = "merges.npz: task_singular_vectors@a6c9718"
    traps: ClassVar[tuple[str, ...]] = (
        "the released code merges tasks. Fits of one task share their leading vectors, which then count up to K times",
        "fewer than K singular values leave a zero matrix (rank / K rounds down): such a matrix is averaged here",
        "it leaves out matrices named text_projection, which do not move here",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {"lambda-0": ("members", 1, "zero-shot")}

    def merged(self, vectors: Sequence[Vector], run: Run) -> Vector:
        return {name: singular([vector[name] for vector in vectors]) for name in vectors[0]}


def singular(moves: Sequence[Tensor]) -> Tensor:
    """m of one tensor."""
    rank = min(moves[0].shape) // len(moves) if moves[0].dim() == 2 else 0  # triplets of each
    if not rank:
        return torch.stack(list(moves)).mean(dim=0)
    parts = [torch.linalg.svd(move, full_matrices=False) for move in moves]
    left = torch.cat([u[:, :rank] for u, _, _ in parts], dim=1)  # [m, K rank]
    right = torch.cat([v[:rank] for _, _, v in parts])  # [K rank, n]
    return polar(left) * torch.cat([s[:rank] for _, s, _ in parts]) @ polar(right)


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns or rows."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right
