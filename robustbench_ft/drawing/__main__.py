"""Save a picture of pictures to look at: `python -m robustbench_ft.drawing grid.png --columns 14`."""

import argparse

import numpy as np
from PIL import Image, ImageDraw

from . import CAMERAS, CLASSES, DOMAINS, SIZE, render

ROWS = [("ID: real", "real"), *[(domain, domain) for domain in DOMAINS if domain != "real"]]
MARGIN = 76  # pixels on the left, for the names of the rows


def grid(columns: int = len(CLASSES), camera: str = "hard", zoom: int = 2, key: str = "grid") -> Image.Image:
    """Rows: domains; columns: classes, evenly picked when there are fewer than all."""
    labels = np.linspace(0, len(CLASSES) - 1, columns).round().astype(np.int64)
    bands = [np.concatenate(list(render(domain, labels, key, labels, camera)), axis=1) for _, domain in ROWS]
    pictures = Image.fromarray(np.concatenate(bands, axis=0))
    pictures = pictures.resize((pictures.width * zoom, pictures.height * zoom), Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (MARGIN + pictures.width, pictures.height), "white")
    canvas.paste(pictures, (MARGIN, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (name, _) in enumerate(ROWS):
        draw.text((6, (row + 0.5) * SIZE * zoom), name, fill="black", anchor="lm")
    return canvas


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m robustbench_ft.drawing", description=__doc__)
    parser.add_argument("path", nargs="?", default="grid.png", help="PNG to write")
    parser.add_argument("--columns", type=int, default=len(CLASSES), help="how many classes to show")
    parser.add_argument("--camera", choices=CAMERAS, default="hard", help="'snapshot' is what pretraining sees")
    chosen = parser.parse_args()
    grid(min(max(chosen.columns, 1), len(CLASSES)), chosen.camera).save(chosen.path)
    print(f"{chosen.path}: {len(ROWS)} rows, {SIZE} px each")
