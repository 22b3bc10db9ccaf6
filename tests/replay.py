"""Official runs, repeated by the real method classes through their own `fit` and observed through the log."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import golden
import numpy as np
import torch
from golden import Array
from torch import Tensor

from robustbench_ft import registry
from robustbench_ft.clip import Clip, State
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batch, Objective

CPU = torch.device("cpu")


class _Enough(Exception):
    """The last recorded step is done."""


@dataclass(frozen=True)
class Replay:
    """What one training stage did, update by update."""

    start: State  # before the first update
    lines: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])  # the log's step lines
    states: list[State] = field(default_factory=list[State])  # after each update
    gradients: list[State] = field(default_factory=list[State])  # as the optimiser saw them, so after clipping

    def column(self, name: str) -> Array:
        """One number of every step's log line, e.g. 'loss', 'lr', 'grad_norm' or a term of the loss."""
        return np.array([line[name] for line in self.lines])


def method(name: str) -> type[Any]:
    return registry.load("method", name, Method)


def follow(clip: Clip, fitted: Method, vectors: Mapping[str, Array], updates: int) -> Replay:
    """Fit on the recorded batches, in their order, and stop after so many updates."""
    seen: list[Replay] = []

    def log(line: Mapping[str, Any]) -> None:
        if line["event"] == "start":
            seen.append(Replay(clip.snapshot()))
        if line["event"] != "step":
            return
        seen[-1].lines.append(line)
        seen[-1].states.append(clip.snapshot())
        gradients = {name: p.grad.clone() for name, p in clip.named_parameters() if p.grad is not None}
        seen[-1].gradients.append(gradients)
        if len(seen[-1].lines) == updates:
            raise _Enough

    train = golden.split(vectors["images"], vectors["labels"])
    with suppress(_Enough):
        fitted.fit(clip, TrainSet(train, train, golden.TASK), Run(0, CPU, log=log))
    return seen[0]


# -- the official runs -------------------------------------------------------------------------------------------------

_LIPSUM: Any = method("lipsum")
_FLYP: Any = method("flyp")
WISE: Any = method("wise-ft")


class RecordedLipsum(_LIPSUM):
    """Lipsum-FT on the recorded texts: JAX's generator cannot be repeated."""

    def texts(self, clip: Clip, run: Run, step: int) -> Tensor:
        return torch.from_numpy(golden.arrays("lipsum_ft")["text_tokens"][step]).long()


class Probe(RecordedLipsum):
    """One step on batch 3 from the recorded weights, held to the pre-trained ones."""

    def texts(self, clip: Clip, run: Run, step: int) -> Tensor:
        return super().texts(clip, run, 3)

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Objective:
        anchored = super().objective(clip, data, run)
        clip.restore(golden.state_of(golden.tensors(golden.arrays("lipsum_ft"), "lipsum_lr1e-3/probe_step3/theta_in/")))
        return anchored


class RecordedFLYP(_FLYP):
    """FLYP on the recorded captions, cut as our own are."""

    def pair(self, captions: Tensor, batch: Batch, run: Run) -> Tensor:
        tokens = torch.from_numpy(golden.arrays("flyp")["tokens"][batch.step]).long()
        return tokens[:, : captions.shape[-1]]


def lipsum_recipe(run: str) -> Recipe:
    """The recipe of a run of scripts/Lipsum-FT.py."""
    stated = golden.read("hyperparameters")[run]
    return Recipe(
        lr=stated["optim_lr"], weight_decay=stated["optim_weight_decay"], steps=stated["optim_ni"], batch=8,
        warmup_fraction=0.1, schedule="lipsum", clip_norm=stated["optim_global_clipping"] or 0.0,
        label_smoothing=stated["optim_label_smoothing"], head="unit", shuffle=False, select="last",
        beta1=stated["optim_b1"], beta2=stated["optim_b2"], eps=stated["optim_eps"],
    )  # fmt: skip


def wise_recipe(run: str, steps: int, clip_norm: float) -> Recipe:
    """The recipe of a run of wise-ft's finetune() or of flyp_loss()."""
    stated = golden.read("hyperparameters")[run]
    return Recipe(
        lr=stated["lr"], weight_decay=stated["wd"], steps=steps, batch=8, warmup_steps=stated["warmup_length"],
        schedule="wise-ft", clip_norm=clip_norm, label_smoothing=stated.get("ls", 0.0), head="scaled", shuffle=False,
        select="last",
    )  # fmt: skip


