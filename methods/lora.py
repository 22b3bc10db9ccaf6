"""LoRA: low-rank updates of the attention weights of both towers (CLIP-LoRA; Zanella, Ben Ayed, CVPRW 2024)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch.nn.functional as F

from robustbench_ft import Batch, Clip, Method, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import LossTerms, Objective, train

from ._low_rank import attention, install, layers, merge

ALIASES = ("clip-lora",)
R_LORA = Recipe(  # for 16 images per class: 500 steps for each of them
    lr=2e-4, weight_decay=1e-2, steps=8_000, batch=32, schedule="lipsum", augment="crop-flip", select="last"
)  # fmt: skip


@dataclass(frozen=True)
class LoRA(Method):
    """W + alpha / sqrt(r) B A for q, k and v of every block; at the end the updates are added to the weights.

    The head is no weight of its own: it is made of the class names by the text tower, in one template, anew at every
    step where that tower is tuned. A tower without attention gets updates of all its convolutions and linear layers
    but the first. What is saved is a plain model, and the head that its text tower makes.

    The authors' recipe, R_LORA, is for 16 images per class; its last rate is 1e-6 and not 0.
    """

    equation: ClassVar[str] = "L = CE(scale G(class) F(x), y), over A and B;  W' = W + (alpha / sqrt(r)) B A in F and G"
    source: ClassVar[str] = (
        "Zanella, Ben Ayed, CVPRW 2024; MaxZanella/CLIP-LoRA@358f0d7, lora.py, loralib/layers.py, run_utils.py"
    )
    oracle: ClassVar[str] = "layers.npz: outputs and gradients of PlainMultiheadAttentionLoRA, CLIP-LoRA@358f0d7"
    traps: ClassVar[tuple[str, ...]] = (
        "the released scaling is alpha / sqrt(r) and not LoRA's alpha / r: at r 2 the update is 1.4 times as large",
        "one template makes the head, in training and in tests: numbers are not comparable with 80 templates",
        "the released recipe is for 1 to 16 images per class, and its test accuracy is of the last step",
    )

    towers: Literal["both", "image", "text"] = "both"  # that get updates
    rank: int = 2  # r
    lora_alpha: float = 1.0  # alpha; peft's name, so that '+wise-ft' may have its own
    scaling: Literal["sqrt", "rank"] = "sqrt"  # alpha / sqrt(r), or LoRA's own alpha / r
    dropout: float = 0.25  # of the inputs of A, while training
    template: str = ""  # of the class names, with one {}; empty: the suite's first

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        task = self.one_template(data).task
        clip.start_from_zero_shot(task, self.resolved.head)
        clip.train_only()
        scale = self.lora_alpha / (math.sqrt(self.rank) if self.scaling == "sqrt" else self.rank)
        generator = run.generator("lora")
        beside = install(clip.model, self.places(clip), self.rank, scale, self.dropout, generator)
        for one in beside.values():
            one.low.requires_grad_(True)

        def rebuild_head() -> None:
            training = clip.training
            clip.eval()  # without dropout
            clip.start_from_zero_shot(task, self.resolved.head)
            clip.train(training)

        try:
            return train(clip, data, self.objective(clip, data, run), self.resolved, run, refresh=rebuild_head)
        finally:
            merge(clip.model, beside)

    def one_template(self, data: TrainSet) -> TrainSet:
        """The same data, with one template to name its classes."""
        template = self.template or data.task.templates[0]
        return replace(data, task=replace(data.task, templates=(template,)))

    def places(self, clip: Clip) -> list[str]:
        """Names in the model of the layers that get an update."""
        image = attention(clip.model.visual) or layers(clip.model.visual)
        text = [name for name in attention(clip.model) if not name.startswith("visual.")]
        return [f"visual.{name}" for name in image if self.towers != "text"] + (text if self.towers != "image" else [])

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        tokens = clip.tokenize(self.one_template(data).task.texts)  # [K, L]

        def loss(batch: Batch) -> LossTerms:
            if self.towers == "image":
                logits = clip.classify(batch.features)
            else:
                logits = clip.scale * batch.features @ clip.encode_text(tokens).T  # [B, D] @ [D, K]
            return {"nll": F.cross_entropy(logits, batch.labels, label_smoothing=self.resolved.label_smoothing)}

        return loss

    def skip(self, clip: Clip, data: TrainSet) -> str:
        known = self.towers == "image" or any(not name.startswith("visual.") for name in attention(clip.model))
        return "" if known else "its text tower has no attention by a name that is known; set towers=image"

    def problems(self) -> list[str]:
        rules = {
            f"rank={self.rank} must be at least 1": self.rank >= 1,
            f"dropout={self.dropout} must be at least 0 and below 1": 0 <= self.dropout < 1,
            f"template='{self.template}' must hold one {{}}": not self.template or self.template.count("{}") == 1,
        }
        return [line for line, ok in rules.items() if not ok]
