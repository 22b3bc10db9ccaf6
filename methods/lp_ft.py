"""LP-FT: first the head alone on frozen features, then everything (Kumar et al., ICLR 2022)."""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.train import train

from ._linear_probe import LinearProbe


@dataclass(frozen=True)
class LpFT(LinearProbe):
    """A head near its optimum sends small gradients into the features, so they stay where they were.

    The probe 'zero-shot' starts from the zero-shot head and takes the recipe's steps at `head_lr`, as wise-ft's
    freeze-encoder mode does. `head_lr` is a step in logits: an Adam step moves a 'scaled' row by it, and a 'unit' row,
    which the scale multiplies, by `head_lr` / scale. 1e-3 is wise-ft's own.

    The probe 'logistic' is the paper's: it starts from nothing, and 100 penalties are tried. It runs on the unit
    features that the head sees (the paper's on raw ones). A 'scaled' head takes its weights and bias as they are; a
    'unit' head has no bias, so there the probe is fitted without one, and its weights are divided by the scale: the
    model that ID validation chose is the model that fine-tuning starts from, under both conventions.

    Either probe runs on features computed once with the evaluation transform.
    """

    version: ClassVar[int] = 2  # 2: head_lr in logits
    equation: ClassVar[str] = "W* = argmin_W CE(scale W F0(x), y);  then L = CE(scale W F(x), y), from F0 and W*"
    source: ClassVar[str] = "Kumar et al., ICLR 2022; AnanyaKumar/transfer_learning@13c3e2b, log_reg_sk.py"
    oracle: ClassVar[str] = "lp_logreg.npz: transfer_learning@13c3e2b; lp_freeze_encoder of wise-ft@58b7a4b"

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        self.start_from_probe(clip, data, run)
        return train(clip, data, self.objective(clip, data, run), self.resolved, run)

    def start_from_probe(self, clip: Clip, data: TrainSet, run: Run) -> None:
        """Put the probe in the place of the zero-shot head; then the image tower and the head may move."""
        self.fit_probe(clip, data, run)
        clip.train_only("image", "head")
