"""The same model with one thing changed, for each thing that setups get wrong, and what it makes of the same images."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from robustbench_ft.clip import Clip
from robustbench_ft.data import Predictions, Split
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.predict import BATCH, of_logits
from robustbench_ft.progress import Advance
from robustbench_ft.prompts import Task
from robustbench_ft.reference import Reference

CHUNK = 512  # images decoded and held at once
STATISTICS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # mean and std of the pixels
    "OpenAI's mean and std": (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean and std of 0.5": ((0.5,) * 3, (0.5,) * 3),
    "no normalisation": ((0.0,) * 3, (1.0,) * 3),
}
INTERPOLATIONS = ("bicubic", "bilinear")
MODES: Mapping[str, str] = {
    "shortest": "the shorter side resized, the centre cropped",
    "squash": "both sides resized to a square, nothing cropped",
}


@dataclass(frozen=True)
class Variant:
    """A model that differs from the one at hand in one cause."""

    cause: str
    what: str  # in words
    clip: Clip
    stated: bool = False  # whether the weights' own configuration states it, so that the one at hand contradicts it


def of(clip: Clip, key: tuple[str, str], reference: Reference, task: Task) -> Iterator[Variant]:
    """Every variant that is worth a pass over the images; those that the weights' tag states are marked."""
    tag: Mapping[str, Any] = open_clip.get_pretrained_cfg(*key)
    if (other := other_activation(clip)) is not None:
        quick = is_quick(clip)
        other.start_from_zero_shot(task, clip.head_kind)
        what = "GELU for QuickGELU" if quick else "QuickGELU for GELU"
        yield Variant("activation", what, other, bool(tag) and bool(tag.get("quick_gelu", False)) != quick)
    own = asdict(PreprocessCfg(**clip.config["preprocess_cfg"]))
    stated = {**asdict(PreprocessCfg()), **tag} if tag else own
    for changes, what in _transforms(own):
        agrees = all(_same(stated[name], value) for name, value in changes.items())
        differs = any(not _same(stated[name], own[name]) for name in changes)
        yield Variant("preprocessing", what, with_transform(clip, changes), agrees and differs)
    if reference.task is not None and reference.task != task:
        other = clip.frozen_copy()
        other.start_from_zero_shot(reference.task, clip.head_kind)
        yield Variant("prompts", f"the prompts of the published number ({reference.prompts})", other, True)


def contradictions(clip: Clip, key: tuple[str, str]) -> list[str]:
    """What a model at hand has otherwise than the published weights' own configuration asks for; no pass is made."""
    tag: Mapping[str, Any] = open_clip.get_pretrained_cfg(*key)
    if not tag:
        return []
    own, found = asdict(PreprocessCfg(**clip.config["preprocess_cfg"])), list[str]()
    if bool(tag.get("quick_gelu", False)) != is_quick(clip) and other_activation(clip) is not None:
        found.append(f"computes {'QuickGELU' if is_quick(clip) else 'GELU'}, the published weights ask for the other")
    for name, wanted in {**asdict(PreprocessCfg()), **tag}.items():
        if name in ("mean", "std", "interpolation", "resize_mode") and not _same(own[name], wanted):
            found.append(f"{name} is {own[name]}, the published weights ask for {wanted}")
    return found


def _transforms(own: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Changes of one part of the transform, each with its name."""
    for what, (mean, std) in STATISTICS.items():
        if not (_same(own["mean"], mean) and _same(own["std"], std)):
            yield {"mean": mean, "std": std}, what
    for name in INTERPOLATIONS:
        if own["interpolation"] != name:
            yield {"interpolation": name}, f"{name} interpolation for {own['interpolation']}"
    for name, what in MODES.items():
        if own["resize_mode"] != name:
            yield {"resize_mode": name}, what


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))


def with_transform(clip: Clip, changes: Mapping[str, Any]) -> Clip:
    """The same model under another evaluation transform."""
    twin = clip.frozen_copy()
    twin.config = {**clip.config, "preprocess_cfg": {**clip.config["preprocess_cfg"], **changes}}
    return twin


def is_quick(clip: Clip) -> bool:
    """Whether any layer computes QuickGELU, x * sigmoid(1.702 x)."""
    return any(isinstance(module, QuickGELU) for module in clip.model.modules())


def other_activation(clip: Clip) -> Clip | None:
    """The same model with GELU where it has QuickGELU and the other way, without a head; None where it has neither."""
    twin, quick, swapped = clip.frozen_copy(), is_quick(clip), 0
    for module in twin.model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, QuickGELU if quick else nn.GELU):
                setattr(module, name, nn.GELU() if quick else QuickGELU())
                swapped += 1
    # the digest of zero-shot heads covers model_cfg: those of both activations are kept apart
    twin.config = {**clip.config, "model_cfg": {**clip.config["model_cfg"], "quick_gelu": not quick}}
    return twin if swapped else None


def is_rounded(clip: Clip) -> bool:
    """Whether every weight is a bfloat16 number, so that the weights were rounded on their way here."""
    weights = [p for p in clip.model.parameters() if p.dim() > 1]
    return all(torch.equal(p, p.bfloat16().float()) for p in weights)


def decoded(clip: Clip, split: Split, workers: int = 0, advance: Advance = lambda n=1, note="": None) -> Tensor:
    """Evaluation pixels of a split under a model's transform, uint8 [n, 3, S, S], decoded and kept nowhere."""
    parts: list[Tensor] = []
    for _, pixels in Loader(clip, split, workers).decoded(CHUNK):
        parts.append(pixels)
        advance(len(pixels), split.name)
    return torch.cat(parts)


@torch.inference_mode()
def predictions(clip: Clip, split: Split, pixels: Tensor) -> Predictions:
    """Predictions of a model on the pixels of a split, in float32."""
    normalise = Loader(clip, split).normalise
    with clip.exact():
        return of_logits(split, torch.cat([clip.logits(normalise(part)).float() for part in pixels.split(BATCH)]))
