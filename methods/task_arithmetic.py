"""Task arithmetic: add the scaled sum of what several fits have moved (Ilharco et al., ICLR 2023)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from robustbench_ft import Run

from ._merges import Merge, Vector, total


@dataclass(frozen=True)
class TaskArithmetic(Merge):
    """The paper adds fits of several tasks. Of members of one task, lambda = 1 / K is their uniform soup, and smaller
    values are WiSE-FT of that soup."""

    equation: ClassVar[str] = "theta = theta0 + scale sum_k (theta_k - theta0)"
    source: ClassVar[str] = "Ilharco et al., ICLR 2023; mlfoundations/task_vectors@826a64c, src/task_vectors.py"
    oracle: ClassVar[str] = "merges.npz: task_vectors@826a64c"
    traps: ClassVar[tuple[str, ...]] = (
        "lambda from ID validation ends near 1 / K and gives up what the line would hold outside it",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {"lambda-0": ("members", 1, "zero-shot")}

    def merged(self, vectors: Sequence[Vector], run: Run) -> Vector:
        return total(vectors)
