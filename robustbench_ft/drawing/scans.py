"""Real handwritten digits on the canvas of the drawings: scikit-learn's 8 x 8 scans, plain and shifted."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from robustbench_ft.seal import check_drawing

from .random_draws import Draws, Floats
from .raster import SIZE
from .scene import RGB
from .scenery import clouds

STYLES = ("plain", "inverted", "colour", "corrupted")


def scan_images(scans: ArrayLike, key: str, indices: ArrayLike, style: str = "plain") -> NDArray[np.uint8]:
    """Enlarge scans with values 0..16, [n, 8, 8], to 20-30 px and centre them: dark on white.  # [n, 32, 32, 3]

    "inverted" is light on dark, "colour" has coloured ink on a coloured texture, "corrupted" low contrast and noise.
    Refused while a method is being fitted.
    """
    check_drawing(f"drawing '{style}' scans")
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; known: {', '.join(STYLES)}")
    d = Draws(f"scans/{key}", indices)
    ink = _enlarge(np.asarray(scans, np.float32), d)[..., None]  # [n, S, S, 1], 1 is ink
    if style == "inverted":
        image = np.repeat(ink, 3, axis=3)
    elif style == "colour":
        first, step = d.choice("scan/paper", len(RGB)), d.integers("scan/step", 1, len(RGB) - 1)
        paper = RGB[first][:, None, None] + 0.12 * clouds("scan/texture", d)
        image = paper + ink * (RGB[(first + step) % len(RGB)][:, None, None] - paper)
    else:
        image = np.repeat(1 - ink, 3, axis=3)
    if style == "corrupted":
        contrast, level = (d.uniform(f"scan/{name}", *span)[:, None, None, None] for name, span in _CORRUPTION)
        image = (image - 0.5) * contrast + level + d.noise("scan/noise", (SIZE, SIZE, 3)) * np.float32(40 / 255)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


_CORRUPTION = (("contrast", (0.35, 0.6)), ("level", (0.4, 0.6)))


def _enlarge(scans: Floats, d: Draws) -> Floats:
    """Bicubic, each to its own size.  # [n, 8, 8] -> [n, SIZE, SIZE] in [0, 1]"""
    sizes = d.integers("scan/size", 20, 30)
    canvas = np.zeros((len(scans), SIZE, SIZE), np.float32)
    for i, size in enumerate(sizes.tolist()):
        grey = Image.fromarray(np.clip(scans[i] * np.float32(255 / 16), 0, 255).astype(np.uint8))
        start = (SIZE - size) // 2
        large = np.asarray(grey.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
        canvas[i, start : start + size, start : start + size] = large
    return canvas
