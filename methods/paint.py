"""PAINT: fine-tune the image tower under a frozen zero-shot head, then interpolate (Ilharco et al., NeurIPS 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from robustbench_ft import Candidates, Clip, Run, TrainSet

from .ft import FT
from .wise_ft import WiseFT


@dataclass(frozen=True)
class Paint(FT):
    """WiSE-FT with a head that never moves: only the image tower is trained, and only it is interpolated.

    The tower stays aligned with the text tower, so it answers for any list of classes. The paper's recipe is for the
    tasks that it patches: AdamW, lr 1e-5, batch 128, 500 steps of warm-up; it states none for ImageNet.
    """

    averages: ClassVar[bool] = False  # it returns a line, not a single model
    equation: ClassVar[str] = "L = CE(scale W_0 F(x), y) over F alone;  theta = (1 - alpha) theta0 + alpha theta_FT"
    source: ClassVar[str] = "Ilharco et al., NeurIPS 2022; mlfoundations/patching@3ca8622, src/patch.py, finetune.py"
    oracle: ClassVar[str] = (
        "none of its own: the loss and the line are those of ft and wise-ft, which wiseft_finetune.npz and "
        "wiseft_merge.npz hold"
    )
    traps: ClassVar[tuple[str, ...]] = (
        "the paper chooses alpha on held-out data of the patched and of supported tasks; ID validation alone picks 1",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"alpha-0": ("alpha", 0.0, "zero-shot")}

    alpha: float = 0.5  # of the headline row

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start(clip, data)
        zero_shot = clip.snapshot()
        return WiseFT(self.recipe, self.alpha).line(clip, zero_shot, self.tune(clip, data, run).snapshot())

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        clip.train_only("image")

    def problems(self) -> list[str]:
        return WiseFT(self.recipe, self.alpha).problems()
