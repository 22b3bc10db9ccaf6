"""Sixteen more objects, man-made things, and the ten digits. Each function draws n random examples at once."""

import numpy as np

from .random_draws import Draws
from .shapes import ACCENT, DARK, LIGHT, MAIN, SECOND, Part, arc, box, chain, fill, line, oval, points


def mug(d: Draws) -> list[Part]:
    w, top, taper = d.uniform("width", 0.42, 0.58), d.uniform("top", 0.55, 0.8), d.uniform("taper", 0.75, 1.0)
    return [
        line(MAIN, arc(w - 0.22, -0.05, 0.5, 0.42, -80, 80, 9), 0.15),
        fill(MAIN, points((-w - 0.2, top), (w - 0.2, top), (w * taper - 0.2, -0.8), (-w * taper - 0.2, -0.8))),
        fill(LIGHT, oval(-0.2, top, w, 0.13, 12)),
        fill(SECOND, box(-0.2 - w * 0.88, -0.2, -0.2 + w * 0.88, 0.1), d.chance("band", 0.35)),
    ]


def bottle(d: Draws) -> list[Part]:
    w, neck, y = d.uniform("width", 0.26, 0.38), d.uniform("neck", 0.1, 0.15), d.uniform("shoulder", 0.0, 0.25)
    return [
        fill(
            MAIN,
            points(
                (-w, -0.95), (w, -0.95), (w, y), (neck, y + 0.3), (neck, 0.85), (-neck, 0.85), (-neck, y + 0.3), (-w, y)
            ),
        ),
        fill(ACCENT, box(-neck - 0.03, 0.78, neck + 0.03, 0.97)),
        fill(LIGHT, box(-w, -0.6, w, -0.12), d.chance("label", 0.75)),
    ]


def umbrella(d: Draws) -> list[Part]:
    w, h, y = d.uniform("width", 0.82, 0.98), d.uniform("height", 0.6, 0.85), d.uniform("y", 0.0, 0.15)
    hook = chain(points((0.0, y)), arc(0.15, -0.75, 0.15, 0.18, 180, 360, 6))
    striped = d.chance("striped", 0.55)
    hem = [(w * x, y + v) for x, v in ((0.67, 0.1), (0.33, 0.0), (0.0, 0.1), (-0.33, 0.0), (-0.67, 0.1))]
    return [
        line(DARK, hook, 0.09),
        fill(MAIN, chain(arc(0.0, y, w, h, 0, 180, 11), points(*reversed(hem)))),
        fill(SECOND, chain(arc(0.0, y, w * 0.36, h, 0, 180, 9), points((0.0, y + 0.1))), striped),
        line(DARK, points((0.0, y + h), (0.0, y + h + 0.12)), 0.08),
    ]


def key(d: Draws) -> list[Part]:
    r, teeth = d.uniform("ring", 0.25, 0.36), d.uniform("teeth", 0.2, 0.34)
    return [
        line(MAIN, points((-0.35, 0.0), (0.95, 0.0)), 0.15),
        line(MAIN, points((0.9, 0.0), (0.9, -teeth)), 0.15),
        line(MAIN, points((0.62, 0.0), (0.62, -teeth * 0.85)), 0.13),
        line(MAIN, points((0.38, 0.0), (0.38, -teeth * 0.6)), 0.12, d.chance("third tooth", 0.4)),
        line(MAIN, oval(-0.6, 0.0, r, r, 12), 0.17, closed=True),
    ]


def hammer(d: Draws) -> list[Part]:
    w, h, claw = d.uniform("head", 0.4, 0.58), d.uniform("height", 0.16, 0.23), d.chance("claw", 0.6)
    return [
        fill(SECOND, points((-0.09, 0.6), (0.09, 0.6), (0.13, -0.98), (-0.13, -0.98))),
        fill(MAIN, box(-w, 0.62 - h, w, 0.62 + h)),
        fill(MAIN, box(-w - 0.12, 0.52 - h, -w + 0.08, 0.72 + h)),
        fill(MAIN, points((w - 0.02, 0.62 + h), (w + 0.38, 0.4), (w - 0.02, 0.62 - h)), claw),
    ]


