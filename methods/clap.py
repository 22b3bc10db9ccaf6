"""CLAP: a linear probe held to each class's text embedding (Silva-Rodriguez et al., CVPR 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_ft import Batch, Clip, Method, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import LossTerms, train

from ._sgd import few_shot, sgd, with_rate
from ._text import NO_END, has_end_token
from ._views import Views

TEXTS = 256  # in one pass of the text tower


@dataclass(frozen=True)
class CLAP(Method):
    """Prototypes w_c, normalised in the logits, start at the text embeddings and are pulled back to them.

    a_c is the mean probability that the zero-shot model gives class c on its own training images: what it knows well
    is held. It is computed once and has no weight to tune. The prototypes are means of text embeddings as the tower
    gives them, about 10 long for OpenAI's models; this length sets how far `rate` turns them and how strong the pull
    is. Towers are frozen, features computed once. The head that is saved has unit rows. With `adapt`, a_c grows after
    each epoch by d_c times what d_c was an epoch before (at first 0), d_c = ||w_c - w0_c||^2: the outer step of the
    paper's augmented Lagrangian as released, which the published commands leave out.

    The optimiser is SGD with momentum 0.9 at `rate`; the recipe gives length, batch and schedule. The authors' is 300
    epochs of batch 256 on 20 random crops of each of 1 to 16 images per class, after one epoch at 1e-5.
    """

    later: ClassVar[tuple[str, ...]] = ("adapt",)
    published: ClassVar[Mapping[str, Recipe]] = few_shot(300, 256, 0.1, 0.0)
    equation: ClassVar[str] = (
        "L = CE(scale normalise(W) F0(x), y) + strength mean_c a_c ||w_c - w0_c||^2, over W;  "
        "a_c = mean over images of c of p_0(c | x)"
    )
    source: ClassVar[str] = "Silva-Rodriguez et al., CVPR 2024; jusiro/CLAP@dbdf409, trainers/adapters.py"
    oracle: ClassVar[str] = (
        "layers.npz, clap_adapt.npz: weights a_c, losses, gradients and outer steps of AdapterMethod and CustomCLIP, "
        "CLAP@dbdf409"
    )
    traps: ClassVar[tuple[str, ...]] = (
        "the paper derives a_c from an augmented Lagrangian; the published commands set it once and never update it "
        "(`l2`, not `adaptative`: here `adapt`)",
        "the released code sees the test set at every step, to log its accuracy; nothing is selected by it",
        "the initialisations with a grid search select on the test set",
    )

    rate: float = 0.1  # of SGD, in place of the recipe's
    strength: float = 1.0  # of the pull; 0 is the authors' ZS-LP
    views: int = 20  # augmented views of each image; 0: the evaluation transform
    start: Literal["raw", "unit"] = "raw"  # prototypes as the text tower gives them, or as unit rows
    adapt: bool = False  # let a_c grow while it is trained

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        clip.start_from_zero_shot(data.task, self.resolved.head)
        source = Views(clip, data, run, self.resolved, self.views, clip.encode_image)
        before = raw_head(clip, data) if self.start == "raw" else clip.zero_shot_head(data.task)
        clip.prototypes = prototypes = nn.Parameter(before.clone())
        clip.train_only("extra")
        logits = clip.scale.detach() * source.train @ F.normalize(before, dim=-1).T  # [V, N, K]
        holds = confidence(logits, source.labels.to(clip.device))
        growing = Multipliers(holds, prototypes, before, ceil(len(source) / self.resolved.batch))

        def write_head() -> None:
            rows = F.normalize(prototypes.detach(), dim=-1)
            clip.restore({"head": rows * clip.scale if self.resolved.head == "scaled" else rows})

        def loss(batch: Batch) -> LossTerms:
            return self.terms(clip, batch, prototypes, before, growing.holds)

        write_head()
        recipe = with_rate(self.resolved, self.rate, weight_decay=0.0)
        beside = [growing] if self.adapt else []
        train(clip, source, loss, recipe, run, refresh=write_head, optimizer=sgd, companions=beside)
        del clip.prototypes
        return clip

    def terms(self, clip: Clip, batch: Batch, prototypes: Tensor, before: Tensor, holds: Tensor) -> LossTerms:
        """Cross-entropy, and the pull to `before` [K, D] with the weight `holds` [K] of each class."""
        logits = clip.scale.detach() * batch.features @ F.normalize(prototypes, dim=-1).T  # [B, K]
        nll = F.cross_entropy(logits, batch.labels, label_smoothing=self.resolved.label_smoothing)
        distance = (prototypes - before).square().sum(dim=-1)  # [K]
        return {"nll": nll, "pull": self.strength * (holds * distance).mean()}

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if self.start == "unit" or has_end_token(clip) else f"{NO_END}; set start=unit"

    def problems(self) -> list[str]:
        rules = {"rate": self.rate > 0, "strength": self.strength >= 0, "views": self.views >= 0}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]


@dataclass
class Multipliers:
    """a [K], which an outer step moves after each epoch: a' = max(0, a + rho d), then rho' = d; rho is 0 at first."""

    holds: Tensor
    prototypes: Tensor
    before: Tensor
    per_epoch: int  # steps
    penalty: Tensor = field(init=False)  # rho

    def __post_init__(self) -> None:
        self.penalty = torch.zeros_like(self.holds)

    def after_step(self, step: int, of: int) -> None:
        if (step + 1) % self.per_epoch == 0:
            distance = (self.prototypes.detach() - self.before).square().sum(dim=-1)
            self.holds = (self.holds + self.penalty * distance).clamp(min=0)
            self.penalty = distance

    def state_dict(self) -> dict[str, Any]:
        return {"holds": self.holds, "penalty": self.penalty}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.holds, self.penalty = (state[name].to(self.before.device) for name in ("holds", "penalty"))


@torch.no_grad()
def raw_head(clip: Clip, data: TrainSet) -> Tensor:
    """[K, D]: mean over templates of text embeddings that are not normalised.

    Raises `RbftError` for a text tower that is not causal; `start=unit` needs none.
    """
    tokens, task = clip.tokenize(data.task.texts), data.task
    parts = [clip.encode_embedded(clip.embed(some), some.argmax(dim=-1)) for some in tokens.split(TEXTS)]
    return torch.cat(parts).float().view(len(task.classes), len(task.templates), -1).mean(dim=1)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """a [K]: mean probability of class c on images of c, from logits [V, N, K]; 1 for a class without images."""
    own = logits.softmax(dim=-1).gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]  # [V, N]
    total = torch.zeros(logits.shape[-1], device=logits.device)
    counts = torch.bincount(labels, minlength=len(total)) * len(logits)
    total = total.index_add(0, labels.repeat(len(logits)), own.flatten())
    return torch.where(counts > 0, total / counts.clamp(min=1), 1.0)
