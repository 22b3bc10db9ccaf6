"""Every method on a GPU: it learns there what it learns on a CPU, and stays finite in 16 bits."""

from typing import Any

import pytest
import torch
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import environment, registry
from robustbench_ft.clip import State
from robustbench_ft.clip.autocast import allow_tf32
from robustbench_ft.method import Candidates, Method, Run, TrainSet, candidates_of
from robustbench_ft.predict import predict
from robustbench_ft.prompts import Task
from robustbench_ft.suite import sealed
from robustbench_ft.watch import begin, without_dropout

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
SUITE = Tiny("tiny")
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), Task(SUITE.classes, SUITE.templates))
METHODS = sorted(registry.entries("method"))
FAR = 0.05  # of the way that the weights went: six steps of another order of sums, after which Adam divides by noise


def fitted(name: str, model: str, device: str, precision: str = "fp32") -> Candidates:
    kind = registry.load("method", name, Method)
    method = kind(recipe=Tiny.recipe if kind.trains else None)
    clip, data = begin(method, model, DATA)
    clip, where = clip.to(device), torch.device(device)
    clip.precision = precision
    environment.use(precision, where)
    try:
        with sealed(), without_dropout():
            return candidates_of(method.fit(clip, data, Run(0, where, precision, separable=kind.separable)))
    finally:
        allow_tf32(where, False)


def weights(found: Candidates) -> State:
    """'candidate:tensor' -> values on the CPU, of the candidates that are one model."""
    models = {who: model for who in found.members if isinstance(model := found.use(who), clips.Clip)}
    return {
        f"{who}:{name}": tensor.cpu().double()
        for who in models
        for name, tensor in found.use(who).state_dict().items()  # pyright: ignore
        if tensor.is_floating_point()
    }


def distance(a: State, b: State) -> float:
    return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_on_a_gpu_what_it_learns_on_a_cpu(name: str, tiny_model: str) -> None:
    cpu, gpu = (fitted(name, tiny_model, device) for device in ("cpu", "cuda"))
    ours, theirs = weights(cpu), weights(gpu)
    assert ours.keys() == theirs.keys()
    start = weights(fitted("zero-shot", tiny_model, "cpu"))
    began: dict[str, Any] = {key: start.get(f"final:{key.partition(':')[2]}", ours[key]) for key in ours}
    moved = distance(ours, {key: t if t.shape == ours[key].shape else ours[key] for key, t in began.items()})
    assert distance(ours, theirs) <= FAR * moved + 1e-5 * distance(ours, {key: 0 * t for key, t in ours.items()})
    for split in (SUITE.split("test"), SUITE.split("dim")):
        a, b = (predict(found, split)[found.default] for found in (cpu, gpu))
        assert a.ids == b.ids
        assert (a.prediction == b.prediction).mean() >= 0.9
        assert abs(a.log_prob - b.log_prob).mean() <= 0.05


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_it_is_finite_in_16_bits(name: str, precision: str, tiny_model: str) -> None:
    found = fitted(name, tiny_model, "cuda", precision)
    assert all(tensor.isfinite().all() for tensor in weights(found).values())
    assert predict(found, SUITE.split("test"))[found.default].log_prob.max() <= 0
