"""Methods that train some layers, or parameters beside them, against the code of their authors on small tensors."""

import math
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import TASK, Array, agrees, arrays, differs, tensors
from torch import Tensor, nn

from robustbench_ft import registry
from robustbench_ft.clip import Clip
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batch, Objective

EXACT, CLOSE = 1e-6, 1e-5
RUN = Run(0, torch.device("cpu"))
FT_CLIP, MIXOUT, LORA = "FT-CLIP@3f9cefa", "mixout@18f377d", "CLIP-LoRA@358f0d7"
PROLIP, CLAP, COOP, KGCOOP = "ProLIP@b43e795", "CLAP@dbdf409", "CoOp@ff61507", "KgCoOp@c43ccc3"


def part(name: str) -> Mapping[str, Array]:
    """The vectors of one method."""
    return tensors(arrays("layers"), f"{name}/")


def of(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.asarray(array)) for key, array in part(name).items()}


def module(name: str) -> Any:
    return import_module(f"robustbench_ft.methods.{name}")


def made(name: str, **settings: Any) -> Any:
    kind: Any = registry.load("method", name, Method)
    return kind(**settings)


def clip_with(scale: float) -> Clip:
    clip = golden.model()
    clip.model.logit_scale.data.fill_(math.log(scale))
    return clip


# -- FT-strong ---------------------------------------------------------------------------------------------------------


