"""Save a picture of pictures to look at: `python -m robustbench_ft.drawing [grid.png]`."""

import sys

import numpy as np
from PIL import Image

from . import CLASSES, DOMAINS, SIZE, render

ROWS = [("real", "hard"), *[(domain, "snapshot") for domain in DOMAINS]]


def grid(examples: int = 1, zoom: int = 2, key: str = "grid") -> Image.Image:
    """Rows: the hard camera, then the domains; columns: classes; `examples` such blocks, one below the other."""
    labels = np.arange(len(CLASSES))
    bands = [
        np.concatenate(list(render(domain, labels, key, labels + 1000 * block, camera)), axis=1)
        for block in range(examples)
        for domain, camera in ROWS
    ]
    image = Image.fromarray(np.concatenate(bands, axis=0))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else "grid.png"
    grid().save(path)
    print(f"{path}: {len(ROWS)} rows (hard camera, {', '.join(DOMAINS)}), {len(CLASSES)} columns, {SIZE} px each")