@lru_cache
def lipsum(run: str) -> Replay:
    return lipsum_with(run)


def lipsum_with(run: str, kind: type[Any] = RecordedLipsum, strength: float = 1.0, **recipe: Any) -> Replay:
    """The run, or what a changed method makes of it; `strength` multiplies the recorded one."""
    stated = golden.read("hyperparameters")[run]
    fitted = kind(
        recipe=replace(lipsum_recipe(run), **recipe), strength=strength * stated["feat_regularization"],
        n_texts=stated["token_k_ways"], text_length=stated["token_length"],
    )  # fmt: skip
    return follow(golden.model(), fitted, golden.arrays("lipsum_ft"), 5)


@lru_cache
def probe() -> Replay:
    vectors = {name: golden.arrays("lipsum_ft")[name][3:4] for name in ("images", "labels")}
    return follow(golden.model(), Probe(recipe=lipsum_recipe("lipsum_lr1e-3"), strength=1.0), vectors, 1)


@lru_cache
def ft(run: str) -> Replay:
    """Lipsum-FT.py with lambda 0."""
    return follow(golden.model(), method("ft")(recipe=lipsum_recipe(run)), golden.arrays("ft_jax"), 5)


@lru_cache
def wise(run: str) -> Replay:
    return wise_with(run)


def wise_with(run: str, **recipe: Any) -> Replay:
    fitted = method("ft")(recipe=replace(wise_recipe(f"wiseft/{run}", 5, 1.0), **recipe))
    return follow(golden.model(), fitted, golden.arrays("wiseft_finetune"), 5)


@lru_cache
def linear_probe() -> Replay:
    """The first stage of LP-FT, with the settings of wise-ft's --freeze-encoder."""
    recipe = wise_recipe("wiseft/lp_freeze_encoder", 5, 1.0)
    fitted = method("lp-ft")(recipe=recipe, head_lr=recipe.lr)
    return follow(golden.model(), fitted, golden.arrays("wiseft_finetune"), 5)


@lru_cache
def flyp(run: str) -> Replay:
    return flyp_with(run)


def flyp_with(run: str, kind: type[Any] = RecordedFLYP) -> Replay:
    return follow(golden.model(), kind(recipe=wise_recipe(f"flyp/{run}", 4, 0.0)), golden.arrays("flyp"), 4)


# -- how far apart -----------------------------------------------------------------------------------------------------


def update_error(replay: Replay, vectors: Mapping[str, Array], run: str, updates: int) -> float:
    """Relative L2 error of theta_n - theta_0 after n updates, of the worst tensor."""
    errors: list[float] = []
    for name, theta in golden.tensors(vectors, f"{run}/theta{updates}/").items():
        moved = golden.ours(replay.states[updates - 1], name) - golden.ours(replay.start, name)
        official = theta - golden.golden_start(vectors, replay.start, name)
        errors.append(golden.relative_l2(golden.comparable(name, moved), golden.comparable(name, official)))
    return golden.worst(errors)


def norm_error(states: list[State], vectors: Mapping[str, Array], prefix: str, start: State | None = None) -> float:
    """Relative error of the norms of all trained tensors, or of their distances from `start`, at every step."""
    errors: list[float] = []
    for name, norms in golden.tensors(vectors, prefix).items():
        for state, norm in zip(states, norms, strict=True):
            if name != "logit_scale" or "model.logit_scale" in state:
                moved = golden.ours(state, name) - (golden.ours(start, name) if start else 0)
                ours = float(np.linalg.norm(golden.comparable(name, moved)))
                errors.append(abs(ours - norm) / norm if norm else ours)
    return golden.worst(errors)


def tensor_error(state: State, vectors: Mapping[str, Array], prefix: str) -> float:
    """The worst tensor, relative L2."""
    return golden.worst(
        golden.relative_l2(golden.comparable(name, golden.ours(state, name)), golden.comparable(name, gradient))
        for name, gradient in golden.tensors(vectors, prefix).items()
        if name != "logit_scale" or "model.logit_scale" in state
    )
