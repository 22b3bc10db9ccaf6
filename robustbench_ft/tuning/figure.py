"""The picture of a search: what n trials reach, what that costs under shift, and all trials. Torch-free."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustbench_ft.compare import canvas, figure_many
from robustbench_ft.compare.figure import MANY
from robustbench_ft.compare.tradeoffs import best_points
from robustbench_ft.compare.verdicts import Line
from robustbench_ft.stats.best_of import BestOf

from .choose import Entrant
from .fresh import Fresh
from .report import Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Tuned) -> "Figure":
    """Three panels, one below the other, with one legend. Of many entrants, what the rule 'best' chooses."""
    from matplotlib.ticker import MaxNLocator

    if len(found.entrants) > MANY:
        return figure_many.draw(found.winners, _best(found), lambda line: line.row.method)
    figure = canvas.blank(9.6)
    best, other, trials = figure.subplots(3, 1, height_ratios=(1, 1, 1.35))
    what = "accuracy" if found.every.only_accuracy else "official metric"
    for k, entrant in enumerate(found.entrants):
        curve = found.curves.get(entrant.name)
        if curve:
            _curve(best, curve, k, "best", entrant)
            _curve(other, curve, k, "other", entrant)
        _trials(trials, found, k)
    canvas.dress(
        best, "random trials n", f"best ID validation {what}, %",
        f"{found.every.title}\nexpected best of n trials; bars: 95 %, bootstrap over trials",
    )  # fmt: skip
    canvas.dress(other, "random trials n", f"mean OOD {what}, %", "the trial so chosen, under shift; bars as above")
    for axes in (best, other):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    canvas.dress(
        trials, f"ID {what}, %", f"mean OOD {what}, %", "all trials; lines: frontiers; black rings: chosen on ID val"
    )
    canvas.legend(figure, trials)
    return figure


def draw_fresh(fresh: Fresh) -> "Figure":
    """ID against OOD of what one rule chose for each method, over fresh seeds; of families the headline."""
    lines = [line for line in fresh.table.lines if line.row.headline]
    return figure_many.draw(fresh.table, lines, lambda line: line.row.method)


def _best(found: Tuned) -> list[Line]:
    """The headline of each method, of the trial with the best ID validation."""
    runs = [entrant.chosen("best").runs for entrant in found.entrants if entrant.headline]
    return [line for line in found.winners.lines if line.row.runs in runs]


def _curve(axes: Any, curve: Sequence[BestOf], k: int, name: str, entrant: Entrant) -> None:
    ns = [one.n + 0.07 * k for one in curve]  # side by side, so that intervals can be told apart
    values = [100 * getattr(one, name) for one in curve]
    ends = [getattr(one, f"{name}_interval") for one in curve]
    arms = [[max(0.0, sign * (100 * end[side] - value)) for end, value in zip(ends, values, strict=True)]
            for side, sign in ((0, -1), (1, 1))]  # fmt: skip
    axes.errorbar(ns, values, yerr=arms, linewidth=1.2, elinewidth=0.6, capsize=1.5,
                  **_style(entrant))  # fmt: skip


def _style(entrant: Entrant) -> dict[str, Any]:
    """The look of an entrant's method; what is no headline of it is hollow."""
    look = canvas.style(entrant.method, 5.5)
    more = {} if entrant.headline else {"markerfacecolor": "white", "markeredgecolor": look["color"]}
    return {**look, **more}


def _trials(axes: Any, found: Tuned, k: int) -> None:
    """Every trial of one entrant; the frontier of its method, and what is chosen."""
    entrant = found.entrants[k]
    colour = canvas.style(entrant.method)["color"]
    places = {o.trial.index: (100 * o.identity, 100 * o.ood) for o in entrant.outcomes}
    axes.plot(*zip(*places.values(), strict=True), linestyle="", alpha=0.8,
              label=canvas.plain(entrant.name), **_style(entrant))  # fmt: skip
    curve = best_points(found.every).get(entrant.method) if entrant.headline else None
    if curve is not None:
        xs, ys = ([100 * v for v in column] for column in zip(*_corners(curve.points), strict=True))
        axes.plot(xs, ys, color=colour, linewidth=1, alpha=0.6)
    for outcome, _ in entrant.winners().values() if entrant.tuned else ():
        axes.plot(*places[outcome.trial.index], "o", markersize=9, fillstyle="none", color="black", markeredgewidth=0.9)


def _corners(points: Sequence[Any]) -> list[tuple[float, float]]:
    return [(point.id_accuracy, point.ood_accuracy) for point in points]