def sword(d: Draws) -> list[Part]:
    w, guard, y = d.uniform("blade", 0.09, 0.15), d.uniform("guard", 0.28, 0.45), d.uniform("hilt", -0.55, -0.4)
    return [
        fill(MAIN, points((-w, y), (w, y), (w, 0.7), (0.0, 0.99), (-w, 0.7))),
        line(LIGHT, points((0.0, y + 0.1), (0.0, 0.7)), 0.05),
        fill(ACCENT, box(-guard, y - 0.09, guard, y + 0.07)),
        fill(SECOND, box(-0.08, -0.9, 0.08, y - 0.05)),
        fill(ACCENT, oval(0.0, -0.92, 0.12, 0.1, 8)),
    ]


def chair(d: Draws) -> list[Part]:
    seat, back, x = d.uniform("seat", -0.2, 0.0), d.uniform("back", 0.75, 0.98), d.uniform("depth", 0.4, 0.58)
    lean, cushion = d.uniform("lean", 0.0, 0.2), d.chance("cushion", 0.6)
    return [
        line(MAIN, points((-x + 0.12, seat), (-x + 0.12, -0.85)), 0.09),
        line(MAIN, points((x - 0.12, seat), (x - 0.12, -0.78)), 0.09),
        line(MAIN, points((-x - lean, back), (-x, seat), (-x, -0.95)), 0.13),
        line(MAIN, points((x, seat), (x, -0.95)), 0.13),
        fill(MAIN, box(-x - 0.05, seat - 0.08, x + 0.08, seat + 0.08)),
        fill(SECOND, box(-x + 0.05, seat + 0.08, x + 0.02, seat + 0.2), cushion),
        fill(SECOND, points((-x - lean, back), (-x + 0.17 - lean, back), (-x + 0.17, seat + 0.3), (-x, seat + 0.3))),
    ]


def bicycle(d: Draws) -> list[Part]:
    r, y, bar = d.uniform("wheel", 0.34, 0.43), d.uniform("saddle", 0.3, 0.45), d.uniform("bar", 0.42, 0.6)
    hub, crank, seat, neck = (-0.56, -0.35), (-0.05, -0.38), (-0.22, y), (0.4, y)
    return [
        line(DARK, oval(-0.56, -0.35, r, r, 14), 0.09, closed=True),
        line(DARK, oval(0.56, -0.35, r, r, 14), 0.09, closed=True),
        line(MAIN, points(hub, seat, crank, hub), 0.09),
        line(MAIN, points(seat, neck, crank), 0.09),
        line(MAIN, points((0.56, -0.35), neck, (0.36, bar + 0.1)), 0.09),
        line(DARK, points((0.2, bar + 0.16), (0.36, bar + 0.1), (0.56, bar + 0.16)), 0.09),
        line(DARK, points((-0.4, y + 0.08), (-0.06, y + 0.08)), 0.12),
    ]


def boat(d: Draws) -> list[Part]:
    deck, mast, jib = d.uniform("deck", -0.5, -0.35), d.uniform("mast", 0.8, 0.98), d.uniform("jib", 0.5, 0.75)
    return [
        line(DARK, points((0.0, deck), (0.0, mast)), 0.08),
        fill(LIGHT, points((0.08, mast - 0.05), (0.08, deck + 0.14), (jib, deck + 0.14))),
        fill(
            SECOND,
            points((-0.08, mast * 0.85), (-0.08, deck + 0.14), (-jib * 0.85, deck + 0.14)),
            d.chance("two", 0.75),
        ),
        fill(MAIN, points((-0.92, deck), (0.95, deck), (0.62, -0.92), (-0.62, -0.92))),
        fill(ACCENT, points((0.0, mast), (0.28, mast - 0.08), (0.0, mast - 0.16)), d.chance("flag", 0.4)),
    ]


def plane(d: Draws) -> list[Part]:
    w, span, sweep, tail = (
        d.uniform("body", 0.12, 0.18), d.uniform("span", 0.8, 0.98),
        d.uniform("sweep", 0.25, 0.5), d.uniform("tail", 0.3, 0.45),
    )  # fmt: skip
    return [
        *[
            fill(
                SECOND,
                points((s * w * 0.5, 0.35), (s * span, 0.2 - sweep), (s * span, 0.0 - sweep), (s * w * 0.5, -0.1)),
            )
            for s in (-1, 1)
        ],
        *[fill(SECOND, points((0.0, -0.6), (s * tail, -0.88), (s * tail, -0.98), (0.0, -0.85))) for s in (-1, 1)],
        fill(MAIN, chain(arc(0.0, 0.65, w, 0.33, 0, 180, 9), points((-w * 0.5, -0.95), (w * 0.5, -0.95)))),
        fill(LIGHT, oval(0.0, 0.68, w * 0.6, 0.1, 8)),
    ]


