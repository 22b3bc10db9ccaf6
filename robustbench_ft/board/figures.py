"""The pictures of a board: what the tables say, for the eye. Every number in them is in a table too."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robustbench_ft import palette
from robustbench_ft.claims.schema import FIXED
from robustbench_ft.stats import lines as stats_lines
from robustbench_ft.stats.robustness import sigmoid

from . import paper, svg
from .svg import INK, MARKERS, MUTED, SERIES, Panel, Scale
from .table import Board, Row

WIDTH = 400.0  # points; shown wider or narrower, with its letters
DASHES = "3 2.4"  # of the reference
MANY = 28  # labels: more would hide the points


@dataclass(frozen=True)
class Look:
    """Colour and marker of a row in every figure."""

    colour: int  # into svg.SERIES
    marker: str
    hollow: bool  # a second row of the same method


def looks(board: Board) -> dict[str, Look]:
    """Row key -> look. A method has one colour and one marker; its further rows are hollow."""
    found: dict[str, Look] = {}
    seen = set[str]()
    for row in sorted(board.rows, key=lambda row: (row.result.selection != FIXED, row.name)):
        own = palette.look(row.method)
        found[row.key] = Look(own.colour, own.mark, row.method in seen)
        seen.add(row.method)
    return found


def scatter(board: Board, name: str) -> str:
    """ID against mean OOD accuracy with 95 % intervals, and the curves of families through their alphas."""
    styles = looks(board)
    points = {row.key: (100 * row.estimate("ID").value, 100 * row.estimate("mean OOD").value) for row in board.rows}
    curves = {row.key: [(100 * p.id.value, 100 * p.mean_ood.value) for p in row.curve] for row in board.rows}
    bends = [point for curve in curves.values() for point in curve]
    frame = (37.0, 4.0, WIDTH - 4, 268.0)
    panel = _panel(frame, _ends(board, "ID", [x for x, _ in bends]), _ends(board, "mean OOD", [y for _, y in bends]))
    parts = [*panel.grid_x(panel.x.ticks()), *panel.grid_y(panel.y.ticks())]
    for row in (row for row in board.rows if row.reference):
        level = panel.y(points[row.key][1])
        parts.append(
            svg.series(row.key, [svg.line([(frame[0], level), (frame[2], level)], MUTED, 0.9, DASHES)], "level")
        )
    for row in board.rows:
        colour, curve = SERIES[styles[row.key].colour], [(panel.x(x), panel.y(y)) for x, y in curves[row.key]]
        if curve:
            dots = [svg.marker("circle", x, y, 1.2, colour) for x, y in curve]
            parts.append(svg.series(row.key, [svg.line(curve, colour, 1.2), *dots], "curve"))
        parts.append(svg.series(row.key, _crossed(panel, points[row.key], row, colour), "intervals"))
    for row in board.rows:  # above all lines
        look, (x, y) = styles[row.key], points[row.key]
        dot = svg.marker(look.marker, panel.x(x), panel.y(y), 3, SERIES[look.colour], look.hollow)
        parts.append(svg.series(row.key, [dot], "mark"))
    parts += _labels(panel, [(row.key, row.name, *points[row.key]) for row in board.rows], bends)
    what = "accuracy" if board.run_set.only_accuracy else "official metric"
    parts += [panel.below(f"ID {what}, %"), panel.beside(f"mean OOD {what}, %")]
    return svg.drawing(WIDTH, 300, name, f"ID accuracy against mean OOD accuracy, {board.title}", parts)


def _panel(frame: tuple[float, float, float, float], x: tuple[float, float], y: tuple[float, float]) -> Panel:
    left, top, right, bottom = frame
    return Panel(Scale(*x, left, right), Scale(*y, bottom, top))


def _ends(board: Board, column: str, more: Sequence[float]) -> tuple[float, float]:
    """The range of a column's intervals and of further numbers, in percent, with a margin."""
    found = [row.estimate(column) for row in board.rows]
    return svg.around([100 * end for e in found for end in (e.low, e.high, e.value)] + list(more), 0.12)


def _crossed(panel: Panel, point: svg.Point, row: Row, colour: str) -> list[str]:
    """The intervals of a row on both axes."""
    (x, y), identity, ood = point, row.estimate("ID"), row.estimate("mean OOD")
    across = [(panel.x(100 * end), panel.y(y)) for end in (identity.low, identity.high)]
    along = [(panel.x(x), panel.y(100 * end)) for end in (ood.low, ood.high)]
    return [svg.line(ends, colour, 0.9, faint=True) for ends in (across, along)]


