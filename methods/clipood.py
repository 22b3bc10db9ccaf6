"""CLIPood: a softmax with margins over a fixed text head, and a Beta average of the path (Shu et al., ICML 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_ft import Batch, Candidates, Clip, Run, TrainSet
from robustbench_ft.train import LossTerms, Objective, train

from .ft import FT

State = dict[str, Tensor]


@dataclass(frozen=True)
class CLIPood(FT):
    """The image tower alone is trained; the head stays the zero-shot head. All modules are in evaluation mode.

    The margin of a class pair is the likeness of their texts, so the own class gives away `margin` and a near one less.
    The average is over the whole path, so the last weights are kept whatever the recipe's `select` says. The authors
    train with AdamW, rate 5e-6 or 1e-5, weight decay 0.1, cosine without warm-up, batches of 12 per domain or 36.
    """

    averages: ClassVar[bool] = False  # it is one
    equation: ClassVar[str] = (
        "L = CE(scale W (F(x) - margin w_y), y);  "
        "mean of theta_0..theta_N, weights Beta(beta, beta) at (k + 1/2) / (N + 1)"
    )
    source: ClassVar[str] = "Shu et al., ICML 2023; thuml/CLIPood@bc0d874, engine.py, main.py, scripts.sh"
    oracle: ClassVar[str] = "clipood.npz: CLIPood@bc0d874"
    traps: ClassVar[tuple[str, ...]] = (
        "the released loop evaluates every test domain each epoch; the average, reported at the end, selects nothing",
        "it writes the accuracy on validation into the log of every test split",
        "its tower computes in half precision between updates in float32; here the recipe's precision holds",
    )

    margin: float = 0.3  # lambda; 0.1 in the scripts that have new domains and new classes
    beta: float = 0.5  # 0.1 in the scripts with new classes; 1 is a plain mean

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        self.start(clip, data)
        average = BetaAverage(clip, self.beta)
        recipe = replace(self.resolved, select="last")
        last = train(clip, data, self.objective(clip, data, run), recipe, run, companions=[average]).snapshot()
        return Candidates(clip, {"last": lambda: last, "average": lambda: average.mean}, default="average")

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        clip.train_only("image")

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        rows = clip.head.detach()  # [K, D]
        scale = clip.scale.detach() if clip.head_kind == "unit" else clip.scale.detach().reciprocal()
        near = scale * self.margin * rows @ rows.T  # [K, K] in logits; 'scaled' rows hold the scale twice
        smoothing = self.resolved.label_smoothing

        def loss(batch: Batch) -> LossTerms:
            clip.eval()  # also normalisation layers, as the released code has it
            logits = clip.classify(batch.features) - near[batch.labels]
            return {"nll": F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)}

        return loss

    def problems(self) -> list[str]:
        found = [] if self.margin >= 0 else [f"margin={self.margin} must be at least 0"]
        return found + ([] if self.beta > 0 else [f"beta={self.beta} must be above 0"])


class BetaAverage:
    """A companion of training: the mean of the path from theta0 on, weighted by the density of Beta(beta, beta)."""

    def __init__(self, clip: Clip, beta: float) -> None:
        self.clip, self.beta, self.mean = clip, beta, clip.snapshot()
        self.total = 0.0  # of the weights so far; 0 before the first update

    def weight(self, k: int, of: int) -> float:
        """Of theta_k, up to a constant: (x (1 - x))^(beta - 1) at x = (k + 1/2) / (of + 1)."""
        x = (k + 0.5) / (of + 1)
        return (x * (1 - x)) ** (self.beta - 1)

    @torch.no_grad()
    def after_step(self, step: int, of: int) -> None:
        weight = self.weight(step + 1, of)
        self.total = (self.total or self.weight(0, of)) + weight
        now: State = self.clip.moving()
        for name, mean in self.mean.items():
            mean.lerp_(now[name], weight / self.total)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": dict(self.mean), "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.mean: dict[str, Tensor] = {name: tensor.clone() for name, tensor in state["mean"].items()}
        self.total = state["total"]
