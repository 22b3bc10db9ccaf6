"""The picture of a search: what n trials reach, what that costs under shift, and all trials. Torch-free."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustbench_ft.compare import figure_many
from robustbench_ft.compare.figure import MANY, MARKERS
from robustbench_ft.compare.tradeoffs import best_points
from robustbench_ft.compare.verdicts import Line
from robustbench_ft.stats.best_of import BestOf

from .report import Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Tuned) -> "Figure":
    """Three panels that share their colours: one for each entrant. Of many entrants, what the rule 'best' chooses."""
    from matplotlib.figure import Figure  # without pyplot: a notebook keeps its own way of showing pictures
    from matplotlib.ticker import MaxNLocator

    if len(found.entrants) > MANY:
        return figure_many.draw(found.winners, _best(found), lambda line: line.row.method)
    figure = Figure(figsize=(13.5, 4.6), dpi=150, layout="constrained")
    best, other, trials = (figure.add_subplot(1, 3, k) for k in (1, 2, 3))
    what = "accuracy" if found.every.only_accuracy else "official metric"
    for k, entrant in enumerate(found.entrants):
        curve = found.curves.get(entrant.name)
        if curve:
            _curve(best, curve, k, "best", entrant.name)
            _curve(other, curve, k, "other", entrant.name)
        _trials(trials, found, k)
    best.set_ylabel(f"ID validation {what} of the best, %")
    other.set_ylabel(f"mean OOD {what} of the trial so chosen, %")
    for axes in (best, other):
        axes.set_xlabel("random trials n")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    best.set_title("Expected best of n trials; bars: 95 %,\nbootstrap over trials", fontsize=8.5)
    other.set_title("Under shift; bars as left", fontsize=8.5)
    trials.set_xlabel(f"ID {what}, %")
    trials.set_ylabel(f"mean OOD {what}, %")
    trials.set_title(f"All trials, {found.every.title}\nlines: frontiers; black rings: chosen on ID val", fontsize=8.5)
    for axes in (best, other, trials):
        axes.grid(alpha=0.25)
    trials.legend(fontsize=7)
    return figure


def _best(found: Tuned) -> list[Line]:
    """The headline of each method, of the trial with the best ID validation."""
    runs = [entrant.chosen("best").runs for entrant in found.entrants if entrant.headline]
    return [line for line in found.winners.lines if line.row.runs in runs]


def _curve(axes: Any, curve: Sequence[BestOf], k: int, name: str, label: str) -> None:
    ns = [one.n + 0.07 * k for one in curve]  # side by side, so that intervals can be told apart
    values = [100 * getattr(one, name) for one in curve]
    ends = [getattr(one, f"{name}_interval") for one in curve]
    arms = [[max(0.0, sign * (100 * end[side] - value)) for end, value in zip(ends, values, strict=True)]
            for side, sign in ((0, -1), (1, 1))]  # fmt: skip
    axes.errorbar(ns, values, yerr=arms, color=f"C{k}", marker=MARKERS[k % len(MARKERS)], markersize=4, linewidth=1.2,
                  elinewidth=0.5, capsize=1.5, label=label)  # fmt: skip


def _trials(axes: Any, found: Tuned, k: int) -> None:
    """Every trial of one entrant; the frontier of its method, and what is chosen."""
    entrant, colour = found.entrants[k], f"C{k}"
    places = {o.trial.index: (100 * o.identity, 100 * o.ood) for o in entrant.outcomes}
    axes.plot(*zip(*places.values(), strict=True), MARKERS[k % len(MARKERS)], color=colour, markersize=4, alpha=0.7,
              label=entrant.name)  # fmt: skip
    curve = best_points(found.every).get(entrant.method) if entrant.headline else None
    if curve is not None:
        xs, ys = ([100 * v for v in column] for column in zip(*_corners(curve.points), strict=True))
        axes.plot(xs, ys, color=colour, linewidth=1, alpha=0.6)
    for outcome, _ in entrant.winners().values() if entrant.tuned else ():
        axes.plot(*places[outcome.trial.index], "o", markersize=9, fillstyle="none", color="black", markeredgewidth=0.9)


def _corners(points: Sequence[Any]) -> list[tuple[float, float]]:
    return [(point.id_accuracy, point.ood_accuracy) for point in points]
