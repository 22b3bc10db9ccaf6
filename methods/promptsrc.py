"""PromptSRC: tokens in the blocks of both towers, held to what CLIP says without them (Khattak et al., ICCV 2023)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil, exp
from pathlib import Path
from typing import Any, ClassVar, Literal

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_ft import Batch, Candidates, Clip, Range, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import LossTerms, Objective, train

from ._deep_prompts import no_blocks, prompted
from ._sgd import few_shot, sgd, with_rate
from .clap import raw_head
from .coop import WEIGHT_DECAY, CoOp, Prompts

SPREAD = 0.02  # deviation of the normal that tokens start from
TOKENS = "tokens.safetensors"


@dataclass(frozen=True)
class PromptSRC(CoOp):
    """Both towers are frozen; what moves is M vectors before the class name, and tokens in the first blocks.

    Three terms hold features and logits to the frozen model's. The headline is a mean of the tokens at the ends of
    epochs, weighted by a normal density over the epoch's number; 'last' is the end of training. With `select = "best"`
    both are as they stood at the selected step. `mean` and `deviation` are those of 50 epochs on ImageNet; where there
    are fewer, the mean is nearly an even one.

    The optimiser is SGD with momentum 0.9 at `rate`; the authors' recipe is 50 epochs of batch 4 on 16 images per
    class, crops and flips, after one epoch at 1e-5. It needs a ViT of open_clip. What is saved is the model, its last
    head, and the image tower's tokens.
    """

    published: ClassVar[Mapping[str, Recipe]] = few_shot(50, 4, 2.5e-3, WEIGHT_DECAY)
    single_model: ClassVar[bool] = False  # its weights alone do not answer
    equation: ClassVar[str] = (
        "L = CE(u, y) + image_weight mean |f - f0| + text_weight mean |g - g0| + logit_weight KL(softmax u0 || softmax "
        "u) / K,  u = scale g f,  over the tokens of F and G;  tokens = sum_e w_e tokens_e, w_e ~ N(e; mean, "
        "deviation)"
    )
    source: ClassVar[str] = "Khattak et al., ICCV 2023; muzairkhattak/PromptSRC@bb95c77, trainers/promptsrc.py"
    oracle: ClassVar[str] = (
        "promptsrc.npz: towers, losses, gradients and weights of epochs, PromptSRC@bb95c77; in float32, where the "
        "released towers round tokens to float16"
    )
    traps: ClassVar[tuple[str, ...]] = (
        "the frozen text target is a mean of features that are not normalised (`target`); all other zero-shot heads "
        "are means of unit rows",
        "its texts are 60 of the 80 ImageNet templates for every data set; here they are the suite's",
        "in the released code, precision `amp` takes a tuple for the loss; the published runs are in fp16",
        "ImageNet's official validation images are validation and test there, as in CoOp; the last step is taken",
        "the mean of the tokens has other values for other data sets (45 and 5 on Cars, Flowers, Aircraft, DTD and "
        "EuroSAT), and nothing says on which data they were chosen",
    )
    ranges: ClassVar[Mapping[str, Range]] = {
        "image_weight": Range(1.0, 100.0, "log"), "text_weight": Range(1.0, 100.0, "log"),
    }  # fmt: skip

    rate: float = 2.5e-3  # of SGD, in place of the recipe's
    image_weight: float = 10.0  # lambda_1
    text_weight: float = 25.0  # lambda_2
    logit_weight: float = 1.0  # 1 in the paper
    depth: int = 9  # blocks with tokens, in each tower; of fewer blocks all
    image_tokens: int = 4  # in each of these blocks of the image tower; 0: none
    mean: float = 30.0  # mu, in epochs
    deviation: float = 30.0  # sigma
    target: Literal["raw", "unit"] = "raw"  # g0: a mean of text embeddings as the tower gives them, or of unit rows

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        clip.start_from_zero_shot(data.task, self.resolved.head)
        frozen, prompts = clip.frozen_copy(), Prompts(clip, data.task.classes)
        clip.image_tokens, clip.text_tokens = image, text = self.tokens(clip, run)
        clip.train_only("extra")

        def head() -> Tensor:
            with prompted(clip, text=tuple(text)):
                return prompts.head(text[0])

        def write_head() -> None:
            with torch.no_grad():
                clip.restore({"head": self.stored(clip, head())})

        write_head()
        recipe = with_rate(self.resolved, self.rate, WEIGHT_DECAY)
        average = EpochMean(clip, ceil(len(data.train) / recipe.batch), self.mean, self.deviation)
        with prompted(clip, tuple(image)):
            loss = self.against(clip, frozen, data, head)
            train(clip, data, loss, recipe, run, refresh=write_head, optimizer=sgd, companions=[average])
        found = {"last": self.scorer(clip, data, head, image)}
        clip.restore(average.state)
        found["mean"] = self.scorer(clip, data, head, image)
        del clip.image_tokens, clip.text_tokens
        return Candidates(clip, {name: lambda one=one: one for name, one in found.items()}, default="mean")

    def tokens(self, clip: Clip, run: Run) -> tuple[nn.ParameterList, nn.ParameterList]:
        """Of the image tower and of the text tower, a matrix for each block."""
        draws = run.generator("tokens")

        def drawn(n: int, width: int) -> nn.Parameter:
            return nn.Parameter((SPREAD * torch.randn(n, width, generator=draws)).to(clip.device))

        text = [nn.Parameter(self.first(clip, run))]
        deeper = min(self.depth, len(clip.model.transformer.resblocks)) - 1
        text += [drawn(*text[0].shape) for _ in range(deeper)]
        blocks, width = len(clip.model.visual.transformer.resblocks), clip.model.visual.conv1.out_channels
        image = [drawn(self.image_tokens, width) for _ in range(min(self.depth, blocks) if self.image_tokens else 0)]
        return nn.ParameterList(image), nn.ParameterList(text)

    def against(self, clip: Clip, frozen: Clip, data: TrainSet, head: Callable[[], Tensor]) -> Objective:
        """The objective, beside what the frozen model says."""
        before = F.normalize(raw_head(frozen, data), dim=-1) if self.target == "raw" else clip.zero_shot_head(data.task)

        def loss(batch: Batch) -> LossTerms:
            with torch.no_grad():
                features = frozen.encode_image(batch.images)
            return self.terms(clip.scale.detach(), batch.features, head(), features, before, batch.labels)

        return loss

    def terms(
        self, scale: Tensor, features: Tensor, head: Tensor, features0: Tensor, head0: Tensor, labels: Tensor
    ) -> LossTerms:
        """The loss from unit features [B, D] and heads [K, D], with tokens and without (`features0`, `head0`)."""
        logits, logits0 = scale * features @ head.T, scale * features0 @ head0.T
        nll = F.cross_entropy(logits, labels, label_smoothing=self.resolved.label_smoothing)
        said, says = logits0.log_softmax(dim=1), logits.log_softmax(dim=1)
        return {
            "nll": nll,
            "image": self.image_weight * (features - features0).abs().mean(),
            "text": self.text_weight * (head - head0).abs().mean(),
            "logits": self.logit_weight * F.kl_div(says, said, reduction="sum", log_target=True) / logits.numel(),
        }

    def stored(self, clip: Clip, head: Tensor) -> Tensor:
        """Unit rows as the head's convention stores them."""
        return head * clip.scale if self.resolved.head == "scaled" else head

    @torch.no_grad()
    def scorer(self, clip: Clip, data: TrainSet, head: Callable[[], Tensor], image: nn.ParameterList) -> "Prompted":
        """What answers with the tokens as they are now."""
        model = clip.frozen_copy()
        del model.image_tokens, model.text_tokens
        model.set_head(self.stored(clip, head()), self.resolved.head, data.task)
        return Prompted(model, tuple(tokens.detach().clone() for tokens in image))

    @classmethod
    def reload(cls, folder: Path, load: Callable[[str], Clip]) -> Candidates:
        clip, stored = load("tuned"), safetensors.torch.load_file(folder / TOKENS)
        tokens = tuple(stored[f"{k:02d}"].to(clip.device) for k in range(len(stored)))
        return Candidates(clip, {"mean": lambda: Prompted(clip, tokens)}, "mean")

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return no_blocks(clip) or super().skip(clip, data)

    def problems(self) -> list[str]:
        low = {
            "image_weight": self.image_weight >= 0, "text_weight": self.text_weight >= 0,
            "logit_weight": self.logit_weight >= 0, "depth": self.depth >= 1, "image_tokens": self.image_tokens >= 0,
            "deviation": self.deviation > 0,
        }  # fmt: skip
        return super().problems() + [f"{name}={getattr(self, name)} is too small" for name, ok in low.items() if not ok]


