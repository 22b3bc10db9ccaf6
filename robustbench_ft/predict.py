"""Evaluation: every candidate of a run on one split, in a single pass over its pixels."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .clip import Clip
from .data import TOP_K, Floats, Ints, Predictions, Split
from .errors import RbftError
from .loader import Loader
from .method import Family
from .progress import Advance

CHUNK = 2048  # images decoded and held at once: candidates take turns on it
BATCH = 256  # images in one forward pass


def predict(
    model: Clip | Family,
    split: Split,
    advance: Advance = lambda n=1, note="": None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Predictions]:
    """Predictions of each candidate (a single model is called 'final'), in split order.

    `check` is called before each piece of work and may raise; `advance` hears of every image and candidate done.
    """
    clip = model.clip if isinstance(model, Family) else model
    candidates = tuple(model.members) if isinstance(model, Family) else ("final",)
    loader = Loader(clip, split)
    clip.eval()
    parts: dict[str, list[dict[str, Tensor]]] = {name: [] for name in candidates}
    for start, pixels in loader.chunks(CHUNK):
        labels = torch.from_numpy(split.labels[start : start + len(pixels)])
        for name in candidates:
            check()
            current = model.use(name) if isinstance(model, Family) else clip
            parts[name].append(_columns(current, loader, pixels, labels))
            advance(len(pixels), split.name)
    return {name: _join(split, chunks) for name, chunks in parts.items()}


@torch.inference_mode()
def _columns(clip: Clip, loader: Loader, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The stored columns for one chunk [n], on the CPU; probabilities in float32 whatever the tower computes in."""
    pieces = [clip.logits(loader.normalise(batch)).float() for batch in pixels.split(BATCH)]
    log_probs = torch.cat(pieces).log_softmax(dim=-1)  # [n, K]
    probs = log_probs.exp()
    order = log_probs.sort(dim=-1, descending=True, stable=True).indices  # of equals the first, as argmax takes it
    top = order[:, : min(TOP_K, probs.shape[1])]
    columns = {
        "log_prob": log_probs.gather(1, labels.to(log_probs.device)[:, None])[:, 0],
        "sum_sq": probs.square().sum(dim=-1),
        "top_classes": top,
        "top_probs": probs.gather(1, top),
    }
    return {name: column.cpu() for name, column in columns.items()}


def _join(split: Split, chunks: list[dict[str, Tensor]]) -> Predictions:
    whole = {name: torch.cat([chunk[name] for chunk in chunks]).numpy() for name in chunks[0]}
    if not np.isfinite(whole["log_prob"]).all():
        raise RbftError(f"the model's outputs on split '{split.name}' are not finite; try a smaller lr or fp32")
    classes: Ints = whole["top_classes"].astype(np.int64)
    probs: Floats = whole["top_probs"]
    return Predictions(
        ids=split.ids, label=split.labels, prediction=classes[:, 0], confidence=probs[:, 0], log_prob=whole["log_prob"],
        sum_sq=whole["sum_sq"], top_classes=classes, top_probs=probs, groups=split.groups,
    )  # fmt: skip
