"""The picture of a table: ID accuracy against mean OOD accuracy. Torch-free."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import canvas, figure_many
from .canvas import plain, save
from .report import OOD, Table
from .verdicts import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY = 12  # methods whose names one legend can hold


def scatter(table: Table, path: Path) -> None:
    """Write the picture of a table as PNG."""
    save(draw(table), path)


def draw(table: Table) -> "Figure":
    """Rows as points with 95 % intervals, families as lines through their alphas, settings of one method joined.

    More than `MANY` methods get a picture of another kind, with their headlines only.
    """
    points = _points(table)
    methods = list(dict.fromkeys(line.row.method for line in points))
    if len(methods) > MANY:
        return figure_many.draw(table, [line for line in points if line.row.headline])
    groups = [[line for line in points if line.row.method == method] for method in methods]
    key = _key([line for lines in groups if _crowded(table, lines) for line in lines])
    figure = canvas.blank(4.6 + 0.22 * len(methods) / 3)
    axes: Any = figure.subplots()
    axes.margins(0.09)
    for lines in groups:
        _draw(axes, table, lines)
    for lines in groups:
        if _crowded(table, lines):
            _name(axes, lines, key)
    what = "top-1 accuracy" if table.run_set.only_accuracy else "official metric"
    marks = ["bars: 95 % intervals over seeds and examples"]
    marks += ["lines through dots: weight interpolation"] * bool(table.curves)
    marks += [f"dashed: settings of a method{f', by {key}' if key else ''}"] * any(_crowded(table, g) for g in groups)
    canvas.dress(
        axes, f"ID {what}, %", f"mean OOD {what} over {len(table.run_set.shifts)} shifts, %",
        f"{table.title}\n{'; '.join(marks)}",
    )  # fmt: skip
    canvas.legend(figure, axes)
    return figure


def _crowded(table: Table, lines: Sequence[Line]) -> bool:
    """Whether a method has several settings that are no points of one curve."""
    return len(lines) > 1 and not any(line.row.name in table.curves for line in lines)


def _key(lines: Sequence[Line]) -> str:
    """The one setting in which all these rows differ; '' where there are several."""
    keys = {part.partition("=")[0].strip() for line in lines for part in line.row.setting.split(",") if part}
    return keys.pop() if len(keys) == 1 else ""


def _draw(plot: Any, table: Table, lines: list[Line]) -> None:
    """One method: its curve, its settings joined, and its points with their intervals."""
    look, crowded = canvas.style(lines[0].row.method, 7), _crowded(table, lines)
    colour = look["color"]
    for curve in (table.curves[line.row.name] for line in lines if line.row.name in table.curves):
        _, xs, ys = zip(*curve, strict=True)
        plot.plot(_percent(xs), _percent(ys), "-", marker=".", markersize=4, linewidth=1, color=colour, alpha=0.6)
    if crowded:
        xs, ys = ([line.cells[name].estimate.value for line in lines] for name in ("ID", OOD))
        plot.plot(_percent(xs), _percent(ys), "--", color=colour, linewidth=1)
    for j, line in enumerate(lines):
        x, y = line.cells["ID"].estimate, line.cells[OOD].estimate
        place = (100 * x.value, 100 * y.value)
        bars = plot.errorbar(
            *place, xerr=_arms(x.low, x.value, x.high), yerr=_arms(y.low, y.value, y.high), linestyle="", **look,
            markeredgecolor="white", markeredgewidth=0.6, capsize=2, linewidth=1,
            label=plain(line.row.method) if j == 0 else None, zorder=3,
        )  # fmt: skip
        for part in bars.lines[2]:
            part.set_alpha(0.35 if crowded else 0.8)


def _name(plot: Any, lines: list[Line], key: str) -> None:
    """Settings beside their points, inside the frame, on a white edge that keeps them apart from lines."""
    from matplotlib.patheffects import withStroke

    low, high = plot.get_xlim()
    for line in lines:
        place = tuple(100 * line.cells[name].estimate.value for name in ("ID", OOD))
        left = place[0] > low + 0.8 * (high - low)
        text = line.row.setting.removeprefix(f"{key}=") if key else line.row.setting
        plot.annotate(
            plain(text), place, textcoords="offset points", xytext=(-6 if left else 6, 4), fontsize=canvas.SMALL,
            ha="right" if left else "left", color=canvas.style(line.row.method)["color"], zorder=4,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _arms(low: float, value: float, high: float) -> list[list[float]]:
    """Lengths of an error bar below and above its point, in points of percent."""
    return [[100 * (value - low)], [100 * (high - value)]]


def _percent(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(100 * value for value in values)


def _points(table: Table) -> list[Line]:
    """One point per fit: rows that only re-select a candidate of the same fit lie on its curve anyway."""
    return [line for line in table.lines if line.row.selection == "fixed" and {"ID", OOD} <= line.cells.keys()]
