"""Steps that are read together, as on a GPU, and a scaled loss: neither changes what is learnt or what the log says."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from robustbench_ft import clip as clips
from robustbench_ft import launch, model_ref, plan, registry, runner
from robustbench_ft.clip import Clip, State, faster
from robustbench_ft.clip.autocast import blocks
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe
from robustbench_ft.record import store
from robustbench_ft.train import Batch, InterruptedRun, loop, train

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
RECIPE = replace(Tiny.recipe, steps=7, validate_every=0, select="last", lr=1e-2)
TOGETHER = 4
GRAD = pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile asks for it, and warns itself


class Reads(TorchDispatchMode):
    """At which steps the host read a number from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.found = -1, list[int]()  # -1: before the first

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # pyright: ignore
            self.found.append(self.step)
        return func(*args, **(kwargs or {}))


def fit(
    model: str, recipe: Recipe = RECIPE, bad: int = -1, reads: Reads | None = None, **how: Any
) -> tuple[State, list[dict[str, Any]]]:  # fmt: skip
    """The weights, and the log without times; the loss of step `bad` is not a number."""
    clip, lines = clips.load(model_ref.resolve(model, None)), list[dict[str, Any]]()
    clip.start_from_zero_shot(TASK)
    clip.train_only("image", "head")
    run = Run(0, clip.device, log=lambda line: lines.append(dict(line)), **how)
    clip.precision = run.precision

    def objective(batch: Batch) -> dict[str, Tensor]:
        if reads:
            reads.step = batch.step
        loss = torch.nn.functional.cross_entropy(clip.classify(batch.features), batch.labels)
        return {"nll": loss * torch.nan if batch.step == bad else loss}

    train(clip, DATA, objective, recipe, run)
    return clip.snapshot(), [
        {k: v for k, v in line.items() if k not in ("seconds", "waiting", "memory_mib")} for line in lines
    ]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "steps_read_together", lambda *args: TOGETHER)


