"""KgCoOp: CoOp, held to the zero-shot head (Yao, Zhang, Xu, CVPR 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from robustbench_ft.recipe import Recipe
from robustbench_ft.train import LossTerms

from ._sgd import few_shot
from .coop import WEIGHT_DECAY, CoOp


@dataclass(frozen=True)
class KgCoOp(CoOp):
    """CoOp with a term that keeps each class's embedding near that of its hand-written prompts.

    These are the suite's templates; the authors have one for each data set. Their recipe is 100 epochs of batch 128 on
    16 images per class, at CoOp's rate.
    """

    published: ClassVar[Mapping[str, Recipe]] = few_shot(100, 128, 2e-3, WEIGHT_DECAY)
    equation: ClassVar[str] = (
        "L = CE(scale g_c F0(x), y) + strength (1 - mean_c cos(g_c, w0_c)),  g_c = G([V, c]), over V"
    )
    source: ClassVar[str] = "Yao, Zhang, Xu, CVPR 2023; htyao89/KgCoOp@c43ccc3, KgCoOp/trainers/kgcoop.py"
    oracle: ClassVar[str] = "layers.npz: the score of CustomCLIP.forward, KgCoOp@c43ccc3"
    traps: ClassVar[tuple[str, ...]] = (
        "in the released code, precision `amp` drops the second term; the published runs are in fp16, which has it",
        "with CTX_INIT any text is replaced by `a photo of a`",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "coop")}

    strength: float = 8.0  # w

    def further(self, head: Tensor, zero_shot: Tensor) -> LossTerms:
        return {"distance": self.strength * (1 - F.cosine_similarity(head, zero_shot, dim=1).mean())}

    def problems(self) -> list[str]:
        return super().problems() + ([] if self.strength >= 0 else [f"strength={self.strength} must be at least 0"])
