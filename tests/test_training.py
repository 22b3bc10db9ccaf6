"""What training selects by, what it computes in bfloat16, and how fast the probe of LP-FT learns."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from tiny import Tiny
from torch import Tensor

from robustbench_ft import clip as clips
from robustbench_ft import launch, metrics, model_ref, plan, registry, runner, suite_ref
from robustbench_ft.clip import Clip
from robustbench_ft.clip.autocast import blocks, blocks_in
from robustbench_ft.data import Split
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.predict import of_logits, predict
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Head, Recipe
from robustbench_ft.record import store
from robustbench_ft.train import Batch, FeatureBatches, ImageBatches, train

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)


@pytest.fixture
def clip(tiny_model: str) -> Clip:
    found = clips.load(model_ref.resolve(tiny_model, None))
    found.start_from_zero_shot(TASK)
    return found


def logged(**settings: Any) -> tuple[Run, list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    return Run(0, torch.device("cpu"), log=lambda line: lines.append(dict(line)), **settings), lines


# -- selection ---------------------------------------------------------------------------------------------------------


class Scripted:
    """Validates as it is told to; its batches are the images of the tiny suite."""

    def __init__(self, clip: Clip, metric: str, scores: list[dict[str, float]]) -> None:
        self.pixels, self.metric, self.script = ImageBatches(clip, DATA), metric, iter(scores)

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        return self.pixels.batch(clip, indices, step, recipe, run)

    def scores(self, clip: Clip) -> dict[str, float]:
        return next(self.script)


@pytest.mark.parametrize(
    ("metric", "values", "chosen"),
    [("accuracy", (0.1, 0.2, 0.3), 2), ("macro_f1", (0.3, 0.3, 0.2), 2), ("nll", (2.0, 3.0, 1.0), 6),
     ("worst_group:camera", (0.1, 0.4, 0.2), 4)],
)  # fmt: skip
def test_the_checkpoint_is_the_best_by_the_metric_of_the_split(
    metric: str, values: tuple[float, ...], chosen: int, clip: Clip
) -> None:
    """Accuracy is best after two steps of six, and falls."""
    run, lines = logged()
    falling = (0.9, 0.8, 0.7)
    source = Scripted(clip, metric, [{"accuracy": a, metric: v} for a, v in zip(falling, values, strict=True)])
    if metric == "accuracy":
        source.script = iter([{"accuracy": a} for a in falling])
    clip.train_only("image", "head")
    train(clip, source, lambda batch: {"loss": batch.features.sum()}, Tiny.recipe, run)
    end = lines[-1]
    assert end["selected_step"] == chosen
    assert end["val_accuracy"] == falling[chosen // 2 - 1]
    seen = {name for line in lines if line["event"] == "validate" for name in line if name.startswith("val_")}
    assert seen == {"val_accuracy", f"val_{metric}"}
    if metric != "accuracy":
        assert end[f"val_{metric}"] == values[chosen // 2 - 1]


def uneven() -> Split:
    """Validation images of which most are of class 0, seen by two cameras."""
    val = SUITE.split("val")
    rows = np.flatnonzero((val.labels == 0) | (np.arange(len(val)) < 6))
    images = type(val.images)(val.images.array()[rows])  # pyright: ignore
    ids = tuple(val.ids[k] for k in rows)
    return Split("val", images, val.labels[rows], ids, {"camera": (val.labels[rows] == 0).astype(np.int64)})


@pytest.mark.parametrize("metric", ["macro_f1", "worst_group:camera", "nll"])
@pytest.mark.parametrize(
    "source", [ImageBatches, lambda clip, data: FeatureBatches(clip, data, Run(0, torch.device("cpu")))]
)
def test_scores_are_those_of_the_stored_predictions(
    metric: str, source: Callable[[Clip, TrainSet], ImageBatches | FeatureBatches], clip: Clip
) -> None:
    val = uneven()
    scores = source(clip, TrainSet(DATA.train, val, TASK, metric)).scores(clip)
    expected = metrics.score(predict(clip, val)["final"])
    assert list(scores) == ["accuracy", metric]
    assert scores["accuracy"] == expected["accuracy"]
    assert scores[metric] == pytest.approx(expected[metric], rel=1e-6)
    assert scores[metric] != scores["accuracy"]


def test_accuracy_is_all_that_is_computed_where_it_selects(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "named", lambda *_: pytest.fail("computed"))
    assert list(ImageBatches(clip, DATA).scores(clip)) == ["accuracy"]


def test_a_metric_that_the_split_cannot_give_is_named(clip: Clip) -> None:
    found = of_logits(uneven(), torch.zeros(len(uneven()), 3))
    assert metrics.named("worst_group:camera", found) == metrics.score(found)["worst_group:camera"]
    with pytest.raises(RbftError, match="unknown metric 'worst_group:hospital': did you mean worst_group:camera"):
        metrics.named("worst_group:hospital", found)
    signs = {name: metrics.sign_of(name) for name in ("accuracy", "worst_group:x", "macro_f1", "nll", "ece")}
    assert list(signs.values()) == [1, 1, 1, -1, -1]


@pytest.mark.usefixtures("shelves")
@pytest.mark.parametrize(("protocol", "metric"), [("clean", "macro_f1"), ("as-published", "accuracy")])
def test_runs_select_by_the_official_metric_under_clean(
    protocol: str, metric: str, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints, and WiSE-FT's alphas."""
    monkeypatch.setattr(Tiny, "metrics", {"val": "macro_f1"})
    monkeypatch.setattr(Tiny, "published_selector", "val")
    monkeypatch.setattr(runner.metrics, "score_views", tilted(runner.metrics.score_views))
    request = plan.Request(("wise-ft",), ("tiny",), (tiny_model,), protocol=protocol)  # pyright: ignore
    [folder] = launch.run_cells(plan.make(request), runner.RunOptions(tmp_path, torch.device("cpu")))
    record = store.Record(folder)
    lines = [line for line in (folder / "log.jsonl").read_text().splitlines() if '"validate"' in line]
    assert [("val_macro_f1" in line) for line in lines] == [metric == "macro_f1"] * 3
    assert record.metrics["id_val"] == ("alpha-0.3" if metric == "macro_f1" else "alpha-0.7")


