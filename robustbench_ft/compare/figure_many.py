"""The picture of a table with many methods: who trades what, and all of them in order. Torch-free."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .report import OOD, Table, shown_name
from .verdicts import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = ("zero-shot", "ft")  # named in the picture wherever they lie
FRONT, REST = "C0", "0.55"
LABEL = 0.015  # height of a label, as a share of the picture's
TICKS = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.9)  # percent


def draw(table: Table, lines: Sequence[Line], name: Callable[[Line], str] = shown_name) -> "Figure":
    """ID against OOD with the frontier named, then each line with its intervals, the best mean OOD on top."""
    from matplotlib.figure import Figure

    lines = sorted(lines, key=_ood)
    ranked = [line for line in lines if not line.row.transductive]
    best = [line for line in ranked if not any(_beats(other, line) for other in ranked)]
    figure = Figure(figsize=(12, max(5.0, 1.2 + 0.165 * len(lines))), dpi=150, layout="constrained")
    scatter, ood, identity = figure.subplots(1, 3, width_ratios=(1.5, 1, 0.7))
    what = "top-1 accuracy" if table.run_set.only_accuracy else "official metric"
    _scatter(scatter, lines, best, name)
    hollow = "; hollow: sees other test images" if len(ranked) < len(lines) else ""
    scatter.set_title(f"{table.title}\nblue: no other method is better in both{hollow}", fontsize=8.5)
    scatter.set_xlabel(f"ID {what}, % (logit scale)")
    scatter.set_ylabel(f"mean OOD {what} over {len(table.run_set.shifts)} shifts, %")
    bars = "95 % over seeds and examples"
    for axes, column, title in (
        (ood, OOD, f"mean OOD {what}, %\nbars: {bars}"),
        (identity, "ID", "ID, %\nbars as left"),
    ):
        _forest(axes, lines, column, best)
        axes.set_title(title, fontsize=8.5)
    ood.set_yticks(range(len(lines)), [name(line) for line in lines], fontsize=7)
    identity.set_yticks(range(len(lines)), [""] * len(lines))
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
            *places[id(line)], "o", color=FRONT if front else REST, markersize=6 if front else 4,
            fillstyle="none" if line.row.transductive else "full", zorder=3 if front else 2,
        )  # fmt: skip
    xs, ys = zip(*sorted(places[id(line)] for line in best), strict=True)
    axes.plot(xs, ys, color=FRONT, linewidth=1)
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    last = math.inf  # height of the label above
    for line in sorted(lines, key=lambda one: -places[id(one)][1]):
        if line in best or line.row.method in NAMED:
            left = places[id(line)][0] > (low + high) / 2  # into the picture, never out of it
            crowded = last - places[id(line)][1] < (top - bottom) * LABEL
            last = places[id(line)][1] - crowded * (top - bottom) * LABEL
            axes.annotate(
                name(line), places[id(line)], textcoords="offset points",
                xytext=(-5 if left else 5, -10 if crowded else 4), ha="right" if left else "left", fontsize=7,
            )  # fmt: skip
    ticks = _ticks(low, high)
    axes.set_xticks([_logit(percent / 100) for percent in ticks], [f"{percent:g}" for percent in ticks])
    axes.grid(alpha=0.25)


def _logit(share: float) -> float:
    """log(p / (1 - p)), of a p that is not quite 0 or 1."""
    inside = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(inside / (1 - inside))


def _forest(axes: Any, lines: Sequence[Line], column: str, best: Sequence[Line]) -> None:
    """A point with its interval for each line, from below."""
    for k, line in enumerate(lines):
        found = line.cells[column].estimate
        axes.errorbar(
            100 * found.value, k, xerr=[[100 * (found.value - found.low)], [100 * (found.high - found.value)]],
            fmt="o", color=FRONT if line in best else REST, markersize=4, capsize=1.5, linewidth=1,
            fillstyle="none" if line.row.transductive else "full",
        )  # fmt: skip
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.grid(alpha=0.25)


def _ticks(low: float, high: float) -> list[float]:
    """Percents to be written between two places of a logit axis: round ones, and every few where these are too few."""
    coarse = [percent for percent in TICKS if low <= _logit(percent / 100) <= high]
    if len(coarse) > 2:
        return coarse
    whole = [percent for percent in range(1, 100) if low <= _logit(percent / 100) <= high]
    return [*whole[:: 1 + len(whole) // 8]] or coarse
