"""Cells of several models: members that resume, mixtures that share features, and merges that look at a split first."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from test_every_method import DATA, RUN, SUITE, TASK, load
from tiny import Tiny
from torch import Tensor

from robustbench_ft import registry
from robustbench_ft.clip import Clip
from robustbench_ft.clip.load import load_saved
from robustbench_ft.data import LabelSpace, Split
from robustbench_ft.method import Candidates, Method, Run, candidates_of
from robustbench_ft.predict import depends_on_others, predict
from robustbench_ft.train import ImageBatches, InterruptedRun


def build(name: str, **settings: Any) -> Any:
    first, _, second = name.partition("+")
    kind = registry.load("method", first, Method)
    if second:
        kind = Method.composed(kind, registry.load("method", second, Method), (first, second))
    return kind(recipe=Tiny.recipe, **settings)


def fit(model: str, name: str, run: Run = RUN, **settings: Any) -> Candidates:
    return candidates_of(build(name, **settings).fit(load(model), DATA, run))


def weights(found: Candidates, candidate: str) -> dict[str, Tensor]:
    clip = cast(Clip, found.use(candidate))
    return {name: tensor.clone() for name, tensor in clip.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# -- members -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["greedy-soup", "diwa", "model-stock", "ties"])
def test_a_fit_that_is_cut_in_its_second_member_ends_the_same(name: str, tiny_model: str, tmp_path: Path) -> None:
    lines: list[Any] = []
    asked = iter(range(10_000))
    cut = replace(RUN, folder=tmp_path, log=lines.append)
    enough = 10 if name == "diwa" else 8  # questions: every step of a stage asks once
    with suppress(InterruptedRun):
        fit(tiny_model, name, replace(cut, stopped=lambda: next(asked) >= enough))
        raise AssertionError("it was not stopped")
    resumed = fit(tiny_model, name, cut)
    whole = fit(tiny_model, name)
    assert all(equal(weights(resumed, c), weights(whole, c)) for c in whole.members)


def test_every_member_is_a_stage_with_a_cost(tiny_model: str) -> None:
    lines: list[Any] = []
    fit(tiny_model, "uniform-soup", replace(RUN, log=lines.append), members=2)
    ends = {line["stage"]: line["images"] for line in lines if line["event"] == "end"}
    assert ends == {"member-0.fit": 48, "member-1.fit": 48}


def test_members_differ_and_factors_are_taken_in_turn(tiny_model: str) -> None:
    found = fit(tiny_model, "uniform-soup", members=2)
    assert not equal(weights(found, "member-0"), weights(found, "member-1"))
    soup = build("greedy-soup", members=4, lr_factors="1 0.5")
    rates = [soup.recipe_of(k).lr / Tiny.recipe.lr for k in range(4)]
    assert rates == [1, 0.5, 1, 0.5]


@pytest.mark.parametrize("text", ["", "a", "1 -2", "nan", "inf"])
def test_factors_that_are_no_rates_are_refused_in_one_line(text: str) -> None:
    [problem] = build("uniform-soup", lr_factors=text).problems()
    assert "must be numbers above 0" in problem


def test_a_soup_takes_part_in_wise_ft(tiny_model: str) -> None:
    line = fit(tiny_model, "uniform-soup+wise-ft", members=2)
    soup, end = weights(fit(tiny_model, "uniform-soup", members=2), "soup"), weights(line, "alpha-1")
    assert equal(soup, end)


def test_ratings_are_signed_and_no_number_is_the_worst(tiny_model: str) -> None:
    clip = load(tiny_model)
    clip.start_from_zero_shot(TASK)
    source = ImageBatches(clip, replace(DATA, metric="nll"))
    assert source.rating(clip) == -source.scores(clip)["nll"]
    clip.head.data.fill_(torch.nan)
    assert source.rating(clip) == -torch.inf


# -- mixtures of outputs -----------------------------------------------------------------------------------------------


def test_each_tower_encodes_an_image_once_for_all_mixtures(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fit(tiny_model, "output-ensemble")
    calls: list[Clip] = []
    encode = Clip.encode_image

    def counted(self: Clip, images: Tensor) -> Tensor:
        calls.append(self)
        return encode(self, images)

    monkeypatch.setattr(Clip, "encode_image", counted)
    predict(found, SUITE.split("test"))
    assert calls.count(found.clip) == 2  # alpha 0 and alpha 1 are weights of one module
    assert len(calls) == 4


def test_models_are_cut_to_a_label_space_before_they_are_mixed(tiny_model: str) -> None:
    found = fit(tiny_model, "output-ensemble", alpha=0.3)
    test = SUITE.split("test")
    pair = test.labels < 2
    labels = np.where(pair, test.labels, -1)
    cut = replace(test, also={"pair": LabelSpace(((0,), (1,)), labels)})
    answers = predict(found, cut)
    of = {alpha: answers[f"alpha-{alpha}"].also["pair"].log_prob for alpha in (0, 0.3, 1)}
    mixed = np.log(0.7 * np.exp(of[0]) + 0.3 * np.exp(of[1]))
    assert np.allclose(of[0.3], mixed, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "note", "ends"),
    [
        ("output-ensemble", "ensemble", ("alpha-1", "alpha-0")),
        ("vrf", "vrf", ("ft", "zero-shot")),
        ("dawin", "dawin", ("ft", "zero-shot")),
    ],
)
def test_a_mixture_is_saved_as_two_models_and_a_note(
    name: str, note: str, ends: tuple[str, str], tiny_model: str, tmp_path: Path
) -> None:
    found = fit(tiny_model, name)
    found.use(found.default).save(tmp_path, {"seed": 0})
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for folder, candidate in (("tuned", ends[0]), ("zero-shot", ends[1])):
            back = load_saved(tmp_path / folder)
            assert torch.allclose(back.logits(images), found.use(candidate).logits(images), atol=1e-5)
            assert back.config["rbft"][note]["temperatures"]["before"] > 0


def test_the_space_of_logits_mixes_logits(tiny_model: str) -> None:
    found = fit(tiny_model, "output-ensemble", space="logits")
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # alpha 0 and 1 are weights of one module, so one is asked after the other
        before, tuned, half = (found.use(name).logits(images) for name in ("alpha-0", "alpha-1", "alpha-0.5"))
    assert torch.allclose(half, (before + tuned) / 2, atol=1e-4)


# -- a split seen first ------------------------------------------------------------------------------------------------


class Counts:
    """A scorer that answers with how many images it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def prepare(self, images: Iterable[Tensor], reduce: Any, /) -> None:
        self.shown.append(sum(map(len, images)))

    def logits(self, images: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, float(self.shown[-1])]).expand(len(images), 3)

    def save(self, folder: Path, note: Any, /) -> None: ...


