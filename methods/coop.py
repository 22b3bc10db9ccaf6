"""CoOp: learnt vectors in place of the words around a class name (Zhou et al., IJCV 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_ft import Batch, Candidates, Clip, Method, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import LossTerms, train

from ._sgd import few_shot, sgd, with_rate
from ._text import NO_END, has_end_token

WEIGHT_DECAY = 5e-4  # Dassl's default (KaiyangZhou/Dassl.pytorch@0031929), which CoOp's configurations leave as it is


@dataclass(frozen=True)
class CoOp(Method):
    """The head is made by the text tower from [V_1 .. V_M, class name]; only V moves, and one V serves all classes.

    Both towers are frozen. What is saved is the last head, under the unit or the scaled convention. The optimiser is
    SGD with momentum 0.9 at `rate`, on gradients that pass through the text tower at every step; the recipe gives
    length, batch, schedule and augmentation. The authors' is 50 epochs of batch 32 on 16 images per class of ImageNet,
    crops and flips, after one epoch at 1e-5. On all of ID train no numbers are published.
    """

    published: ClassVar[Mapping[str, Recipe]] = few_shot(50, 32, 2e-3, WEIGHT_DECAY)
    equation: ClassVar[str] = "L = CE(scale G([V_1 .. V_M, c]) F0(x), y), over V"
    source: ClassVar[str] = "Zhou et al., IJCV 2022; KaiyangZhou/CoOp@ff61507, trainers/coop.py, configs/trainers/CoOp"
    oracle: ClassVar[str] = "layers.npz: text features and gradients of PromptLearner and TextEncoder, CoOp@ff61507"
    traps: ClassVar[tuple[str, ...]] = (
        "ImageNet's official validation images are validation and test there; the last step is taken",
        "few-shot subsets are drawn from a folder listing and cached: they differ between machines (CoOp#88)",
    )

    rate: float = 2e-3  # of SGD, in place of the recipe's
    init: str = "a photo of a"  # words that V starts from; empty: `n_context` vectors from a normal of deviation 0.02
    n_context: int = 4  # M, where `init` is empty

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        clip.start_from_zero_shot(data.task, self.resolved.head)
        zero_shot = clip.zero_shot_head(data.task)
        prompts = Prompts(clip, data.task.classes)
        clip.context = context = nn.Parameter(self.first(clip, run))
        clip.train_only("extra")

        def write_head() -> None:
            with torch.no_grad():
                rows = prompts.head(context)
                clip.restore({"head": rows * clip.scale if self.resolved.head == "scaled" else rows})

        def loss(batch: Batch) -> LossTerms:
            head = prompts.head(context)  # [K, D]
            logits = clip.scale.detach() * batch.features @ head.T
            nll = F.cross_entropy(logits, batch.labels, label_smoothing=self.resolved.label_smoothing)
            return {"nll": nll, **self.further(head, zero_shot)}

        write_head()
        recipe = with_rate(self.resolved, self.rate, WEIGHT_DECAY)
        train(clip, data, loss, recipe, run, refresh=write_head, optimizer=sgd)
        del clip.context
        return clip

    def further(self, head: Tensor, zero_shot: Tensor) -> LossTerms:
        """More terms of the loss, from the head as it is and as it was."""
        return {}

    def first(self, clip: Clip, run: Run) -> Tensor:
        """V at the start, [M, W]."""
        if self.init:
            tokens = clip.tokenize([self.init])
            return clip.embed(tokens)[0, 1 : int(tokens.argmax())].detach().clone()
        width = clip.model.token_embedding.weight.shape[1]
        return (0.02 * torch.randn(self.n_context, width, generator=run.generator("context"))).to(clip.device)

    def skip(self, clip: Clip, data: TrainSet) -> str:
        if not has_end_token(clip):
            return f"{NO_END}, so no vectors can be put before the class name"
        longest = int(clip.tokenize(data.task.classes).argmax(dim=-1).max()) + 1
        needed = longest + (int(clip.tokenize([self.init]).argmax()) - 1 if self.init else self.n_context)
        return "" if needed <= clip.model.context_length else f"{needed} tokens do not fit into its context"

    def problems(self) -> list[str]:
        rules = {"rate": self.rate > 0, "n_context": self.n_context >= 1}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]


class Prompts:
    """Class names as word embeddings, with room for a context behind the start token."""

    def __init__(self, clip: Clip, classes: tuple[str, ...]) -> None:
        tokens = clip.tokenize([f"{name}." for name in classes])  # [K, L]
        self.clip, self.ends = clip, tokens.argmax(dim=-1)
        self.words = clip.embed(tokens).detach()  # [K, L, W]

    def head(self, context: Tensor) -> Tensor:
        """[M, W] -> unit text embeddings [K, D]."""
        shared = context.expand(len(self.words), -1, -1)
        words = torch.cat([self.words[:, :1], shared, self.words[:, 1:]], dim=1)
        return F.normalize(self.clip.encode_embedded(words, self.ends + len(context)).float(), dim=-1)
