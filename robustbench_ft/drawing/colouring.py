"""From role maps to pixels: how a photo, a painting, clipart, an infographic, a sketch and a doodle are coloured.

Every function takes role maps [n, CANVAS, CANVAS] and the scenes they show, and returns colours [n, SIZE, SIZE, 3],
about 0..1, of `n` images of any classes.
"""

from dataclasses import dataclass

import numpy as np

from .random_draws import Draws, Floats
from .raster import SIZE, Maps, coverage
from .scene import Scene, palette
from .scenery import brushwork, clouds, landscape
from .shapes import ACCENT, DARK, EXTRA_1, EXTRA_2, EXTRA_3, EXTRA_4, INK, LIGHT, MAIN, SECOND

_BODY = (MAIN, SECOND, ACCENT, LIGHT, DARK)
_AXIS: Floats = np.linspace(-1, 1, SIZE, dtype=np.float32)
_X, _Y = _AXIS[None, :], _AXIS[:, None]


@dataclass(frozen=True)
class Camera:
    """What stands between a scene and its photo."""

    scale: tuple[float, float]  # of the object
    blobs: int  # of clutter, at most
    occlusion: float  # probability
    contrast: tuple[float, float]
    warm: tuple[float, float]  # red up, blue down
    noise: tuple[float, float]  # sd, of 255


CAMERAS = {
    "snapshot": Camera((0.62, 0.98), 4, 0.3, (0.7, 1.1), (-0.04, 0.04), (3, 14)),
    "hard": Camera((0.5, 0.95), 6, 0.5, (0.5, 1.0), (0.02, 0.14), (6, 18)),
}


def _column(values: Floats) -> Floats:
    return values[:, None, None, None]


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


def photo(maps: Maps, scene: Scene, d: Draws, camera: Camera) -> Floats:
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


def painting(maps: Maps, scene: Scene, d: Draws) -> Floats:
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


def _apart(paper: Floats, colours: Floats) -> Floats:
    """Paper [n, 3], darkened (or, if dark, lightened) where the object would vanish on it: white on white."""
    alike = np.abs(paper - colours[:, MAIN]).max(axis=1, keepdims=True) < 0.18
    other = np.where(paper.mean(axis=1, keepdims=True) > 0.5, paper * np.float32(0.7), paper + np.float32(0.35))
    return np.where(alike, other, paper)


def clipart(maps: Maps, scene: Scene, d: Draws) -> Floats:
    colours = palette(scene, 0.03, d)
    back = np.broadcast_to(_apart(_paper(d), colours)[:, None, None], (len(d), SIZE, SIZE, 3))
    return _compose(back, maps, colours, (*_BODY, INK))[0]


def infograph(maps: Maps, scene: Scene, d: Draws) -> Floats:
    colours = palette(scene, 0.03, d)
    colours[:, EXTRA_2] *= 0.5  # text is dark
    colours[:, EXTRA_4] = _apart(np.full((len(d), 3), 0.97, np.float32), colours)  # the panel
    back = np.broadcast_to(_apart(_paper(d) * 0.6 + 0.4, colours)[:, None, None], (len(d), SIZE, SIZE, 3))
    return _compose(back, maps, colours, (*_BODY, INK, EXTRA_1, EXTRA_2, EXTRA_3, EXTRA_4))[0]


def sketch(maps: Maps, scene: Scene, d: Draws) -> Floats:
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


def quickdraw(maps: Maps, scene: Scene, d: Draws) -> Floats:
    return np.repeat((1 - coverage(maps, INK))[..., None], 3, axis=3)
