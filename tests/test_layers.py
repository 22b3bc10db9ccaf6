"""Methods that train some layers, or parameters beside them: what moves, what stays, and what is saved."""

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry
from robustbench_ft.clip import Clip, State
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.prompts import Task

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
RUN = Run(0, torch.device("cpu"))


def load(model: str) -> Clip:
    return clips.load(model_ref.resolve(model, None))


def made(name: str, recipe: Any = Tiny.recipe, **settings: Any) -> Any:
    kind: Any = registry.load("method", name, Method)
    return kind(recipe=recipe, **settings)


class Seen:
    """A companion that remembers the model at the start of every stage, and otherwise only listens."""

    starts: list[State]

    def __init__(self, clip: Clip, starts: list[State]) -> None:
        starts.append({name: tensor.detach().clone() for name, tensor in clip.state_dict().items()})

    def after_step(self, step: int, of: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        pass


@pytest.mark.parametrize("probe", ["zero-shot", "logistic"])
def test_lp_is_what_lp_ft_fine_tunes(probe: str, tiny_model: str) -> None:
    starts: list[State] = []
    made("lp-ft", probe=probe).fit(
        load(tiny_model), DATA, Run(0, torch.device("cpu"), companions=(lambda clip: Seen(clip, starts),))
    )
    lp = made("lp", probe=probe).fit(load(tiny_model), DATA, RUN).state_dict()
    second = starts[-1]  # of fine-tuning, the last stage
    assert len(starts) == (2 if probe == "zero-shot" else 1)
    assert second.keys() == lp.keys()
    assert all(torch.equal(tensor, lp[name]) for name, tensor in second.items())
    assert not torch.equal(lp["head"], load(tiny_model).zero_shot_head(TASK))


def test_paint_moves_the_image_tower_only(tiny_model: str) -> None:
    candidates, before = made("paint").fit(load(tiny_model), DATA, RUN), load(tiny_model)
    after = candidates.use("alpha-1").state_dict()
    moved = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])}
    assert moved
    assert all(name.startswith("model.visual.") for name in moved)
    assert torch.equal(after["head"], before.zero_shot_head(TASK))
    assert list(candidates.axis.values()) == [k / 10 for k in range(11)]


def moved(name: str, model: str, **settings: Any) -> set[str]:
    """Tensors that a fit changes, by name."""
    before, fitted = load(model).state_dict(), made(name, **settings).fit(load(model), DATA, RUN)
    after = (fitted if isinstance(fitted, Clip) else fitted.use(fitted.default)).state_dict()
    return {key for key, tensor in before.items() if not torch.equal(tensor, after[key])}


@pytest.mark.parametrize(("blocks", "stem"), [(0, False), (2, False), (3, False), (3, True)])
def test_partial_ft_moves_the_last_blocks_of_the_embedded_model(blocks: int, stem: bool) -> None:
    names = moved("partial-ft", "embedded", blocks=blocks, stem=stem)
    stages = {int(name.split(".")[4]) for name in names if ".stages." in name}
    assert stages == set(range(3 - (blocks or 1), 3))
    assert any(".stem." in name for name in names) == stem
    assert "model.visual.head.proj.weight" in names


def test_partial_ft_of_a_transformer_leaves_its_embeddings(tiny_model: str) -> None:
    names = moved("partial-ft", tiny_model)
    assert {"model.visual.proj", "model.visual.ln_post.weight"} <= names
    assert all("resblocks" in n or n in ("model.visual.proj",) or "ln_post" in n for n in names)


def test_ft_strong_without_its_parts_is_ft(tiny_model: str) -> None:
    recipe = replace(Tiny.recipe, weight_decay=0.0)
    strong = made("ft-strong", recipe, layer_decay=1.0, freeze_conv1=False, ema_decay=0.9).fit(
        load(tiny_model), DATA, RUN
    )
    ft = made("ft", recipe).fit(load(tiny_model), DATA, RUN).state_dict()
    assert all(torch.equal(tensor, ft[name]) for name, tensor in strong.use("last").state_dict().items())
    assert not torch.equal(strong.use("ema").state_dict()["head"], ft["head"])


def test_the_mean_of_ft_strong_over_the_published_run_is_the_published_one() -> None:
    module: Any = import_module("robustbench_ft.methods.ft_strong")
    assert made("ft-strong", module.R_B16).matched_decay(1_281_167) == pytest.approx(0.9998, abs=1e-6)


def test_saft_moves_the_chosen_share_of_weights_and_no_other(tiny_model: str) -> None:
    clip, before = load(tiny_model), load(tiny_model)
    before.start_from_zero_shot(TASK)
    after, start = made("saft", fraction=0.01).fit(clip, DATA, RUN).state_dict(), before.state_dict()
    moved = sum(int((start[name] != tensor).sum()) for name, tensor in after.items())
    trained = sum(p.numel() for p in clip.parameters() if p.requires_grad)
    assert 0 < moved <= round(0.01 * trained)
    assert moved > 0.005 * trained


def test_saft_takes_the_largest_gradients_of_all_tensors_together() -> None:
    module: Any = import_module("robustbench_ft.methods.saft")
    sizes = {"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([[4.0], [0.5]])}
    chosen = module.top(sizes, 0.5)
    assert chosen["a"].tolist() == [False, True]
    assert chosen["b"].tolist() == [[True], [False]]


def test_the_gradients_of_saft_are_those_of_the_mean_loss_whatever_the_batch(tiny_model: str) -> None:
    found: list[State] = []
    for batch in (48, 7):
        clip, method = load(tiny_model), made("saft", replace(Tiny.recipe, batch=batch))
        method.start(clip, DATA)
        found.append(method.gradients(clip, DATA, RUN))
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-5 * float(gradient.max()) + 1e-9)


