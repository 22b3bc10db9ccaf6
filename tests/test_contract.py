"""The doors of the contract: each is used, and does what docs/contract.md says."""

import os
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import launch, model_ref, plan, registry, runner
from robustbench_ft.checks import Check, check_method
from robustbench_ft.clip import Clip
from robustbench_ft.compare import rows
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method, Run, TrainSet, candidates_of
from robustbench_ft.prompts import Task
from robustbench_ft.ranks import Ranks
from robustbench_ft.record import store
from robustbench_ft.train import ImageBatches, backward, train

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
RUN = Run(0, torch.device("cpu"))
PAGE = Path(__file__).parent.parent / "docs" / "contract.md"
FT: Any = import_module("robustbench_ft.methods.ft").FT
Lipsum: Any = import_module("robustbench_ft.methods.lipsum").LipsumFT
Average: Any = import_module("robustbench_ft.methods.ema").Average


@pytest.fixture
def clip(tiny_model: str) -> Clip:
    return load(tiny_model)


def load(model: str) -> Clip:
    found = clips.load(model_ref.resolve(model, None))
    found.start_from_zero_shot(TASK)
    found.train_only("image", "head")
    return found


def failed(kind: type[Method], model: str) -> dict[str, str]:
    """Name -> message of the checks that fail."""
    found: dict[str, str] = {}
    for check in check_method(kind, model, TASK):
        try:
            check()
        except AssertionError as error:
            found[str(check)] = str(error)
    return found


class Share(Ranks):
    """A rank that hears nobody."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world


def gradients(clip: Clip, name: str, size: int, ranks: int = 1, separable: bool | None = None) -> list[torch.Tensor]:
    kind: Any = registry.load("method", name, Method)
    objective = kind(recipe=Tiny.recipe).objective(clip, DATA, RUN)
    run = replace(RUN, separable=kind.separable if separable is None else separable)
    clip.zero_grad()
    batch = ImageBatches(clip, DATA).batch(clip, [5, 3, 8, 1, 0, 2, 9], 2, Tiny.recipe, RUN)
    assert batch.rows.tolist() == [5, 3, 8, 1, 0, 2, 9]
    assert batch.progress == 2 / 6
    for rank in range(ranks):
        backward(objective, batch, size, replace(run, ranks=Share(rank, ranks)))
    return [p.grad.clone() for p in clip.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["ft", "lipsum"])
@pytest.mark.parametrize(("size", "ranks"), [(2, 1), (0, 2), (1, 3), (7, 1)])
def test_gradients_do_not_depend_on_how_a_batch_is_cut(name: str, size: int, ranks: int, clip: Clip) -> None:
    with torch.no_grad():  # away from theta0, where Lipsum's penalty has a gradient
        for p in clip.model.visual.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=RUN.generator("nudge")))
    for whole, cut in zip(gradients(clip, name, 0), gradients(clip, name, size, ranks), strict=True):
        assert torch.allclose(whole, cut, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["flyp", "carot", "starft"])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_gradient_caching_gives_the_gradients_of_the_whole_batch(name: str, size: int, tiny_model: str) -> None:
    clip = load(tiny_model)
    clip.train_only("image", "text", "scale")
    for whole, cut in zip(gradients(clip, name, 0), gradients(clip, name, size), strict=True):
        assert (whole - cut).abs().max() < 1e-4 * max(float(whole.abs().max()), 1e-3)


def test_a_contrastive_loss_cut_like_a_mean_is_another_one(clip: Clip) -> None:
    pairs = zip(gradients(clip, "flyp", 0), gradients(clip, "flyp", 3, separable=True), strict=True)
    assert any(not torch.allclose(whole, cut, rtol=1e-2, atol=1e-6) for whole, cut in pairs)


def test_micro_batch_at_its_default_is_not_in_a_cell() -> None:
    [cell] = plan.make(plan.Request(("ft",), ("digits",)))
    assert cell.recipe is not None
    assert "micro_batch" not in cell.recipe


def test_a_branch_has_streams_of_its_own() -> None:
    inner = RUN.branch("member-1")
    assert inner.generator("order").initial_seed() != RUN.generator("order").initial_seed()
    assert inner.branch("a").prefix == "member-1.a."
    with pytest.raises(ValueError, match="part of a file name"):
        RUN.branch("../x")


def test_best_restores_companions_of_the_same_step(clip: Clip) -> None:
    class Steps:
        done = 0

        def after_step(self, step: int, of: int) -> None:
            self.done = step + 1

        def state_dict(self) -> dict[str, Any]:
            return {"done": self.done}

        def load_state_dict(self, state: dict[str, Any], /) -> None:
            self.done = state["done"]

    class Falling(ImageBatches):
        accuracies = iter((0.9, 0.8, 0.7, 0.6))

        def scores(self, clip: Clip) -> dict[str, float]:
            return {"accuracy": next(self.accuracies)}

    steps = Steps()
    objective = FT(recipe=Tiny.recipe).objective(clip, DATA, RUN)
    train(clip, Falling(clip, DATA), objective, Tiny.recipe, RUN, companions=[steps])
    assert steps.done == 2


def test_ema_is_the_published_average(clip: Clip) -> None:
    path = Path(__file__).parent / "vectors" / "ema.npz"
    vectors = np.load(path, allow_pickle=False)

    class Student:
        k = 0

        def snapshot(self) -> dict[str, torch.Tensor]:
            return {n: torch.from_numpy(vectors[f"student{self.k}/{n}"]) for n in ("weight", "bias")}

        def moving(self) -> dict[str, torch.Tensor]:
            return self.snapshot()

    for decay in (0.9, 0.999):
        student: Any = Student()
        average = Average(student, decay)
        for k in range(1, 9):
            student.k = k
            average.after_step(k - 1, 8)
            for name, mean in average.mean.items():
                assert np.abs(mean.numpy() - vectors[f"timm_{decay}_{k}/{name}"]).max() < 1e-6


def test_ft_plus_wise_is_wise_ft(tiny_model: str) -> None:
    found: list[Any] = []
    for name in ("ft+wise", "wise-ft"):
        kind = registry.load("method", name, Method)
        found.append(kind(recipe=Tiny.recipe).fit(load(tiny_model), DATA, RUN))
    assert registry.resolve("method", "ft+wise").name == "ft+wise-ft"
    assert list(found[0].members) == list(found[1].members)
    for name in found[0].members:
        ours, theirs = (model.use(name).state_dict() for model in found)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("name", "says"),
    [("flyp+ema", "does not declare `averages`"), ("ft+lipsum", "cannot follow"), ("zero-shot+wise", "trains nothing"),
     ("wise-ft+wise", "setting alpha")],
)  # fmt: skip
def test_a_composition_that_means_nothing_is_refused(name: str, says: str) -> None:
    with pytest.raises(RbftError, match=says):
        registry.load("method", name, Method)


@pytest.mark.parametrize("name", ["lipsum+wise-ft", "ft+ema", "ema"])
def test_compositions_keep_the_contract(name: str, tiny_model: str) -> None:
    assert not failed(registry.load("method", name, Method), tiny_model)


def test_the_page_of_the_contract_is_a_method_that_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: str
) -> None:
    source = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "halfway.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert not failed(import_module("halfway").Halfway, tiny_model)


@dataclass(frozen=True)
class Hidden(Lipsum):
    """Random texts from the system's entropy."""

    def texts(self, clip: Clip, run: Run, step: int) -> Any:
        generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
        return clip.random_tokens(self.n_texts, self.text_length, generator)


