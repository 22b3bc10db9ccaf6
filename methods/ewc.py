"""EWC: FT with a pull back that is strong where the zero-shot model's answers are (Kirkpatrick et al., PNAS 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.train import Batches, LossTerms, Objective

from ._drift import copies, squared_distance, tower
from .ft import FT


@dataclass(frozen=True)
class EWC(FT):
    """nll + strength / 2 * sum of Fisher_j (theta_j - theta0_j)^2 over the image tower; the head is free.

    The Fisher information belongs on the data of the old task. CLIP's are not at hand, so it is estimated on `n_fisher`
    images of ID training, without augmentation, with the zero-shot model's own labels: the most probable class
    (`labels` 'predicted', FACIL's default), or a draw from its probabilities ('sampled', the definition). No true label
    is used. Gradients are squared one example at a time.

    The strength is ours, declared before any run: that of ImageNet-RIB, whose best baselines are EWC and LwF, could not
    be verified.
    """

    equation: ClassVar[str] = (
        "L = CE + strength / 2 sum_j F_j (theta_j - theta0_j)^2,  F_j = mean_x (d log p_theta0(y | x) / d theta_j)^2"
    )
    source: ClassVar[str] = "Kirkpatrick et al., PNAS 2017; mmasana/FACIL@e0563c7, src/approach/ewc.py"
    oracle: ClassVar[str] = "none: tests compute the Fisher information one image at a time, and the sum in float64"
    traps: ClassVar[tuple[str, ...]] = (
        "FACIL squares the gradient of a batch, times its size: its Fisher, and its strength 5000, depend on the batch",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("strength", 0.0, "ft")}

    strength: float = 100.0  # lambda
    n_fisher: int = 1_000  # images; all of them where there are fewer
    labels: Literal["predicted", "sampled"] = "predicted"  # the most probable class, or a draw from the probabilities

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, moving = super().objective(clip, data, run), tower(clip)
        before, roots = copies(moving), [f.sqrt() for f in self.fisher(clip, data, run)]

        def loss(batch: Batch) -> LossTerms:
            pull = squared_distance(moving, before, roots) / 2
            return {**fine_tuning(batch), "elastic": self.strength * pull}

        return loss

    def fisher(self, clip: Clip, data: TrainSet, run: Run) -> list[Tensor]:
        """The diagonal of the Fisher information of the model as it is, for each trained tensor of the image tower."""
        n, moving, training = min(self.n_fisher, len(data.train)), tower(clip), clip.training
        plain = replace(self.resolved, steps=n, epochs=0, batch=1, augment="none", shuffle=True)
        images, sums = Batches(clip, data.train, plain, run.branch("fisher")), [torch.zeros_like(p) for p in moving]
        clip.eval()
        with clip.exact(), run.progress.bar("fisher", n, "images") as advance:
            for k in range(n):
                surprise = self.surprise(clip, images(k).images, run.generator("labels", k))
                gradients = torch.autograd.grad(surprise, moving)
                torch._foreach_addcmul_(sums, gradients, gradients)  # pyright: ignore
                advance(1)
        clip.train(training)
        return [total / n for total in sums]

    def surprise(self, clip: Clip, image: Tensor, generator: torch.Generator) -> Tensor:
        """-log p of the model's own label of one image [1, 3, H, W], a scalar."""
        log_p = clip.logits(image).log_softmax(dim=-1)[0]  # [K]
        if self.labels == "predicted":
            return -log_p.max()
        return -log_p[int(torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator))]

    def problems(self) -> list[str]:
        rules = {"strength": self.strength >= 0, "n_fisher": self.n_fisher >= 1}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]