def tilted(scored: Callable[..., dict[str, dict[str, float]]]) -> Callable[..., Any]:
    """Scores whose best accuracy is that of the eighth candidate, and best macro-F1 that of the fourth."""
    turns: dict[str, Iterator[int]] = {}

    def score(split: str, predictions: Any) -> dict[str, dict[str, float]]:
        k = next(turns.setdefault(split, iter(range(100))))
        found = scored(split, predictions)
        found[split] |= {"accuracy": 1 - abs(k - 7) / 100, "macro_f1": 1 - abs(k - 3) / 100}
        return found

    return score


# -- precision ---------------------------------------------------------------------------------------------------------


def dtypes(clip: Clip, images: Tensor) -> dict[str, torch.dtype]:
    """What the parts of the image tower are given and give, in one training forward pass."""
    found: dict[str, torch.dtype] = {}
    tower = clip.model.visual
    inner = tower.transformer.resblocks[0].mlp[0]
    handles = [
        tower.conv1.register_forward_hook(lambda m, i, out: found.update(conv=out.dtype)),
        tower.transformer.register_forward_pre_hook(lambda m, i: found.update(stream=i[0].dtype)),
        inner.register_forward_hook(lambda m, i, out: found.update(block=out.dtype)),
        tower.ln_post.register_forward_hook(lambda m, i, out: found.update(ln_in=i[0].dtype, ln_out=out.dtype)),
    ]
    found["features"] = clip.encode_image(images).dtype
    for handle in handles:
        handle.remove()
    return found


def test_only_the_blocks_of_the_image_tower_are_bf16(clip: Clip) -> None:
    clip.bf16 = True
    images = torch.randn(2, 3, 32, 32)
    found = dtypes(clip, images)
    assert found.pop("block") == torch.bfloat16
    assert set(found.values()) == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")
    with clip.exact():
        assert dtypes(clip, images)["block"] == torch.float32
    assert clip.bf16


def test_autocast_ends_where_a_block_raises(clip: Clip) -> None:
    with pytest.raises(RuntimeError), blocks_in(clip.model.visual, "bf16"):
        clip.model.visual.transformer(torch.zeros(1, 2, 7))
    assert not torch.is_autocast_enabled("cpu")
    assert not clip.model.visual.transformer._forward_hooks
    assert not clip.model.visual.transformer._forward_pre_hooks


