"""Parts of objects and the few curves they are made of; y points up, an object fills about [-1, 1]^2."""

from dataclasses import dataclass

import numpy as np

from .random_draws import Bools, Floats

# What a pixel of a drawing can be. The first five are the colour roles of an object's parts.
BLANK, MAIN, SECOND, ACCENT, LIGHT, DARK, INK, EXTRA_1, EXTRA_2, EXTRA_3, EXTRA_4 = range(11)

Number = float | Floats  # one number for all images, or one per image [n]
Point = tuple[Number, Number]


@dataclass(frozen=True)
class Part:
    """A filled polygon, or a polyline of some width, of one colour role; the same part of all n images."""

    role: int
    points: Floats  # [n, v, 2]
    width: float = 0.0  # 0: a filled polygon
    closed: bool = True
    present: Bools | None = None  # [n]; None: in every image


def points(*xy: Point) -> Floats:
    """Corners, each coordinate a number or one number per image.  # [n or 1, v, 2]"""
    flat = np.broadcast_arrays(*[np.atleast_1d(np.asarray(c, np.float32)) for p in xy for c in p])
    return np.stack(flat, axis=1).reshape(len(flat[0]), len(xy), 2)


def box(x0: Number, y0: Number, x1: Number, y1: Number) -> Floats:
    """An axis-parallel rectangle.  # [n or 1, 4, 2]"""
    return points((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def arc(x: Number, y: Number, rx: Number, ry: Number, start: float, stop: float, k: int = 9) -> Floats:
    """k points of an ellipse from angle `start` to `stop`, in degrees.  # [n or 1, k, 2]"""
    angles = np.deg2rad(np.linspace(start, stop, k)).astype(np.float32)
    x, y, rx, ry = np.broadcast_arrays(*[np.atleast_1d(np.asarray(v, np.float32))[:, None] for v in (x, y, rx, ry)])
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=2)


def oval(x: Number, y: Number, rx: Number, ry: Number, k: int = 14) -> Floats:
    """A closed ellipse.  # [n or 1, k, 2]"""
    return arc(x, y, rx, ry, 0, 360 * (k - 1) / k, k)


def petal(x: Number, y: Number, length: Number, width: Number, angle: float) -> Floats:
    """An ellipse that starts at (x, y) and points along `angle`, in degrees.  # [n or 1, 10, 2]"""
    c, s = np.float32(np.cos(np.deg2rad(angle))), np.float32(np.sin(np.deg2rad(angle)))
    along = oval(np.multiply(length, 0.5), 0.0, np.multiply(length, 0.5), width, 10)
    turned = np.stack([along[..., 0] * c - along[..., 1] * s, along[..., 0] * s + along[..., 1] * c], axis=2)
    return turned + points((x, y))


def chain(*pieces: Floats) -> Floats:
    """Curves joined end to end.  # [n or 1, sum of v, 2]"""
    n = max(len(p) for p in pieces)
    return np.concatenate([np.broadcast_to(p, (n, *p.shape[1:])) for p in pieces], axis=1)


def fill(role: int, shape: Floats, present: Bools | None = None) -> Part:
    return Part(role, shape, present=present)


def line(role: int, shape: Floats, width: float, present: Bools | None = None, closed: bool = False) -> Part:
    return Part(role, shape, width, closed, present)
