"""Ranks that run every cell together: the first says which, the others follow."""

from pathlib import Path

from robustbench_ft.plan import Plan
from robustbench_ft.runner import InterruptedRun, RunOptions, run_cell

from .launcher import Job
from .signals import graceful

DONE, STOPPED = "done", "stopped"
NOTHING: tuple[str, str] = ("", "")  # what a rank has to say that is told


def tell_cell(options: RunOptions, job: Job) -> None:
    """Tell the other ranks to begin a cell with this one."""
    options.devices.ranks.broadcast(("cell", job.cell.folder.as_posix()))


def tell_end(options: RunOptions, stopped: bool) -> None:
    """Tell the other ranks that no cell comes any more."""
    options.devices.ranks.broadcast(("end", STOPPED if stopped else DONE))


def follow(plan: Plan, options: RunOptions) -> list[Path]:
    """Run what the first rank begins, until it says that no cell comes any more.

    Raises `InterruptedRun` where it was asked to stop. Errors of a cell end this rank, and with it all.
    """
    ranks = options.devices.ranks
    cells = {cell.folder.as_posix(): cell for cell in plan}
    with graceful() as asked:
        while True:
            what, name = ranks.broadcast(NOTHING)
            if what == "end":
                break
            cell = cells[name]
            try:
                run_cell(cell, plan.suite_of(cell), options.out / cell.folder, options, lambda: ranks.any(asked()))
            except InterruptedRun:
                continue  # the first says what this means for the rest
    if name == STOPPED:
        raise InterruptedRun("stopped")
    return [options.out / cell.folder for cell in plan]
