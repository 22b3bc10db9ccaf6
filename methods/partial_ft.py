"""Partial FT: fine-tune only the top blocks of the image tower, and the head (Wang, Liu, Kong, 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from robustbench_ft import Clip, TrainSet

from ._depth import UNKNOWN, count, depths
from .ft import FT


@dataclass(frozen=True)
class PartialFT(FT):
    """FT with gradients in the last `blocks` blocks, in all that lies behind them, and in the head.

    A block is one of a transformer's, or one stage of a CNN. The authors take 4 of ViT-B/16's 12, and train the tower
    at 1e-6 and the head at 1e-3 on 16 images per class; here both have the recipe's rate. Their method SRAPF goes on
    with retrieved images and adversarial features. This is its first stage without them.
    """

    equation: ClassVar[str] = "L = CE(scale W F(x), y), over W and the last k = blocks of F, its norm, its projection"
    source: ClassVar[str] = "Wang, Liu, Kong, arXiv 2506.04713; hannawang09/SRAPF@d93c5a9, PFT_demo.ipynb, main.py"
    oracle: ClassVar[str] = "none of its own: with every block it is ft to the bit, which wiseft_finetune.npz holds"
    traps: ClassVar[tuple[str, ...]] = (
        "the released code selects the epoch on the ImageNet test set that it reports: its val loader is the test set",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("blocks", 1000, "ft")}

    blocks: int = 0  # k; as many as there are, or more: all. 0: a third of them
    stem: bool = True  # where `blocks` is all, what lies before the blocks moves too

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        places = depths(clip.model.visual)
        n = count(places)
        first = n + 1 - (min(self.blocks, n) or max(1, round(n / 3)))
        if self.stem and self.blocks >= n:
            first = 0
        for name, parameter in clip.model.visual.named_parameters():
            parameter.requires_grad_(places[name] >= first)

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if depths(clip.model.visual) else UNKNOWN

    def problems(self) -> list[str]:
        return [] if self.blocks >= 0 else [f"blocks={self.blocks} must be at least 0"]