def same(a: State, b: State) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPE, validate_every=3, select="best")], ids=["plain", "validated"]
)
def test_reading_steps_together_changes_no_bit_and_no_line(
    recipe: Recipe, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, lines = fit(tiny_model, recipe)
    monkeypatch.setattr(loop, "steps_read_together", lambda *args: TOGETHER)
    later, as_late = fit(tiny_model, recipe)
    assert same(weights, later)
    assert lines == as_late


@pytest.mark.parametrize("bad", range(7))
def test_a_step_that_is_not_finite_is_found_later_and_moves_nothing(
    bad: int, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, lines = fit(tiny_model, bad=bad)
    monkeypatch.setattr(loop, "steps_read_together", lambda *args: TOGETHER)
    later, as_late = fit(tiny_model, bad=bad)
    assert [line["step"] for line in lines if line["event"] == "diverged"] == [bad]
    assert lines == as_late
    assert same(weights, later)


@pytest.mark.usefixtures("together")
def test_the_host_reads_no_number_between(tiny_model: str) -> None:
    with Reads() as reads:
        fit(tiny_model, reads=reads)
    assert {*reads.found} - {-1} == {3, 6}  # after four steps, and at the end


def test_each_step_is_read_on_a_cpu(tiny_model: str) -> None:
    with Reads() as reads:
        fit(tiny_model, reads=reads)
    assert {*reads.found} - {-1} == {*range(7)}


@pytest.mark.usefixtures("together")
def test_an_interrupt_between_reads_loses_no_line(tiny_model: str, tmp_path: Path) -> None:
    weights, lines = fit(tiny_model)
    answers = iter([False, True])
    with pytest.raises(InterruptedRun):
        fit(tiny_model, folder=tmp_path, stopped=lambda: next(answers))
    resumed, rest = fit(tiny_model, folder=tmp_path)
    assert same(weights, resumed)
    steps = [line for line in lines if line["event"] == "step"]
    assert [line for line in rest if line["event"] == "step"] == steps[2:]


# -- fp16 --------------------------------------------------------------------------------------------------------------


def test_a_scaled_loss_learns_what_float32_learns(tiny_model: str) -> None:
    """A scale that is too high for the gradients costs a step or two, which the log marks."""
    recipe = replace(RECIPE, steps=20, warmup_fraction=0.0)
    exact, exact_lines = fit(tiny_model, recipe)
    scaled, lines = fit(tiny_model, recipe, precision="fp16")
    losses, exact_losses = ([line["loss"] for line in log if line["event"] == "step"] for log in (lines, exact_lines))
    assert losses[0] == pytest.approx(exact_losses[0], rel=2e-3)
    assert losses[-1] < losses[0] / 2
    assert not same(exact, scaled)
    assert all(tensor.isfinite().all() for tensor in scaled.values())


def test_an_overflow_of_the_scale_skips_a_step_and_is_no_divergence(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *args, **how: made(*args, init_scale=2.0**120, **how))
    _, lines = fit(tiny_model, replace(RECIPE, steps=3), precision="fp16")
    steps = [line for line in lines if line["event"] == "step"]
    assert [line.get("skipped", False) for line in steps] == [True] * 3
    assert lines[-1]["diverged"] is False


def test_the_scale_is_part_of_a_checkpoint(tiny_model: str, tmp_path: Path) -> None:
    weights, _ = fit(tiny_model, precision="fp16")
    answers = iter([False, False, True])
    with pytest.raises(InterruptedRun):
        fit(tiny_model, precision="fp16", folder=tmp_path, stopped=lambda: next(answers))
    content = torch.load(tmp_path / "resume-fit.pt", weights_only=True)
    assert content["scaler"]["scale"] >= 1
    resumed, _ = fit(tiny_model, precision="fp16", folder=tmp_path)
    assert same(weights, resumed)


def test_a_loss_that_is_not_finite_ends_a_scaled_run(tiny_model: str) -> None:
    _, lines = fit(tiny_model, precision="fp16", bad=2)
    assert [line["step"] for line in lines if line["event"] == "diverged"] == [2]


def test_only_the_blocks_are_short(tiny_model: str) -> None:
    clip = clips.load(model_ref.resolve(tiny_model, None))
    images = torch.randn(2, 3, 32, 32)
    exact = clip.encode_image(images)
    for precision in ("bf16", "fp16"):
        clip.precision = precision
        short = clip.encode_image(images)
        assert short.dtype == torch.float32
        assert 0 < (short - exact).abs().max() < 0.02
        with clip.exact():
            assert torch.equal(clip.encode_image(images), exact)
    clip.precision = "fp32"
    assert torch.equal(clip.encode_image(images), exact)


# -- what companions do ------------------------------------------------------------------------------------------------


def test_the_running_mean_is_the_plain_formula_to_the_bit(tiny_model: str) -> None:
    kind: Any = import_module(registry.resolve("method", "ema").module)
    clip = clips.load(model_ref.resolve(tiny_model, None))
    clip.train_only("image")
    average, expected = kind.Average(clip, 0.9), clip.snapshot()
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        clip.restore({n: t + torch.randn(t.shape, generator=generator) for n, t in clip.snapshot().items()})
        average.after_step(step, 5)
        expected = {n: 0.9 * mean + (1 - 0.9) * clip.snapshot()[n] for n, mean in expected.items()}
    assert same(expected, average.mean)
    kept = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    average.load_state_dict(kept)
    average.after_step(5, 6)
    assert not same(kept, average.mean)
    assert same(kept, expected)  # what was loaded is not written to


# -- what may be faster ------------------------------------------------------------------------------------------------


def step_of(clip: Clip, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Features, and the gradients of their squares."""
    features = clip.encode_image(images)
    moving = [p for p in clip.model.visual.parameters() if p.requires_grad]
    return features, list(torch.autograd.grad(features[:, :3].square().sum(), moving))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("how", ["compiled", "channels_last"])
@GRAD
def test_a_faster_tower_gives_the_same_up_to_rounding(
    how: str, precision: str, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faster, "BACKEND", "aot_eager")
    plain, other = (clips.load(model_ref.resolve(tiny_model, None)) for _ in range(2))
    for clip in (plain, other):
        clip.precision = precision
        clip.train_only("image")
    other.make_faster(**{how: True})
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(step_of(other, images), step_of(plain, images), rtol=1e-2, atol=1e-4)
    if how == "compiled":
        assert faster._compiled  # pyright: ignore
        assert all("forward" not in vars(block) for block in blocks(other.model.visual))


@GRAD
def test_a_copy_of_a_compiled_tower_has_weights_of_its_own(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a teacher would follow its student."""
    monkeypatch.setattr(faster, "BACKEND", "aot_eager")
    clip = clips.load(model_ref.resolve(tiny_model, None)).make_faster(compiled=True)
    clip.train_only("image")
    images = torch.randn(4, 3, 32, 32)
    before = clip.encode_image(images).detach()
    teacher = clip.frozen_copy()
    clip.restore({name: tensor + 0.1 for name, tensor in clip.snapshot().items()})
    with torch.no_grad():
        torch.testing.assert_close(teacher.encode_image(images), before, rtol=1e-4, atol=1e-5)
    assert (clip.encode_image(images) - before).abs().max() > 1e-2


def test_hooks_inside_compiled_blocks_are_heard(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faster, "BACKEND", "aot_eager")
    clip = clips.load(model_ref.resolve(tiny_model, None)).make_faster(compiled=True)
    images = torch.randn(4, 3, 32, 32)
    drift: Any = import_module("robustbench_ft.methods._drift")
    clip.encode_image(images)  # compiled before anything listens
    with drift.recorded(clip.model.visual.transformer.resblocks) as heard:
        clip.encode_image(images)
    assert len(heard) == len(clip.model.visual.transformer.resblocks)
    clip.compiled = False
    with drift.recorded(clip.model.visual.transformer.resblocks) as plain:
        clip.encode_image(images)
    torch.testing.assert_close(heard, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("shelves")
def test_the_record_says_what_moves_rounding(tiny_model: str, tmp_path: Path) -> None:
    cells = plan.make(plan.Request(("ft",), ("tiny",), (tiny_model,)))
    options = runner.RunOptions(tmp_path, torch.device("cpu"), channels_last=True)
    [folder] = launch.run_cells(cells, options)
    env = store.Record(folder).env
    assert env["channels_last"] is True
    assert "compiled" not in env
