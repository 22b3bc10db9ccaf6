"""What only a GPU can show. `make gpu` runs these; elsewhere each is skipped and says so."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import Tiny
from torch import Tensor

from robustbench_ft import clip as clips
from robustbench_ft import environment, model_ref
from robustbench_ft.clip import Clip, State
from robustbench_ft.clip.autocast import allow_tf32
from robustbench_ft.clip.copies import Sender, to_device
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.prompts import Task
from robustbench_ft.train import Batch, loop, train
from robustbench_ft.train.readback import EVERY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
RECIPE = replace(Tiny.recipe, steps=2 * EVERY, validate_every=0, select="last", lr=1e-3)


def fit(model: str, bad: int = -1, **how: Any) -> tuple[State, list[dict[str, Any]]]:
    device = torch.device("cuda")
    clip, lines = clips.load(model_ref.resolve(model, None)).to(device), list[dict[str, Any]]()
    clip.start_from_zero_shot(TASK)
    clip.train_only("image", "head")
    run = Run(0, device, log=lambda line: lines.append(dict(line)), **how)
    clip.precision = run.precision
    environment.use(run.precision, device)

    def objective(batch: Batch) -> dict[str, Tensor]:
        loss = torch.nn.functional.cross_entropy(clip.classify(batch.features), batch.labels)
        return {"nll": loss * torch.nan if batch.step == bad else loss}

    train(clip, DATA, objective, RECIPE, run)
    return clip.snapshot(), [line for line in lines if line["event"] in ("step", "diverged")]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_precision_learns(precision: str, tiny_model: str) -> None:
    weights, lines = fit(tiny_model, precision=precision)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_steps_read_together_end_where_steps_read_alone_do(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together, lines = fit(tiny_model)
    monkeypatch.setattr(loop, "steps_read_together", lambda *args: 1)
    alone, as_alone = fit(tiny_model)
    assert len(lines) == len(as_alone) == RECIPE.steps
    for name, tensor in together.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-4, atol=1e-5)  # kernels add in no fixed order


def test_a_step_that_is_not_finite_is_named_and_moves_nothing(tiny_model: str) -> None:
    bad = EVERY + 3
    weights, lines = fit(tiny_model, bad=bad)
    assert (lines[-1]["event"], lines[-1]["step"]) == ("diverged", bad)
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_step_waits_for_the_device_between_reads(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises at every synchronisation that it knows of."""
    settle: Any = loop._State.settle  # pyright: ignore

    def allowed(state: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")
        settle(state)
        torch.cuda.set_sync_debug_mode("error" if state.step < state.total else "default")

    monkeypatch.setattr(loop._State, "settle", allowed)  # pyright: ignore
    try:
        _, lines = fit(tiny_model)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(lines) == RECIPE.steps


def test_copies_beside_the_computation_arrive_whole() -> None:
    device, sender = torch.device("cuda"), Sender(torch.device("cuda"))
    for k in range(20):
        pinned = torch.full((64, 3, 64, 64), k, dtype=torch.uint8).pin_memory()
        sent = sender.wait_for(sender.send(pinned))
        assert int(sent.max()) == int(sent.min()) == k
        assert torch.equal(to_device(pinned, device), sent)


def test_evaluation_is_float32_whatever_training_computes_in(tiny_model: str) -> None:
    clip: Clip = clips.load(model_ref.resolve(tiny_model, None)).to("cuda")
    images = torch.randn(8, 3, 32, 32, device="cuda")
    allow_tf32(clip.device, False)
    expected = clip.encode_image(images)
    for precision in environment.PRECISIONS:
        environment.use(precision, clip.device)
        clip.precision = precision
        with clip.exact():
            assert torch.equal(clip.encode_image(images), expected)
    allow_tf32(clip.device, False)


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
def test_a_compiled_tower_gives_the_same_up_to_rounding(tiny_model: str) -> None:
    plain, other = (clips.load(model_ref.resolve(tiny_model, None)).to("cuda") for _ in range(2))
    images = torch.randn(8, 3, 32, 32, device="cuda")
    other.make_faster(compiled=True)
    torch.testing.assert_close(other.encode_image(images), plain.encode_image(images), rtol=1e-3, atol=1e-4)
