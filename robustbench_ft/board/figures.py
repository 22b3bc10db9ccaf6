"""The pictures of a board: what the tables say, for the eye. Every number in them is in a table too."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustbench_ft.claims.schema import FIXED
from robustbench_ft.stats import Estimate
from robustbench_ft.stats import lines as stats_lines
from robustbench_ft.stats.robustness import sigmoid

from . import paper, svg
from .svg import INK, MUTED, PAPER, SERIES
from .table import Board

WIDTH = 400.0  # points; shown wider or narrower, with its letters
MARKERS = "osD^vPX*<>"
MANY = 28  # labels: more would hide the points


@dataclass(frozen=True)
class Look:
    """Colour and marker of a row in every figure."""

    colour: int  # into svg.SERIES
    marker: str
    hollow: bool  # a second row of the same method


def looks(board: Board) -> dict[str, Look]:
    """Row key -> look. A method has one colour and one marker; its further rows are hollow."""
    methods = sorted({row.method for row in board.rows})
    found: dict[str, Look] = {}
    for row in sorted(board.rows, key=lambda row: (row.result.selection != FIXED, row.name)):
        k = methods.index(row.method)
        first = not any(look.colour == k % len(SERIES) for look in found.values())
        found[row.key] = Look(k % len(SERIES), MARKERS[k % len(MARKERS)], not first)
    return found


def scatter(board: Board, name: str) -> str:
    """ID against mean OOD accuracy with 95 % intervals, and the curves of families through their alphas."""
    with svg.figure(WIDTH, 300) as (drawn, axes):
        ax = axes[0, 0]
        styles, points = looks(board), list[tuple[str, str, float, float]]()
        for row in board.rows:
            look, x, y = styles[row.key], row.estimate("ID"), row.estimate("mean OOD")
            colour = SERIES[look.colour]
            if row.curve:
                xs, ys = (
                    [100 * v for v in values]
                    for values in zip(*((p.id.value, p.mean_ood.value) for p in row.curve), strict=True)
                )
                svg.mark(row.key, *ax.plot(xs, ys, "-", color=colour, linewidth=1.2, marker="o", markersize=2.2))
            bars = ax.errorbar(
                100 * x.value, 100 * y.value, _arms(y), _arms(x), fmt="none", ecolor=colour,
                elinewidth=0.9, alpha=0.75,
            )  # fmt: skip
            svg.mark(row.key, *bars[2])
            dot = ax.plot(
                100 * x.value, 100 * y.value, look.marker, color=colour, markersize=6,
                markerfacecolor=PAPER if look.hollow else colour, markeredgewidth=1.2, zorder=3,
            )  # fmt: skip
            svg.mark(row.key, *dot)
            points.append((row.key, row.name, 100 * x.value, 100 * y.value))
        what = "accuracy" if board.arena.only_accuracy else "official metric"
        ax.set_xlabel(f"ID {what}, %")
        ax.set_ylabel(f"mean OOD {what}, %")
        ax.tick_params(axis="y", labelcolor=MUTED)
        ax.grid(True)
        ax.margins(0.12)
        bends = [(100 * p.id.value, 100 * p.mean_ood.value) for row in board.rows for p in row.curve]
        _label(drawn, ax, points, bends)
        return svg.text(drawn, name, f"ID accuracy against mean OOD accuracy, {board.title}")


def shifts(board: Board, name: str) -> str:
    """Accuracy on ID and on each shift with 95 % intervals, rows in board order."""
    panels = ("ID", *board.shifts)
    across = 3
    down = -(-len(panels) // across)
    height = down * (28 + 12.5 * len(board.rows)) + 20
    with svg.figure(WIDTH, height, nrows=down, ncols=across, sharex=True, sharey=True) as (drawn, axes):
        styles = looks(board)
        for k, column in enumerate(panels):
            ax = axes[k // across, k % across]
            for place, row in enumerate(board.rows):
                found, look = row.estimate(column), styles[row.key]
                colour = SERIES[look.colour]
                bar = ax.barh(
                    place, 100 * found.value, 0.66, color=PAPER if look.hollow else colour, edgecolor=colour,
                    linewidth=0.9,
                )  # fmt: skip
                line = ax.plot(
                    [100 * found.low, 100 * found.high], [place, place], color=INK, linewidth=0.9,
                    solid_capstyle="butt",
                )  # fmt: skip
                svg.mark(row.key, *bar, *line)
            ax.set_title(board.title_of(column))
            ax.grid(True, axis="x")
            ax.set_xlim(0, min(100.0, 100 * max(row.estimate(c).high for row in board.rows for c in panels) + 2))
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        axes[0, 0].set_yticks(range(len(board.rows)), [_short(row.name) for row in board.rows])
        axes[0, 0].invert_yaxis()
        drawn.supxlabel(
            "accuracy, %" if board.arena.only_accuracy else "official metric, %", fontsize=svg.SIZE, color=MUTED
        )
        return svg.text(drawn, name, f"Accuracy on each shift, {board.title}")


def ranks(board: Board, name: str) -> str:
    """95 % rank intervals of the ranked rows; the chance of being best at the right."""
    rows = board.ranked
    with svg.figure(WIDTH, 44 + 16 * len(rows)) as (drawn, axes):
        ax = axes[0, 0]
        styles = looks(board)
        for place, row in enumerate(rows):
            if row.rank is None:
                continue
            colour = SERIES[styles[row.key].colour]
            bar = ax.plot(
                [row.rank.low - 0.28, row.rank.high + 0.28], [place, place], color=colour, linewidth=6,
                solid_capstyle="round",
            )  # fmt: skip
            told = ax.text(
                len(rows) + 1.25, place, f"{100 * row.rank.p_best:.0f} %", va="center", ha="right", color=INK
            )
            svg.mark(row.key, *bar, told)
        ax.set_yticks(range(len(rows)), [_short(row.name) for row in rows])
        ax.set_xticks(range(1, len(rows) + 1))
        ax.set_xlim(0.4, len(rows) + 1.3)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(True, axis="x")
        ax.set_xlabel("rank by mean OOD (1 is best)")
        ax.set_title("chance of being best", loc="right", color=MUTED)
        return svg.text(drawn, name, f"Rank intervals, {board.title}")


def reliability(board: Board, name: str) -> str:
    """Accuracy against confidence in 15 bins, on ID and on all shifts together; above the diagonal is too modest."""
    with svg.figure(WIDTH, 225, ncols=2, sharey=True) as (drawn, axes):
        styles = looks(board)
        for ax, title, splits in zip(axes[0], ("ID", "all shifts"), (board.columns["ID"], board.shifts), strict=True):
            ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(3, 3))
            for row in board.rows:
                look = styles[row.key]
                n, confidence, right = row.reliability(splits)
                kept = n >= max(1.0, 0.002 * n.sum())  # a bin of a few images is noise
                line = ax.plot(
                    confidence[kept], right[kept], color=SERIES[look.colour], linewidth=1.2,
                    dashes=(4, 2) if look.hollow else (None, None), marker=look.marker, markersize=2.6,
                )  # fmt: skip
                svg.mark(row.key, *line)
            ax.set_title(title)
            ax.set_xlim(0, 1)
            ax.set_ylim(0, 1)
            ax.set_aspect("equal")
            ax.grid(True)
            ax.set_xlabel("confidence")
            ax.tick_params(axis="y", labelcolor=MUTED)
        axes[0, 0].set_ylabel("accuracy")
        return svg.text(drawn, name, f"Reliability: accuracy against confidence, {board.title}")


def published(rows: Sequence[paper.Row], suite: str, shift: str, name: str) -> str:
    """Papers' rows on one shift against ID, and the line of standard models they are held against."""
    line = stats_lines.axes(suite, (shift,))[shift].lines[0]
    found = [row for row in rows if shift in row.cells]
    models = list(dict.fromkeys(row.model for row in found))
    with svg.figure(WIDTH, 260) as (drawn, axes):
        ax = axes[0, 0]
        lowest = min(row.cells["ID"].value for row in found)
        highest = max(row.cells["ID"].value for row in found)
        xs = np.linspace(min(lowest, 100 * line.line.id_range[0]) - 1, highest + 1, 80)
        logits = np.log(xs / (100 - xs))
        ys = 100 * sigmoid(line.line.intercept + line.line.slope * logits)
        inside = xs <= 100 * line.line.id_range[1]
        ax.plot(xs[inside], ys[inside], color=INK, linewidth=1)
        ax.plot(xs[~inside], ys[~inside], color=INK, linewidth=1, dashes=(2, 2))
        for k, model in enumerate(models):
            mine = [row for row in found if row.model == model]
            ax.plot(
                [row.cells["ID"].value for row in mine], [row.cells[shift].value for row in mine],
                MARKERS[k % len(MARKERS)], color=SERIES[k % len(SERIES)], markersize=4, alpha=0.8, label=model,
            )  # fmt: skip
        ax.set_xlabel("ID accuracy as printed, %")
        ax.set_ylabel(f"{shift} accuracy as printed, %")
        ax.tick_params(axis="y", labelcolor=MUTED)
        ax.grid(True)
        ax.legend(frameon=False, loc="upper left", fontsize=svg.SIZE - 0.5)
        return svg.text(
            drawn, name, f"Published rows on {shift} against ID, with the line of {line.line.n} standard models"
        )


