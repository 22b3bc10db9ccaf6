"""Run what is missing of a search, then choose and write down: one folder for each suite and model."""

from collections.abc import Callable, Sequence
from pathlib import Path

from robustbench_ft import launch, runner
from robustbench_ft.compare.canvas import save
from robustbench_ft.plan import Cell, Plan
from robustbench_ft.record import store

from . import figure, fresh, report, winner
from .choose import RULES
from .report import Tuned
from .search import Search, Trial


def cells_of(trials: Sequence[Trial]) -> tuple[Cell, ...]:
    """The cells of all trials in the order in which they are run; trials may share one."""
    return tuple({cell.folder: cell for trial in trials for cell in trial.cells}.values())


def run(
    search: Search, trials: Sequence[Trial], options: runner.RunOptions,
    run_cells: Callable[[Plan, runner.RunOptions], object] = launch.run_cells,
) -> list[Tuned]:  # fmt: skip
    """Run the cells that are not done, and write what was found into `Tuned.folder`.

    With `search.fresh_seeds` the winners are run again with these, and compared.

    Raises `InterruptedRun` when asked to stop, and `FailedError` where trials failed, as budgets are not equal then.
    The same search goes on from there.
    """
    suites = {trial.suite.name: trial.suite for trial in trials}
    run_cells(Plan(cells_of(trials), suites), options)
    found = report.tuned(search, trials, options.out)
    if search.fresh_seeds:
        run_cells(
            Plan(tuple(cell for one in found for cell in fresh.cells(one.entrants, search.fresh_seeds)), suites),
            options,
        )
    for one in found:
        write(one)
    return found


def write(found: Tuned) -> list[Path]:
    """Tables, numbers, picture, and a recipe for each winner."""
    made = [found.folder / name for name in ("report.md", "report.json", "report.png")]
    store.write_bytes(made[0], report.markdown(found).encode())
    store.write_bytes(made[1], report.as_json(found).encode())
    save(figure.draw(found), made[2])
    for one in found.confirmed:
        made.append(found.folder / f"fresh-{one.rule}.png")
        save(figure.draw_fresh(one), made[-1])
    for entrant in found.entrants:
        for rule in RULES if entrant.tuned else ():
            made.append(found.folder / winner.file_name(entrant, rule))
            store.write_bytes(made[-1], winner.text(found.search, entrant, rule).encode())
    return made
