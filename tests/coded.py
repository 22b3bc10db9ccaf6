"""Images that carry their label in their pixels, so that a label mix-up anywhere on the way cannot pass.

A label is 16 bits in a 4 x 4 grid of dark and light cells; it survives JPEG, resizing and the central crop of a square.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS, SIDE = 4, 32


def picture(label: int, name: str = "", side: int = SIDE, frame: int = 0) -> Image.Image:
    """A square RGB image of `label`; `name` makes it differ from others of that label, `frame` adds a red border."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{name}/{label}".encode()).digest()[:8], "little"))
    bits = (label >> np.arange(CELLS * CELLS)) & 1
    cells = np.where(bits, 205, 50).reshape(CELLS, CELLS)
    pixels = np.kron(cells, np.ones((side // CELLS, side // CELLS)))[..., None] + rng.integers(-30, 31, (side, side, 3))
    whole = np.zeros((side + 2 * frame, side + 2 * frame, 3))
    whole[..., 0] = 255
    whole[frame : side + frame, frame : side + frame] = pixels
    return Image.fromarray(whole.round().clip(0, 255).astype(np.uint8))


def write(path: Path, label: int, frame: int = 0, side: int = SIDE) -> Path:
    """Save the picture of a label in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    picture(label, path.name, side, frame).save(path, **options)
    return path


def labels(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """[n, H, W, 3] -> the labels that the pixels carry, [n]; H and W at least 16."""
    grey = pixels.astype(np.float64).mean(axis=-1)
    height, width = grey.shape[1:]
    rows, columns = ((np.arange(CELLS) + 0.5) * size / CELLS for size in (height, width))
    half = max(1, min(height, width) // (4 * CELLS))
    bits = np.stack([
        grey[:, int(r) - half : int(r) + half, int(c) - half : int(c) + half].mean(axis=(1, 2)) > 127
        for r in rows for c in columns
    ], axis=1)  # fmt: skip
    return (bits << np.arange(CELLS * CELLS)).sum(axis=1).astype(np.int64)


def label_of(image: Image.Image) -> int:
    """The label that one image of any size carries."""
    return int(labels(np.asarray(image.convert("RGB"))[None])[0])
