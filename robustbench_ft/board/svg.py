"""Draw charts as inline SVG that takes fonts, colours and switches from the page.

Everything is a piece of text: equal numbers give equal bytes, whatever libraries are installed. Colours are names of
CSS variables, so one drawing serves both schemes. Parts that belong to a row carry its key and can be switched off.
Lengths are points (the width of a figure's own drawing), x to the right and y down.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustbench_ft import palette

INK, MUTED, RULE, PAPER = "ink", "muted", "rule", "paper"
SERIES = tuple(f"s{k}" for k in range(len(palette.LIGHT)))
SIZE = 9.5  # of letters
SMALL = SIZE - 0.5  # of tick labels
Point = tuple[float, float]

# outlines around (0, 0) for a marker of diameter 2
_OUTLINES: dict[str, Sequence[Point]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "up": ((0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
    "down": ((0, 1.1), (1.1, -0.9), (-1.1, -0.9)),
    "left": ((-1.1, 0), (0.9, -1.1), (0.9, 1.1)),
    "right": ((1.1, 0), (-0.9, -1.1), (-0.9, 1.1)),
    "plus": tuple(
        (a, b)
        for a, b in ((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4), (0.4, 1.1),
                     (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4))
    ),
    "star": tuple(
        (r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k in range(10) for r in ((1.3, 0.6)[k % 2],)
    ),
    "pentagon": tuple((1.1 * math.sin(k * math.tau / 5), -1.1 * math.cos(k * math.tau / 5)) for k in range(5)),
    "hexagon": tuple((1.1 * math.sin(k * math.tau / 6), -1.1 * math.cos(k * math.tau / 6)) for k in range(6)),
    "lozenge": ((0, -1.35), (0.8, 0), (0, 1.35), (-0.8, 0)),
    "triad": tuple(
        (r * math.sin(k * math.pi / 3), -r * math.cos(k * math.pi / 3)) for k in range(6) for r in ((1.3, 0.5)[k % 2],)
    ),
}  # fmt: skip
_OUTLINES["cross"] = tuple(((a - b) * 0.5**0.5, (a + b) * 0.5**0.5) for a, b in _OUTLINES["plus"])
MARKERS = (*palette.OWN, *palette.OTHERS)


@dataclass(frozen=True)
class Scale:
    """A straight map from numbers to places in a drawing."""

    low: float  # the number at `start`
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 8) -> list[float]:
        """Up to `most` multiples of 1, 2 or 5 times a power of ten inside the range."""
        least = abs(self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
        low, high = sorted((self.low, self.high))
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [round(k * step, 10) for k in range(first, last + 1)]


def around(values: Iterable[float], margin: float) -> tuple[float, float]:
    """(low, high) of these numbers with `margin` times their range on either side; of a single number, 1 around it."""
    found = list(values)
    low, high = min(found), max(found)
    more = margin * (high - low) or 1.0
    return low - more, high + more


@dataclass(frozen=True)
class Panel:
    """A frame with a scale along each side."""

    x: Scale
    y: Scale

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        return self.x.start, min(self.y.start, self.y.end), self.x.end, max(self.y.start, self.y.end)

    def grid_x(self, ticks: Iterable[float], labels: bool = True) -> list[str]:
        """Vertical rules with numbers below."""
        left, top, right, bottom = self.box
        found: list[str] = []
        for value in ticks:
            at = self.x(value)
            found.append(line([(at, top), (at, bottom)], RULE, 0.5))
            if labels:
                found += [line([(at, bottom), (at, bottom + 2.5)], RULE, 0.6)]
                found += [text(f"{value:g}", at, bottom + 4 + SMALL, MUTED, "middle", SMALL)]
        return [*found, line([(left, top), (left, bottom), (right, bottom)], RULE, 0.6)]

    def grid_y(self, ticks: Iterable[float], labels: bool = True) -> list[str]:
        """Horizontal rules with numbers at the left."""
        left, _, right, _ = self.box
        found: list[str] = []
        for value in ticks:
            at = self.y(value)
            found.append(line([(left, at), (right, at)], RULE, 0.5))
            if labels:
                found.append(text(f"{value:g}", left - 4, at + 0.35 * SMALL, MUTED, "end", SMALL))
        return found

    def names_y(self, names: Sequence[str]) -> list[str]:
        """Names at the left, at 0, 1, 2 ..."""
        left = self.box[0]
        return [text(name, left - 4, self.y(k) + 0.35 * SMALL, INK, "end", SMALL) for k, name in enumerate(names)]

    def title(self, words: str) -> str:
        """Above the frame, at its left."""
        left, top, _, _ = self.box
        return text(words, left, top - 5)

    def below(self, words: str, far: float = 26.0) -> str:
        """The name of the x axis."""
        left, _, right, bottom = self.box
        return text(words, (left + right) / 2, bottom + far, MUTED, "middle")

    def beside(self, words: str, at: float = SIZE) -> str:
        """The name of the y axis, upright at x = `at`."""
        _, top, _, bottom = self.box
        return text(words, at, (top + bottom) / 2, MUTED, "middle", turned=True)


def width_of(words: str, size: float = SIZE) -> float:
    """About how wide a text is drawn: fonts are the reader's."""
    return 0.54 * size * len(words)


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}"  # + 0.0: no '-0'


