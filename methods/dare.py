"""DARE: drop most entries of each task vector at random, rescale the rest, and add them (Yu et al., ICML 2024)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from robustbench_ft import Run

from ._merges import Merge, Vector, total


@dataclass(frozen=True)
class DARE(Merge):
    """Task arithmetic on sparse task vectors. What is dropped is drawn once, at the end, for each member.

    The paper drops 0.9 and more of fine-tuned language models; where weights have moved far, that is too much.
    """

    equation: ClassVar[str] = "theta = theta0 + scale sum_k b_k * tau_k / (1 - drop),  b_k ~ Bernoulli(1 - drop)"
    source: ClassVar[str] = "Yu et al., ICML 2024, Eq. 1-3; their code has no licence and was not read"
    oracle: ClassVar[str] = "none: a random draw; without dropping it is task arithmetic, to the bit"
    traps: ClassVar[tuple[str, ...]] = ("one draw is one model: seeds vary it together with the members",)
    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {"lambda-0": ("members", 1, "zero-shot")}

    drop: float = 0.9  # p

    def merged(self, vectors: Sequence[Vector], run: Run) -> Vector:
        return total([self.thinned(vector, run.generator("dare", k)) for k, vector in enumerate(vectors)])

    def thinned(self, vector: Vector, generator: torch.Generator) -> Vector:
        """With `drop` of all entries 0, and the same expectation."""
        kept = {name: torch.rand(t.shape, generator=generator).to(t.device) >= self.drop for name, t in vector.items()}
        return {name: tensor * kept[name] / (1 - self.drop) for name, tensor in vector.items()}

    def problems(self) -> list[str]:
        return super().problems() + ([] if 0 <= self.drop < 1 else [f"drop={self.drop} must be at least 0 and below 1"])
