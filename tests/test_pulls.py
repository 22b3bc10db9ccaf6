"""Methods that hold a model near theta0: what the contract's own checks, which use the defaults, do not see."""

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry
from robustbench_ft.checks import RECIPE, Check, check_method
from robustbench_ft.clip import Clip, State
from robustbench_ft.method import Candidates, Method, Run, TrainSet
from robustbench_ft.predict import predict
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
PLAIN = replace(RECIPE, weight_decay=0.0)


def fitted(model: str, name: str, recipe: Recipe = PLAIN, **settings: Any) -> State:
    """The tensors of the headline row."""
    kind: Any = registry.load("method", name, Method)
    clip = clips.load(model_ref.resolve(model, None))
    found = kind(recipe=recipe, **settings).fit(clip, DATA, Run(0, torch.device("cpu")))
    used = found.use(found.default) if isinstance(found, Candidates) else found
    assert isinstance(used, Clip)
    return {key: tensor.detach().clone() for key, tensor in used.state_dict().items()}


def same(a: State, b: State) -> bool:
    return all(a[name].equal(b[name]) for name in a.keys() | b.keys())


@pytest.mark.parametrize(("name", "off"), [("adam-spd", {"strength": 0.0}), ("olor", {"pull": 0.0})])
def test_without_a_pull_it_is_ft_without_weight_decay(name: str, off: dict[str, float], tiny_model: str) -> None:
    plain = fitted(tiny_model, "ft")
    assert same(fitted(tiny_model, name, RECIPE, **off), plain)
    assert not same(fitted(tiny_model, name, RECIPE, **dict.fromkeys(off, 0.5)), plain)


@pytest.mark.parametrize(("name", "on"), [("olor", {"pull": 1.0, "pull_last": 1.0}), ("ftp", {"rate": 1e-12})])
def test_the_strongest_hold_leaves_the_tower_where_it_was(name: str, on: dict[str, float], tiny_model: str) -> None:
    constant = replace(PLAIN, schedule="wise-ft", steps=1, validate_every=0)
    before = clips.load(model_ref.resolve(tiny_model, None)).state_dict()
    after = fitted(tiny_model, name, constant, **on)
    for key, tensor in before.items():
        torch.testing.assert_close(after[key], tensor, rtol=0, atol=1e-6)
    head = fitted(tiny_model, "ft", replace(constant, lr=1e-9))["head"]
    assert not torch.allclose(after["head"], head, rtol=0, atol=1e-5)  # new in the authors' code, so it is let go


KIND: Any = import_module("robustbench_ft.methods.tpgm").TPGM


@dataclass(frozen=True)
class During(KIND):
    """TPGM at every step, as on DomainNet."""

    reduces_to: ClassVar[dict[str, Any]] = {}
    when: str = "during"
    norm: str = "mars"
    hold_head: bool = False


CHECKS = [check.name for check in check_method(During)]


@pytest.fixture(scope="module")
def contract(tiny_model: str) -> dict[str, Check]:
    return {check.name: check for check in check_method(During, tiny_model, TASK)}


@pytest.mark.parametrize("name", CHECKS)
def test_tpgm_at_every_step_keeps_the_contract(name: str, contract: dict[str, Check]) -> None:
    contract[name].run()


def test_tpgm_learns_radii_in_parts_as_in_one(tiny_model: str) -> None:
    tpgm, gradients = import_module("robustbench_ft.methods.tpgm"), list[torch.Tensor]()
    for size in (0, 3):
        method, run = KIND(recipe=replace(PLAIN, micro_batch=size)), Run(0, torch.device("cpu"))
        clip = clips.load(model_ref.resolve(tiny_model, None))
        method.start(clip, DATA)
        radii = tpgm.Radii(clip.snapshot(), "l2", 1e-2)
        noise = torch.Generator().manual_seed(0)
        clip.restore({n: t + 0.1 * torch.randn(t.shape, generator=noise) for n, t in clip.snapshot().items()})
        tpgm.Projection(clip, DATA, radii, method, run).improve(0)
        gradients.append(radii.values.grad)
        assert all(p.grad is None for p in clip.parameters())
    assert gradients[0].abs().min() > 0
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_swad_hears_the_loss_on_id_validation(tiny_model: str) -> None:
    swad, clip = import_module("robustbench_ft.methods.swad"), clips.load(model_ref.resolve(tiny_model, None))
    method, run = swad.SWAD(recipe=Tiny.recipe), Run(0, torch.device("cpu"))
    method.start(clip, DATA)
    clip.train()
    loss = swad.ValleyAverage(clip, DATA, method, run).loss()
    assert clip.training
    assert loss == pytest.approx(-predict(clip, DATA.val)["final"].log_prob.mean(), rel=1e-5)
    clip.head.data.fill_(float("nan"))
    assert swad.ValleyAverage(clip, DATA, method, run).loss() == float("inf")