def rocket(d: Draws) -> list[Part]:
    w, fin, nose = d.uniform("width", 0.22, 0.32), d.uniform("fin", 0.28, 0.45), d.uniform("nose", 0.35, 0.5)
    flame = d.chance("flame", 0.65)
    return [
        fill(ACCENT, points((-w * 0.7, -0.55), (w * 0.7, -0.55), (0.0, -1.0)), flame),
        fill(SECOND, points((-w * 0.9, -0.05), (-w - fin, -0.75), (-w * 0.9, -0.55))),
        fill(SECOND, points((w * 0.9, -0.05), (w + fin, -0.75), (w * 0.9, -0.55))),
        fill(MAIN, points((-w, -0.6), (w, -0.6), (w, nose), (0.0, 0.99), (-w, nose))),
        fill(SECOND, points((-w, nose), (w, nose), (0.0, 0.99))),
        fill(LIGHT, oval(0.0, 0.12, w * 0.55, w * 0.55, 10)),
    ]


def clock(d: Draws) -> list[Part]:
    r, hour, minute = d.uniform("radius", 0.78, 0.9), d.integers("hour", 0, 11), d.integers("minute", 0, 11)
    turn = np.float32(np.pi / 6)
    hands = [(k * r * np.sin(turn * t), k * r * np.cos(turn * t)) for k, t in ((0.45, hour), (0.65, minute))]
    bells = d.chance("bells", 0.25)
    return [
        fill(SECOND, oval(-0.55, 0.72, 0.25, 0.2, 8), bells),
        fill(SECOND, oval(0.55, 0.72, 0.25, 0.2, 8), bells),
        fill(MAIN, oval(0.0, 0.0, r, r, 18)),
        fill(LIGHT, oval(0.0, 0.0, r * 0.78, r * 0.78, 18)),
        *[
            line(DARK, points((x * r * 0.6, y * r * 0.6), (x * r * 0.72, y * r * 0.72)), 0.07)
            for x, y in ((0, 1), (1, 0), (0, -1), (-1, 0))
        ],
        *[line(DARK, points((0.0, 0.0), hand), 0.1) for hand in hands],
    ]


def envelope(d: Draws) -> list[Part]:
    h, fold, seal = d.uniform("height", 0.5, 0.65), d.uniform("fold", -0.15, 0.08), d.chance("seal", 0.35)
    return [
        fill(MAIN, box(-0.92, -h, 0.92, h)),
        fill(LIGHT, points((-0.92, h), (0.92, h), (0.0, fold)), d.chance("light flap", 0.6)),
        line(DARK, points((-0.92, h), (0.0, fold), (0.92, h)), 0.07),
        line(DARK, points((-0.92, -h), (-0.2, fold + 0.1)), 0.05, d.chance("creases", 0.5)),
        line(DARK, points((0.92, -h), (0.2, fold + 0.1)), 0.05, d.chance("creases", 0.5)),
        fill(ACCENT, oval(0.0, fold, 0.15, 0.15, 9), seal),
    ]


def icecream(d: Draws) -> list[Part]:
    w, r, two = d.uniform("cone", 0.34, 0.45), d.uniform("scoop", 0.36, 0.46), d.chance("two", 0.5)
    return [
        fill(ACCENT, oval(0.0, 0.3 + r * 1.05, r * 0.85, r * 0.85, 12), two),
        fill(ACCENT, oval(0.0, 0.3 + r, 0.12, 0.12, 7), ~two),
        fill(MAIN, oval(0.0, 0.22, r, r * 0.9, 14)),
        fill(SECOND, points((-w, 0.05), (w, 0.05), (0.0, -0.98))),
        line(DARK, points((-w * 0.5, 0.02), (w * 0.35, -0.4)), 0.04),
        line(DARK, points((w * 0.5, 0.02), (-w * 0.35, -0.4)), 0.04),
    ]


def lamp(d: Draws) -> list[Part]:
    top, bottom, y = d.uniform("top", 0.2, 0.38), d.uniform("bottom", 0.52, 0.75), d.uniform("y", 0.05, 0.25)
    return [
        line(SECOND, points((0.0, y), (0.0, -0.85)), 0.12),
        fill(SECOND, oval(0.0, -0.35, 0.2, 0.3, 10), d.chance("vase", 0.35)),
        fill(SECOND, points((-0.42, -0.97), (0.42, -0.97), (0.3, -0.8), (-0.3, -0.8))),
        fill(MAIN, points((-bottom, y), (bottom, y), (top, 0.92), (-top, 0.92))),
        fill(LIGHT, box(-bottom, y, bottom, y + 0.12), d.chance("glow", 0.5)),
    ]