@dataclass(frozen=True)
class Prompted:
    """Answers with learnt tokens in the image tower of a frozen model, and with its head."""

    clip: Clip
    tokens: tuple[Tensor, ...]

    def logits(self, images: Tensor) -> Tensor:
        with prompted(self.clip, self.tokens):
            return self.clip.logits(images)

    def save(self, folder: Path, note: Mapping[str, Any]) -> None:
        self.clip.save(folder / "tuned", note)
        stored = {f"{k:02d}": tokens.cpu().contiguous() for k, tokens in enumerate(self.tokens)}
        (folder / TOKENS).write_bytes(safetensors.torch.save(stored))


@dataclass
class EpochMean:
    """The mean of what moves over the ends of epochs, weighted by a normal density of their number, from 1 on.

    The densities that were seen are made to sum to 1, so that it is a mean at any time.
    """

    clip: Clip
    per_epoch: int  # steps
    mean: float
    deviation: float
    total: float = 0.0
    state: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.clip.snapshot()

    @torch.no_grad()
    def after_step(self, step: int, of: int) -> None:
        done = step + 1
        density = exp(-0.5 * ((ceil(done / self.per_epoch) - self.mean) / self.deviation) ** 2)
        self.total += density if done % self.per_epoch == 0 or done == of else 0.0
        if self.total and done % self.per_epoch and done < of:
            return
        share = density / self.total if self.total else 1.0  # until an epoch has ended, what moves as it is
        for name, tensor in self.clip.snapshot().items():
            self.state[name].lerp_(tensor, share)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "state": self.state}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.total = state["total"]
        self.state = {name: tensor.to(self.clip.device) for name, tensor in state["state"].items()}
