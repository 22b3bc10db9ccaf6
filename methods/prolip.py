"""ProLIP: fine-tune the projection of the image tower alone, held to its start (Fahes et al., 2024)."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import LossTerms, Objective, Scores, train

from ._views import Views
from .ft import FT

R_PROLIP = Recipe(  # for few images per class: 300 steps of all of them; `views=300` goes with it
    lr=1e-5, eps=1e-4, epochs=300, schedule="lipsum", augment="crop-flip", select="last"
)  # fmt: skip


@dataclass(frozen=True)
class ProLIP(FT):
    """Only the last matrix P of the image tower moves, by all of ID train at every step, under the zero-shot head.

    Adam, without weight decay: the pull to P0 is the decay. What enters P is computed once. `batch` has no effect,
    and an epoch is one step. Without `views` all steps see the evaluation transform; the authors compute as many
    augmented views as there are steps. A ResNet's P is the last layer of its pooling, whose bias stays.

    R_PROLIP is their recipe for 1 to 16 images per class.
    """

    published: ClassVar[Mapping[str, Recipe]] = {"imagenet+shots=16": R_PROLIP}
    equation: ClassVar[str] = "L = CE(scale W_0 normalise(P z), y) + strength ||P - P0||_F^2, over P;  strength = 1 / N"
    source: ClassVar[str] = "Fahes et al., arXiv 2410.05270; astra-vision/ProLIP@b43e795, methods/ProLIP.py, configs/"
    oracle: ClassVar[str] = "layers.npz: the lines of ProLIP.forward on random features, ProLIP@b43e795"
    traps: ClassVar[tuple[str, ...]] = (
        "the penalty is a sum over the entries of P, 393,216 in ViT-B/16; a mean would be that many times less",
        "the few-shot variant with a search takes the rate and strength that are best on validation images",
    )

    strength: float | None = None  # lambda; None: 1 / N, N the images per class
    views: int = 0  # augmented views of each image, used in turn; 0: the evaluation transform

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        self.start(clip, data)
        source = Unprojected(clip, data, run, self.resolved, self.views)
        recipe = replace(self.resolved, batch=len(data.train))
        return train(clip, source, self.objective(clip, data, run), recipe, run, optimizer=adam)

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        clip.train_only()
        matrix(clip).requires_grad_(True)

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        fine_tuning, moving = super().objective(clip, data, run), matrix(clip)
        before = moving.detach().clone()
        per_class = len(data.train) / len(data.task.classes)
        strength = 1 / per_class if self.strength is None else self.strength

        def loss(batch: Batch) -> LossTerms:
            return {**fine_tuning(batch), "distance": strength * (moving - before).square().sum()}

        return loss

    def skip(self, clip: Clip, data: TrainSet) -> str:
        return "" if projection(clip) else "its image tower ends in no projection by a name that is known"

    def problems(self) -> list[str]:
        found = [f"strength={self.strength} must be at least 0"] if (self.strength or 0) < 0 else []
        return found + ([f"views={self.views} must be at least 0"] if self.views < 0 else [])


def adam(clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam, whatever the recipe's weight decay is."""
    moving = [p for p in clip.parameters() if p.requires_grad]
    return torch.optim.Adam(moving, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps)


def projection(clip: Clip) -> tuple[nn.Module, str] | None:
    """The module that owns the last matrix, and its name there: of open_clip's ViTs, of timm's towers, of ResNets."""
    visual: Any = clip.model.visual
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return visual, "proj"
    for owner, name in ((getattr(visual, "head", None), "proj"), (getattr(visual, "attnpool", None), "c_proj")):
        if isinstance(owner, nn.Module) and isinstance(getattr(owner, name, None), nn.Linear):
            return owner, name
    return None


def matrix(clip: Clip) -> nn.Parameter:
    """P itself: [W, D] of a ViT, [D, W] of a linear layer."""
    owner, name = _place(clip)
    found: Any = getattr(owner, name)
    return cast(nn.Parameter, found.weight if isinstance(found, nn.Linear) else found)


def project(clip: Clip, z: Tensor) -> Tensor:
    """[B, W] -> unit features [B, D]."""
    owner, name = _place(clip)
    found: Any = getattr(owner, name)
    return F.normalize(found(z) if isinstance(found, nn.Linear) else z @ found, dim=-1)


@contextmanager
def unprojected(clip: Clip) -> Generator[None, None, None]:
    """While this is open, the image tower gives what enters its projection."""
    owner, name = _place(clip)
    found: Any = getattr(owner, name)
    if isinstance(found, nn.Linear):  # a pooling reads weight and bias of its last layer, so it gets an identity
        same = nn.Linear(found.in_features, found.in_features).to(found.weight)
        nn.init.eye_(same.weight)
        nn.init.zeros_(same.bias)
        setattr(owner, name, same)
    else:
        setattr(owner, name, None)
    try:
        yield
    finally:
        setattr(owner, name, found)


class Unprojected(Views):
    """What enters the projection, of every image once; a batch's features are computed from it."""

    def __init__(self, clip: Clip, data: TrainSet, run: Run, recipe: Recipe, views: int) -> None:
        with unprojected(clip):
            super().__init__(clip, data, run, recipe, views, lambda x: clip.model.encode_image(x).float(), in_turn=True)
        self.inputs = self.val

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        batch = super().batch(clip, indices, step, recipe, run)
        return replace(batch, images=batch.features, encode=partial(project, clip), known=None)

    def scores(self, clip: Clip) -> Scores:
        with torch.no_grad():
            self.val = project(clip, self.inputs)
        return super().scores(clip)


def _place(clip: Clip) -> tuple[nn.Module, str]:
    found = projection(clip)
    assert found is not None, "`skip` is asked first"
    return found
