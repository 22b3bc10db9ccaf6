"""The picture of a table: ID accuracy against mean OOD accuracy. Torch-free."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_ft.errors import RbftError

from . import figure_many
from .report import OOD, Table
from .verdicts import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vPX*<>hp"
MANY = 12  # methods that colours and marks can tell apart


def scatter(table: Table, path: Path) -> None:
    """Write the picture of a table as PNG."""
    save(draw(table), path)


def save(figure: "Figure", path: Path) -> None:
    """Write a picture as PNG, in a folder that is made where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise RbftError(f"cannot write the figure {path}: {error.strerror}") from error


def draw(table: Table) -> "Figure":
    """Rows as points with 95 % intervals, families as lines through their alphas, settings of one method joined.

    More than `MANY` methods get a picture of another kind, with their headlines only.
    """
    from matplotlib.figure import Figure  # without pyplot: a notebook keeps its own way of showing pictures

    points = _points(table)
    methods = list(dict.fromkeys(line.row.method for line in points))
    if len(methods) > MANY:
        return figure_many.draw(table, [line for line in points if line.row.headline])
    figure = Figure(figsize=(7.2, 5.0), dpi=150, layout="constrained")
    axes: Any = figure.subplots()
    for k, method in enumerate(methods):
        _draw(axes, table, [line for line in points if line.row.method == method], k)
    grid = any(len([line for line in points if line.row.method == method]) > 1 for method in methods)
    what = "top-1 accuracy" if table.run_set.only_accuracy else "official metric"
    axes.set_xlabel(f"ID {what}, %")
    axes.set_ylabel(f"mean OOD {what} over {len(table.run_set.shifts)} shifts, %")
    marks = "bars: 95 % intervals over seeds and examples; solid: weight interpolation"
    axes.set_title(f"{_plain(table.title)}\n{marks}{'; dashed: settings of a method' if grid else ''}", fontsize=8.5)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def _draw(plot: Any, table: Table, lines: list[Line], k: int) -> None:
    """One method: its curve, its settings joined, and its points with their intervals."""
    colour, crowded = f"C{k}", len(lines) > 1
    curves = [table.curves[line.row.name] for line in lines if line.row.name in table.curves]
    for curve in curves:
        _, xs, ys = zip(*curve, strict=True)
        plot.plot(_percent(xs), _percent(ys), "-", marker=".", markersize=4, linewidth=1, color=colour, alpha=0.6)
    if crowded and not curves:
        xs, ys = ([line.cells[name].estimate.value for line in lines] for name in ("ID", OOD))
        plot.plot(_percent(xs), _percent(ys), "--", color=colour, linewidth=1)
    for j, line in enumerate(lines):
        x, y = line.cells["ID"].estimate, line.cells[OOD].estimate
        place = (100 * x.value, 100 * y.value)
        plot.errorbar(
            *place, xerr=None if crowded else _arms(x.low, x.value, x.high), yerr=_arms(y.low, y.value, y.high),
            fmt=MARKERS[k % len(MARKERS)], color=colour, markersize=6, capsize=2, linewidth=1,
            label=_plain(line.row.method) if j == 0 else None, zorder=3,
        )  # fmt: skip
        if crowded and line.row.name not in table.curves:  # a curve's points are told by its line
            plot.annotate(_plain(line.row.setting), place, textcoords="offset points", xytext=(6, -9), fontsize=6)


def _arms(low: float, value: float, high: float) -> list[list[float]]:
    """Lengths of an error bar below and above its point, in points of percent."""
    return [[100 * (value - low)], [100 * (high - value)]]


def _percent(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(100 * value for value in values)


def _points(table: Table) -> list[Line]:
    """One point per fit: rows that only re-select a candidate of the same fit lie on its curve anyway."""
    return [line for line in table.lines if line.row.selection == "fixed" and {"ID", OOD} <= line.cells.keys()]


def _plain(text: str) -> str:
    """Dollar signs are no formulas."""
    return text.replace("$", r"\$")
