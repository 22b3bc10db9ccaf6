"""The six domains: how the same object looks as a photo, painting, clipart, infographic, sketch or doodle."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import objects, things
from .classes import CLASSES, DIGITS, OBJECTS
from .draws import Draws, Floats, Ints
from .raster import CANVAS, SIZE, Maps, Pen, Pose, coverage, draw, place
from .scene import CONTEXT, HARD_CONTEXT, Scene, choose, palette
from .scenery import brushwork, clouds, clutter, landscape, occluder, page
from .shapes import ACCENT, DARK, EXTRA_1, EXTRA_2, EXTRA_3, EXTRA_4, INK, LIGHT, MAIN, SECOND, Part

_BODY = (MAIN, SECOND, ACCENT, LIGHT, DARK)
_Y, _X = np.meshgrid(*[np.linspace(-1, 1, SIZE, dtype=np.float32)] * 2, indexing="ij")
_CHUNK = 128  # images painted at once: few enough to stay in a core's cache


def parts_of(label: int, d: Draws) -> list[Part]:
    """The parts of n random examples of one class."""
    name = CLASSES[label]
    if name in DIGITS:
        return things.digit(d, DIGITS.index(name))
    module = objects if hasattr(objects, name) else things
    return getattr(module, name)(d)


@dataclass(frozen=True)
class Camera:
    """What stands between the scene and the photo."""

    scale: tuple[float, float]
    blobs: int
    occlusion: float  # probability
    contrast: tuple[float, float]
    warm: tuple[float, float]  # red up, blue down
    noise: tuple[float, float]  # sd, of 255


SNAPSHOT = Camera((0.62, 0.98), 4, 0.3, (0.7, 1.1), (-0.04, 0.04), (3, 14))
HARD = Camera((0.5, 0.95), 6, 0.5, (0.5, 1.0), (0.02, 0.14), (6, 18))  # the ID set's, unseen in pretraining
CAMERAS = {"snapshot": SNAPSHOT, "hard": HARD}


def _column(values: Floats) -> Floats:
    return values[:, None, None, None]


def _maps(
    labels: Ints,
    d: Draws,
    pose: Callable[[Draws], Pose],
    pen: Callable[[Draws], Pen],
    under: Callable[[Draws], list[Part]] = lambda d: [],
    over: Callable[[Draws], list[Part]] = lambda d: [],
    drop: float = 0.0,
) -> Maps:
    """Role maps of mixed classes, drawn class by class.  # [n, CANVAS, CANVAS]"""
    maps = np.empty((len(d), CANVAS, CANVAS), np.uint8)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        some, stance = d[rows], pose(d[rows])
        if label >= len(OBJECTS):
            stance = Pose(stance.scale, turn=11.0, mirror=False, centre=stance.centre)
        parts = parts_of(int(label), some)
        if drop and len(parts) > 3:
            kept = ~some.chance("drop", drop, (len(parts),))
            parts = [
                Part(p.role, p.points, p.width, p.closed, kept[:, j] if p.present is None else kept[:, j] & p.present)
                for j, p in enumerate(parts)
            ]
        placed, scale = place(parts, stance, some)
        maps[rows] = draw(placed, scale, pen(some), under(some), over(some), some)
    return maps


