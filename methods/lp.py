"""LP: a linear probe, the head alone on frozen features (first stage of Kumar et al., ICLR 2022)."""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_ft import Clip, Run, TrainSet

from ._linear_probe import LinearProbe

ALIASES = ("linear-probe",)


@dataclass(frozen=True)
class LP(LinearProbe):
    """The model that LP-FT is in after its first stage, to the bit: same settings, same code, no second stage.

    The probe 'zero-shot' starts from the zero-shot head and takes the recipe's steps at `head_lr`, a step in logits.
    The probe 'logistic' starts from nothing and tries 100 penalties; ID validation picks one. No seed moves it.
    """

    averages: ClassVar[bool] = False  # the probe 'logistic' has no path
    equation: ClassVar[str] = "W* = argmin_W CE(scale W F0(x), y), from the zero-shot head, or from 0 with a penalty"
    source: ClassVar[str] = (
        "Kumar et al., ICLR 2022; AnanyaKumar/transfer_learning@13c3e2b, log_reg_sk.py; wise-ft's --freeze-encoder"
    )
    oracle: ClassVar[str] = "lp_logreg.npz: transfer_learning@13c3e2b; lp_freeze_encoder of wise-ft@58b7a4b"

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        return self.fit_probe(clip, data, run).eval()
