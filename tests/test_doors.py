"""The doors of the contract, walked through by whole runs: a teacher, groups of the optimiser, a scorer, the checks."""

import json
from collections.abc import Callable, Container, Iterator
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from installed import registered
from odd_methods.nearest import Nearest
from odd_methods.noise import Noise
from odd_methods.pairs import Pairs
from safetensors import safe_open
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, watch
from robustbench_ft.checks import check_method
from robustbench_ft.cli.main import main
from robustbench_ft.clip import Clip
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Candidates, Method, Run, TrainSet, model_words
from robustbench_ft.predict import predict
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe
from robustbench_ft.record import store
from robustbench_ft.record.store import Record
from robustbench_ft.train import Batch, LossTerms, train

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
RUN = Run(0, torch.device("cpu"))
ADDS_UP, DRAWS = "parts-of-a-batch-add-up-to-its-gradient", "global-torch-state-is-not-drawn-from"


def rbft(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# -- a second model, named by a setting -------------------------------------------------------------------------------


@pytest.fixture
def teach(shelves: None, tiny_model: str, tmp_path: Path) -> Callable[[str], list[Record]]:
    """Run `taught` with this teacher; the records that are there now and were not before."""

    def run(teacher: str) -> list[Record]:
        out = tmp_path / "runs"
        before = {record.folder for record in store.find_records([out])} if out.exists() else set[Path]()
        words = ("--method", "taught", "--suite", "tiny", "--model", tiny_model, "--set", f"teacher={teacher}")
        done = rbft("run", *words, "--set", "steps=2", "--out", out)
        assert done.exit_code == 0, done.output
        return [record for record in store.find_records([out]) if record.folder not in before]

    return run


def teacher(folder: Path, seed: int) -> tuple[str, str]:
    """A model's name, and its digest."""
    tiny.write_model(folder, seed)
    return f"local-dir:{folder}", model_ref.resolve(f"local-dir:{folder}", None).weights


def events(record: Record, event: str) -> list[Any]:
    lines = [json.loads(line) for line in (record.folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_weights_of_a_teacher_are_part_of_the_cell(teach: Callable[[str], list[Record]], tmp_path: Path) -> None:
    name, weights = teacher(tmp_path / "a teacher", 1)  # a blank in its path
    [first] = teach(name)
    assert first.cell["settings"]["teacher"] == name
    assert first.cell["contents"] == {"teacher": weights}
    [said] = events(first, "teacher")
    assert (said["model"], said["weights"]) == (name, weights)
    assert all(np.isfinite(line["apart"]) for line in events(first, "step"))
    assert not teach(name)  # done before

    (tmp_path / "a teacher").rename(tmp_path / "old")
    name_again, other = teacher(tmp_path / "a teacher", 2)
    assert name_again == name
    [second] = teach(name)
    assert second.cell["contents"] == {"teacher": other} != first.cell["contents"]
    assert second.cell["digest"] != first.cell["digest"]
    assert events(second, "step")[0]["apart"] != events(first, "step")[0]["apart"]


def test_where_a_teacher_lies_is_not_part_of_the_cell(teach: Callable[[str], list[Record]], tmp_path: Path) -> None:
    assert len(teach(teacher(tmp_path / "here", 1)[0])) == 1
    (tmp_path / "here").rename(tmp_path / "there")
    assert not teach(f"local-dir:{tmp_path}/there")


@pytest.mark.usefixtures("shelves")
def test_a_teacher_that_is_not_there_is_told_before_any_work(tiny_model: str, tmp_path: Path) -> None:
    words = ("--method", "taught", "--suite", "tiny", "--model", tiny_model, "--out", tmp_path / "runs")
    done = rbft("run", *words, "--set", f"teacher=local-dir:{tmp_path}/none")
    assert done.exit_code == 2
    assert f"teacher=local-dir:{tmp_path}/none: {tmp_path}/none is not an open_clip folder" in done.output
    assert not (tmp_path / "runs").exists()


def test_a_teacher_is_frozen_and_does_not_share_with_the_model(tiny_model: str) -> None:
    clip, said = load(tiny_model), list[Any]()
    teacher = Run(0, torch.device("cpu"), log=said.append).load_teacher(tiny_model)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert {p.data_ptr() for p in teacher.parameters()}.isdisjoint({p.data_ptr() for p in clip.parameters()})
    assert [line["weights"] for line in said] == [model_ref.resolve(tiny_model, None).weights]


def test_words_of_a_model() -> None:
    assert model_words(" ViT-B-32  openai ") == ("ViT-B-32", "openai")
    assert model_words("local-dir:/a b/c") == ("local-dir:/a b/c", None)
    assert model_words("embedded") == ("embedded", None)


# -- groups of the optimiser ------------------------------------------------------------------------------------------


def load(model: str) -> Clip:
    found = clips.load(model_ref.resolve(model, None))
    found.start_from_zero_shot(TASK)
    found.train_only("image", "head")
    return found


class Watched(torch.optim.AdamW):
    """Remembers the rates of its groups at every step."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.rates: list[list[float]] = []

    def step(self, closure: Any = None) -> Any:
        self.rates.append([group["lr"] for group in self.param_groups])
        return super().step(closure)


def trained(model: str, recipe: Recipe, scale: float | None) -> tuple[Clip, Watched]:
    """Two groups, tower and head; the head's has this 'lr_scale', or none."""
    clip, made = load(model), list[Watched]()

    def loss(batch: Batch) -> LossTerms:
        return {"nll": F.cross_entropy(clip.classify(batch.features), batch.labels)}

    def optimizer(clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
        tower = {"params": [p for p in clip.model.visual.parameters() if p.requires_grad]}
        head = {"params": [clip.head], **({} if scale is None else {"lr_scale": scale})}
        made.append(Watched([tower, head], lr=recipe.lr, weight_decay=recipe.weight_decay))
        return made[0]

    return train(clip, DATA, loss, recipe, RUN, optimizer=optimizer), made[0]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lr_scale_of_0_stands_still_and_of_a_half_makes_half_a_step(decay: float, tiny_model: str) -> None:
    recipe, start = Recipe(lr=1e-2, weight_decay=decay, steps=1, batch=8, select="last"), load(tiny_model)
    whole, still, half = (trained(tiny_model, recipe, scale)[0] for scale in (None, 0.0, 0.5))
    assert torch.equal(still.head, start.head)
    step = whole.head - start.head
    assert step.abs().min() > recipe.lr / 2  # AdamW's first step is as long as the rate
    assert torch.allclose(half.head - start.head, step / 2, rtol=1e-4, atol=1e-7)
    for other in (still, half):  # the tower does not hear of it
        assert torch.equal(other.model.visual.proj, whole.model.visual.proj)


def test_lr_scale_is_a_factor_on_the_scheduled_rate(tiny_model: str) -> None:
    recipe = Recipe(lr=1e-2, steps=4, batch=8, warmup_fraction=0.25, select="last")
    _, optimizer = trained(tiny_model, recipe, 0.5)
    assert optimizer.rates == [[recipe.lr_at(k, 4), recipe.lr_at(k, 4) / 2] for k in range(4)]
    assert len({rate for rate, _ in optimizer.rates}) == 4


# -- a candidate without weights --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def means(
    tmp_path_factory: pytest.TempPathFactory, shelf_folder: Path, tiny_model: str
) -> Iterator[tuple[Path, Record]]:
    """Where `nearest` and `zero-shot` were run, and the record of the first."""
    root = tmp_path_factory.mktemp("nearest")
    with registered(shelf_folder):
        words = ("--method", "nearest", "--method", "zero-shot", "--suite", "tiny", "--model", tiny_model)
        done = rbft("run", *words, "--out", root / "runs")
        assert done.exit_code == 0, done.output
        yield root, next(r for r in store.find_records([root / "runs"]) if r.cell["method"] == "nearest")


def test_a_scorer_predicts_and_is_recorded(means: tuple[Path, Record], tiny_model: str) -> None:
    record = means[1]
    clip = load(tiny_model)
    scorer = Nearest().fit(clip, DATA, RUN).use("means")
    assert record.metrics["default"] == "means"
    assert set(record.metrics["candidates"]) == {"means", "zero-shot"}
    for split in ("val", "test", "dim", "noisy"):
        found = predict(Candidates(clip, {"means": lambda: scorer}, "means"), SUITE.split(split))["means"]
        stored = record.predictions("means", split)
        assert (stored.prediction == found.prediction).all()
        assert record.metrics["candidates"]["means"][split]["accuracy"] == (stored.prediction == stored.label).mean()
    assert record.metrics["candidates"]["means"]["val"]["accuracy"] > 0.6  # the colour of a page is easy


def test_a_scorer_is_saved_in_a_form_of_its_own(means: tuple[Path, Record], tiny_model: str) -> None:
    record = means[1]
    assert {path.name for path in (record.folder / "model").iterdir()} == {"means.safetensors", "scorer.json"}
    with safe_open(record.folder / "model" / "means.safetensors", framework="pt") as file:
        assert file.get_tensor("means").shape == (3, 16)
        assert file.metadata()["cell"] == record.cell["digest"]
        assert file.metadata()["parent"] == model_ref.resolve(tiny_model, None).weights
    with pytest.raises(RbftError, match=r"is no tuned CLIP, it has no open_clip_config\.json"):
        clips.load_saved(record.folder / "model")


def test_a_scorer_is_reported_and_claimed(means: tuple[Path, Record]) -> None:
    root, record = means
    shown = f"{100 * record.metrics['candidates']['means']['test']['accuracy']:.1f}"
    done = rbft("report", root / "runs")
    assert done.exit_code == 0, done.output
    [line] = [line for line in done.output.splitlines() if "nearest" in line and "zero-shot" not in line]
    assert shown in line
    for act in (("add", root / "runs"), ("verify", "--data"), ("build",)):
        done = rbft("leaderboard", *act, "--root", root / "boards")
        assert done.exit_code == 0, done.output
    page = (root / "boards" / "tiny-v1.md").read_text(encoding="utf-8")
    assert shown in next(line for line in page.splitlines() if line.startswith("|") and " nearest " in line)


def test_weights_that_are_no_clip_cannot_be_scored_again_and_it_is_said(means: tuple[Path, Record]) -> None:
    root, _ = means
    rbft("leaderboard", "add", root / "runs", "--root", root / "again")
    done = rbft("leaderboard", "verify", "--root", root / "again", "--runs", root / "runs", "--rescore", 5)
    assert done.exit_code == 2
    assert "saves its model in a form of its own and has no `reload`" in done.output


# -- checks that hold a method to its word ----------------------------------------------------------------------------


def failed(kind: type[Method], model: str, names: Container[str]) -> dict[str, str]:
    """Name -> message of those of the named checks that fail."""
    found: dict[str, str] = {}
    for check in check_method(kind, model, TASK):
        try:
            if str(check) in names:
                check()
        except AssertionError as error:
            found[str(check)] = str(error)
    return found


def with_defaults(kind: type[Method], **settings: Any) -> type[Method]:
    """The same method, with other defaults."""
    made = [(name, type(value), field(default=value)) for name, value in settings.items()]
    return make_dataclass(kind.__name__, made, bases=(kind,), frozen=True)


def test_a_loss_that_is_no_mean_over_examples_has_to_say_so(tiny_model: str) -> None:
    found = failed(Pairs, tiny_model, (ADDS_UP,))
    assert "the loss of update 1 is" in found[ADDS_UP]
    assert "`separable: ClassVar[bool] = False`" in found[ADDS_UP]
    assert "\n" not in found[ADDS_UP]

    class Honest(Pairs):
        separable: ClassVar[bool] = False

    assert not failed(Honest, tiny_model, (ADDS_UP,))


def test_only_the_gradient_of_a_term_may_tell(tiny_model: str) -> None:
    """The value of this loss is the same for every batch; its gradient depends on who else is in the batch."""

    class Flat(Pairs):
        def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
            clip.start_from_zero_shot(data.task)
            clip.train_only("image", "head")

            def loss(batch: Batch) -> LossTerms:
                value = (batch.features @ batch.features.T).square().mean()
                return {"flat": value - value.detach()}

            return train(clip, data, loss, self.resolved, run)

    assert "the gradient of update 1 is" in failed(Flat, tiny_model, (ADDS_UP,))[ADDS_UP]


def test_a_scorer_that_cannot_be_read_again_is_told_so(tiny_model: str) -> None:
    class Told(Nearest):
        single_model: ClassVar[bool] = False

    name = "saved-model-predicts-the-same"
    assert "Told saves its model in a form of its own and has no `reload`" in failed(Told, tiny_model, (name,))[name]
    assert "`single_model` is True, its headline is Means" in failed(Nearest, tiny_model, (name,))[name]


def test_draws_from_the_global_state_of_torch_are_found(tiny_model: str) -> None:
    found = failed(Noise, tiny_model, ("same-seed-same-weights", DRAWS, ADDS_UP))
    assert set(found) == {DRAWS}  # the same seed gives the same weights: `train` seeds that state, too
    assert "depend on torch's global generator; draw from `run.generator(name, step)`" in found[DRAWS]
    assert all("\n" not in text and len(text) < 250 for text in found.values())


def test_dropout_inside_a_module_is_the_models_affair(tiny_model: str) -> None:
    assert not failed(with_defaults(Noise, way="module"), tiny_model, ("same-seed-same-weights", DRAWS, ADDS_UP))


def test_the_state_of_torch_is_restored_after_it_was_watched() -> None:
    seed = torch.manual_seed
    with watch.other_global_state():
        torch.manual_seed(3)
        other = torch.rand(())
        dropped = torch.nn.Dropout(0.5)(torch.ones(64))
    assert torch.manual_seed is seed
    torch.manual_seed(3)
    assert torch.equal(dropped, F.dropout(torch.ones(64)))
    torch.manual_seed(3)
    assert torch.rand(()) != other
