"""What a cell needs, told before anything is loaded: parameters, steps, images, memory and disk.

Parameters are counted from the header of a weights file, or from open_clip's configuration on torch's meta device:
nothing is allocated or fetched.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
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


def lines(suite: Suite, recipe: Recipe | None, ref: ModelRef, protocol: Protocol = "clean") -> list[str]:
    """Steps, images, memory and disk of one cell, a line each; what the card does not count is left out."""
    counts = suite.counts
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
    resume = f"; resume checkpoints up to {size_text(CHECKPOINTED * FLOAT * sizes.whole)} while it runs"
    found.append(f"disk      model {size_text(FLOAT * sizes.whole)}{rows}{resume if recipe is not None else ''}")
    return found


def _memory(sizes: Parameters, trains: bool) -> str:
    weights = size_text(FLOAT * sizes.whole)
    if not trains:
        return f"{weights} of weights ({sizes.whole:,} parameters); activations not counted"
    image, whole = (size_text(FLOAT * (sizes.whole + GRADIENT_AND_MOMENTS * n)) for n in (sizes.image, sizes.whole))
    return (
        f"{image} for weights, gradients and AdamW's moments where the image tower is trained, {whole} where all is "
        f"({sizes.whole:,} parameters); {weights} more for a method that keeps a frozen copy; activations not counted"
    )


def _header(path: Path) -> Iterator[tuple[str, int]]:
    """(name, numbers) of each tensor in a safetensors file, whose header alone is read."""
    with path.open("rb") as file:
        content: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name, entry in content.items():
        if name != "__metadata__":
            yield name, prod(entry["shape"])


def _meta(name: str) -> Iterator[tuple[str, int]]:
    """(name, numbers) of each parameter of one of open_clip's own models."""
    import logging

    import open_clip
    import torch

    logging.disable(logging.WARNING)  # open_clip warns that no weights are loaded: none are meant to be
    try:
        with torch.device("meta"):
            model = open_clip.create_model(name, precision="fp32", device="meta", load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
    for parameter, value in model.named_parameters():
        yield parameter, value.numel()
