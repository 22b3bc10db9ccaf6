"""Sixteen of the objects: buildings, plants, vehicles and animals. Each function draws n random examples at once."""

from .random_draws import Draws
from .shapes import ACCENT, DARK, LIGHT, MAIN, SECOND, Part, arc, box, chain, fill, line, oval, petal, points


def house(d: Draws) -> list[Part]:
    w, top, eave = d.uniform("width", 0.55, 0.8), d.uniform("wall", -0.05, 0.2), d.uniform("eave", 0.05, 0.25)
    door, side = d.uniform("door", -0.3, 0.3), d.uniform("side", 0.3, 0.5)
    chimney = d.chance("chimney", 0.5)
    return [
        fill(DARK, box(w * 0.4, top + 0.1, w * 0.4 + 0.2, 0.9), chimney),
        fill(MAIN, box(-w, -0.85, w, top)),
        fill(SECOND, points((-w - eave, top), (w + eave, top), (d.uniform("ridge", -0.2, 0.2), 0.9))),
        fill(DARK, box(door - 0.14, -0.85, door + 0.14, -0.3)),
        fill(LIGHT, box(door + side - 0.14, -0.3, door + side + 0.14, top - 0.12), door < 0.1),
        fill(LIGHT, box(door - side - 0.14, -0.3, door - side + 0.14, top - 0.12), door > -0.1),
    ]


def tree(d: Draws) -> list[Part]:
    w, y, rx, ry = (
        d.uniform("trunk", 0.08, 0.16), d.uniform("y", 0.2, 0.35),
        d.uniform("rx", 0.5, 0.8), d.uniform("ry", 0.45, 0.62),
    )  # fmt: skip
    lobed, fruit = d.chance("lobed", 0.55), d.chance("fruit", 0.3)
    return [
        fill(SECOND, points((-w * 1.4, -0.95), (w * 1.4, -0.95), (w, y), (-w, y))),
        fill(MAIN, oval(0.0, y, rx, ry), ~lobed),
        fill(MAIN, oval(-rx * 0.55, y - 0.12, rx * 0.62, ry * 0.7), lobed),
        fill(MAIN, oval(rx * 0.55, y - 0.08, rx * 0.62, ry * 0.7), lobed),
        fill(MAIN, oval(0.0, y + ry * 0.45, rx * 0.7, ry * 0.7), lobed),
        *[
            fill(ACCENT, oval(rx * x, y + ry * v, 0.1, 0.1, 7), fruit)
            for x, v in ((-0.5, 0.1), (0.1, 0.5), (0.45, -0.2))
        ],
    ]


def pine(d: Draws) -> list[Part]:
    w, step, three = d.uniform("width", 0.45, 0.75), d.uniform("step", 0.68, 0.8), d.chance("three", 0.75)
    return [
        fill(SECOND, box(-0.11, -0.98, 0.11, -0.5)),
        fill(MAIN, points((-w, -0.62), (w, -0.62), (0.0, 0.3))),
        fill(MAIN, points((-w * step, -0.12), (w * step, -0.12), (0.0, 0.7))),
        fill(MAIN, points((-w * step**2, 0.32), (w * step**2, 0.32), (0.0, 0.98)), three),
        fill(ACCENT, oval(0.0, 0.95, 0.12, 0.12, 6), d.chance("star", 0.15)),
    ]


def car(d: Draws) -> list[Part]:
    top, wheel, deck = d.uniform("roof", 0.4, 0.6), d.uniform("wheel", 0.19, 0.26), d.uniform("deck", 0.02, 0.14)
    front, back = d.uniform("front", 0.3, 0.55), d.uniform("back", 0.4, 0.75)
    return [
        fill(MAIN, points((-back, deck), (-back + 0.2, top), (front - 0.3, top), (front, deck))),
        fill(LIGHT, points((-back + 0.1, deck), (-back + 0.24, top - 0.1), (-0.12, top - 0.1), (-0.12, deck))),
        fill(LIGHT, points((0.0, deck), (0.0, top - 0.1), (front - 0.34, top - 0.1), (front - 0.12, deck))),
        fill(MAIN, points((-0.95, -0.35), (0.95, -0.35), (0.95, deck - 0.12), (0.6, deck), (-0.9, deck))),
        fill(ACCENT, box(0.82, -0.18, 0.95, -0.04)),
        fill(DARK, oval(-0.52, -0.38, wheel, wheel, 12)),
        fill(DARK, oval(0.52, -0.38, wheel, wheel, 12)),
        fill(LIGHT, oval(-0.52, -0.38, wheel * 0.4, wheel * 0.4, 8)),
        fill(LIGHT, oval(0.52, -0.38, wheel * 0.4, wheel * 0.4, 8)),
    ]