def test_mixout_is_theta_on_average_and_saves_plain_weights(tiny_model: str) -> None:
    module: Any = import_module("robustbench_ft.methods.mixout")
    weight, before = torch.randn(4, 3), torch.randn(4, 3)
    kept = torch.tensor([[1.0, 0.0, 1.0]])
    mixed = module.mix(weight, before, kept, 0.5)
    assert torch.equal(mixed[:, 1], before[:, 1])
    assert torch.allclose((mixed + module.mix(weight, before, 1 - kept, 0.5)) / 2, weight, atol=1e-6)
    tuned = made("mixout").fit(load(tiny_model), DATA, RUN)
    assert tuned.state_dict().keys() == made("ft").fit(load(tiny_model), DATA, RUN).state_dict().keys()


@pytest.mark.parametrize(("towers", "image", "text"), [("both", 1, 1), ("image", 1, 0), ("text", 0, 1)])
@pytest.mark.parametrize("model", ["tiny", "embedded"])
def test_lora_moves_the_towers_it_is_told_to(towers: str, image: int, text: int, model: str, tiny_model: str) -> None:
    names = moved("lora", tiny_model if model == "tiny" else model, towers=towers) - {"head"}
    visual = {name for name in names if name.startswith("model.visual.")}
    assert (bool(visual), bool(names - visual)) == (bool(image), bool(text))
    layers = ("attn.in_proj_weight", "conv.weight", "head.proj.weight")
    assert all(name.endswith(layers) for name in names)


def test_lora_merged_computes_what_its_updates_did(tiny_model: str) -> None:
    module: Any = import_module("robustbench_ft.methods._low_rank")
    for model in (tiny_model, "embedded"):
        clip = load(model).eval()
        clip.start_from_zero_shot(TASK)
        image = module.attention(clip.model.visual) or module.layers(clip.model.visual)
        names = dict.fromkeys([*module.attention(clip.model), *(f"visual.{name}" for name in image)])
        beside = module.install(clip.model, list(names), 2, 0.5, 0.25, RUN.generator("a"))
        for one in beside.values():
            one.low.b.data.normal_(std=0.05, generator=RUN.generator("b"))
        clip.eval()
        images, tokens = torch.randn(4, 3, 32, 32, generator=RUN.generator("x")), clip.tokenize(TASK.texts)
        apart = clip.logits(images), clip.encode_text(tokens)
        module.merge(clip.model, beside)
        for before, after in zip(apart, (clip.logits(images), clip.encode_text(tokens)), strict=True):
            assert torch.allclose(before, after, atol=1e-4)
        assert clip.state_dict().keys() == load(model).state_dict().keys() | {"head"}


@pytest.mark.parametrize("model", ["tiny", "embedded"])
def test_prolip_moves_the_projection_only(model: str, tiny_model: str) -> None:
    name = "model.visual.proj" if model == "tiny" else "model.visual.head.proj.weight"
    assert moved("prolip", tiny_model if model == "tiny" else model) == {name}


@pytest.mark.parametrize("model", ["tiny", "embedded"])
def test_what_enters_the_projection_gives_the_features_of_the_model(model: str, tiny_model: str) -> None:
    module: Any = import_module("robustbench_ft.methods.prolip")
    clip = load(tiny_model if model == "tiny" else model).eval()
    images = torch.randn(4, 3, 32, 32, generator=RUN.generator("x"))
    with module.unprojected(clip):
        inputs = clip.model.encode_image(images)
    assert torch.allclose(module.project(clip, inputs), clip.encode_image(images), atol=1e-6)


def test_prolip_in_parts_is_prolip_and_its_views_take_turns(tiny_model: str) -> None:
    whole, parts = (
        made("prolip", replace(Tiny.recipe, micro_batch=size)).fit(load(tiny_model), DATA, RUN).state_dict()
        for size in (0, 16)
    )
    assert torch.allclose(whole["model.visual.proj"], parts["model.visual.proj"], atol=1e-5)
    module: Any = import_module("robustbench_ft.methods.prolip")
    clip = load(tiny_model)
    source = module.Unprojected(clip, DATA, RUN, Tiny.recipe, 2)
    assert not torch.equal(source.rows([0, 1], 0), source.rows([0, 1], 1))
    assert torch.equal(source.rows([0, 1], 0), source.rows([0, 1], 2))


@pytest.mark.parametrize("name", ["clap", "coop", "kgcoop"])
def test_a_learnt_head_is_unit_rows_and_nothing_else_is_left(name: str, tiny_model: str) -> None:
    clip = made(name).fit(load(tiny_model), DATA, RUN)
    start = load(tiny_model)
    start.start_from_zero_shot(TASK)
    assert clip.state_dict().keys() == start.state_dict().keys()
    assert torch.allclose(clip.head.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert not torch.allclose(clip.head, start.head)


def test_clap_without_images_of_a_class_holds_it_at_1() -> None:
    module: Any = import_module("robustbench_ft.methods.clap")
    logits = torch.zeros(2, 3, 4)
    assert module.confidence(logits, torch.tensor([0, 0, 2])).tolist() == [0.25, 1.0, 0.25, 1.0]


def test_coop_draws_a_context_where_no_words_are_given(tiny_model: str) -> None:
    heads = [made("coop", init=words, n_context=3).fit(load(tiny_model), DATA, RUN).head for words in ("", "a photo")]
    assert not torch.equal(heads[0], heads[1])
    assert "do not fit" in made("coop", init="", n_context=16).skip(load(tiny_model), DATA)
