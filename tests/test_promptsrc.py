"""PromptSRC: tokens live in a ViT of open_clip while it is used, and nowhere else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bad_input import answer, invoke
from test_every_method import DATA, RUN, SUITE, load
from test_parity_layers import module

from robustbench_ft import plan, registry, saved
from robustbench_ft.method import Candidates, Method
from robustbench_ft.plan import Request
from robustbench_ft.predict import predict

RECIPE = replace(SUITE.recipe, steps=12, select="last")  # two epochs


def made(name: str = "promptsrc", **settings: Any) -> Any:
    return registry.load("method", name, Method)(recipe=RECIPE, **settings)


def fit(model: str, name: str = "promptsrc", **settings: Any) -> Any:
    return made(name, **settings).fit(load(model), DATA, RUN)


def test_without_image_tokens_and_terms_it_is_coop(tiny_model: str) -> None:
    off: dict[str, Any] = {"image_weight": 0.0, "text_weight": 0.0, "logit_weight": 0.0, "depth": 1, "image_tokens": 0}
    ours, coop = fit(tiny_model, **off, rate=2e-3).use("last"), fit(tiny_model, "coop")
    assert torch.equal(ours.clip.head, coop.head)


def test_terms_hold_it_to_the_frozen_model(tiny_model: str) -> None:
    image = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    start = load(tiny_model).encode_image(image)

    def moved(**weights: Any) -> float:
        found = fit(tiny_model, rate=0.5, **weights).use("last")
        return (found.logits(image) / found.clip.scale - start @ load(tiny_model).zero_shot_head(DATA.task).T).norm()

    assert moved(image_weight=1e3, text_weight=1e3) < moved(image_weight=0.0, text_weight=0.0, logit_weight=0.0)


def test_tokens_leave_the_model_when_it_is_not_asked(tiny_model: str) -> None:
    clip = load(tiny_model)
    images = torch.zeros(2, 3, 32, 32)
    before = load(tiny_model).eval().encode_image(images)
    found: Candidates = made().fit(clip, DATA, RUN)
    assert torch.equal(clip.encode_image(images), before)
    assert not [name for name, _ in clip.named_parameters() if "tokens" in name]
    scorer: Any = found.use("mean")
    answers = scorer.logits(images)
    assert not torch.equal(answers, scorer.clip.logits(images))
    assert torch.equal(scorer.logits(images), answers)
    assert len(scorer.tokens) == 1  # of nine blocks, the tiny tower has one
    assert set(predict(found, SUITE.split("dim"))) == {"last", "mean"}


def test_the_headline_is_the_mean_of_two_epochs(tiny_model: str) -> None:
    """With no weight on the first epoch it is the end of training."""
    found = fit(tiny_model, mean=2.0, deviation=1e-2)
    last, mean = found.use("last"), found.use("mean")
    assert torch.equal(last.tokens[0], mean.tokens[0])
    early = fit(tiny_model, mean=1.0, deviation=1e-2)
    assert not torch.equal(last.tokens[0], early.use("mean").tokens[0])
    even = fit(tiny_model, mean=1.5, deviation=1.0)
    assert not torch.equal(even.use("last").tokens[0], even.use("mean").tokens[0])


def test_before_the_first_epoch_has_ended_the_mean_is_what_there_is(tiny_model: str) -> None:
    clip = load(tiny_model)
    clip.tokens = torch.nn.Parameter(torch.zeros(2, 3))
    clip.train_only("extra")
    average = module("promptsrc").EpochMean(clip, 6, 30.0, 30.0)
    for step in range(5):
        clip.restore({"tokens": torch.full((2, 3), step + 1.0)})
        average.after_step(step, 50)
        assert torch.equal(average.state["tokens"], clip.tokens)
    again = module("promptsrc").EpochMean(clip, 6, 30.0, 30.0)
    again.load_state_dict(average.state_dict())
    assert torch.equal(again.state["tokens"], clip.tokens)


@pytest.mark.usefixtures("shelves")
def test_a_record_answers_again(tiny_model: str, tmp_path: Path) -> None:
    words = f"run --method promptsrc --suite tiny+shots=4 --model {tiny_model}"
    assert invoke(words, tmp_path).exit_code == 0
    [folder] = (tmp_path / "out").rglob("model")
    model = saved.load(folder, torch.device("cpu"))
    assert model.logits(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    boards = tmp_path / "boards"
    assert invoke(f"leaderboard add {tmp_path}/out --root {boards}", tmp_path).exit_code == 0
    result = invoke(f"leaderboard verify --root {boards} --rescore 20 --runs {tmp_path}/out", tmp_path)
    assert (result.exit_code, "1 of 1 claims hold (rescored)" in result.output) == (0, True), result.output


def test_a_tower_without_blocks_is_refused_in_one_line(tmp_path: Path) -> None:
    [line] = answer(invoke("run --method promptsrc --suite digits --model embedded --set steps=1", tmp_path))
    assert "its image tower (TimmModel) is no VisionTransformer of open_clip" in line
    assert not list((tmp_path / "out").rglob("*"))


def test_the_authors_recipe_is_for_few_images(tmp_path: Path) -> None:
    whole, few = plan.make(Request(("promptsrc",), ("imagenet", "imagenet+objectnet+shots=16+draw=3")))
    assert (few.recipe or {})["epochs"] == 50
    assert (few.recipe_source, whole.recipe_source) == ("method", "suite")