def truck(d: Draws) -> list[Part]:
    top, cab, wheel = d.uniform("cargo", 0.45, 0.75), d.uniform("cab", 0.05, 0.35), d.uniform("wheel", 0.17, 0.23)
    split = d.uniform("split", 0.22, 0.4)
    return [
        fill(MAIN, box(-0.97, -0.42, split, top)),
        fill(SECOND, points((split + 0.06, -0.42), (0.97, -0.42), (0.97, -0.05), (0.8, cab), (split + 0.06, cab))),
        fill(LIGHT, points((0.6, -0.08), (0.88, -0.08), (0.76, cab - 0.06), (0.6, cab - 0.06))),
        fill(DARK, box(-0.97, -0.5, 0.97, -0.4)),
        fill(DARK, oval(-0.68, -0.52, wheel, wheel, 12)),
        fill(DARK, oval(-0.22, -0.52, wheel, wheel, 12), d.chance("axle", 0.5)),
        fill(DARK, oval(0.62, -0.52, wheel, wheel, 12)),
    ]


def bus(d: Draws) -> list[Part]:
    top, wheel, sill = d.uniform("roof", 0.42, 0.6), d.uniform("wheel", 0.15, 0.2), d.uniform("sill", -0.02, 0.1)
    return [
        fill(MAIN, points((-1.0, -0.45), (1.0, -0.45), (1.0, top - 0.1), (0.9, top), (-0.95, top), (-1.0, top - 0.08))),
        fill(SECOND, box(-1.0, -0.25, 1.0, -0.12), d.chance("stripe", 0.6)),
        *[fill(LIGHT, box(x, sill, x + 0.27, top - 0.12)) for x in (-0.9, -0.54, -0.18, 0.18)],
        fill(LIGHT, box(0.58, -0.35, 0.88, top - 0.12)),
        fill(DARK, oval(-0.6, -0.47, wheel, wheel, 12)),
        fill(DARK, oval(0.4, -0.47, wheel, wheel, 12)),
    ]


def fish(d: Draws) -> list[Part]:
    h, tail, fork = d.uniform("height", 0.3, 0.5), d.uniform("tail", 0.28, 0.48), d.uniform("fork", -0.85, -0.7)
    striped = d.chance("striped", 0.35)
    return [
        fill(SECOND, points((-0.4, 0.0), (-0.98, tail), (fork, 0.0), (-0.98, -tail))),
        fill(SECOND, points((-0.15, h * 0.8), (0.1, h + 0.32), (0.35, h * 0.75)), d.chance("fin", 0.75)),
        fill(SECOND, points((-0.1, -h * 0.8), (-0.05, -h - 0.22), (0.22, -h * 0.8)), d.chance("belly", 0.5)),
        fill(MAIN, oval(0.2, 0.0, 0.75, h)),
        fill(ACCENT, box(-0.15, -h * 0.75, -0.03, h * 0.75), striped),
        fill(ACCENT, box(0.14, -h * 0.85, 0.26, h * 0.85), striped),
        fill(LIGHT, oval(0.62, h * 0.25, 0.13, 0.13, 9)),
        fill(DARK, oval(0.65, h * 0.25, 0.06, 0.06, 6)),
        line(DARK, points((0.88, -h * 0.3), (0.68, -h * 0.28)), 0.05),
    ]


def bird(d: Draws) -> list[Part]:
    fat, head, tail = d.uniform("fat", 0.27, 0.4), d.uniform("head", 0.2, 0.28), d.uniform("tail", -0.1, 0.3)
    beak = d.uniform("beak", 0.2, 0.34)
    return [
        line(DARK, points((-0.1, -0.3), (-0.12, -0.85), (0.06, -0.85)), 0.07),
        line(DARK, points((0.15, -0.3), (0.18, -0.85), (0.36, -0.85)), 0.07),
        fill(SECOND, points((-0.3, 0.1), (-0.98, tail + 0.12), (-0.92, tail - 0.18), (-0.3, -0.2))),
        fill(MAIN, oval(0.0, -0.1, 0.55, fat)),
        fill(ACCENT, points((0.5 + head * 0.7, 0.48), (0.5 + head + beak, 0.36), (0.5 + head * 0.7, 0.26))),
        fill(MAIN, oval(0.5, 0.36, head, head, 12)),
        fill(SECOND, points((-0.45, 0.18), (0.25, 0.05), (0.05, -0.25), (-0.25, -0.22))),
        fill(DARK, oval(0.56, 0.42, 0.07, 0.07, 6)),
    ]