@dataclass(frozen=True)
class Touches(FT):
    """Inverts the labels of a few images for everyone after it."""

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        object.__setattr__(data.train, "labels", (data.train.labels + 1) % 3)


@dataclass(frozen=True)
class Forgets(FT):
    """Ends without a return."""

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Any:
        super().fit(clip, data, run)


@dataclass(frozen=True)
class Bare(FT):
    """Returns a tensor where named terms are asked for."""

    def objective(self, clip: Clip, data: TrainSet, run: Run) -> Any:
        inner = super().objective(clip, data, run)
        return lambda batch: inner(batch)["nll"]


@dataclass(frozen=True)
class Global(FT):
    """Resamples from numpy's global state."""

    def start(self, clip: Clip, data: TrainSet) -> None:
        super().start(clip, data)
        np.random.rand()


@pytest.mark.parametrize(
    ("kind", "check", "says"),
    [
        (Hidden, "same-seed-same-weights", "fitted again with the same seed"),
        (Touches, "data-is-left-alone", "work on copies"),
        (Forgets, "weights-are-finite", "fit returned NoneType; end it with `return clip`"),
        (Bare, "weights-are-finite", "the objective returned a Tensor; return named scalar tensors"),
        (Global, "global-random-state-is-left-alone", "draws from the global numpy.random"),
    ],
)
def test_a_method_that_breaks_the_contract_is_told_in_one_line(
    kind: Any, check: str, says: str, tiny_model: str
) -> None:
    found = failed(kind, tiny_model)
    assert says in found[check]
    assert all("\n" not in text and len(text) < 250 for text in found.values())


@pytest.mark.parametrize("check", check_method(FT), ids=str)
def test_the_recipe_for_plugin_tests_works(check: Check) -> None:
    check()


def test_anything_that_answers_with_logits_is_a_candidate(clip: Clip) -> None:
    found = candidates_of(clip)
    assert (found.default, list(found.members)) == ("final", ["final"])
    assert found.use("final") is clip


def test_the_old_name_still_works_and_says_so() -> None:
    with pytest.warns(DeprecationWarning, match="Candidates"):
        from robustbench_ft.method import Family  # pyright: ignore
    assert Family.__name__ == "Candidates"


def test_a_file_enters_the_digest_by_content(tmp_path: Path, clip: Clip) -> None:
    [cell] = plan.make(plan.Request(("ft",), ("digits",)))
    a, b = (replace(cell, settings={"captions": name}, contents={"captions": "same"}) for name in ("a.txt", "b.txt"))
    assert a.digest == b.digest
    assert replace(a, contents={"captions": "other"}).digest != a.digest


def test_candidates_off_the_axis_have_rows_of_their_own(tmp_path: Path) -> None:
    """EMA's last weights are shown beside its average."""
    request = plan.Request(("ema",), ("digits",), set=(("steps", "2"), ("batch", "8"), ("decay", "0.5")))
    workshop = runner.RunOptions(tmp_path, torch.device("cpu"), save_model=False)
    [folder] = launch.run_cells(plan.make(request), workshop)
    found = rows.rows([store.Record(folder)])
    assert [row.runs[0][1] for row in found] == ["ema", "last"]
    assert found[1].name.startswith("ema (")
    assert found[1].name.endswith("last)")


@pytest.mark.parametrize("old", ["objective(self, clip, run)", "skip(self, clip)"])
def test_a_signature_of_the_version_before_is_refused_in_one_line(old: str) -> None:
    source = (
        "from robustbench_ft import Method\n"
        f"class Older(Method):\n    def {old}: ...\n    def fit(self, clip, data, run): return clip\n"
    )
    with pytest.raises(
        RbftError, match=r"Older\.\w+\(self, clip(, run)?\) is \w+\(self, clip, data(, run)?\) since"
    ) as error:
        exec(source, {"__name__": "older"})
    assert "\n" not in str(error.value)
