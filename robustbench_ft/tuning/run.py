"""Run what is missing of a search, then choose and write down: one folder for each suite and model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from robustbench_ft import runner
from robustbench_ft.plan import Cell
from robustbench_ft.record import store

from . import figure, report, winner
from .choose import RULES
from .report import Tuned
from .search import Search, Trial


def cells_of(trials: Sequence[Trial]) -> tuple[Cell, ...]:
    """The cells of all trials in the order in which they are run; trials may share one."""
    return tuple({cell.folder: cell for trial in trials for cell in trial.cells}.values())


def run(search: Search, trials: Sequence[Trial], workshop: runner.Workshop) -> list[Tuned]:
    """Run the cells that are not done, and write what was found into `Tuned.folder`.

    Raises `InterruptedRun` when asked to stop; the same search goes on from there.
    """
    runner.run_cells(cells_of(trials), workshop)
    found = report.tuned(search, trials, workshop.out)
    for one in found:
        write(one, workshop.files)
    return found


def write(found: Tuned, files: Mapping[str, str]) -> list[Path]:
    """Tables, numbers, picture, and a recipe for each winner. `files` maps suites to their suite.toml."""
    made = [found.folder / name for name in ("report.md", "report.json", "report.png")]
    store.write_bytes(made[0], report.markdown(found).encode())
    store.write_bytes(made[1], report.as_json(found).encode())
    figure.write(found, made[2])
    suite = files.get(found.trials[0].cell.suite, "")
    for entrant in found.entrants:
        for rule in RULES if entrant.tuned else ():
            made.append(found.folder / winner.file_name(entrant, rule))
            store.write_bytes(made[-1], winner.text(found.search, entrant, rule, suite).encode())
    return made
