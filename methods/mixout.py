"""Mixout: FT in which weights are mixed at random with the pre-trained ones (Lee, Cho, Kang, ICLR 2020)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.train import LossTerms, Objective

from .ft import FT


@dataclass(frozen=True)
class Mixout(FT):
    """Each step computes with theta0 + dropout(theta - theta0): p of the weights are the pre-trained ones.

    This is what the printed (m theta0 + (1 - m) theta - p theta0) / (1 - p) comes to: the rest is moved 1 / (1 - p)
    times as far, so the mean is theta. Weights of linear layers and convolutions of the image tower are mixed. As in
    the authors' code, a draw is for one input of a layer, as dropout's is, and so shared by all its outputs. Norms,
    biases, embeddings, a projection that is no layer, and the head are left alone. Evaluated and saved is theta itself.

    The paper is on BERT, with p from 0.7 to 0.9. For CLIP no value is known.
    """

    equation: ClassVar[str] = (
        "L = CE at theta0 + m (theta - theta0) / (1 - p),  m ~ Bernoulli(1 - p) for each input of a layer"
    )
    source: ClassVar[str] = "Lee, Cho, Kang, ICLR 2020; bloodwass/mixout@18f377d, mixout/mixout.py"
    oracle: ClassVar[str] = "layers.npz: values and gradients of Mixout.apply, mixout@18f377d"
    traps: ClassVar[tuple[str, ...]] = (
        "the released backward lacks the 1 / (1 - p) of its forward: mixed weights learn as if at (1 - p) times the "
        "loss; Adam hides this but for clipping and epsilon. `gradient=released` does so",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("p", 0.0, "ft")}

    p: float = 0.9  # the share that is the pre-trained weight
    draw: Literal["input", "weight"] = "input"  # one draw for each input of a layer, or for each weight
    gradient: Literal["exact", "released"] = "released"  # of a mixed weight; 'released' lacks the 1 / (1 - p)

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        if self.p == 0:
            return super().objective(clip, data, run)
        weights = mixed_weights(clip)
        before = {name: weight.detach().clone() for name, weight in weights.items()}

        def loss(batch: Batch) -> LossTerms:
            generator = run.generator("mixout", batch.step)
            mixed = {
                name: mix(weight, before[name], self.mask(weight, generator), self.p, self.gradient == "exact")
                for name, weight in weights.items()
            }
            logits = functional_call(clip, mixed, (batch.images,))
            return {"nll": F.cross_entropy(logits, batch.labels, label_smoothing=self.resolved.label_smoothing)}

        return loss

    def mask(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """What is kept, 1 with probability 1 - p: [1, ...] for each input, or as `weight` is."""
        shape = weight.shape if self.draw == "weight" else (1, *weight.shape[1:])
        return (torch.rand(shape, generator=generator) >= self.p).to(weight)

    def problems(self) -> list[str]:
        return [] if 0 <= self.p < 1 else [f"p={self.p} must be at least 0 and below 1"]


def mixed_weights(clip: Clip) -> dict[str, nn.Parameter]:
    """The matrices and kernels of the image tower that have gradients, by name."""
    names = {id(p): name for name, p in clip.named_parameters()}
    found: dict[str, nn.Parameter] = {}
    for module in clip.model.visual.modules():
        for name in ("weight", "in_proj_weight"):
            weight = getattr(module, name, None)
            if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention) and isinstance(weight, nn.Parameter):
                found |= {names[id(weight)]: weight} if weight.requires_grad else {}
    return found


def mix(weight: Tensor, before: Tensor, kept: Tensor, p: float, exact: bool = True) -> Tensor:
    """((1 - kept) before + kept weight - p before) / (1 - p); the gradient to `weight` is kept / (1 - p), else kept."""
    value = before + kept * (weight - before) / (1 - p)
    return value if exact else (value - kept * weight).detach() + kept * weight