def _compose(back: Floats, maps: Maps, colours: Floats, roles: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Lay the roles' colours over a background; also the object's share.  # [n, S, S, 3], [n, S, S, 1]"""
    image, body = back.copy(), np.zeros((len(maps), SIZE, SIZE, 1), np.float32)
    for role in roles:
        share = coverage(maps, role)[..., None]
        image += share * (colours[:, None, None, role] - back)
        if role in _BODY or role == INK:
            body += share
    return image, body


def _shade(image: Floats, body: Floats, d: Draws) -> Floats:
    """Light from one side and a little texture, on the object only."""
    angle = d.uniform("light/angle", 0, 2 * np.pi)
    slope = np.cos(angle)[:, None, None] * _X + np.sin(angle)[:, None, None] * _Y
    light = slope[..., None] * _column(d.uniform("light/strength", 0.05, 0.3))
    texture = clouds("light/texture", d) * _column(d.uniform("light/rough", 0.01, 0.06))
    return image * (1 + body * light) + body * texture


def _blur(image: Floats, amount: Floats) -> Floats:
    """Mix with a 3 x 3 binomial blur, by a share per image."""
    wide = np.pad(image, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge")
    soft = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
    wide = np.pad(soft, ((0, 0), (0, 0), (1, 1), (0, 0)), mode="edge")
    soft = (wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]) / 4
    return image + _column(amount) * (soft - image)


def _photo(maps: Maps, scene: Scene, camera: Camera, d: Draws) -> Floats:
    back = landscape(scene.place, d)
    image, body = _compose(back, maps, palette(scene, 0.07, d), (*_BODY, EXTRA_1, EXTRA_2, EXTRA_3, EXTRA_4))
    image = _shade(image, body, d)
    contrast, bright = d.uniform("camera/contrast", *camera.contrast), d.uniform("camera/bright", -0.1, 0.1)
    image = (image - 0.5) * _column(contrast) + 0.5 + _column(bright)
    warm = d.uniform("camera/warm", *camera.warm)[:, None] * np.array([1, 0.2, -1], np.float32)  # [n, 3]
    image = image + warm[:, None, None]
    image = _blur(image, d.chance("camera/blurred", 0.4) * d.uniform("camera/blur", 0.3, 1.0))
    sd = d.uniform("camera/noise", *camera.noise) / 255
    return image + d.noise("camera/sensor", (SIZE, SIZE, 3)) * _column(sd)


def _painting(maps: Maps, scene: Scene, d: Draws) -> Floats:
    colours = palette(scene, 0.08, d)
    image, body = _compose(landscape(scene.place, d), maps, colours, (*_BODY, EXTRA_1, EXTRA_2, EXTRA_3))
    image = brushwork(_shade(image, body, d), d)
    grey = image.mean(axis=3, keepdims=True)
    return grey + (image - grey) * _column(d.uniform("painting/vivid", 0.9, 1.4))


def _paper(d: Draws) -> Floats:
    """White, pastel or strong plain colours.  # [n, 3]"""
    kind, hue = d.choice("paper/kind", (0.45, 0.35, 0.2)), d.uniform("paper/hue", 0, 1, (3,))
    tint = np.array([0.0, 0.3, 0.75], np.float32)[kind][:, None]
    return 1 - tint * (1 - hue)


def _clipart(maps: Maps, scene: Scene, d: Draws) -> Floats:
    back = np.broadcast_to(_paper(d)[:, None, None], (len(d), SIZE, SIZE, 3))
    return _compose(back, maps, palette(scene, 0.03, d), (*_BODY, INK))[0]


def _infograph(maps: Maps, scene: Scene, d: Draws) -> Floats:
    back = np.broadcast_to(_paper(d)[:, None, None] * 0.6 + 0.4, (len(d), SIZE, SIZE, 3))
    colours = palette(scene, 0.03, d)
    colours[:, EXTRA_2] *= 0.5  # text is dark
    colours[:, EXTRA_4] = 0.97  # the panel is white
    return _compose(back, maps, colours, (*_BODY, INK, EXTRA_1, EXTRA_2, EXTRA_3, EXTRA_4))[0]


def _sketch(maps: Maps, scene: Scene, d: Draws) -> Floats:
    stripes = d.uniform("hatch/step", 1.5, 2.6)[:, None, None] * (
        _X + _Y * d.uniform("hatch/lean", -1, 1)[:, None, None]
    )
    hatch = 0.5 + 0.5 * np.sin(stripes * np.float32(16))
    strength = d.uniform("hatch/strength", 0.0, 0.35)[:, None, None]
    tone = coverage(maps, MAIN) * 0.5 + coverage(maps, SECOND) + coverage(maps, ACCENT) * 0.7
    ink = coverage(maps, INK) * d.uniform("sketch/dark", 0.6, 0.95)[:, None, None] + coverage(maps, DARK) * 0.5
    grey = d.uniform("sketch/paper", 0.72, 0.97)[:, None, None] * (1 - tone * hatch * strength) * (1 - ink)
    grain = d.noise("sketch/grain", (SIZE, SIZE)) * d.uniform("sketch/rough", 0.01, 0.05)[:, None, None]
    return np.repeat((grey + grain)[..., None], 3, axis=3)


def _quickdraw(maps: Maps, scene: Scene, d: Draws) -> Floats:
    return np.repeat((1 - coverage(maps, INK))[..., None], 3, axis=3)


def _no_ink(d: Draws) -> Pen:
    return Pen(np.zeros(len(d), np.float32))


def _outline(p: float, lo: float, hi: float) -> Callable[[Draws], Pen]:
    return lambda d: Pen(d.chance("pen/outlined", p) * d.uniform("pen/width", lo, hi))


def _draw_maps(domain: str, labels: Ints, camera: Camera, d: Draws) -> Maps:
    roomy = Pose((0.66, 0.98))
    if domain == "real":
        scenery = {"under": lambda d: clutter(d, camera.blobs), "over": lambda d: occluder(d, camera.occlusion)}
        return _maps(labels, d, lambda d: Pose(camera.scale), _no_ink, **scenery)
    if domain == "painting":
        return _maps(labels, d, lambda d: Pose(), _no_ink, under=lambda d: clutter(d, 3))
    if domain == "clipart":
        return _maps(labels, d, lambda d: roomy, _outline(0.65, 2, 4))
    if domain == "infograph":
        in_panel = lambda d: Pose((0.64, 0.86), centre=page(d)[1])  # noqa: E731
        return _maps(labels, d, in_panel, _outline(0.7, 1.5, 3), under=lambda d: page(d)[0])
    if domain == "sketch":
        pencil = lambda d: Pen(d.uniform("pen/width", 1.5, 2.6), passes=2, wobble=0.022, sketchy=True)  # noqa: E731
        return _maps(labels, d, lambda d: roomy, pencil)
    marker = lambda d: Pen(d.uniform("pen/width", 3, 5), passes=1, wobble=0.04, sketchy=True, toned=False)  # noqa: E731
    return _maps(labels, d, lambda d: roomy, marker, drop=0.08)


_PAINT: dict[str, Callable[[Maps, Scene, Draws], Floats]] = {
    "painting": _painting,
    "clipart": _clipart,
    "infograph": _infograph,
    "sketch": _sketch,
    "quickdraw": _quickdraw,
}


def scene_of(domain: str, labels: Ints, hard: bool, d: Draws) -> Scene:
    """Colours and places of n images; shared by pictures and captions."""
    return choose(labels, HARD_CONTEXT if hard else CONTEXT[domain], d)


def paint(domain: str, labels: Ints, camera: str, d: Draws) -> NDArray[np.uint8]:
    """Images of one domain.  # [n, SIZE, SIZE, 3]"""
    lens = CAMERAS[camera]
    maps, scene = _draw_maps(domain, labels, lens, d), scene_of(domain, labels, camera == "hard", d)
    images = np.empty((len(d), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(d), _CHUNK):
        rows = slice(start, start + _CHUNK)
        some = Scene(scene.main[rows], scene.second[rows], scene.accent[rows], scene.place[rows])
        if domain == "real":
            shade = _photo(maps[rows], some, lens, d[rows])
        else:
            shade = _PAINT[domain](maps[rows], some, d[rows])
        images[rows] = np.clip(shade * 255 + 0.5, 0, 255)
    return images
