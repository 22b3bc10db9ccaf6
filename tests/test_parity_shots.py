"""Deep prompts, and multipliers that grow, against the code of their authors."""

from typing import Any

import golden
import torch
from golden import TASK, agrees, arrays, differs
from test_parity_layers import clip_with, made, module
from torch import Tensor, nn

from robustbench_ft.clip import Clip
from robustbench_ft.recipe import Recipe

PROMPTSRC, CLAP = "PromptSRC@bb95c77", "CLAP@dbdf409"
CLOSE = 1e-5
IMAGES = 6  # of the vectors' pixels


def prompts(name: str) -> tuple[nn.Parameter, ...]:
    v = arrays("promptsrc")
    return tuple(nn.Parameter(golden.tensor(v[f"{name}_{k}"])) for k in range(2))


def heads(clip: Clip, text: tuple[nn.Parameter, ...]) -> Tensor:
    with module("_deep_prompts").prompted(clip, text=text):
        return module("coop").Prompts(clip, TASK.classes).head(text[0])


def features(clip: Clip, image: tuple[nn.Parameter, ...]) -> Tensor:
    pixels = torch.from_numpy(arrays("forward")["pixel_values"][:IMAGES]).float()
    with module("_deep_prompts").prompted(clip, image):
        return clip.encode_image(pixels)


def test_towers_with_tokens_say_what_the_released_ones_say() -> None:
    v, clip = arrays("promptsrc"), clip_with(30.0)
    image, text = prompts("image"), prompts("text")
    for used, judge in ((2, agrees), (1, differs)):  # wrong: the first block's tokens only
        judge(
            f"promptsrc: image features, tokens in {used} blocks, rel L2", PROMPTSRC,
            golden.relative_l2(features(clip, image[:used]), v["image_features"]), CLOSE,
        )  # fmt: skip
        judge(
            f"promptsrc: text features, tokens in {used} blocks, rel L2", PROMPTSRC,
            golden.relative_l2(heads(clip, text[:used]), v["text_features"]), CLOSE,
        )  # fmt: skip
    same = golden.relative_l2(features(clip, ()), v["frozen_image"])
    agrees("promptsrc: image features of the frozen model, rel L2", PROMPTSRC, same, CLOSE)


def test_the_text_target_is_a_mean_of_raw_features() -> None:
    v, clip = arrays("promptsrc"), clip_with(30.0)
    data: Any = type("Data", (), {"task": TASK})
    raw = nn.functional.normalize(module("clap").raw_head(clip, data), dim=-1)
    agrees("promptsrc: text target, rel L2", PROMPTSRC, golden.relative_l2(raw, v["frozen_text"]), CLOSE)
    unit = golden.relative_l2(clip.zero_shot_head(TASK), v["frozen_text"])
    differs("promptsrc: text target, a mean of unit rows, rel L2", PROMPTSRC, unit, CLOSE)


def test_losses_and_gradients_are_the_released_ones() -> None:
    v, clip = arrays("promptsrc"), clip_with(30.0)
    image, text = prompts("image"), prompts("text")
    given = (golden.tensor(v["frozen_image"]), golden.tensor(v["frozen_text"]), golden.tensor(v["labels"]))
    method = made("promptsrc", recipe=Recipe(steps=1))
    terms = method.terms(torch.tensor(30.0), features(clip, image), heads(clip, text), *given)
    for ours, theirs in (("nll", "nll"), ("image", "image"), ("text", "text"), ("logits", "kl")):
        error = golden.relative(terms[ours].detach(), v[theirs])
        agrees(f"promptsrc: loss {ours}, rel", PROMPTSRC, error, CLOSE)
    torch.stack(list(terms.values())).sum().backward()
    for name, tokens in (("image", image), ("text", text)):
        for k in range(2):
            error = golden.relative_l2(tokens[k].grad, v[f"grad_{name}_{k}"])
            agrees(f"promptsrc: gradient of the {name} tokens of block {k}, rel L2", PROMPTSRC, error, CLOSE)
    swapped = nn.functional.kl_div(
        golden.tensor(v["zero_shot_logits"]).log_softmax(1), golden.tensor(v["logits"]).log_softmax(1),
        reduction="sum", log_target=True,
    ) / v["logits"].size  # fmt: skip
    differs("promptsrc: KL the other way round, rel", PROMPTSRC, golden.relative(swapped, v["kl"]), CLOSE)


def test_the_mean_over_epochs_is_the_released_one() -> None:
    v = arrays("promptsrc")
    mean, deviation = v["gpa"].tolist()
    for shift, judge in ((0.0, agrees), (1.0, differs)):
        clip = golden.model()
        clip.tokens = nn.Parameter(torch.zeros(v["averaged"].shape))
        clip.train_only("extra")
        average = module("promptsrc").EpochMean(clip, 3, mean + shift, deviation)  # epochs of three steps
        for step in range(14):  # the last one is cut short
            clip.restore({"tokens": golden.tensor(v["epochs"][step // 3])})
            average.after_step(step, 14)
        error = golden.relative_l2(average.state["tokens"], v["averaged"])
        judge(f"promptsrc: mean over epochs, density moved by {shift:g}, rel L2", PROMPTSRC, error, CLOSE)


def test_multipliers_grow_as_released() -> None:
    v = arrays("clap_adapt")
    for late, judge in ((0, agrees), (1, differs)):  # wrong: a step late
        growing = module("clap").Multipliers(*map(golden.tensor, (v["start"], v["before"], v["before"])), per_epoch=2)
        found: list[Tensor] = []
        for step in range(8):
            growing.prototypes = golden.tensor(v["prototypes"][max(0, step // 2 - late)])
            growing.after_step(step, 8)
            if step % 2:
                found.append(growing.holds)
        judge(
            f"clap: multipliers, prototypes {late} epochs late",
            CLAP,
            golden.apart(torch.stack(found), v["holds"]),
            CLOSE,
        )
    distance = golden.tensor(v["prototypes"][-1] - v["before"]).square().sum(dim=1)
    pull = (golden.tensor(v["holds"][-1]) * distance).mean()
    agrees("clap: pull with grown multipliers, rel", CLAP, golden.relative(pull, v["pull"][-1]), CLOSE)
