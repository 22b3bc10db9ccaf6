"""What a kept model says of images without labels, computed as every evaluation is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .clip import Clip
from .data import FileImages, Split
from .errors import RbftError
from .images.folders import SUFFIXES
from .predict import predict
from .progress import Progress
from .saved import SavedScorer


@dataclass(frozen=True)
class Answer:
    """The most probable classes of one image."""

    image: str  # its path, as it was found
    classes: tuple[str, ...]  # min(K, 5), most probable first
    probabilities: tuple[float, ...]


def images_of(places: Sequence[Path]) -> tuple[str, ...]:
    """Files as they are named, and all images under folders, in order of their names; each once.

    Raises `RbftError` where a place does not exist or a folder holds no image.
    """
    found: dict[str, None] = {}
    for place in places:
        if place.is_dir():
            inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
            if not inside:
                raise RbftError(f"no image under {place}; images end in {', '.join(sorted(SUFFIXES))}")
            found |= dict.fromkeys(map(str, inside))
        elif place.exists():
            found[str(place)] = None
        else:
            raise RbftError(f"no such file or folder: {place}")
    return tuple(found)


def answers(model: Clip | SavedScorer, images: Sequence[str], progress: Progress, workers: int = 0) -> list[Answer]:
    """The answers to image files, in their order. Pixels are not kept in the cache."""
    if model.task is None:
        raise RbftError("the model has no classes: name a run, or the `model/` folder of one")
    classes, candidates = model.task.classes, model if isinstance(model, Clip) else model.candidates
    nobody = np.zeros(len(images), np.int64)  # labels that nothing below looks at
    split = Split("images", FileImages(Path(), tuple(images)), nobody, tuple(images))
    with progress.bar("predict", len(images) * (1 if isinstance(model, Clip) else len(model.candidates.members)),
                      "images") as advance:  # fmt: skip
        made = predict(candidates, split, advance, workers=workers, keep=False)
    default = "final" if isinstance(model, Clip) else model.candidates.default
    found = made[default]
    return [
        Answer(image, tuple(classes[k] for k in top), tuple(map(float, shares)))
        for image, top, shares in zip(images, found.top_classes, found.top_probs, strict=True)
    ]
