"""FLYP: fine-tune like you pretrain, with the contrastive loss on prompted class names (Goyal et al., CVPR 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_ft import Batch, Candidates, Clip, Method, Run, TrainSet
from robustbench_ft.recipe import R_FLYP, Recipe
from robustbench_ft.train import LossTerms, Objective, train


@dataclass(frozen=True)
class FLYP(Method):
    """Both towers and the scale move; each image is paired with its class in a random template.

    As in the authors' code, two images of one class in a batch are negatives of each other (the targets are the
    diagonal), and the head of the tuned model is rebuilt from its tuned text tower, all templates, learned scale.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_FLYP}
    separable: ClassVar[bool] = False  # every image is compared with every caption of its batch
    equation: ClassVar[str] = "L = (CE_rows(scale I T^T) + CE_columns(scale I T^T)) / 2, over F, G and the scale"
    source: ClassVar[str] = "Goyal et al., CVPR 2023; locuslab/FLYP@215d5bb, src/models/flyp_loss.py, clip/loss.py"
    oracle: ClassVar[str] = "flyp.npz: FLYP@215d5bb"
    traps: ClassVar[tuple[str, ...]] = (
        "two images of one class in a batch are negatives of each other, as in the released code",
        "the released FMoW table takes positions of the table after rows were dropped; WILDS' own index is used here",
    )

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        clip.train_only("image", "text", "scale")

        def rebuild_head() -> None:
            clip.start_from_zero_shot(data.task, self.resolved.head)

        rebuild_head()
        return train(clip, data, self.objective(clip, data, run), self.resolved, run, refresh=rebuild_head)

    def problems(self) -> list[str]:
        smoothed = self.recipe is not None and self.recipe.label_smoothing
        return ["label_smoothing has no effect on the contrastive loss; leave it out"] if smoothed else []

    def captions(self, clip: Clip, data: TrainSet) -> Tensor:
        """Every class in every template, as tokens [K, T, L], where the model is."""
        tokens = clip.tokenize(data.task.texts).to(clip.device)
        return tokens.view(len(data.task.classes), len(data.task.templates), -1)

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        captions = self.captions(clip, data)

        def loss(batch: Batch) -> LossTerms:
            texts = batch.by_rows(clip.encode_text, self.pair(captions, batch, run))
            return {"contrastive": contrastive(batch.features, texts, clip.scale)}

        return loss

    def pair(self, captions: Tensor, batch: Batch, run: Run) -> Tensor:
        """One caption for each image of the batch, [B, L]."""
        template = torch.randint(captions.shape[1], batch.labels.shape, generator=run.generator("captions", batch.step))
        return captions[batch.labels, template.to(batch.labels.device, non_blocking=True)]


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Mean of image-to-text and text-to-image cross-entropy; unit rows [B, D] each, row i belongs to row i."""
    logits = scale * images @ texts.T  # [B, B]
    target = torch.arange(len(images), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