def test_a_scorer_that_prepares_sees_every_image_once_and_is_known_as_transductive(tiny_model: str) -> None:
    scorer, test = Counts(), SUITE.split("test")
    found = Candidates(load(tiny_model), {"counts": lambda: scorer}, "counts")
    answers = predict(found, test)["counts"]
    assert scorer.shown == [len(test)]
    assert depends_on_others(found, test, answers, [0, 1])


def test_dawin_forgets_the_split_before(tiny_model: str) -> None:
    found = fit(tiny_model, "dawin")
    alone = predict(found, SUITE.split("dim"))["dawin"]
    predict(found, SUITE.split("noisy"))
    again = predict(found, SUITE.split("dim"))["dawin"]
    assert np.array_equal(alone.log_prob, again.log_prob)
    part = SUITE.split("dim").take(np.arange(10))
    some = predict(found, part)["dawin"]
    assert not np.allclose(some.log_prob, alone.log_prob[:10], rtol=1e-6, atol=0)


def test_dawin_takes_entropies_in_the_classes_of_the_split(tiny_model: str) -> None:
    test = SUITE.split("test")
    pair: Split = replace(test.take(np.flatnonzero(test.labels < 2)), members=((0,), (1,)))
    found = fit(tiny_model, "dawin")
    both = predict(found, pair)["dawin"], predict(found, replace(pair, members=None))["dawin"]
    assert both[0].top_classes.shape[1] == 2
    assert not np.allclose(both[0].log_prob, both[1].log_prob)


def test_dawin_with_a_model_for_each_image_and_no_offset_needs_no_other_image(tiny_model: str) -> None:
    found = fit(tiny_model, "dawin", components=0, offset=False)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = found.use("dawin").logits(images)
        alone = torch.cat([found.use("dawin").logits(image[None]) for image in images])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4)
