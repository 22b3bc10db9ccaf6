"""Every registered method keeps the contract, and the reductions it declares hold to the last bit."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry
from robustbench_ft.checks import Check, check_method
from robustbench_ft.clip import Clip
from robustbench_ft.errors import SealedError
from robustbench_ft.method import Candidates, Method, Run, TrainSet
from robustbench_ft.predict import predict
from robustbench_ft.prompts import Task
from robustbench_ft.suite import sealed
from robustbench_ft.train import ImageBatches

METHODS = sorted(registry.entries("method"))
CHECKS = [(name, check.name) for name in METHODS for check in check_method(registry.load("method", name, Method))]
SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
RUN = Run(0, torch.device("cpu"))
MIXTURES = {"output-ensemble", "vrf", "dawin"}  # their headline answers with two models
PROMPTED = {"promptsrc"}  # with tokens beside one

Fit = Callable[..., Any]


@pytest.fixture(scope="module")
def contracts(tiny_model: str) -> dict[tuple[str, str], Check]:
    """The checks of one method share its fits."""
    kinds = {name: registry.load("method", name, Method) for name in METHODS}
    return {(name, c.name): c for name, kind in kinds.items() for c in check_method(kind, tiny_model, TASK)}


@pytest.fixture
def fit(tiny_model: str) -> Fit:
    """Fit a method on the tiny suite, as the runner does."""

    def run(name: str, **settings: Any) -> Clip | Candidates:
        kind = registry.load("method", name, Method)
        method = kind(recipe=Tiny.recipe if kind.trains else None, **settings)
        with sealed():
            return method.fit(load(tiny_model), DATA, RUN)

    return run


def load(model: str) -> Clip:
    return clips.load(model_ref.resolve(model, None))


def same(a: Clip, b: Clip) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_method_keeps_the_contract(name: str, check: str, contracts: dict[tuple[str, str], Check]) -> None:
    contracts[name, check].run()


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in {"flyp", "lora", "starft", "carot", *MIXTURES, *PROMPTED}]
)
def test_text_tower_and_scale_stay_as_they_were(name: str, fit: Fit, tiny_model: str) -> None:
    model, before = fit(name), load(tiny_model).state_dict()
    clip = model.use(model.default) if isinstance(model, Candidates) else model
    assert isinstance(clip, Clip)
    for key, tensor in clip.state_dict().items():
        free = key in ("head", "bias") or key.startswith("model.visual.") or not key.startswith("model.")
        assert free or torch.equal(tensor, before[key])


def test_flyp_moves_both_towers_and_the_scale(fit: Fit, tiny_model: str) -> None:
    after, before = fit("flyp").state_dict(), load(tiny_model).state_dict()
    for key in ("model.token_embedding.weight", "model.logit_scale", "model.visual.proj"):
        assert not torch.equal(after[key], before[key])


def test_lipsum_without_strength_is_ft(fit: Fit) -> None:
    assert same(fit("lipsum", strength=0.0), fit("ft"))
    assert not same(fit("lipsum"), fit("ft"))


def test_wise_ft_begins_at_zero_shot_and_ends_at_ft(fit: Fit) -> None:
    family = fit("wise-ft")
    assert same(family.use("alpha-1"), fit("ft"))
    zero_shot = predict(fit("zero-shot"), SUITE.split("dim"))["final"]
    alpha_0 = predict(family, SUITE.split("dim"))["alpha-0"]
    assert (alpha_0.log_prob == zero_shot.log_prob).all()
    assert (alpha_0.top_classes == zero_shot.top_classes).all()


def test_wise_ft_adds_an_alpha_that_is_not_on_the_grid(fit: Fit) -> None:
    family = fit("wise-ft", alpha=0.25)
    assert family.default == "alpha-0.25"
    assert len(family.members) == 12


@pytest.mark.parametrize("way", ["registry", "load", "memory", "thread"])
@pytest.mark.parametrize("split", ["dim", "test"])
@pytest.mark.usefixtures("shelves")
def test_no_path_leads_from_fit_to_a_shift(way: str, split: str, fit: Fit) -> None:
    with pytest.raises(SealedError, match=f"'{split}' is sealed during fit"):
        fit("peek", way=way, split=split)


@pytest.mark.parametrize("way", ["registry", "load", "memory", "thread"])
@pytest.mark.usefixtures("shelves")
def test_fit_may_read_what_it_is_given_and_the_seal_opens_after_it(way: str, fit: Fit) -> None:
    fit("peek", way=way, split="val")
    with pytest.raises(SealedError):
        fit("peek", way=way)
    assert len(Tiny("tiny").split("dim")) == 30


def test_what_fit_is_given_holds_no_shift() -> None:
    reachable = [value for holder in (DATA, RUN) for value in vars(holder).values()]
    assert not [value for value in reachable if isinstance(value, Tiny)]
    assert {split.name for split in (DATA.train, DATA.val)} == {"train", "val"}
    assert not set(DATA.train.ids) & set(DATA.val.ids)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ft", {"student image": 1}),
        ("lipsum", {"student image": 1, "teacher image": 1, "teacher text": 1}),
        ("flyp", {"student image": 1, "student text": 1}),
    ],
)
def test_each_tower_runs_once_a_step(
    name: str, expected: dict[str, int], tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, kind = load(tiny_model), registry.load("method", name, Method)
    method: Any = kind(recipe=Tiny.recipe)
    clip.start_from_zero_shot(TASK)
    clip.train_only("image", "head", "text")
    objective = method.objective(clip, DATA, RUN)
    batch = ImageBatches(clip, DATA).batch(clip, [0, 1, 2], 0, Tiny.recipe, RUN)
    calls: Counter[str] = Counter()
    count(CLIP, "encode_image", "image", clip, calls, monkeypatch)
    count(Clip, "encode_text", "text", clip, calls, monkeypatch)
    objective(batch)
    assert calls == expected


def count(
    owner: Any, act: str, tower: str, student: Clip, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let `act` of class `owner` count itself, for the student and for any other model."""
    original = getattr(owner, act)

    def counted(self: Any, *args: Any) -> Any:
        calls[f"{'student' if self in (student, student.model) else 'teacher'} {tower}"] += 1
        return original(self, *args)

    monkeypatch.setattr(owner, act, counted)
