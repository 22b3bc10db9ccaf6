"""The picture of a diagnosis: energy gap and feature distortion against accuracy under shift. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robustbench_ft.compare import canvas

from .correlate import Correlations, correlations, models_of_seeds
from .points import TITLES, Diagnosis, Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("energy_gap", "distortion")


def draw(found: Diagnosis) -> "Figure":
    """A panel for each measure: every model of every seed in its method's look, candidates of one run joined."""
    shown = [name for name in SHOWN if name in found.measured]
    figure = canvas.blank(0.9 + 3.7 * len(shown))
    panels: Any = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    points = [point for some in models_of_seeds(found).values() for point in some]
    methods = list(dict.fromkeys(point.method for point in points))
    every = correlations(found)
    for axes, name in zip(panels, shown, strict=True):
        if all(x > 0 for x in _places(found, name, points)[0]):
            _logarithmic(axes)
        for method in methods:
            _draw(axes, found, name, [point for point in points if point.method == method])
        _frame(axes, found, name, every)
    canvas.legend(figure, panels[-1])
    return figure


def _logarithmic(axes: Any) -> None:
    """A log axis with few, plain numbers: on a narrow picture those of matplotlib run into each other."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw(axes: Any, found: Diagnosis, name: str, points: Sequence[Point]) -> None:
    """One method: its models as points, the candidates of each run as a line."""
    look = canvas.style(points[0].method)
    axes.plot(
        *_places(found, name, points), linestyle="", markeredgecolor="white", markeredgewidth=0.4,
        alpha=0.85, label=canvas.plain(points[0].method), **look,
    )  # fmt: skip
    for line in _runs([point for point in found.points if point.method == points[0].method]).values():
        if axes.get_xscale() == "log":  # where alpha 0 has no place
            line = [point for point in line if point.mean(name, found.shifts)]
        if len(line) > 1:
            axes.plot(*_places(found, name, line), "-", color=look["color"], linewidth=0.8, alpha=0.5)


def _places(found: Diagnosis, name: str, points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """A measure, and mean OOD in percent."""
    return [point.mean(name, found.shifts) or 0.0 for point in points], [
        100 * point.score(found.shifts) for point in points
    ]


def _runs(points: Sequence[Point]) -> Mapping[tuple[str, int], list[Point]]:
    """The candidates of each run, in the order of its axis or its steps."""
    found: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        found.setdefault((point.cell, point.seed), []).append(point)
    return found


def _frame(axes: Any, found: Diagnosis, name: str, every: Correlations) -> None:
    """Axes, the level of zero-shot, and the correlation."""
    if found.zero_shot is not None:
        level = 100 * sum(found.zero_shot[split] for split in found.shifts) / len(found.shifts)
        axes.axhline(level, color="black", linewidth=0.8, linestyle=":", label="zero-shot")
    rho = every.measures[name].over_seeds
    said = "no rank correlation" if rho is None else f"rank correlation {rho.value:+.2f}"
    seeds = "" if rho is None else f", {rho.seeds} seed{'s' * (rho.seeds != 1)}"
    title = f"{found.title}: distance from zero-shot and accuracy under shift; {said}{seeds}"
    canvas.dress(axes, f"{TITLES[name]}, mean over shifts", "mean OOD, official metric, %", title)
