"""Training mode is for training steps: whatever validates or predicts runs the model in eval mode."""

import numpy as np
import pytest
import torch
from tiny import Tiny
from torch import Tensor, nn

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.clip import Clip
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.predict import predict
from robustbench_ft.prompts import Task
from robustbench_ft.train import FeatureBatches, ImageBatches, train

SUITE = Tiny("tiny")
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), Task(SUITE.classes, SUITE.templates))


class Dropping(nn.Module):
    """Patch dropout as in open_clip, that keeps the first half of the patches; it notes the mode of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        return x[:, : x.shape[1] // 2] if self.training else x


@pytest.fixture
def clip(tiny_model: str) -> Clip:
    found = clips.load(model_ref.resolve(tiny_model, None))
    found.start_from_zero_shot(DATA.task)
    found.model.visual.patch_dropout = Dropping()
    return found.eval()


def modes(clip: Clip) -> list[bool]:
    """Modes of all calls since the last time, one entry for calls in a row."""
    calls = clip.model.visual.patch_dropout.modes
    found = [mode for k, mode in enumerate(calls) if k == 0 or mode != calls[k - 1]]
    calls.clear()
    return found


def test_steps_train_and_validation_does_not(clip: Clip) -> None:
    lines: list[dict[str, object]] = []
    run = Run(0, torch.device("cpu"), log=lambda line: lines.append(dict(line)))
    seen: list[float] = []

    def accuracy_in_eval_mode() -> None:
        clip.eval()
        seen.append(float(predict(clip, DATA.val)["final"].correct.mean()))
        clip.train()
        clip.model.visual.patch_dropout.modes.clear()

    clip.train_only("image", "head")
    source = ImageBatches(clip, DATA)
    train(
        clip, source, lambda batch: {"loss": nn.functional.cross_entropy(clip.classify(batch.features), batch.labels)},
        Tiny.recipe, run, refresh=accuracy_in_eval_mode,
    )  # fmt: skip
    assert [line["val_accuracy"] for line in lines if line["event"] == "validate"] == pytest.approx(seen[:3])
    assert not clip.training


def test_the_modes_alternate_with_the_schedule(clip: Clip) -> None:
    clip.train_only("image", "head")
    train(clip, DATA, lambda batch: {"loss": batch.features.square().sum()}, Tiny.recipe, Run(0, torch.device("cpu")))
    assert modes(clip)[:6] == [True, False] * 3  # two steps, then a validation, three times


@pytest.mark.parametrize("was_training", [True, False])
def test_scores_and_features_leave_the_mode_as_it_was(clip: Clip, was_training: bool) -> None:
    clip.train(was_training)
    ImageBatches(clip, DATA).scores(clip)
    FeatureBatches(clip, DATA, Run(0, torch.device("cpu")))
    assert modes(clip) == [False]
    assert clip.training == was_training


def test_predictions_do_not_depend_on_the_mode_they_are_asked_in(clip: Clip) -> None:
    clip.eval()
    expected = predict(clip, DATA.val)["final"]
    clip.train()
    found = predict(clip, DATA.val)["final"]
    assert set(modes(clip)) == {False}
    assert np.array_equal(found.log_prob, expected.log_prob)