def _path(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


def line(
    points: Iterable[Point], colour: str, width: float, dashes: str = "", faint: bool = False, round_ends: bool = False
) -> str:
    """A line through points."""
    more = f";stroke-dasharray:{dashes}" if dashes else ""
    more += ";opacity:.75" if faint else ""
    more += ";stroke-linecap:round" if round_ends else ""
    return f'<path d="{_path(points)}" style="fill:none;stroke:var(--{colour});stroke-width:{_number(width)}{more}"/>'


def box(left: float, top: float, right: float, bottom: float, colour: str, hollow: bool = False) -> str:
    """A filled rectangle, or its outline on the colour of the paper."""
    fill = PAPER if hollow else colour
    corner = f'x="{_number(left)}" y="{_number(top)}"'
    size = f'width="{_number(right - left)}" height="{_number(bottom - top)}"'
    return f'<rect {corner} {size} style="fill:var(--{fill});stroke:var(--{colour});stroke-width:.9"/>'


def marker(kind: str, x: float, y: float, radius: float, colour: str, hollow: bool = False, faint: bool = False) -> str:
    """One of MARKERS at a point."""
    style = f"fill:var(--{PAPER if hollow else colour});stroke:var(--{colour});stroke-width:{_number(0.4 * radius)}"
    style += ";opacity:.8" if faint else ""
    place = f'transform="translate({_number(x)} {_number(y)})"'
    if kind == "circle":
        return f'<circle {place} r="{_number(radius)}" style="{style}"/>'
    outline = _path((radius * dx, radius * dy) for dx, dy in _OUTLINES[kind])
    return f'<path {place} d="{outline}Z" style="{style};stroke-linejoin:round"/>'


def text(
    words: str, x: float, y: float, colour: str = INK, anchor: str = "start", size: float = SIZE, turned: bool = False
) -> str:
    """Words on a line whose foot is at y."""
    place = f'x="{_number(x)}" y="{_number(y)}"'
    place += f' transform="rotate(-90 {_number(x)} {_number(y)})"' if turned else ""
    style = f"font-size:{_number(size)}px;text-anchor:{anchor};fill:var(--{colour})"
    return f'<text {place} style="{style}">{html.escape(words)}</text>'


def series(row: str, parts: Sequence[str], kind: str = "") -> str:
    """Parts that belong to a row; `kind` is a further class, for those who look for one sort of part."""
    return f'<g class="series{" " if kind else ""}{kind}" data-row="{row}">{"".join(parts)}</g>'


def drawing(width: float, height: float, name: str, title: str, parts: Sequence[str]) -> str:
    """The SVG element; `name` is unique on its page, `title` is what a screen reader says."""
    head = f'<svg viewBox="0 0 {_number(width)} {_number(height)}" role="img" aria-labelledby="{name}-t">'
    return "\n".join([f'{head}<title id="{name}-t">{html.escape(title)}</title>', *parts, "</svg>"])
