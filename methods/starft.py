"""StarFT: FLYP that keeps the frozen model's answers to spurious captions (Kim et al., IJCAI 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.errors import RbftError
from robustbench_ft.method import FileName
from robustbench_ft.prompts import fill
from robustbench_ft.recipe import R_FLYP, Recipe
from robustbench_ft.train import LossTerms, Objective

from ._drift import kl
from ._texts import known, lines, refusal
from .flyp import FLYP, contrastive

# Places, lights and colours that say nothing about a class; {} is a caption. Written for this project.
SPURIOUS = (
    "{} in a forest.", "{} in a field of grass.", "{} in the sand.", "{} in the snow.", "{} in water.",
    "{} at the sea.", "{} under a blue sky.", "{} at night.", "{} in the dark.", "{} in a street.", "{} on a road.",
    "{} in a room.", "{} on a wooden table.", "{} on a wall.", "{} with a flower.", "{} with a man.",
    "{}, blue.", "{}, green.", "{}, red.",
)  # fmt: skip
MASKED = -1e8  # logit of captions of the image's own class


@dataclass(frozen=True)
class StarFT(FLYP):
    """FLYP's loss + strength * (1 - progress) * KL(p0 || p), p the softmax over the batch's spurious captions.

    A spurious caption is that of the image put into a random spurious template. Those of the image's own class are
    masked on both sides, and both sides take the frozen model's scale. The text tower learns from these captions too.
    The authors' factor is 1 - (epoch + 1) / epochs, so their last epoch is FLYP; a recipe in steps falls evenly.

    `spurious` is a file with one template per line, each with one {}. Without it there is a short list of our own:
    that of the authors was made by a language model, and their rows cannot be repeated without it. Of our list, a model
    whose tokenizer holds few words takes the templates that it can read; the log says how many.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_FLYP}
    equation: ClassVar[str] = (
        "L = FLYP + strength (1 - (epoch + 1) / epochs) KL(p0(x) || p(x)),  p(x) = softmax_j(scale0 <F(x), G(s_j)>)"
    )
    source: ClassVar[str] = "Kim et al., IJCAI 2025; alinlab/StarFT@4d11b94, clip/loss.py (StarReg), src/main.py"
    oracle: ClassVar[str] = "starft.npz: StarFT@4d11b94"
    traps: ClassVar[tuple[str, ...]] = (
        "the authors caption with one template, and not with FLYP's 80: `--set template=` gives those of the suite",
        "counted in epochs, one epoch alone has strength 0",
        "a batch of one class has nothing to compare: its penalty is 0",
    )

    strength: float = 0.5  # rho
    spurious: FileName = ""  # file with one template per line; empty: a short list of our own
    template: str = "a photo of a {}."  # of the captions; empty: all templates of the suite, at random

    def captions(self, clip: Clip, data: TrainSet) -> Tensor:
        """Every class in every template, as tokens [K, T, L], where the model is."""
        if not self.template:
            return super().captions(clip, data)
        return clip.tokenize([fill(self.template, name) for name in data.task.classes])[:, None].to(clip.device)

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        captions, odd, anchor = self.captions(clip, data), self.odd(clip, data, run), clip.frozen_copy()

        def loss(batch: Batch) -> LossTerms:
            texts, spurious = self.pair(captions, batch, run), self.pair_odd(odd, batch, run)
            with torch.no_grad():
                images, odd_texts = (
                    batch.by_rows(anchor.encode_image, batch.images),
                    batch.by_rows(anchor.encode_text, spurious),
                )
                before = anchor.scale * images @ odd_texts.T  # [B, B]
            now = anchor.scale * batch.features @ batch.by_rows(clip.encode_text, spurious).T
            kept = spurious_gap(before, now, batch.labels)
            return {
                "contrastive": contrastive(batch.features, batch.by_rows(clip.encode_text, texts), clip.scale),
                "spurious": self.strength * self.fading(batch) * kept,
            }

        return loss

    def odd(self, clip: Clip, data: TrainSet, run: Run) -> Tensor:
        """Every class in every spurious template that the model can read, as tokens [K, S, L]."""
        templates, base = self.templates(clip), self.template or data.task.templates[0]
        run.log({"event": "texts", "spurious_templates": len(templates)})
        captions = [fill(base, name).removesuffix(".") for name in data.task.classes]
        texts = [template.format(caption) for caption in captions for template in templates]
        return clip.tokenize(texts).view(len(captions), len(templates), -1).to(clip.device)

    def templates(self, clip: Clip) -> tuple[str, ...]:
        """The spurious templates. Raises `RbftError` where a line has not exactly one {}."""
        if not self.spurious:
            return tuple(text for text in SPURIOUS if known(clip, [text.format("")]))
        found = lines(self.spurious, "the spurious templates")
        if wrong := [text for text in found if text.count("{}") != 1]:
            raise RbftError(f"{self.spurious}: '{wrong[0]}' needs one {{}}, the place of the caption")
        return found

    def pair_odd(self, odd: Tensor, batch: Batch, run: Run) -> Tensor:
        """One spurious caption for each image of the batch, [B, L]."""
        template = torch.randint(odd.shape[1], batch.labels.shape, generator=run.generator("spurious", batch.step))
        return odd[batch.labels, template.to(batch.labels.device, non_blocking=True)]

    def fading(self, batch: Batch) -> float:
        """1 - (epoch + 1) / epochs, or the same of steps where the recipe counts in these."""
        parts = batch.of if self.resolved.steps else self.resolved.epochs
        return 1 - (batch.step * parts // batch.of + 1) / parts

    def skip(self, clip: Clip, data: TrainSet) -> str:
        templates = self.templates(clip)
        return refusal(clip, [template.format("") for template in templates]) if templates else NO_TEXTS

    def problems(self) -> list[str]:
        found = super().problems() + ([] if self.strength >= 0 else [f"strength={self.strength} must be at least 0"])
        wrong = self.template and self.template.count("{}") != 1
        return found + ([f"template='{self.template}' needs one {{}}"] if wrong else [])


NO_TEXTS = "it can read none of the built-in spurious templates; name a file of your own: --set spurious=FILE"


def spurious_gap(before: Tensor, now: Tensor, labels: Tensor) -> Tensor:
    """KL(p0 || p) of logits [B, B] over captions of other classes, mean over images; `labels` [B]; a scalar."""
    same = labels[:, None] == labels[None]
    return kl(before.masked_fill(same, MASKED), now.masked_fill(same, MASKED))
