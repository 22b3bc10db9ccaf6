"""From parts to pictures of roles: poses, a 96 x 96 canvas with one role per pixel, and coverage at 32 x 32."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .random_draws import Draws, Floats
from .shapes import BLANK, INK, Part

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
    layers = [*under, *parts, *over]
    drawn_by_pen = [False] * len(under) + [True] * len(parts) + [False] * len(over)
    ends = np.cumsum([2 * part.points.shape[1] for part in layers]).tolist()
    spans = [slice(start, stop) for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
    filled, *inked = _pixels(layers, pen, d)
    twice, gap = d.chance("pen/twice", 0.5), d.chance("pen/gap", 0.3) & pen.sketchy
    maps = np.empty((len(d), CANVAS, CANVAS), np.uint8)
    for i in range(len(d)):
        image = Image.new("L", (CANVAS, CANVAS))
        brush, unit, ink = ImageDraw.Draw(image), float(scale[i]) * CANVAS / 2, float(pen.width[i])
        edge = filled[i]
        tracks = [track[i] for track in inked[: 1 + bool(twice[i])]] or [edge]
        for part, span, by_pen in zip(layers, spans, drawn_by_pen, strict=True):
            if part.present is not None and not part.present[i]:
                continue
            lines = [track[span] for track in tracks] if by_pen and ink else []
            if not part.width:
                brush.polygon(edge[span], fill=part.role if pen.toned or not lines else BLANK)
            elif not (lines and pen.sketchy):
                width = max(part.width * unit, 2.0)
                if lines:
                    _line(brush, edge[span], INK, width + 1.4 * ink, part.closed)
                _line(brush, edge[span], part.role, width, part.closed)
                continue
            for line in lines:
                _line(brush, line, INK, ink, part.closed and not (gap[i] and not part.width))
        maps[i] = np.asarray(image)
    return maps


def _pixels(layers: Sequence[Part], pen: Pen, d: Draws) -> list[list[list[float]]]:
    """Canvas coordinates x, y, x, y, ... of all layers' points, then of each wobbly copy.  # 1 + passes, n, 2 v"""
    points = np.concatenate([np.broadcast_to(p.points, (len(d), *p.points.shape[1:])) for p in layers], axis=1)
    copies = [points]  # [n, v, 2]
    for i in range(pen.passes):
        shift = d.normal(f"pen/shift {i}", (1, 2)) * np.float32(pen.wobble * 0.7)
        copies.append(points + shift + d.normal(f"pen/wobble {i}", points.shape[1:]) * np.float32(pen.wobble))
    up, half = np.array([1, -1], np.float32), np.float32(CANVAS / 2)
    return [((copy * up + 1) * half).reshape(len(d), -1).tolist() for copy in copies]


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