def glasses(d: Draws) -> list[Part]:
    r, tall, x = d.uniform("radius", 0.3, 0.38), d.uniform("tall", 0.75, 1.05), d.uniform("apart", 0.46, 0.52)
    square, shaded = d.chance("square", 0.3), d.chance("shaded", 0.35)
    arms = d.uniform("arms", 0.2, 0.4)
    left, right = oval(-x, 0.0, r, r * tall, 13), oval(x, 0.0, r, r * tall, 13)
    left_box, right_box = box(-x - r, -r * 0.8, -x + r, r * 0.8), box(x - r, -r * 0.8, x + r, r * 0.8)
    lenses = [(left, ~square), (right, ~square), (left_box, square), (right_box, square)]
    return [
        *[fill(LIGHT, lens, on & ~shaded) for lens, on in lenses],
        *[fill(DARK, lens, on & shaded) for lens, on in lenses],
        *[line(MAIN, lens, 0.11, on, closed=True) for lens, on in lenses],
        line(MAIN, points((-x + r, 0.08), (0.0, 0.16), (x - r, 0.08)), 0.1),
        line(MAIN, points((-x - r, 0.05), (-0.97, arms)), 0.1),
        line(MAIN, points((x + r, 0.05), (0.97, arms)), 0.1),
    ]


def digit(d: Draws, value: int) -> list[Part]:
    """A numeral as one or two pen strokes."""
    w, waist = d.uniform("wide", 0.38, 0.58), d.uniform("waist", -0.05, 0.2)
    slant, closed, two = d.uniform("slant", -0.1, 0.2), d.chance("closed", 0.5), False
    extra: list[Part] = []
    if value == 0:
        stroke, two = oval(0.0, 0.0, w, 0.9, 18), True
    elif value == 1:
        stroke = points((-w * 0.7, 0.45), (0.0, 0.9), (0.0, -0.9))
        extra = [line(MAIN, points((-w * 0.7, -0.9), (w * 0.7, -0.9)), 0.2, closed)]
    elif value == 2:
        stroke = chain(arc(0.0, 0.45, w, 0.45, 165, -30, 9), points((-w, -0.88), (w, -0.88)))
    elif value == 3:
        top, low = arc(-0.05, 0.48, w * 0.9, 0.42, 150, -80, 9), arc(-0.05, -0.42, w, 0.48, 80, -150, 9)
        stroke = chain(top, low)
    elif value == 4:
        stroke = points((w * 0.2, 0.9), (-w, waist - 0.3), (w, waist - 0.3))
        extra = [line(MAIN, points((w * 0.45, 0.45), (w * 0.45, -0.92)), 0.2)]
    elif value == 5:
        stroke = chain(
            points((w * 0.9, 0.88), (-w * 0.75, 0.88), (-w * 0.8, 0.12)), arc(-0.05, -0.32, w, 0.56, 120, -150, 11)
        )
    elif value == 6:
        stroke = chain(points((w * 0.6, 0.9), (-w * 0.5, 0.4)), arc(0.0, -0.4, w, 0.5, 180, 520, 13))
    elif value == 7:
        stroke = points((-w, 0.85), (w, 0.85), (-w * 0.2, -0.92))
        extra = [line(MAIN, points((-w * 0.4, 0.0), (w * 0.7, 0.0)), 0.16, d.chance("bar", 0.3))]
    elif value == 8:
        stroke, two = oval(0.0, 0.45, w * 0.85, 0.43, 14), True
        extra = [line(MAIN, oval(0.0, -0.45, w, 0.47, 14), 0.2, closed=True)]
    else:
        stroke = chain(arc(0.0, 0.42, w, 0.47, 340, 0, 13), points((w * 0.9, 0.4), (w * 0.6, -0.92)))
    parts = [line(MAIN, stroke, 0.2, closed=two), *extra]
    return [line(p.role, _slanted(p.points, slant), p.width, p.present, p.closed) for p in parts]


def _slanted(shape: np.ndarray, slant: np.ndarray) -> np.ndarray:
    return np.stack([shape[..., 0] + slant[:, None] * shape[..., 1], shape[..., 1] + 0 * slant[:, None]], axis=2)