def test_blocks_are_found_in_other_towers() -> None:
    """A ResNet of open_clip, a timm model, and one of which nothing is known."""
    resnet = ModifiedResNet([1, 1, 1, 1], 8, 2, image_size=32, width=8)
    assert blocks(resnet) == [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
    embedded = clips.load(model_ref.resolve(model_ref.EMBEDDED, None)).model.visual
    assert blocks(embedded) == [embedded.trunk]
    other = torch.nn.Linear(2, 2)
    assert blocks(other) == [other]
    with blocks_in(other, "bf16"):
        assert other(torch.ones(1, 2)).dtype == torch.float32


def test_texts_heads_and_evaluation_do_not_know_of_it(clip: Clip) -> None:
    plain = predict(clip, SUITE.split("dim"))["final"]
    texts, scores = clip.encode_text(clip.tokenize(TASK.texts)), FeatureBatches(clip, DATA, Run(0, clip.device)).val
    images = torch.randn(4, 3, 32, 32)
    exact = clip.encode_image(images)
    clip.bf16 = True
    assert torch.equal(clip.encode_text(clip.tokenize(TASK.texts)), texts)
    assert torch.equal(FeatureBatches(clip, DATA, Run(0, clip.device)).val, scores)
    assert (predict(clip, SUITE.split("dim"))["final"].log_prob == plain.log_prob).all()
    assert not torch.equal(clip.encode_image(images), exact)


# -- the probe of LP-FT ------------------------------------------------------------------------------------------------


def probe_of(
    clip: Clip, head: Head, data: TrainSet = DATA, **settings: Any
) -> tuple[Clip, list[dict[str, Any]], Tensor]:
    """LP-FT with a second stage that moves nothing: the model, the log, and the head before."""
    run, lines = logged()
    kind: Any = registry.load("method", "lp-ft", Method)
    recipe = replace(Tiny.recipe, head=head, lr=1e-30, weight_decay=0.0, schedule="wise-ft", steps=1, batch=48)
    clip.start_from_zero_shot(TASK, head)
    before = clip.head.detach().clone()
    return kind(recipe=recipe, **settings).fit(clip, data, run), lines, before


@pytest.mark.parametrize("head", ["unit", "scaled"])
def test_the_first_step_of_the_probe_moves_logits_by_its_rate(head: Head, clip: Clip) -> None:
    """Adam's first step is the learning rate in every weight; of a unit row, the scale makes it that much in logits."""
    rate = 0.02
    tuned, _, before = probe_of(clip, head, head_lr=rate)
    step = (tuned.head - before).abs() * (clip.scale if head == "unit" else 1)
    assert step.median().item() == pytest.approx(rate, rel=1e-2)


@pytest.mark.parametrize("head", ["unit", "scaled"])
def test_the_logistic_probe_is_in_the_head_as_it_was_chosen(head: Head, clip: Clip) -> None:
    data = TrainSet(uneven(), DATA.val, TASK)  # of classes that are unequally frequent: a bias would not be 0
    tuned, lines, _ = probe_of(clip, head, data, probe="logistic")
    probe = [line for line in lines if line.get("stage") == "linear-probe"]
    assert [line["event"] for line in probe] == ["start", "end"]
    tried = [line["val_accuracy"] for line in lines if "C" in line]
    assert len(tried) == 100
    assert max(tried) == probe[1]["val_accuracy"] == tried[probe[1]["selected_step"]]
    assert max(tried) > 1 / 3
    stage = next(line for line in lines if line["event"] == "validate" and "C" not in line)
    assert stage["val_accuracy"] == probe[1]["val_accuracy"]
    features = FeatureBatches(tuned, data, Run(0, tuned.device))
    pairs = ((features.train.numpy(), data.train.labels), (features.val.numpy(), data.val.labels))
    chosen = import_module("robustbench_ft.methods._logistic").sweep(*pairs, 3, intercept=head == "scaled")
    ours = tuned.classify(features.val).detach().numpy()
    assert np.abs(ours - features.val.numpy() @ chosen.weight.T - chosen.bias).max() < 1e-3 * np.abs(ours).max()
    assert (chosen.bias != 0).any() == (head == "scaled")


def test_the_grid_of_the_probe_is_declared() -> None:
    """It holds the default, and spans the rates 1e-5 to 1e-2 of unit rows at scales from 24 to 100."""
    module: Any = import_module("robustbench_ft.methods._linear_probe")
    grid: tuple[float, ...] = module.HEAD_LR_GRID
    assert module.LinearProbe().head_lr in grid
    assert grid[0] <= 24 * 1e-5
    assert grid[-1] >= 100 * 1e-2


@pytest.mark.usefixtures("shelves")
def test_a_plan_loads_a_suite_once_and_lets_its_images_go(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = suite_ref.load
    monkeypatch.setattr(suite_ref, "load", lambda text, *rest: loads.append(text) or load(text, *rest))
    made = plan.make(plan.Request(("zero-shot", "ft"), ("tiny",), (tiny_model,), set=(("steps", "1"),)))
    [one] = made.suites.values()
    one.split("test")
    launch.run_cells(made, runner.RunOptions(tmp_path, torch.device("cpu"), save_model=False))
    assert loads == ["tiny"]
    assert not any(one.is_loaded([name]) for name in ("train", "test"))
