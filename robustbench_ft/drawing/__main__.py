"""Save a picture of pictures to look at: `python -m robustbench_ft.drawing grid.png --columns 14`."""

import argparse

import numpy as np
from PIL import Image, ImageDraw

from . import CLASSES, DOMAINS, SIZE, render

ROWS = [("ID: real, poor camera", "real", "hard"), *[(domain, domain, "snapshot") for domain in DOMAINS]]
MARGIN = 130  # pixels on the left, for the names of the rows


def grid(columns: int = len(CLASSES), zoom: int = 2, key: str = "grid") -> Image.Image:
    """Rows: the hard camera, then the domains; columns: classes, evenly picked when there are fewer than all."""
    labels = np.linspace(0, len(CLASSES) - 1, columns).round().astype(np.int64)
    bands = [np.concatenate(list(render(domain, labels, key, labels, camera)), axis=1) for _, domain, camera in ROWS]
    pictures = Image.fromarray(np.concatenate(bands, axis=0))
    pictures = pictures.resize((pictures.width * zoom, pictures.height * zoom), Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (MARGIN + pictures.width, pictures.height), "white")
    canvas.paste(pictures, (MARGIN, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (name, _, _) in enumerate(ROWS):
        draw.text((6, (row + 0.5) * SIZE * zoom), name, fill="black", anchor="lm")
    return canvas


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m robustbench_ft.drawing", description=__doc__)
    parser.add_argument("path", nargs="?", default="grid.png", help="PNG to write")
    parser.add_argument("--columns", type=int, default=len(CLASSES), help="how many classes to show")
    chosen = parser.parse_args()
    grid(min(max(chosen.columns, 1), len(CLASSES))).save(chosen.path)
    print(f"{chosen.path}: {len(ROWS)} rows, {SIZE} px each")
