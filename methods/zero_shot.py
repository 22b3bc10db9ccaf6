"""Zero-shot: no training; the head is made of text embeddings of the class names (Radford et al., 2021)."""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_ft import Clip, Method, Run, TrainSet


@dataclass(frozen=True)
class ZeroShot(Method):
    """The pre-trained model as it is: what every other row is compared with."""

    trains: ClassVar[bool] = False
    equation: ClassVar[str] = "w_c = normalise(mean over templates t of G(t(c)));  logits = scale W F(x)"
    source: ClassVar[str] = "Radford et al., ICML 2021; mlfoundations/wise-ft@58b7a4b, src/models/zeroshot.py"
    oracle: ClassVar[str] = "zeroshot.npz, forward.npz: heads of lipsum-ft@1331873 and wise-ft@58b7a4b"

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        clip.start_from_zero_shot(data.task)
        return clip.eval()
