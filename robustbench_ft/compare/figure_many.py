"""The picture of a table with many methods: who trades what, and all of them in order. Torch-free."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import canvas
from .canvas import REST, SMALL
from .report import OOD, Table, shown_name
from .verdicts import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = ("zero-shot", "ft")  # named in the picture wherever they lie
LABEL = 0.045  # height of a label, as a share of the picture's
ROW = 0.185  # inches of a method in the list
TICKS = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.9)  # percent


def draw(table: Table, lines: Sequence[Line], name: Callable[[Line], str] = shown_name) -> "Figure":
    """ID against OOD with the frontier named, then each line with its intervals, the best mean OOD on top."""
    lines = sorted(lines, key=_ood)
    ranked = [line for line in lines if not line.row.transductive]
    best = [line for line in ranked if not any(_beats(other, line) for other in ranked)]
    tall = max(1.6, ROW * len(lines))
    figure = canvas.blank(5.2 + tall)
    parts: Any = figure.subfigures(2, 1, height_ratios=(4.4, 0.8 + tall))
    above, below = parts
    scatter = above.subplots()
    ood, identity = below.subplots(1, 2, width_ratios=(1.4, 1), sharey=True)
    what = "top-1 accuracy" if table.run_set.only_accuracy else "official metric"
    hollow = "; hollow: sees other test images" if len(ranked) < len(lines) else ""
    canvas.dress(
        scatter, f"ID {what}, % (logit scale)", f"mean OOD {what} over {len(table.run_set.shifts)} shifts, %",
        f"{table.title}\nnamed and joined: no other method is better in both; marks as in the list below, whose bars "
        f"are 95 % over seeds and examples{hollow}",
    )  # fmt: skip
    _scatter(scatter, lines, best, name)
    for axes, column, title in ((ood, OOD, "mean OOD, %"), (identity, "ID", "ID, %")):
        _forest(axes, lines, column)
        axes.set_title(title, fontsize=SMALL, loc="left")
    ood.set_yticks(range(len(lines)), [canvas.plain(name(line)) for line in lines], fontsize=SMALL)
    for label, line in zip(ood.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if line in best else "normal")
    return figure


def _ood(line: Line) -> float:
    return line.cells[OOD].estimate.value


def _identity(line: Line) -> float:
    return line.cells["ID"].estimate.value


def _beats(one: Line, other: Line) -> bool:
    """Whether `one` is at least as good in both, and better in one."""
    pairs = ((_identity(one), _identity(other)), (_ood(one), _ood(other)))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _scatter(axes: Any, lines: Sequence[Line], best: Sequence[Line], name: Callable[[Line], str]) -> None:
    """ID on a logit scale: near 100 % the errors are what tells methods apart."""
    places = {id(line): (_logit(_identity(line)), 100 * _ood(line)) for line in lines}
    for line in lines:
        front = line in best
        axes.plot(
            *places[id(line)], linestyle="", zorder=3 if front else 2, **_mark(line, 7 if front else 5.5)
        )  # fmt: skip
    xs, ys = zip(*sorted(places[id(line)] for line in best), strict=True)
    axes.plot(xs, ys, color=REST, linewidth=1)
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    last = math.inf  # height of the label above
    for line in sorted(lines, key=lambda one: -places[id(one)][1]):
        if line in best or line.row.method in NAMED:
            left = places[id(line)][0] > (low + high) / 2  # into the picture, never out of it
            crowded = last - places[id(line)][1] < (top - bottom) * LABEL
            last = places[id(line)][1] - crowded * (top - bottom) * LABEL
            axes.annotate(
                canvas.plain(name(line)), places[id(line)], textcoords="offset points",
                xytext=(-6 if left else 6, -10 if crowded else 4), ha="right" if left else "left", fontsize=SMALL,
                color=canvas.style(line.row.method)["color"],
            )  # fmt: skip
    ticks = _ticks(low, high)
    axes.set_xticks([_logit(percent / 100) for percent in ticks], [f"{percent:g}" for percent in ticks])


def _mark(line: Line, size: float) -> dict[str, Any]:
    """The look of a line's method; hollow where it sees other test images."""
    hollow = line.row.transductive
    edge = canvas.style(line.row.method)["color"] if hollow else "white"
    return {
        **canvas.style(line.row.method, size), "fillstyle": "none" if hollow else "full", "markeredgecolor": edge,
        "markeredgewidth": 1 if hollow else 0.4,
    }  # fmt: skip


def _logit(share: float) -> float:
    """log(p / (1 - p)), of a p that is not quite 0 or 1."""
    inside = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(inside / (1 - inside))


def _forest(axes: Any, lines: Sequence[Line], column: str) -> None:
    """A point with its interval for each line, from below."""
    for k, line in enumerate(lines):
        found = line.cells[column].estimate
        axes.errorbar(
            100 * found.value, k, xerr=[[100 * (found.value - found.low)], [100 * (found.high - found.value)]],
            linestyle="", capsize=1.5, linewidth=1, **_mark(line, 5.5),
        )  # fmt: skip
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(low: float, high: float) -> list[float]:
    """Percents to be written between two places of a logit axis: round ones, and every few where these are too few."""
    coarse = [percent for percent in TICKS if low <= _logit(percent / 100) <= high]
    if len(coarse) > 2:
        return coarse
    whole = [percent for percent in range(1, 100) if low <= _logit(percent / 100) <= high]
    return [*whole[:: 1 + len(whole) // 8]] or coarse