def shifts(board: Board, name: str) -> str:
    """Accuracy on ID and on each shift with 95 % intervals, rows in board order; the reference is a dashed line."""
    columns, across = ("ID", *board.shifts), 3
    levels = [row for row in board.rows if row.reference]
    rows = [row for row in board.rows if not row.reference] or levels
    names = [_short(row.name) for row in rows]
    left = 8 + max(svg.width_of(words, svg.SMALL) for words in names)
    step, tall = (WIDTH + 8 - left) / across, 12.5 * len(rows)
    most = min(100.0, 100 * max(row.estimate(column).high for row in board.rows for column in columns) + 2)
    down = -(-len(columns) // across)
    parts: list[str] = []
    for k, column in enumerate(columns):
        top, x = 16 + (k // across) * (tall + 22), left + (k % across) * step
        panel = _panel((x, top, x + step - 16, top + tall), (0.0, most), (len(rows) - 0.5, -0.5))
        lowest = k + across >= len(columns)
        parts += [*panel.grid_x(panel.x.ticks(3), lowest), panel.title(board.title_of(column))]
        parts += panel.names_y(names) if k % across == 0 else []
        parts += [_bar(panel, place, row, column, looks(board)[row.key]) for place, row in enumerate(rows)]
        for row in levels:
            at = panel.x(100 * row.estimate(column).value)
            parts.append(svg.series(row.key, [svg.line([(at, top), (at, top + tall)], INK, 0.9, DASHES)], "level"))
    height = 16 + down * (tall + 22) + 8
    what = "accuracy, %" if board.run_set.only_accuracy else "official metric, %"
    parts.append(svg.text(what, (left + WIDTH) / 2, height - 4, MUTED, "middle"))
    return svg.drawing(WIDTH, height, name, f"Accuracy on each shift, {board.title}", parts)


def _bar(panel: Panel, place: int, row: Row, column: str, look: Look) -> str:
    found, middle = row.estimate(column), panel.y(place)
    half = 0.33 * abs(panel.y(1) - panel.y(0))
    corners = panel.x(0), middle - half, panel.x(100 * found.value), middle + half
    bar = svg.box(*corners, SERIES[look.colour], look.hollow)
    ends = [(panel.x(100 * end), middle) for end in (found.low, found.high)]
    return svg.series(row.key, [bar, svg.line(ends, INK, 0.9)], "bar")


def ranks(board: Board, name: str) -> str:
    """95 % rank intervals of the fine-tuned rows, best mean OOD first; the chance of being best at the right."""
    rows, styles = board.placed, looks(board)
    names, height = [_short(row.name) for row in rows], 44.0 + 16 * len(rows)
    left = 8 + max(svg.width_of(words, svg.SMALL) for words in names)
    panel = _panel((left, 16.0, WIDTH - 4, height - 32), (0.4, len(rows) + 1.3), (len(rows) - 0.4, -0.6))
    parts = [*panel.grid_x(range(1, len(rows) + 1)), *panel.names_y(names)]
    for place, row in enumerate(rows):
        if row.rank is None:
            continue
        ends = [(panel.x(end), panel.y(place)) for end in (row.rank.low - 0.2, row.rank.high + 0.2)]
        bar = svg.line(ends, SERIES[styles[row.key].colour], 6, round_ends=True)
        chance = f"{100 * row.rank.p_best:.0f} %"
        told = svg.text(chance, panel.x(len(rows) + 1.25), panel.y(place) + 0.35 * svg.SIZE, INK, "end")
        parts.append(svg.series(row.key, [bar, told], "rank"))
    parts.append(svg.text("chance of being best", WIDTH - 4, 11, MUTED, "end"))
    parts.append(panel.below("rank by mean OOD (1 is best)"))
    return svg.drawing(WIDTH, height, name, f"Rank intervals, {board.title}", parts)


def reliability(board: Board, name: str) -> str:
    """Accuracy against confidence in 15 bins, on ID and on all shifts together; above the diagonal is too modest."""
    styles, side, ticks = looks(board), 165.0, [k / 5 for k in range(6)]
    parts: list[str] = []
    for k, (title, splits) in enumerate({"ID": board.columns["ID"], "all shifts": board.shifts}.items()):
        left = 37 + k * (side + 24)
        panel = _panel((left, 18.0, left + side, 18 + side), (0.0, 1.0), (0.0, 1.0))
        parts += [*panel.grid_x(ticks), *panel.grid_y(ticks, labels=k == 0), panel.title(title)]
        parts.append(svg.line([(panel.x(0), panel.y(0)), (panel.x(1), panel.y(1))], MUTED, 0.8, "2.4 2.4"))
        for row in board.rows:
            n, confidence, right = row.reliability(splits)
            kept = n >= max(1.0, 0.002 * n.sum())  # a bin of a few images is noise
            bins = zip(confidence[kept].tolist(), right[kept].tolist(), strict=True)
            points = [(panel.x(x), panel.y(y)) for x, y in bins]
            look = styles[row.key]
            dots = [svg.marker(look.marker, x, y, 1.3, SERIES[look.colour]) for x, y in points]
            curve = svg.line(points, SERIES[look.colour], 1.2, "4.8 2.4" if look.hollow else "")
            parts.append(svg.series(row.key, [curve, *dots], "reliability"))
        parts.append(panel.below("confidence"))
        parts += [panel.beside("accuracy")] if k == 0 else []
    return svg.drawing(WIDTH, 18 + side + 32, name, f"Reliability: accuracy against confidence, {board.title}", parts)


def published(rows: Sequence[paper.Row], suite: str, shift: str, name: str) -> str:
    """Papers' rows on one shift against ID, and the line of standard models they are held against."""
    line = stats_lines.axes(suite, (shift,))[shift].lines[0]
    points: dict[str, list[svg.Point]] = {}
    for row in rows:
        if shift in row.cells:
            points.setdefault(row.model, []).append((row.cells["ID"].value, row.cells[shift].value))
    xs = [x for found in points.values() for x, _ in found]
    seen, most = (100 * end for end in line.line.id_range)
    ends = np.linspace(min(*xs, seen) - 1, max(xs) + 1, 80)
    fitted = 100 * sigmoid(line.line.intercept + line.line.slope * np.log(ends / (100 - ends)))
    curve = list(zip(ends.tolist(), fitted.tolist(), strict=True))
    ys = [y for found in points.values() for _, y in found] + [y for _, y in curve]
    panel = _panel((37.0, 4.0, WIDTH - 4, 228.0), svg.around([x for x, _ in curve], 0.05), svg.around(ys, 0.05))
    parts = [*panel.grid_x(panel.x.ticks()), *panel.grid_y(panel.y.ticks())]
    for inside, dashes in ((True, ""), (False, "2 2")):
        part = [(panel.x(x), panel.y(y)) for x, y in curve if (x <= most) == inside]
        parts += [svg.line(part, INK, 1, dashes)] if part else []
    for k, (model, found) in enumerate(points.items()):
        kind, colour = MARKERS[k % len(MARKERS)], SERIES[k % len(SERIES)]
        parts += [svg.marker(kind, panel.x(x), panel.y(y), 2, colour, faint=True) for x, y in found]
        parts += [svg.marker(kind, 48, 14 + 12.5 * k, 2.2, colour, faint=True)]
        parts += [svg.text(model, 58, 17 + 12.5 * k, size=svg.SMALL)]
    parts += [panel.below("ID accuracy as printed, %"), panel.beside(f"{shift} accuracy as printed, %")]
    title = f"Published rows on {shift} against ID, with the line of {line.line.n} standard models"
    return svg.drawing(WIDTH, 260, name, title, parts)


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _labels(panel: Panel, points: Sequence[tuple[str, str, float, float]], bends: Sequence[svg.Point]) -> list[str]:
    """Names beside their points, where they hide least: the first free place of eight, in board order."""
    if len(points) > MANY:
        return []
    dots = [(panel.x(x), panel.y(y)) for _, _, x, y in points]
    small = [(panel.x(x), panel.y(y)) for x, y in bends]
    taken: list[_Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in (*dots, *small)]
    found: list[str] = []
    for (key, name, _, _), (px, py) in zip(points, dots, strict=True):
        text = _short(name)
        boxes = [_box(px, py, svg.width_of(text), svg.SIZE, *place) for place in _PLACES]
        free = min(range(len(boxes)), key=lambda k: (_cost(boxes[k], taken, panel.box) + _PLACES[k][2], k))
        taken.append(boxes[free])
        dx, dy, far = _PLACES[free]
        foot = py - dy * far + {1: 0.0, 0: 0.35, -1: 0.75}[dy] * svg.SIZE
        anchor = {1: "start", 0: "middle", -1: "end"}[dx]
        found.append(svg.series(key, [svg.text(text, px + far * dx, foot, anchor=anchor)], "label"))
    return found


# diagonal ones first: intervals run along the axes; near ones before those a line away; up is 1
_AROUND = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_PLACES = tuple((dx, dy, far) for far in (4.0, 14.0, 25.0) for dx, dy in _AROUND)
_Box = tuple[float, float, float, float]


def _box(x: float, y: float, width: float, height: float, dx: int, dy: int, far: float) -> _Box:
    left = {1: x + far, 0: x - width / 2, -1: x - far - width}[dx]
    top = {1: y - far - height, 0: y - height / 2, -1: y + far}[dy]
    return left, top, left + width, top + height


def _cost(box: _Box, taken: Iterable[_Box], frame: _Box) -> float:
    """Area shared with what is there, and much for leaving the frame."""
    shared = sum(
        max(0.0, min(box[2], t[2]) - max(box[0], t[0])) * max(0.0, min(box[3], t[3]) - max(box[1], t[1])) for t in taken
    )
    outside = max(0.0, frame[0] - box[0]) + max(0.0, box[2] - frame[2])
    outside += max(0.0, frame[1] - box[1]) + max(0.0, box[3] - frame[3])
    return shared + 100 * outside


FIGURES: Mapping[str, tuple[str, Callable[[Board, str], str]]] = {
    "scatter": ("ID against OOD", scatter),
    "shifts": ("Each shift", shifts),
    "ranks": ("Rank intervals", ranks),
    "reliability": ("Reliability", reliability),
}


def drawable(board: Board, kind: str) -> bool:
    return kind != "ranks" or len(board.placed) > 1
