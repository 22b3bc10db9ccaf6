"""Batches follow the seed, and training returns the checkpoint that it says it selected."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tiny import Tiny
from torch import Tensor

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.clip import Clip
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batch, ImageBatches, train

SUITE = Tiny("tiny")
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), Task(SUITE.classes, SUITE.templates))
STILL = replace(Tiny.recipe, augment="none", steps=12, validate_every=0)  # 12 batches of 8: two epochs of 48


@pytest.fixture
def clip(tiny_model: str) -> Clip:
    found = clips.load(model_ref.resolve(tiny_model, None))
    found.start_from_zero_shot(DATA.task)
    found.train_only("image", "head")
    return found


def batches(clip: Clip, seed: int, recipe: Recipe) -> list[Tensor]:
    """Images of every batch [B, 3, H, W], without augmentation."""
    seen: list[Tensor] = []

    def objective(batch: Batch) -> dict[str, Tensor]:
        seen.append(batch.images.clone())
        return {"loss": batch.features.square().sum()}

    train(clip, DATA, objective, recipe, Run(seed, torch.device("cpu")))
    return seen


def images(epoch: list[Tensor]) -> set[float]:
    """What tells the images of an epoch apart: the sum of each one's pixels."""
    return {round(float(image.double().sum()), 3) for batch in epoch for image in batch}


def test_another_seed_is_another_order_and_the_same_seed_the_same(clip: Clip) -> None:
    one, again, other = (batches(clip, seed, STILL) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(images(one[:6])) == 48  # an epoch shows every image once
    assert images(one[:6]) == images(one[6:]) == images(other[:6])
    assert not torch.equal(torch.cat(one[:6]), torch.cat(one[6:]))  # the next epoch has another order


def test_without_shuffling_no_seed_moves_a_batch(clip: Clip) -> None:
    one, other = (batches(clip, seed, replace(STILL, shuffle=False)) for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Scripted(ImageBatches):
    """Validates as it is told to."""

    def __init__(self, clip: Clip, scores: tuple[float, ...]) -> None:
        super().__init__(clip, DATA)
        self.script: Iterator[float] = iter(scores)

    def scores(self, clip: Clip) -> dict[str, float]:
        return {"accuracy": next(self.script)}


@pytest.mark.parametrize(
    ("scores", "select", "chosen"),
    [
        ((0.2, 0.5, 0.4), "best", 1),
        ((0.5, 0.5, 0.5), "best", 0),  # of equals the earliest
        ((0.2, 0.5, 0.5), "best", 1),
        ((0.2, 0.3, 0.4), "best", 2),
        ((0.9, 0.5, 0.4), "last", 2),
    ],
)
def test_the_weights_returned_are_those_of_the_selected_step(
    scores: tuple[float, ...], select: str, chosen: int, clip: Clip
) -> None:
    lines: list[dict[str, object]] = []
    validated: list[dict[str, Tensor]] = []

    def note() -> None:
        validated.append({name: tensor.clone() for name, tensor in clip.snapshot().items()})

    recipe = replace(Tiny.recipe, steps=6, validate_every=2, select=select)
    run = Run(0, torch.device("cpu"), log=lambda line: lines.append(dict(line)))
    source = Scripted(clip, scores)
    train(clip, source, lambda batch: {"loss": batch.features.square().sum()}, recipe, run, refresh=note)
    final = clip.snapshot()
    same = [k for k, kept in enumerate(validated[:3]) if all(torch.equal(kept[name], final[name]) for name in final)]
    assert same == [chosen]
    assert lines[-1]["selected_step"] == 2 * (chosen + 1)
    assert lines[-1]["val_accuracy"] == scores[chosen]
