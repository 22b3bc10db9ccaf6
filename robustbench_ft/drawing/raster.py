"""From parts to pictures of roles: poses, a 96 x 96 canvas with one role per pixel, and coverage at 32 x 32."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .draws import Bools, Draws, Floats
from .shapes import INK, Part

SIZE = 32  # pixels of a finished image
FINE = 3  # canvas pixels per image pixel, for smooth edges
CANVAS = SIZE * FINE

Maps = NDArray[np.uint8]  # [n, CANVAS, CANVAS], a role per pixel


@dataclass(frozen=True)
class Pose:
    """How an object stands on the canvas."""

    scale: tuple[float, float] = (0.62, 0.98)
    turn: float = 20.0  # degrees either way
    mirror: bool = True
    centre: Floats | None = None  # [n, 2] in canvas units; None: anywhere it fits


def place(parts: Sequence[Part], pose: Pose, d: Draws) -> tuple[list[Part], Floats]:
    """Scale, turn, mirror, shear, bend and shift an object, still in [-1, 1]^2.  # parts [n, v, 2], scale [n]"""
    shape = np.concatenate([np.broadcast_to(p.points, (len(d), *p.points.shape[1:])) for p in parts], axis=1)
    x, y = shape[..., 0], shape[..., 1]  # [n, v]

    def column(name: str, lo: float, hi: float) -> Floats:
        return d.uniform(f"pose/{name}", lo, hi)[:, None]

    wave = np.float32(2 * np.pi)
    bend, rate = column("bend", 0.02, 0.07), column("rate", 0.25, 0.5)
    x, y = (
        x + bend * np.sin(wave * (rate * y + column("phase x", 0, 1))),
        y + bend * np.sin(wave * (rate * x + column("phase y", 0, 1))),
    )
    scale = column("scale", *pose.scale)
    stretch = np.exp(column("aspect", -0.22, 0.22) / 2)
    flip = np.where(d.chance("pose/mirror", 0.5)[:, None] & pose.mirror, np.float32(-1), np.float32(1))
    x, y = flip * scale * stretch * (x + column("shear", -0.2, 0.2) * y), scale / stretch * y
    angle = np.deg2rad(column("turn", -pose.turn, pose.turn))
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    room = 1.04 - scale
    if pose.centre is None:
        x, y = x + room * column("x", -1, 1), y + room * column("y", -1, 1)
    else:
        x, y = x + pose.centre[:, :1], y + pose.centre[:, 1:]
    posed, start = np.stack([x, y], axis=2), 0
    placed: list[Part] = []
    for p in parts:
        stop = start + p.points.shape[1]
        placed.append(Part(p.role, posed[:, start:stop], p.width, p.closed, p.present))
        start = stop
    return placed, scale[:, 0]


@dataclass(frozen=True)
class Pen:
    """How parts are drawn: filled or blanked out, and with ink lines of what width along which edges."""

    width: Floats  # [n] canvas pixels; 0: no ink
    passes: int = 0  # 0: ink runs along the filled edges; k: along k wobbly copies of them
    wobble: float = 0.0  # sd of the copies' points, in canvas units
    sketchy: bool = False  # lines only: thick polylines become single ink lines, outlines may stay open
    toned: bool = True  # filled parts keep their role; if not, they only hide what is behind them


def draw(parts: Sequence[Part], scale: Floats, pen: Pen, under: Sequence[Part], over: Sequence[Part], d: Draws) -> Maps:
    """Draw n canvases: scenery under the object, the object, scenery over it.  # [n, CANVAS, CANVAS]"""
    n, layers = len(d), [*under, *parts, *over]
    first, last = len(under), len(under) + len(parts)
    pixels = np.concatenate([np.broadcast_to(p.points, (n, *p.points.shape[1:])) for p in layers], axis=1)
    copies = [pixels]
    for i in range(pen.passes):
        shift = d.normal(f"pen/shift {i}", (1, 2)) * np.float32(pen.wobble * 0.7)
        copies.append(pixels + shift + d.normal(f"pen/wobble {i}", pixels.shape[1:]) * np.float32(pen.wobble))
    half = np.float32(CANVAS / 2)
    rows = [((c * np.array([1, -1], np.float32) + 1) * half).reshape(n, -1).tolist() for c in copies]
    ends = np.cumsum([2 * p.points.shape[1] for p in layers]).tolist()
    shown: list[Bools | None] = [p.present for p in layers]
    second_pass, gap = d.chance("pen/twice", 0.5), d.chance("pen/gap", 0.3)

    maps = np.empty((n, CANVAS, CANVAS), np.uint8)
    for i in range(n):
        image = Image.new("L", (CANVAS, CANVAS))
        brush, ink, unit = ImageDraw.Draw(image), float(pen.width[i]), float(scale[i]) * CANVAS / 2
        tracks = [r[i] for r in rows[1 : 2 + bool(second_pass[i])]] or [rows[0][i]]
        start = 0
        for j, part in enumerate(layers):
            at, start = slice(start, ends[j]), ends[j]
            present = shown[j]
            if present is not None and not present[i]:
                continue
            xy = rows[0][i][at]
            inked = ink > 0 and first <= j < last
            if not part.width:
                brush.polygon(xy, fill=0 if inked and not pen.toned else part.role)
                for track in tracks if inked else ():
                    _line(brush, track[at], INK, ink, closed=not (pen.sketchy and gap[i]))
            elif pen.sketchy and inked:
                for track in tracks:
                    _line(brush, track[at], INK, ink, part.closed)
            else:
                width = max(part.width * unit, 2.0)
                if inked:
                    _line(brush, xy, INK, width + 1.4 * ink, part.closed)
                _line(brush, xy, part.role, width, part.closed)
        maps[i] = np.asarray(image)
    return maps


def _line(brush: ImageDraw.ImageDraw, xy: list[float], role: int, width: float, closed: bool) -> None:
    """A polyline with round corners and ends; Pillow's own joints are slower and leave the ends square."""
    brush.line(xy + xy[:2] if closed else xy, fill=role, width=round(width))
    if width >= 4:
        r = width / 2 - 0.5
        for x, y in zip(xy[::2], xy[1::2], strict=True):
            brush.ellipse((x - r, y - r, x + r, y + r), fill=role)


def coverage(maps: Maps, role: int) -> Floats:
    """The share of each image pixel that a role covers.  # [n, SIZE, SIZE]"""
    hits = (maps == role).view(np.uint8)
    rows = hits[:, 0::3] + hits[:, 1::3] + hits[:, 2::3]
    return (rows[:, :, 0::3] + rows[:, :, 1::3] + rows[:, :, 2::3]).astype(np.float32) * np.float32(1 / FINE**2)
