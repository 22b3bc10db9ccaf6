"""Backgrounds and what stands in front of them or in the way; vectorised over the batch at 32 x 32."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .classes import BACKGROUNDS
from .random_draws import Draws, Floats, Ints
from .raster import SIZE
from .shapes import EXTRA_1, EXTRA_2, EXTRA_3, EXTRA_4, Part, box, fill, line, points

_ABOVE: Floats = np.array([b.above for b in BACKGROUNDS.values()], dtype=np.float32) / 255
_BELOW: Floats = np.array([b.below for b in BACKGROUNDS.values()], dtype=np.float32) / 255
_AXIS: Floats = ((np.arange(SIZE) + 0.5) / SIZE).astype(np.float32)

_KNOTS = 7  # of the coarse grid that clouds are interpolated from
_AT_KNOT: Floats = np.arange(_KNOTS, dtype=np.float32)
_TENT: Floats = np.maximum(0, 1 - np.abs(_AXIS[:, None] * (_KNOTS - 1) - _AT_KNOT))  # [SIZE, knots]


def clouds(name: str, d: Draws) -> Floats:
    """Smooth colour noise of unit size.  # [n, SIZE, SIZE, 3]"""
    grid = d.noise(name, (_KNOTS, _KNOTS * 3))
    rows = np.matmul(_TENT, grid).reshape(-1, SIZE, _KNOTS, 3)
    return np.matmul(_TENT, rows)  # [n, SIZE, SIZE, 3]


def landscape(place: Ints, d: Draws) -> Floats:
    """Two colours that meet at a soft horizon, with clouds of colour.  # [n, SIZE, SIZE, 3]"""
    tint = d.normal("landscape/tint", (2, 3)) * np.float32(0.06)
    above, below = _ABOVE[place] + tint[:, 0], _BELOW[place] + tint[:, 1]
    horizon, soft = d.uniform("landscape/horizon", 0.3, 0.75), d.uniform("landscape/soft", 0.05, 0.5)
    share = np.clip((_AXIS[None] - horizon[:, None]) / soft[:, None] + 0.5, 0, 1)[:, :, None, None]  # [n, SIZE, 1, 1]
    view = above[:, None, None] * (1 - share) + below[:, None, None] * share
    return view + clouds("landscape/clouds", d) * d.uniform("landscape/rough", 0.03, 0.09)[:, None, None, None]


def clutter(d: Draws, most: int) -> list[Part]:
    """Up to `most` blobs of odd shape and colour."""
    spin = np.linspace(0, 2 * np.pi, 8, endpoint=False, dtype=np.float32)
    count = d.integers("clutter/count", min(1, most), most)
    parts: list[Part] = []
    for i in range(most):
        x, y = d.uniform(f"clutter/x {i}", -1, 1), d.uniform(f"clutter/y {i}", -1, 1)
        r = d.uniform(f"clutter/r {i}", 0.1, 0.32)[:, None] * d.uniform(f"clutter/edge {i}", 0.6, 1.2, (8,))
        ring = np.stack([x[:, None] + r * np.cos(spin), y[:, None] + r * np.sin(spin)], axis=2)
        parts.append(fill((EXTRA_1, EXTRA_2, EXTRA_3)[i % 3], ring, count > i))
    return parts


def occluder(d: Draws, p: float) -> list[Part]:
    """With probability p, a bar or a blob in front of the object."""
    x, y, bar, here = (
        d.uniform("occluder/x", -0.8, 0.8),
        d.uniform("occluder/y", -0.8, 0.8),
        d.chance("occluder/bar", 0.4),
        d.chance("occluder", p),
    )
    w, h = d.uniform("occluder/w", 0.12, 0.3), d.uniform("occluder/h", 0.12, 0.3)
    lean = d.uniform("occluder/lean", -0.5, 0.5)
    stick = points((x - lean - 0.07, -1.1), (x - lean + 0.07, -1.1), (x + lean + 0.07, 1.1), (x + lean - 0.07, 1.1))
    blob = points(
        (x - w, y - h * 0.5), (x, y - h), (x + w, y - h * 0.3), (x + w * 0.7, y + h), (x - w * 0.6, y + h * 0.9)
    )
    return [fill(EXTRA_4, stick, here & bar), fill(EXTRA_4, blob, here & ~bar)]


