"""L2-SP: FT with a pull back to the pre-trained weights (Li, Grandvalet, Davoine, ICML 2018)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.train import LossTerms, Objective

from ._drift import copies, squared_distance, tower
from .ft import FT


@dataclass(frozen=True)
class L2SP(FT):
    """nll + strength * sum of (theta - theta0)^2 over the image tower; the head is free.

    A sum, without 1/2. The default is what LP-FT's authors kept of 1, 0.1, ..., 1e-4 on Living-17. The value behind
    the L2-SP rows of Nam, Heo and Lee (ICLR 2024) is not published. The pull is a term of the loss, so Adam rescales
    it with the gradient: it is no decoupled decay towards theta0.
    """

    equation: ClassVar[str] = "L = CE + strength sum_j (theta_j - theta0_j)^2, over the image tower"
    source: ClassVar[str] = (
        "Li, Grandvalet, Davoine, ICML 2018; AnanyaKumar/transfer_learning@13c3e2b, "
        "unlabeled_extrapolation/baseline_train.py"
    )
    oracle: ClassVar[str] = "l2sp.npz: transfer_learning@13c3e2b"
    traps: ClassVar[tuple[str, ...]] = (
        "papers differ by the 1/2, and by a mean per tensor for the sum (nikosips/infusing@c250dc0): strengths of one "
        "are not those of the other",
    )
    reduces_to: ClassVar[dict[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    strength: float = 0.01  # lambda

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, moving = super().objective(clip, data, run), tower(clip)
        before = copies(moving)

        def loss(batch: Batch) -> LossTerms:
            return {**fine_tuning(batch), "l2_sp": self.strength * squared_distance(moving, before)}

        return loss

    def problems(self) -> list[str]:
        return [] if self.strength >= 0 else [f"strength={self.strength} must be at least 0"]