def cat(d: Draws) -> list[Part]:
    w, h, ear = d.uniform("width", 0.58, 0.75), d.uniform("height", 0.5, 0.62), d.uniform("ear", 0.75, 0.98)
    eye, up = d.uniform("eye", 0.1, 0.15), d.chance("whiskers up", 0.5) * 0.12
    return [
        fill(MAIN, points((-w * 0.98, 0.0), (-w * 0.8, ear), (-0.08, 0.35))),
        fill(MAIN, points((w * 0.98, 0.0), (w * 0.8, ear), (0.08, 0.35))),
        fill(ACCENT, points((-w * 0.8, 0.2), (-w * 0.72, ear - 0.25), (-0.3, 0.32))),
        fill(ACCENT, points((w * 0.8, 0.2), (w * 0.72, ear - 0.25), (0.3, 0.32))),
        fill(MAIN, oval(0.0, -0.15, w, h)),
        fill(LIGHT, oval(-w * 0.42, 0.0, eye, eye, 10)),
        fill(LIGHT, oval(w * 0.42, 0.0, eye, eye, 10)),
        fill(DARK, oval(-w * 0.42, 0.0, 0.06, eye * 0.9, 6)),
        fill(DARK, oval(w * 0.42, 0.0, 0.06, eye * 0.9, 6)),
        fill(ACCENT, points((-0.1, -0.2), (0.1, -0.2), (0.0, -0.32))),
        *[
            line(DARK, points((0.2 * s, -0.32 + v), (0.95 * s, -0.4 + 2 * v + up)), 0.05)
            for s in (-1, 1)
            for v in (-0.1, 0.05)
        ],
    ]


def rabbit(d: Draws) -> list[Part]:
    w, ear, lean, thick = (
        d.uniform("width", 0.42, 0.55),
        d.uniform("ear", 0.8, 1.0),
        20.0,
        d.uniform("thick", 0.14, 0.2),
    )
    floppy = d.chance("floppy", 0.25)
    return [
        fill(MAIN, petal(-0.18, 0.0, ear, thick, 90 + lean * 0.6)),
        fill(MAIN, petal(0.18, 0.0, ear, thick, 90 - lean * 0.6), ~floppy),
        fill(MAIN, petal(0.2, 0.05, ear * 0.9, thick, 35), floppy),
        fill(ACCENT, petal(-0.22, 0.15, ear * 0.72, thick * 0.5, 90 + lean * 0.6)),
        fill(ACCENT, petal(0.22, 0.15, ear * 0.72, thick * 0.5, 90 - lean * 0.6), ~floppy),
        fill(MAIN, oval(0.0, -0.4, w, d.uniform("height", 0.42, 0.52))),
        fill(DARK, oval(-w * 0.42, -0.28, 0.08, 0.1, 7)),
        fill(DARK, oval(w * 0.42, -0.28, 0.08, 0.1, 7)),
        fill(ACCENT, points((-0.11, -0.46), (0.11, -0.46), (0.0, -0.58))),
        fill(LIGHT, box(-0.09, -0.82, 0.09, -0.62)),
    ]


def flower(d: Draws) -> list[Part]:
    size, width, y = d.uniform("size", 0.48, 0.62), d.uniform("petal", 0.13, 0.19), d.uniform("y", 0.3, 0.42)
    six, leaf = d.chance("six", 0.5), d.chance("leaf", 0.8)
    return [
        line(SECOND, points((0.0, y), (d.uniform("bend", -0.12, 0.12), -0.4), (0.0, -0.98)), 0.1),
        fill(SECOND, petal(0.0, -0.75, 0.55, 0.13, 35), leaf),
        fill(SECOND, petal(0.0, -0.65, 0.5, 0.12, 145), d.chance("second leaf", 0.5)),
        *[fill(MAIN, petal(0.0, y, size, width, 60 * i + 30), six) for i in range(6)],
        *[fill(MAIN, petal(0.0, y, size, width * 1.2, 72 * i + 18), ~six) for i in range(5)],
        fill(ACCENT, oval(0.0, y, size * 0.32, size * 0.32, 10)),
    ]


def mushroom(d: Draws) -> list[Part]:
    w, h, stem, y = (
        d.uniform("width", 0.65, 0.92), d.uniform("height", 0.6, 0.85),
        d.uniform("stem", 0.16, 0.28), d.uniform("y", -0.1, 0.15),
    )  # fmt: skip
    dots = d.chance("dots", 0.75)
    return [
        fill(LIGHT, points((-stem, y), (stem, y), (stem * 1.3, -0.9), (-stem * 1.3, -0.9))),
        fill(MAIN, arc(0.0, y, w, h, 0, 180, 13)),
        *[
            fill(LIGHT, oval(w * x, y + h * v, r, r, 8), dots)
            for x, v, r in ((-0.5, 0.35, 0.1), (0.05, 0.62, 0.13), (0.5, 0.3, 0.11))
        ],
        fill(SECOND, oval(0.0, y, w * 0.95, 0.07, 12), d.chance("gills", 0.5)),
    ]


