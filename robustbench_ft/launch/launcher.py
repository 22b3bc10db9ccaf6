"""What a launcher is: it takes cells, tells how they ended, and stops them when asked. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from robustbench_ft.cell import Cell
from robustbench_ft.sweep.failure import Failure

Outcome = Literal["done", "failed", "refused", "stopped", "held"]


@dataclass(frozen=True)
class Job:
    """One attempt at a cell."""

    cell: Cell
    folder: Path  # with the output folder in front
    title: str  # '[3/12] ft on shapes, seed 0'
    renew: bool = False  # its record is of other code and has to go first
    seen_dead: int = 0  # number of a lock whose owner was found dead; 0: none was
    attempt: int = 1  # counted from 1, in this command


@dataclass(frozen=True)
class Ended:
    """How an attempt ended."""

    job: Job
    outcome: Outcome  # 'refused': it could not be begun; 'held': another worker holds the cell
    note: str = ""  # in a few words, e.g. 'stopped at step 7 of 24'
    failure: Failure | None = None  # of 'failed' and 'refused'; that of 'failed' is written into the folder


class Launcher(Protocol):
    """Where cells are run: in this process, in local processes, on a cluster. Every attempt submitted ends once.

    A launcher decides nothing: what is run next, again, or no more is the affair of `run_cells`. Its workers call
    `attempt`, which locks the cell, so cells may be submitted anywhere that sees the output folder.
    """

    @property
    def slots(self) -> int:
        """Attempts that it takes at a time; it may change from one look to the next."""
        ...

    def submit(self, job: Job) -> None:
        """Begin an attempt, at once or as soon as there is room."""
        ...

    def poll(self, seconds: float) -> Sequence[Ended]:
        """What ended since it was last asked; waits for so long where nothing did."""
        ...

    def cancel(self) -> None:
        """Ask every attempt to stop in good order. They still end, as 'stopped' where nothing else came first."""
        ...

    def __enter__(self) -> "Launcher": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let everything go; after an error, at once."""
        ...
