"""Lipsum-FT: FT, held to the zero-shot model's energies on random texts (Nam, Heo, Lee, ICLR 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Range, Run, TrainSet
from robustbench_ft.recipe import R_LIP, Recipe
from robustbench_ft.train import Objective, Terms

from .ft import FT

ALIASES = ("lipsum-ft",)


@dataclass(frozen=True)
class LipsumFT(FT):
    """nll + strength * mean over images and texts of (v - v0)^2 / 2, where v = scale * <image, text>.

    The paper prints the energies without the scale; the authors' code multiplies both by it, and so do we: the penalty
    is scale^2 (about 1e4) times the printed one (cs-giung/lipsum-ft@1331873, scripts/Lipsum-FT.py).
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": replace(R_LIP, steps=50_000), "domainnet": R_LIP}
    equation: ClassVar[str] = (
        "L = CE + strength mean_x mean_m (v_m - v0_m)^2 / 2,  v_m = scale <G(t_m), F(x)>, t_m random"
    )
    source: ClassVar[str] = "Nam, Heo, Lee, ICLR 2024; cs-giung/lipsum-ft@1331873, scripts/Lipsum-FT.py"
    oracle: ClassVar[str] = "lipsum_ft.npz: lipsum-ft@1331873"
    traps: ClassVar[tuple[str, ...]] = (
        "the released code selects checkpoints on the ID test set that it reports; `--protocol as-published` does so",
        "the printed penalty lacks scale^2: with unit products, strength would have to be about 1e4",
        "the released script stops at its first accuracy call: the log in its README is the reference",
    )

    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    ranges: ClassVar[Mapping[str, Range]] = {"strength": Range(0.1, 10.0, "log")}

    strength: float = 1.0  # lambda
    n_texts: int = 80  # M, drawn afresh every step
    text_length: int = 8  # random tokens between start and end

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, anchor = super().objective(clip, data, run), clip.frozen_copy()

        def loss(batch: Batch) -> Terms:
            with torch.no_grad():
                texts = anchor.encode_text(self.texts(clip, run, batch.step))  # [M, D]
                before = anchor.encode_image(batch.images)  # [B, D]
            gap = anchor.scale * (batch.features - before) @ texts.T  # [B, M], v - v0
            return {**fine_tuning(batch), "energy_gap": self.strength * gap.square().mean() / 2}

        return loss

    def texts(self, clip: Clip, run: Run, step: int) -> Tensor:
        """The random token sequences of one step, [M, L]."""
        return clip.random_tokens(self.n_texts, self.text_length, run.generator("texts", step))

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if clip.random_ids else "it does not state the id range that random texts are drawn from"

    def problems(self) -> list[str]:
        rules = {"strength": self.strength >= 0, "n_texts": self.n_texts >= 1, "text_length": self.text_length >= 1}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]