def _arms(found: Estimate) -> list[list[float]]:
    """Lengths of an error bar below and above its point, in points of percent."""
    return [[100 * (found.value - found.low)], [100 * (found.high - found.value)]]


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _label(
    drawn: Any, ax: Any, points: Sequence[tuple[str, str, float, float]], bends: Sequence[tuple[float, float]]
) -> None:
    """Names beside their points, where they hide least: the first free place of eight, in board order."""
    if len(points) > MANY:
        return
    drawn.canvas.draw()
    to_points = 72 / drawn.dpi
    dots = [tuple(ax.transData.transform((x, y)) * to_points) for _, _, x, y in points]
    small = [tuple(ax.transData.transform(place) * to_points) for place in bends]
    frame = ax.get_window_extent().extents * to_points
    taken: list[_Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in (*dots, *small)]
    for (key, name, x, y), (px, py) in zip(points, dots, strict=True):
        text = _short(name)
        width, height = 0.54 * svg.SIZE * len(text), svg.SIZE
        boxes = [_box(px, py, width, height, *place) for place in _PLACES]
        free = min(range(len(boxes)), key=lambda k: (_cost(boxes[k], taken, frame) + _PLACES[k][2], k))
        taken.append(boxes[free])
        dx, dy, far = _PLACES[free]
        told = ax.annotate(
            text, (x, y), (far * dx, far * dy), textcoords="offset points",
            ha={1: "left", 0: "center", -1: "right"}[dx], va={1: "bottom", 0: "center", -1: "top"}[dy], color=INK,
        )  # fmt: skip
        svg.mark(key, told)


