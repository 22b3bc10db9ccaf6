"""TIES: trim task vectors, elect the sign of each weight, average what has it (Yadav et al., NeurIPS 2023)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_ft import Run

from ._merges import Merge, Vector


@dataclass(frozen=True)
class TIES(Merge):
    """One threshold for a whole task vector: the largest `keep` of all its entries, whichever tensor they are in.

    Members of one task agree in sign more often than tasks do, so mostly the trimming acts.
    """

    grid: ClassVar[tuple[float, ...]] = tuple(0.25 * k for k in range(7))  # 0 to 1.5; LiNeS searches it by 0.1
    equation: ClassVar[str] = (
        "m_j = mean of the tau_kj with sign(tau_kj) = sign(sum_k tau_kj), after all but the largest share keep of each "
        "tau_k are 0"
    )
    source: ClassVar[str] = "Yadav et al., NeurIPS 2023; prateeky2806/ties-merging@44e7891, src/ties_minimal.ipynb"
    oracle: ClassVar[str] = "merges.npz: ties-merging@44e7891"
    traps: ClassVar[tuple[str, ...]] = (
        "the threshold is over all tensors: large matrices decide, and a head on another scale loses or keeps it all",
        "the released code reads a K above 1 as percent, and cannot keep everything",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {"lambda-0": ("members", 1, "zero-shot")}

    keep: float = 0.2  # k, the share of entries that are not trimmed

    def merged(self, vectors: Sequence[Vector], run: Run) -> Vector:
        names = sorted(vectors[0])  # the order of the released code; it matters to nothing
        flat = torch.stack([torch.cat([vector[name].flatten() for name in names]) for vector in vectors])
        parts = agreed(torch.stack([trimmed(row, self.keep) for row in flat])).split(
            [vectors[0][name].numel() for name in names]
        )
        return {name: part.view_as(vectors[0][name]) for name, part in zip(names, parts, strict=True)}

    def problems(self) -> list[str]:
        return super().problems() + ([] if 0 < self.keep <= 1 else [f"keep={self.keep} must be above 0, and at most 1"])


def trimmed(vector: Tensor, keep: float) -> Tensor:
    """[n] with all but about `keep` * n entries of the largest magnitudes set to 0."""
    rank = len(vector) - int(len(vector) * keep)  # of the smallest that is kept, from 1; 0: all are
    return vector if rank == 0 else vector * (vector.abs() >= vector.abs().kthvalue(rank).values)


def agreed(vectors: Tensor) -> Tensor:
    """[K, n] -> [n]: mean of the entries that are not 0 and have the sign of their column's sum.

    A column that sums to 0 takes the sign that most columns have.
    """
    signs = vectors.sum(dim=0).sign()
    signs = torch.where(signs == 0, signs.sum().sign(), signs)
    kept = vectors * torch.where(signs > 0, vectors > 0, vectors < 0)
    return kept.sum(dim=0) / (kept != 0).sum(dim=0).clamp(min=1)