def page(d: Draws) -> tuple[list[Part], Floats]:
    """The layout of an infographic, and where its picture goes.  # parts, centre [n, 2]"""
    side = np.where(d.chance("page/left", 0.5), np.float32(-1), np.float32(1))
    cx, cy = side * d.uniform("page/x", 0.12, 0.22), d.uniform("page/y", -0.22, 0.02)
    parts = [
        fill(EXTRA_1, box(-1.0, d.uniform("page/title", 0.72, 0.86), 1.0, 1.0), d.chance("page/has title", 0.8)),
        fill(EXTRA_4, box(cx - 0.78, cy - 0.72, cx + 0.78, cy + 0.78), d.chance("page/panel", 0.6)),
    ]
    lines, lead = d.integers("page/lines", 2, 4), d.uniform("page/lead", -0.6, 0.3)
    for i in range(4):  # short text lines at the free side
        far, y = -side * 0.97, lead - 0.16 * i
        near = far + side * d.uniform(f"page/line {i}", 0.2, 0.5)
        parts.append(line(EXTRA_2, points((far, y), (near, y)), 0.09, lines > i))
    chart, foot = d.choice("page/chart", 3), -0.98
    for i in range(3):  # a bar chart in a lower corner
        x, tall = -side * (0.9 - 0.2 * i), d.uniform(f"page/bar {i}", 0.1, 0.5)
        parts.append(fill((EXTRA_1, EXTRA_3, EXTRA_2)[i], box(x - 0.07, foot, x + 0.07, foot + tall), chart == 1))
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False, dtype=np.float32)
    pie = np.stack(
        [-side[:, None] * 0.74 + 0.22 * np.cos(turn), -0.74 + 0.22 * np.sin(turn) + 0 * side[:, None]], axis=2
    )
    wedge = np.concatenate([pie[:, :5], points((-side * 0.74, -0.74))], axis=1)
    return [*parts, fill(EXTRA_3, pie, chart == 2), fill(EXTRA_1, wedge, chart == 2)], np.stack([cx, cy], axis=1)


@cache
def _strokes() -> tuple[Ints, Ints, Floats]:
    """64 fields of brush strokes: for each pixel the offset to its stroke's middle, and the stroke's lightness."""
    d = Draws("brush", np.arange(64))
    count = 220
    xy, angle = (
        d.uniform("xy", 0, SIZE, (count, 2)),
        d.uniform("main", 0, np.pi)[:, None] + d.normal("angle", (count,)) * 0.5,
    )
    reach, light = d.uniform("reach", 1.5, 4.0, (count,)), d.normal("light", (count + 1,)).astype(np.float32)
    owner = np.empty((64, SIZE, SIZE), np.int64)
    for f in range(64):
        image = Image.new("I", (SIZE, SIZE))
        brush = ImageDraw.Draw(image)
        for s in range(count):
            (x, y), dx, dy = (
                xy[f, s],
                float(np.cos(angle[f, s]) * reach[f, s]),
                float(np.sin(angle[f, s]) * reach[f, s]),
            )
            brush.line((x - dx, y - dy, x + dx, y + dy), fill=s + 1, width=2)
        owner[f] = np.asarray(image)
    fields = np.arange(64)[:, None, None]
    own_y, own_x = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    middle = np.concatenate([np.zeros((64, 1, 2), np.float32), xy], axis=1)[fields, owner].astype(np.int64)
    bare = owner == 0
    return (
        np.where(bare, 0, middle[..., 1] - own_y),
        np.where(bare, 0, middle[..., 0] - own_x),
        np.where(bare, np.float32(0), light[fields, owner]),
    )


def brushwork(images: Floats, d: Draws) -> Floats:
    """Repaint images in strokes, each with the colour under its middle.  # [n, SIZE, SIZE, 3] -> same"""
    down, right, light = _strokes()
    field, roll = d.choice("brush/field", 64)[:, None, None], d.integers("brush/roll", 0, SIZE - 1, (2, 1, 1))
    y, x = np.arange(SIZE)[:, None], np.arange(SIZE)[None]
    at = (field, (y + roll[:, 0]) % SIZE, (x + roll[:, 1]) % SIZE)
    from_y, from_x = np.clip(y + down[at], 0, SIZE - 1), np.clip(x + right[at], 0, SIZE - 1)
    rows = np.arange(len(images))[:, None, None]
    painted = images[rows, from_y, from_x]
    wet = d.uniform("brush/wet", 0.3, 0.65)[:, None, None, None]
    relief = light[at][..., None] * d.uniform("brush/relief", 0.03, 0.08)[:, None, None, None]
    return images + wet * (painted - images) + relief