def apple(d: Draws) -> list[Part]:
    w, h, bite = d.uniform("width", 0.62, 0.78), d.uniform("height", 0.6, 0.72), d.chance("shine", 0.6)
    right = chain(points((0.0, 0.35)), arc(w * 0.5, -0.1, w * 0.55, h, 80, -80, 9), points((0.0, -0.7)))
    left = chain(points((0.0, -0.7)), arc(-w * 0.5, -0.1, w * 0.55, h, 260, 100, 9))
    return [
        fill(MAIN, chain(right, left)),
        line(DARK, points((0.0, 0.3), (0.04, 0.6), (d.uniform("stalk", 0.0, 0.2), 0.85)), 0.1),
        fill(SECOND, petal(0.08, 0.6, d.uniform("leaf", 0.4, 0.6), 0.14, 22), d.chance("has leaf", 0.85)),
        fill(LIGHT, oval(-w * 0.5, 0.15, 0.1, 0.16, 8), bite),
    ]


def cactus(d: Draws) -> list[Part]:
    w, top, left, right = (
        d.uniform("width", 0.15, 0.22), d.uniform("top", 0.7, 0.92),
        d.uniform("left", -0.15, 0.2), d.uniform("right", -0.3, 0.1),
    )  # fmt: skip
    pot = d.chance("pot", 0.5)
    return [
        line(MAIN, points((0.0, left - 0.1), (-0.55, left - 0.1), (-0.55, left + 0.45)), 0.24),
        line(
            MAIN,
            points((0.0, right - 0.1), (0.55, right - 0.1), (0.55, right + 0.5)),
            0.24,
            d.chance("right arm", 0.85),
        ),
        fill(MAIN, chain(points((-w, -0.9), (w, -0.9)), arc(0.0, top - w, w, w, 0, 180, 7))),
        *[line(LIGHT, points((x, v), (x, v + 0.16)), 0.05) for x, v in ((0.0, -0.2), (0.08, 0.2), (-0.07, 0.5))],
        fill(SECOND, points((-0.42, -0.5), (0.42, -0.5), (0.32, -0.98), (-0.32, -0.98)), pot),
    ]


def butterfly(d: Draws) -> list[Part]:
    up, down, wide = d.uniform("up", 0.8, 1.05), d.uniform("down", 0.6, 0.8), d.uniform("wide", 0.24, 0.34)
    spots = d.chance("spots", 0.6)
    return [
        fill(SECOND, petal(-0.05, 0.0, down, wide * 0.85, 220)),
        fill(SECOND, petal(0.05, 0.0, down, wide * 0.85, 320)),
        fill(MAIN, petal(-0.05, 0.05, up, wide, 145)),
        fill(MAIN, petal(0.05, 0.05, up, wide, 35)),
        fill(ACCENT, oval(-up * 0.55, 0.42, 0.13, 0.13, 8), spots),
        fill(ACCENT, oval(up * 0.55, 0.42, 0.13, 0.13, 8), spots),
        line(DARK, points((0.0, 0.4), (-0.22, 0.85)), 0.05),
        line(DARK, points((0.0, 0.4), (0.22, 0.85)), 0.05),
        fill(DARK, oval(0.0, 0.0, 0.09, 0.5, 10)),
    ]


def snowman(d: Draws) -> list[Part]:
    big, mid, head = d.uniform("big", 0.42, 0.52), d.uniform("mid", 0.3, 0.38), d.uniform("head", 0.22, 0.27)
    three, hat = d.chance("three", 0.65), d.chance("hat", 0.8)
    y_mid, y_head = big * 2 - 0.98 + mid * 0.7, big * 2 - 0.98 + three * mid * 1.5 + head * 0.75
    return [
        line(DARK, points((-0.2, y_mid), (-0.85, y_mid + 0.25)), 0.06, d.chance("arms", 0.75)),
        line(DARK, points((0.2, y_mid), (0.85, y_mid + 0.25)), 0.06, d.chance("arms", 0.75)),
        fill(MAIN, oval(0.0, -0.98 + big, big, big)),
        fill(MAIN, oval(0.0, y_mid, mid, mid), three),
        fill(MAIN, oval(0.0, y_head, head, head, 12)),
        fill(DARK, box(-0.3, y_head + head * 0.7, 0.3, y_head + head * 0.7 + 0.08), hat),
        fill(DARK, box(-0.18, y_head + head * 0.7, 0.18, y_head + head * 0.7 + 0.3), hat),
        fill(ACCENT, points((0.0, y_head + 0.04), (0.3, y_head - 0.03), (0.0, y_head - 0.08))),
        fill(SECOND, box(-head, y_head - head - 0.02, head, y_head - head * 0.7), d.chance("scarf", 0.6)),
        *[fill(DARK, oval(0.0, -0.98 + big + v, 0.06, 0.06, 6)) for v in (-0.1, 0.15)],
    ]
