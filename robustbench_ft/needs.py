"""What a cell needs, told before anything is loaded: parameters, steps, images, memory and disk.

Parameters are counted from the header of a weights file, or from open_clip's configuration on torch's meta device:
nothing is allocated or fetched.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from .cache import size_text
from .model_ref import ModelRef, weights_of
from .recipe import Recipe
from .suite import Protocol, Suite

FLOAT = 4  # bytes of a number in float32
GRADIENT_AND_MOMENTS = 3  # numbers beside each trained one: its gradient and AdamW's two moments
CHECKPOINTED = 4  # numbers stored for each trained one: itself, two moments, and the best so far
FEW = 2  # images whose activations are counted
ROW = 100  # bytes of one stored prediction, about: ids differ in length


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model consists of."""

    image: int  # in the image tower
    whole: int


def parameters(ref: ModelRef) -> Parameters | None:
    """Of a model that is not loaded; None where its configuration has to be fetched first."""
    if ref.name.startswith("hf-hub:"):
        return None
    shapes = dict(_header(path)) if (path := weights_of(ref)) is not None else dict(_meta(ref.name))
    image = sum(n for name, n in shapes.items() if name.startswith("visual."))
    return Parameters(image, sum(shapes.values()))


def lines(
    suite: Suite, recipe: Recipe | None, ref: ModelRef, protocol: Protocol = "clean", at_once: int = 0, devices: int = 1
) -> list[str]:
    """Steps, images, memory and disk of one cell, a line each; what the card does not count is left out.

    Memory is that of one of `devices`; `at_once` is `--micro-batch`, 0 where the recipe decides.
    """
    counts = suite.card.counts
    roles = suite.under(protocol)
    n, evaluated = counts.get(roles.train, 0), [counts.get(s, 0) for s in roles.evaluate]
    found: list[str] = []
    if recipe is not None and (n or recipe.steps):
        seen = f", {n:,} images an epoch" if n else ""
        found.append(f"steps     {recipe.total_steps(n):,} of batch {recipe.batch:,}{seen}")
    if n and all(evaluated):
        found.append(f"images    {n:,} to learn from, {sum(evaluated):,} to be predicted by each candidate")
    sizes = parameters(ref)
    if sizes is None:
        return [*found, "memory    unknown until the model's configuration is fetched"]
    rows = f", predictions about {size_text(ROW * sum(evaluated))} for each candidate" if all(evaluated) else ""
    found.append(f"memory    {_memory(sizes, recipe is not None)}")
    if recipe is not None:
        share = -(-recipe.batch // devices)
        found.append(f"          {_activations(ref, min(at_once or recipe.micro_batch or share, share))}")
    resume = f"; resume checkpoints up to {size_text(CHECKPOINTED * FLOAT * sizes.whole)} while it runs"
    found.append(f"disk      model {size_text(FLOAT * sizes.whole)}{rows}{resume if recipe is not None else ''}")
    return found


def _memory(sizes: Parameters, trains: bool) -> str:
    weights = size_text(FLOAT * sizes.whole)
    if not trains:
        return f"{weights} of weights ({sizes.whole:,} parameters)"
    image, whole = (size_text(FLOAT * (sizes.whole + GRADIENT_AND_MOMENTS * n)) for n in (sizes.image, sizes.whole))
    return (
        f"{image} for weights, gradients and AdamW's moments where the image tower is trained, {whole} where all is "
        f"({sizes.whole:,} parameters); {weights} more for a method that keeps a frozen copy"
    )


def _activations(ref: ModelRef, n: int) -> str:
    each = activations(ref.name)
    if each is None:
        return "activations of this model are not counted"
    return (
        f"and about {size_text(n * each)} for what the image tower keeps of {n:,} images at once until the gradients "
        f"are there ({size_text(each)} each, float32, attention matrices included)"
    )


@lru_cache
def activations(name: str) -> int | None:
    """Bytes that the backward pass of the image tower of one of open_clip's own models needs for each image.

    Counted from a forward pass on torch's meta device, which computes nothing: all storages kept by autograd that are
    no parameters. Attention is counted as the product of matrices; fused kernels keep less. None for other models.
    """
    import open_clip
    import torch

    if name not in open_clip.list_models():
        return None
    model, kept = _on_meta(name), dict[int, Any]()

    def place_of(tensor: Any) -> int:
        return tensor.untyped_storage()._cdata

    weights = {place_of(p) for p in model.parameters()}
    size = model.visual.image_size

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[place_of(tensor)] = tensor.untyped_storage()
        return tensor

    images = torch.empty(FEW, 3, *((size, size) if isinstance(size, int) else size), device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.encode_image(images)
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights) // FEW


def _header(path: Path) -> Iterator[tuple[str, int]]:
    """(name, numbers) of each tensor in a safetensors file, whose header alone is read."""
    with path.open("rb") as file:
        content: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name, entry in content.items():
        if name != "__metadata__":
            yield name, prod(entry["shape"])


def _meta(name: str) -> Iterator[tuple[str, int]]:
    """(name, numbers) of each parameter of one of open_clip's own models."""
    for parameter, value in _on_meta(name).named_parameters():
        yield parameter, value.numel()


def _on_meta(name: str) -> Any:
    """One of open_clip's own models, with shapes and without numbers."""
    import logging

    import open_clip
    import torch

    logging.disable(logging.WARNING)  # open_clip warns that no weights are loaded: none are meant to be
    try:
        with torch.device("meta"):
            return open_clip.create_model(name, precision="fp32", device="meta", load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
