"""Penalties in bfloat16 are those of float32, as far as their cross-entropy is; in plain autocast some are not."""

from dataclasses import replace

import pytest
import torch
from tiny import Tiny

from robustbench_ft import model_ref, suite_ref
from robustbench_ft.bench.penalties import Gap, Setting, measure, table
from robustbench_ft.progress import Progress

METHODS = ("lipsum", "kd", "car-ft", "feature-distill", "ldifs", "miro", "carot")
FIRST = ("nll", "contrastive")


def gaps(model: str, methods: tuple[str, ...], **how: object) -> tuple[Setting, list[Gap]]:
    setting = Setting(Tiny("tiny"), model_ref.resolve(model, None), torch.device("cpu"), "bf16", 16, 1e-3, (0, 4))
    setting = replace(setting, **how)
    return setting, measure(setting, methods, Progress())


@pytest.fixture(scope="module")
def found(tiny_model: str) -> list[Gap]:
    return gaps(tiny_model, METHODS)[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_penalty_errs_no_more_than_the_precision_does(method: str, found: list[Gap]) -> None:
    mine = [gap for gap in found if gap.method == method and gap.way == "blocks"]
    assert {gap.steps for gap in mine} == {0, 4}
    assert len({gap.term for gap in mine}) > 1
    for gap in mine:
        assert gap.gradient_error < 0.1, gap
        if gap.value and gap.steps:
            assert gap.error < 0.05, gap
    if method not in ("miro", "carot"):  # at the start there is nothing to pull back, and nothing pulls
        assert all(abs(gap.value) < 1e-6 for gap in mine if not gap.steps and gap.term not in FIRST)


@pytest.mark.parametrize("method", ["kd", "carot"])
def test_plain_autocast_pulls_where_nothing_has_moved(method: str, found: list[Gap]) -> None:
    """What the towers' own precision avoids: rounded logits of one model, half of them with a gradient."""
    at_start = [g for g in found if g.method == method and not g.steps and g.term not in FIRST]
    worst = {way: max(g.gradient_error for g in at_start if g.way == way) for way in ("blocks", "everywhere")}
    assert worst["everywhere"] > 10 * worst["blocks"]


def test_early_features_of_convolutions_are_compared_in_float32() -> None:
    """In bfloat16 the gradient of this term was off by 40 %."""
    setting, found = gaps(model_ref.EMBEDDED, ("ldifs",), suite=suite_ref.load("shapes"), lr=1e-4)
    assert [gap.gradient_error for gap in found if (gap.term, gap.way, gap.steps) == ("depth_gap", "blocks", 4)] == [0]
    assert "| ldifs | depth_gap | 4 |" in table(setting, found)
