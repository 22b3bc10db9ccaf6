"""Procedural pictures of 32 objects and 10 digits in six domains, with captions; numpy and Pillow only."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .captions import TEMPLATES, captions, vocabulary
from .classes import CLASSES, DIGIT_NAMES, DIGITS, DOMAINS, OBJECTS
from .colouring import CAMERAS
from .domains import paint
from .random_draws import Draws
from .raster import SIZE
from .scans import STYLES, scan_images

__all__ = [
    "CAMERAS", "CLASSES", "DIGITS", "DIGIT_NAMES", "DOMAINS", "OBJECTS", "SIZE", "STYLES", "TEMPLATES", "VERSION",
    "captions", "render", "scan_images", "vocabulary",
]  # fmt: skip

VERSION = 1  # raise it whenever a pixel or a caption could change
_CHUNK = 1024  # images drawn at once: many enough to share the work per class, few enough for memory


def render(
    domain: str, labels: ArrayLike, key: str, indices: ArrayLike, camera: str = "snapshot", least_parts: int = 0
) -> NDArray[np.uint8]:
    """Draw image `indices[i]` of stream `key` showing class `labels[i]` (a position in CLASSES).  # [n, 32, 32, 3]

    An image depends on domain, camera, key, index and label only, not on the batch. `camera` is "snapshot" for what
    the embedded model was pretrained on, "hard" for the view of the same domain that downstream sets are made of.
    Drawings forget parts of objects; one that would keep fewer than `least_parts` forgets none.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    if camera not in CAMERAS:
        raise ValueError(f"unknown camera {camera!r}; known: {', '.join(CAMERAS)}")
    label, index = np.atleast_1d(np.asarray(labels, np.int64)), np.atleast_1d(np.asarray(indices, np.int64))
    draws = Draws(f"{domain}/{camera}/{key}", index)
    images = np.empty((len(index), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(index), _CHUNK):
        rows = slice(start, start + _CHUNK)
        images[rows] = paint(domain, camera, label[rows], draws[rows], least_parts)
    return images