def groups_of(layer_decay: float) -> dict[str, tuple[float, float]]:
    """Name -> factor on the rate, and decay, in our optimiser for the tiny CLIP."""
    clip, golden_ = golden.model(), part("ft_strong")
    clip.start_from_zero_shot(TASK, "scaled")
    clip.train_only("image", "head")
    recipe = Recipe(weight_decay=float(golden_["decay"]))
    optimizer = made("ft-strong", layer_decay=layer_decay).optimizer(clip, recipe)
    names = {id(p): n.removeprefix("model.visual.") for n, p in clip.named_parameters()}
    theirs = {"head": "head.weight", "bias": "head.bias"}
    return {
        theirs.get(names[id(p)], names[id(p)]): (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_the_rates_and_decays_of_ft_strong_are_those_of_ft_clip() -> None:
    vectors = part("ft_strong")
    names = [str(name) for name in vectors["names"]]
    official = np.stack([vectors["lr_scale"], vectors["weight_decay"]], axis=1)
    for decay, judge in ((0.6, agrees), (0.65, differs)):
        ours = groups_of(decay)
        assert ours.keys() == set(names)
        error = golden.apart([ours[name] for name in names], official)
        judge(f"ft-strong: rates and decays of all tensors, layer decay {decay}", FT_CLIP, error, EXACT)


# -- Mixout ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_mixout_computes_and_learns_as_released(layer: str) -> None:
    v = of(f"mixout_{layer}")
    for exact, judge in ((False, agrees), (True, differs)):
        weight = v["weight"].clone().requires_grad_()
        mixed = module("mixout").mix(weight, v["before"], v["kept"], float(v["p"]), exact)
        mixed.backward(v["grad_output"])
        agrees(f"mixout of a {layer} layer, rel L2", MIXOUT, golden.relative_l2(mixed, v["output"]), EXACT)
        what = "exact gradient" if exact else "gradient"
        judge(f"mixout of a {layer} layer: {what}, rel L2", MIXOUT, golden.relative_l2(weight.grad, v["grad"]), EXACT)


@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_the_released_mask_is_shared_by_all_outputs_as_ours_is(layer: str) -> None:
    v = of(f"mixout_{layer}")
    assert all(torch.equal(row, v["kept"][0]) for row in v["kept"])
    mask = made("mixout").mask(v["weight"], RUN.generator("x"))
    assert mask.shape == v["weight"][:1].shape


# -- LoRA --------------------------------------------------------------------------------------------------------------


def lora_of(v: Mapping[str, Tensor], scale: float) -> tuple[Any, Any]:
    """Our attention with the official weights and factors."""
    low_rank = module("_low_rank")
    attention = nn.MultiheadAttention(8, 2)
    with torch.no_grad():
        attention.in_proj_weight.copy_(v["in_proj_weight"])
        attention.in_proj_bias.copy_(v["in_proj_bias"])
        attention.out_proj.weight.copy_(v["out_weight"])
        attention.out_proj.bias.copy_(v["out_bias"])
    tower = nn.ModuleDict({"resblocks": nn.ModuleList([nn.ModuleDict({"attn": attention})])})
    beside = low_rank.install(tower, ["resblocks.0.attn"], 2, scale, 0.0, RUN.generator("x"))
    one = beside["resblocks.0.attn"]
    one.low.a.data.copy_(v["a"])
    one.low.b.data.copy_(v["b"])
    return tower, one


@pytest.mark.parametrize("tower", ["image", "text"])
def test_lora_in_attention_is_the_released_one(tower: str) -> None:
    v = of(f"lora_{tower}")
    for scale, judge in ((1 / math.sqrt(2), agrees), (1 / 2, differs)):
        _, one = lora_of(v, scale)
        output = one(v["x"], v["x"], v["x"], attn_mask=v.get("mask"))[0]
        (output * v["t"]).sum().backward()
        what = f"lora in attention, {tower}, scale alpha / {'sqrt(r)' if judge is agrees else 'r'}"
        judge(f"{what}: output, rel L2", LORA, golden.relative_l2(output, v["output"]), CLOSE)
        for name in ("a", "b"):
            error = golden.relative_l2(getattr(one.low, name).grad, v[f"grad_{name}"])
            judge(f"{what}: gradient of {name.upper()}, rel L2", LORA, error, CLOSE)


def test_lora_merged_into_attention_gives_the_released_output() -> None:
    v = of("lora_image")
    tower, one = lora_of(v, 1 / math.sqrt(2))
    module("_low_rank").merge(tower, {"resblocks.0.attn": one})
    attention = tower["resblocks"][0]["attn"]
    output = attention(v["x"], v["x"], v["x"], need_weights=False)[0]
    agrees("lora merged into attention: output, rel L2", LORA, golden.relative_l2(output, v["output"]), CLOSE)


# -- ProLIP ------------------------------------------------------------------------------------------------------------


def prolip_steps(mean: bool) -> tuple[list[float], list[float], list[Tensor]]:
    """Losses, penalties and matrices of five steps; `mean` takes the penalty's mean over entries."""
    v, prolip = of("prolip"), module("prolip")
    clip = clip_with(100)
    clip.model.visual.proj = nn.Parameter(v["start"].clone())
    clip.set_head(v["head"], "unit", TASK)
    recipe = Recipe(lr=float(v["lr"]), eps=float(v["eps"]), steps=5)
    strength = float(v["strength"]) / (v["start"].numel() if mean else 1)
    method = made("prolip", recipe=recipe, strength=strength)
    split = golden.split(np.zeros((10, 32, 32, 3), np.uint8))
    data = TrainSet(split, split, TASK)
    objective: Objective = method.objective(clip, data, RUN)
    clip.train_only()
    prolip.matrix(clip).requires_grad_(True)
    optimizer = prolip.adam(clip, recipe)
    losses, penalties, states = list[float](), list[float](), list[Tensor]()
    for step in range(5):
        optimizer.param_groups[0]["lr"] = recipe.lr_at(step, 5)
        terms = objective(Batch(step, v["labels"], v["z"], partial(prolip.project, clip)))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(terms["nll"].item())
        penalties.append(terms["distance"].item() / strength)
        states.append(prolip.matrix(clip).detach().clone())
    return losses, penalties, states


def test_five_steps_of_prolip_are_the_released_ones() -> None:
    v = part("prolip")
    losses, penalties, states = prolip_steps(mean=False)
    agrees("prolip: cross-entropy of 5 steps, rel", PROLIP, golden.relative(losses, v["ce"]), CLOSE)
    agrees("prolip: penalty of steps 2-5, rel", PROLIP, golden.relative(penalties[1:], v["mse"][1:]), CLOSE)
    moved = states[-1].numpy() - v["start"]
    agrees("prolip: P5 - P0, rel L2", PROLIP, golden.relative_l2(moved, v["states"][-1] - v["start"]), CLOSE)


def test_a_mean_in_the_penalty_of_prolip_would_be_noticed() -> None:
    v = part("prolip")
    moved = prolip_steps(mean=True)[2][-1].numpy() - v["start"]
    differs(
        "prolip, mean over entries: P5 - P0, rel L2", PROLIP,
        golden.relative_l2(moved, v["states"][-1] - v["start"]), CLOSE,
    )  # fmt: skip


# -- CLAP --------------------------------------------------------------------------------------------------------------


def clap_steps(**settings: Any) -> tuple[Array, Array, Tensor]:
    """Losses, pulls, and the prototypes after five steps of SGD."""
    v, clap, clip = of("clap"), module("clap"), clip_with(10)
    features = F.normalize(v["features"], dim=-1)
    logits = clip.scale.detach() * features @ F.normalize(v["base"], dim=-1).T
    holds = clap.confidence(logits[None], v["labels"])
    prototypes = nn.Parameter(v["base"].clone())
    method = made("clap", recipe=Recipe(steps=5), **settings)
    optimizer = torch.optim.SGD([prototypes], lr=0.1, momentum=module("_sgd").MOMENTUM)
    losses, pulls = list[float](), list[float]()
    for step in range(5):
        batch = Batch(step, v["labels"], features[:, :0], lambda x: x, known=features)
        terms = method.terms(clip, batch, prototypes, v["base"], holds)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(terms["nll"].item())
        pulls.append(terms["pull"].item())
    return np.array(losses), np.array(pulls), prototypes.detach()


def test_five_steps_of_clap_are_the_released_ones() -> None:
    v = of("clap")
    logits = 10 * F.normalize(v["features"], dim=-1) @ F.normalize(v["base"], dim=-1).T
    holds = module("clap").confidence(logits[None], v["labels"])
    agrees("clap: weights of the classes, rel", CLAP, golden.relative(holds, v["alpha"]), CLOSE)
    losses, pulls, prototypes = clap_steps()
    agrees("clap: cross-entropy of 5 steps, rel", CLAP, golden.relative(losses, v["nll"]), CLOSE)
    agrees("clap: pull of steps 2-5, rel", CLAP, golden.relative(pulls[1:], v["constraint"][1:]), CLOSE)
    moved = prototypes - v["base"]
    agrees("clap: W5 - W0, rel L2", CLAP, golden.relative_l2(moved, v["states"][-1] - v["base"]), CLOSE)


def test_clap_without_its_pull_would_be_noticed() -> None:
    v = of("clap")
    moved = clap_steps(strength=0.0)[2] - v["base"]
    differs("clap, no pull: W5 - W0, rel L2", CLAP, golden.relative_l2(moved, v["states"][-1] - v["base"]), CLOSE)


def test_the_raw_head_of_clap_is_the_zero_shot_head_before_it_is_normalised() -> None:
    clip, task = golden.model(), Task(TASK.classes, TASK.templates[:1])
    split = golden.split(np.zeros((1, 32, 32, 3), np.uint8))
    rows = module("clap").raw_head(clip, TrainSet(split, split, task))
    assert torch.allclose(F.normalize(rows, dim=-1), clip.zero_shot_head(task), atol=EXACT)
    assert not torch.allclose(rows.norm(dim=-1), torch.ones(len(rows)), atol=0.01)


# -- CoOp and KgCoOp ---------------------------------------------------------------------------------------------------


class _Late(module("coop").Prompts):
    """Puts the context behind the class name."""

    def head(self, context: Tensor) -> Tensor:
        shared = context.expand(len(self.words), -1, -1)
        words = torch.cat([self.words, shared], dim=1)
        return F.normalize(self.clip.encode_embedded(words, self.ends), dim=-1)


@pytest.mark.parametrize("start", ["words", "drawn"])
def test_coop_and_kgcoop_are_the_released_ones(start: str) -> None:
    v = of(f"coop_{start}")
    clip = golden.model()
    for kind, judge in ((module("coop").Prompts, agrees), (_Late, differs)):
        what = f"coop, context of {start}" if kind is not _Late else f"coop, context of {start} behind the name"
        context = v["context"].clone().requires_grad_()
        head = kind(clip, TASK.classes).head(context)
        loss = F.cross_entropy(clip.scale.detach() * v["images"] @ head.T, v["labels"])
        judge(f"{what}: text features, rel L2", COOP, golden.relative_l2(head, v["text"]), CLOSE)
        (gradient,) = torch.autograd.grad(loss, context, retain_graph=True)
        judge(f"{what}: gradient of the context, rel L2", COOP, golden.relative_l2(gradient, v["grad"]), 1e-4)
        distance = made("kgcoop").further(head, v["zero_shot"])["distance"]
        (gradient,) = torch.autograd.grad(loss + distance, context)
        error = golden.relative_l2(gradient, v["kg_grad"])
        judge(f"{what.replace('coop', 'kgcoop')}: gradient of the context, rel L2", KGCOOP, error, 1e-4)


def test_the_score_of_kgcoop_is_the_released_one() -> None:
    v = of("coop_words")
    ours = made("kgcoop").further(v["text"], v["zero_shot"])["distance"]
    agrees("kgcoop: second term, rel", KGCOOP, golden.relative(ours, 8 * v["score"]), CLOSE)


def test_words_for_a_context_are_the_released_ones() -> None:
    v = of("coop_words")
    first = made("coop").first(golden.model(), RUN)
    agrees("coop: context from words, rel L2", COOP, golden.relative_l2(first, v["context"]), EXACT)
