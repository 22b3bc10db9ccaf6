"""The six domains: how an object is posed, drawn and surrounded in each, and the function that colours it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.seal import check_drawing

from . import colouring, objects, things
from .classes import CLASSES, DIGITS, OBJECTS
from .colouring import CAMERAS, Camera
from .random_draws import Draws, Floats, Ints
from .raster import CANVAS, SIZE, Maps, Pen, Pose, draw, place
from .scene import Scene, choose
from .scenery import clutter, occluder, page
from .shapes import Part

_CHUNK = 128  # images coloured at once: few enough to stay in a core's cache


def _nothing(d: Draws) -> list[Part]:
    return []


def _no_ink(d: Draws) -> Pen:
    return Pen(np.zeros(len(d), np.float32))


def _outline(d: Draws, p: float, lo: float, hi: float) -> Pen:
    return Pen(d.chance("pen/outlined", p) * d.uniform("pen/width", lo, hi))


def _pencil(d: Draws, wobble: float = 0.022) -> Pen:
    return Pen(d.uniform("pen/width", 1.5, 2.6), passes=2, wobble=wobble, sketchy=True)


def _marker(d: Draws, wobble: float = 0.04) -> Pen:
    return Pen(d.uniform("pen/width", 3, 5), passes=1, wobble=wobble, sketchy=True, toned=False)


def _anywhere(d: Draws, lo: float = 0.66, hi: float = 0.98) -> Pose:
    return Pose((lo, hi))


def _in_panel(d: Draws, lo: float = 0.64, hi: float = 0.86) -> Pose:
    return Pose((lo, hi), centre=page(d)[1])


@dataclass(frozen=True)
class Domain:
    """One way of making pictures; all randomness comes from the draws that its functions are given."""

    colour: Callable[[Maps, Scene, Draws], Floats]
    context: float  # how often class, colours and place go together
    pose: Callable[[Draws], Pose] = _anywhere
    pen: Callable[[Draws], Pen] = _no_ink
    under: Callable[[Draws], list[Part]] = _nothing  # scenery that the object covers
    over: Callable[[Draws], list[Part]] = _nothing  # scenery that covers the object
    drop: float = 0.0  # share of parts that are forgotten


def _photos(camera: Camera, context: float) -> Domain:
    return Domain(
        partial(colouring.photo, camera=camera),
        context,
        pose=partial(_anywhere, lo=camera.scale[0], hi=camera.scale[1]),
        under=partial(clutter, most=camera.blobs),
        over=partial(occluder, p=camera.occlusion),
    )


# Usual colours and places are frequent in photographs, rare in drawings. The hard views make the sets of downstream
# tasks, the model has seen the others only: a worse camera for photos, smaller objects, more forgotten parts and a less
# steady hand for drawings. Painting is hard enough as it is.
_DOMAINS = {
    "real": _photos(CAMERAS["snapshot"], context=0.75),
    "painting": Domain(colouring.painting, 0.5, pose=partial(_anywhere, lo=0.62), under=partial(clutter, most=3)),
    "clipart": Domain(colouring.clipart, 0.3, pen=partial(_outline, p=0.65, lo=2, hi=4)),
    "infograph": Domain(
        colouring.infograph,
        0.2,
        pose=_in_panel,
        pen=partial(_outline, p=0.7, lo=1.5, hi=3),
        under=lambda d: page(d)[0],
    ),
    "sketch": Domain(colouring.sketch, 0.0, pen=_pencil),
    "quickdraw": Domain(colouring.quickdraw, 0.0, pen=_marker, drop=0.08),
}
_HARD = {
    "real": _photos(CAMERAS["hard"], context=0.85),
    "clipart": replace(_DOMAINS["clipart"], pose=partial(_anywhere, lo=0.5, hi=0.85), drop=0.1),
    "infograph": replace(_DOMAINS["infograph"], pose=partial(_in_panel, lo=0.54, hi=0.78), drop=0.08),
    "sketch": replace(
        _DOMAINS["sketch"], pose=partial(_anywhere, lo=0.5, hi=0.85), pen=partial(_pencil, wobble=0.032), drop=0.1
    ),
    "quickdraw": replace(
        _DOMAINS["quickdraw"], pose=partial(_anywhere, lo=0.55, hi=0.9), pen=partial(_marker, wobble=0.05), drop=0.12
    ),
}


def _domain(name: str, camera: str) -> Domain:
    return _HARD.get(name, _DOMAINS[name]) if camera == "hard" else _DOMAINS[name]


def parts_of(label: int, d: Draws) -> list[Part]:
    """The parts of n random examples of one class."""
    name = CLASSES[label]
    if name in DIGITS:
        return things.digit(d, DIGITS.index(name))
    module = objects if hasattr(objects, name) else things
    return getattr(module, name)(d)


def _forget(parts: list[Part], share: float, least: int, d: Draws) -> list[Part]:
    """Leave out some parts of objects that have more than three, and none where fewer than `least` would be left."""
    if not share or len(parts) <= 3:
        return parts
    there = np.stack([np.ones(len(d), bool) if p.present is None else p.present for p in parts], axis=1)
    kept = there & ~d.chance("drop", share, (len(parts),))
    kept = np.where(kept.sum(axis=1, keepdims=True) < least, there, kept)
    return [Part(p.role, p.points, p.width, p.closed, kept[:, j]) for j, p in enumerate(parts)]


def _draw(domain: Domain, labels: Ints, least_parts: int, d: Draws) -> Maps:
    """Role maps of mixed classes, drawn class by class.  # [n, CANVAS, CANVAS]"""
    maps = np.empty((len(d), CANVAS, CANVAS), np.uint8)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        some = d[rows]
        pose = domain.pose(some)
        if label >= len(OBJECTS):  # a turned or mirrored numeral may be another one, or none
            pose = Pose(pose.scale, turn=11.0, mirror=False, centre=pose.centre)
        parts = _forget(parts_of(int(label), some), domain.drop, least_parts, some)
        placed, scale = place(parts, pose, some)
        maps[rows] = draw(placed, scale, domain.pen(some), domain.under(some), domain.over(some), some)
    return maps


def scene_of(name: str, camera: str, labels: Ints, d: Draws) -> Scene:
    """Colours and places of n images; shared by pictures and captions."""
    return choose(labels, _domain(name, camera).context, d)


def paint(name: str, camera: str, labels: Ints, d: Draws, least_parts: int = 0) -> NDArray[np.uint8]:
    """Images of one domain; refused while a method is being fitted.  # [n, SIZE, SIZE, 3]"""
    check_drawing(f"drawing '{name}'")
    domain = _domain(name, camera)
    maps, scene = _draw(domain, labels, least_parts, d), scene_of(name, camera, labels, d)
    images = np.empty((len(d), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(d), _CHUNK):
        rows = slice(start, start + _CHUNK)
        images[rows] = np.clip(domain.colour(maps[rows], scene[rows], d[rows]) * 255 + 0.5, 0, 255)
    return images