# diagonal ones first: intervals run along the axes; near ones before those a line away
_AROUND = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_PLACES = tuple((dx, dy, far) for far in (4.0, 14.0, 25.0) for dx, dy in _AROUND)
_Box = tuple[float, float, float, float]


def _box(x: float, y: float, width: float, height: float, dx: int, dy: int, far: float) -> _Box:
    left = {1: x + far, 0: x - width / 2, -1: x - far - width}[dx]
    bottom = {1: y + far, 0: y - height / 2, -1: y - far - height}[dy]
    return left, bottom, left + width, bottom + height


def _cost(box: _Box, taken: Iterable[_Box], frame: Any) -> float:
    """Area shared with what is there, and much for leaving the frame."""
    shared = sum(
        max(0.0, min(box[2], t[2]) - max(box[0], t[0])) * max(0.0, min(box[3], t[3]) - max(box[1], t[1])) for t in taken
    )
    outside = max(0.0, frame[0] - box[0]) + max(0.0, box[2] - frame[2])
    return shared + 100 * outside


FIGURES: Mapping[str, tuple[str, Any]] = {
    "scatter": ("ID against OOD", scatter),
    "shifts": ("Each shift", shifts),
    "ranks": ("Rank intervals", ranks),
    "reliability": ("Reliability", reliability),
}


def drawable(board: Board, kind: str) -> bool:
    return kind != "ranks" or len(board.ranked) > 1
