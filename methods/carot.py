"""CaRot: FLYP with an orthogonal projection, distilled from a slow average of itself (Oh et al., NeurIPS 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_ft import Batch, Candidates, Clip, Run, TrainSet
from robustbench_ft.recipe import R_FLYP, Recipe
from robustbench_ft.train import LossTerms, Objective, train

from .flyp import FLYP, contrastive

State = dict[str, Tensor]


@dataclass(frozen=True)
class CaRot(FLYP):
    """FLYP's loss + ortho |P^T P - I|_F + cross |P Q^T|_F + distill * cross-entropy to a slow teacher.

    P [W, D] and Q [V, D] are the projections of the image and the text tower. The teacher is a running average of the
    student: it moves after step 0 and after every `every` steps, m of the old and 1 - m of the student, where m rises
    from `momentum_start` to `momentum_end` over the first `momentum_warmup` of the run.

    A run of no more than `every` steps has a teacher that is the student after its first step, up to m, and stays so.
    `every` is not scaled to the length of a run: TRACER's authors report a collapse where it is 1.

    The authors report the student, in float16; the teacher, which they save, is the second candidate.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet": R_FLYP}
    equation: ClassVar[str] = (
        "L = FLYP + ortho |P^T P - I|_F + cross |P Q^T|_F"
        " - distill mean_i sum_j (teacher_ij log p_ij + the same of texts to images)"
    )
    source: ClassVar[str] = "Oh et al., NeurIPS 2024; MLAI-Yonsei/CaRot@c3e8bdc, src/models/carot_loss.py"
    oracle: ClassVar[str] = "carot_selfdistill.npz, ema.npz, carot_penalties.npz: CaRot@c3e8bdc"
    traps: ClassVar[tuple[str, ...]] = (
        "the norms of the code are not squared, and |P Q^T|, weight 0.05, is missing from most descriptions",
        "its calibration errors are averages over batches unless told otherwise",
    )

    ortho: float = 0.2  # --l_orth_wv
    cross: float = 0.05  # --cross_fnorm
    distill: float = 1.5  # --distil_coef
    every: int = 500  # --ema_up_freq
    momentum_start: float = 0.05  # --m_sche_src
    momentum_end: float = 0.9  # --m_sche_tar
    momentum_warmup: float = 0.2  # --m_warm_up
    report: Literal["student", "teacher"] = "student"  # the model of the headline row

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        clip.train_only("image", "text", "scale")

        def rebuild_head() -> None:
            clip.start_from_zero_shot(data.task, self.resolved.head)

        rebuild_head()
        teacher = Teacher(clip, self)
        loss = self.beside(teacher, clip, data, run)
        train(clip, data, loss, self.resolved, run, refresh=rebuild_head, companions=[teacher])
        student = whole(clip)
        clip.restore(teacher.state_dict())
        rebuild_head()
        slow = whole(clip)
        clip.restore(student)
        return Candidates(clip, {"student": lambda: student, "teacher": lambda: slow}, default=self.report)

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        return self.beside(Teacher(clip, self), clip, data, run)

    def beside(self, teacher: "Teacher", clip: Clip, data: TrainSet, run: Run) -> Objective:
        """The objective beside this teacher, which is asked from step 1 on."""
        captions = self.captions(clip, data)

        def loss(batch: Batch) -> LossTerms:
            tokens = self.pair(captions, batch, run)
            images, texts = batch.features, batch.by_rows(clip.encode_text, tokens)
            terms = {"contrastive": contrastive(images, texts, clip.scale)}
            terms["ortho"] = self.ortho * not_orthogonal(image_projection(clip))
            terms["cross"] = self.cross * torch.linalg.norm(image_projection(clip) @ text_projection(clip).T)
            if batch.step:
                now, then = clip.scale * images @ texts.T, teacher.logits(batch, tokens)  # [B, B] each
                terms["distill"] = self.distill * (towards(then, now) + towards(then.T, now.T))
            else:
                terms["distill"] = images.new_zeros(())
            return terms

        return loss

    def skip(self, clip: Clip, data: TrainSet) -> str:
        try:
            found = image_projection(clip).shape[1] == text_projection(clip).shape[1]
        except AttributeError:
            found = False
        return "" if found else "its towers do not end in linear projections to one space, which this method constrains"

    def problems(self) -> list[str]:
        weights = ("ortho", "cross", "distill")
        found = [f"{name}={getattr(self, name)} must be at least 0" for name in weights if getattr(self, name) < 0]
        shares = ("momentum_start", "momentum_end", "momentum_warmup")
        found += [
            f"{name}={getattr(self, name)} must be in [0, 1]" for name in shares if not 0 <= getattr(self, name) <= 1
        ]
        return super().problems() + found + ([] if self.every >= 1 else [f"every={self.every} must be at least 1"])


class Teacher:
    """A companion of training: the slow average of both towers and the scale."""

    def __init__(self, clip: Clip, method: CaRot) -> None:
        self.student, self.method, self.slow = clip, method, clip.frozen_copy()

    @torch.no_grad()
    def logits(self, batch: Batch, tokens: Tensor) -> Tensor:
        """[B, B], with the teacher's own scale."""
        images = batch.by_rows(self.slow.encode_image, batch.images)
        return self.slow.scale * images @ batch.by_rows(self.slow.encode_text, tokens).T

    @torch.no_grad()
    def after_step(self, step: int, of: int) -> None:
        if step % self.method.every == 0:
            m = momentum(self.method, step, of)
            for mean, now in zip(self.slow.model.parameters(), self.student.model.parameters(), strict=True):
                mean.mul_(m).add_((1 - m) * now)

    def state_dict(self) -> State:
        return {f"model.{name}": p.detach() for name, p in self.slow.model.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        self.slow.restore(state)


def momentum(method: CaRot, step: int, of: int) -> float:
    """What an update after `step` keeps of the teacher."""
    rising = of * method.momentum_warmup
    if step >= rising:
        return method.momentum_end
    return method.momentum_start + (method.momentum_end - method.momentum_start) * step / rising


def towards(teacher: Tensor, student: Tensor) -> Tensor:
    """Cross-entropy of the student's softmax to the teacher's, mean over the rows of logits [B, B]; a scalar."""
    return F.cross_entropy(student, teacher.softmax(dim=1))


def not_orthogonal(projection: Tensor) -> Tensor:
    """|P^T P - I|_F of P [W, D], not squared; a scalar."""
    return torch.linalg.norm(projection.T @ projection - torch.eye(projection.shape[1], device=projection.device))


def image_projection(clip: Clip) -> Tensor:
    """P [W, D] of open_clip's transformers, ResNets, and timm's towers with a linear one."""
    visual: Any = clip.model.visual
    if isinstance(getattr(visual, "proj", None), Tensor):
        return visual.proj
    return visual.attnpool.c_proj.weight.T if hasattr(visual, "attnpool") else visual.head.proj.weight.T


def text_projection(clip: Clip) -> Tensor:
    """Q [V, D]"""
    found: Any = clip.model.text_projection
    return found if isinstance(found, Tensor) else found.weight.T


def whole(clip: Clip) -> State:
    """All that was trained, and the head built from it."""
    head = {"head": clip.head} | ({} if clip.bias is None else {"bias": clip.bias})
    return clip.snapshot() | {name: p.detach().clone() for name, p in head.items()}
