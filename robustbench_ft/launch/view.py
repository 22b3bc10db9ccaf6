"""What a sweep says while it runs. Torch-free."""

from collections.abc import Collection
from typing import Protocol

from robustbench_ft.progress import Progress

from .launcher import Ended, Job


class View(Protocol):
    """Hears of everything that happens to the cells of a sweep."""

    def say(self, line: str) -> None: ...

    def begin(self, job: Job) -> None: ...

    def end(self, ended: Ended) -> None: ...

    def tick(self, running: Collection[Job], left: int) -> None:
        """Called about twice a second with the attempts that run, and how many cells are not begun."""
        ...


class OneByOne:
    """Of cells that are run one after the other: their titles, and between them the bars of each."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, line: str) -> None:
        self.progress.say(line)

    def begin(self, job: Job) -> None:
        self.say(job.title if job.attempt == 1 else f"{job.title}: attempt {job.attempt}")

    def end(self, ended: Ended) -> None:
        if ended.failure and ended.outcome == "failed":
            self.say(f"  failed: {ended.failure.reason}")
        elif ended.failure:
            self.say(f"  refused: {ended.failure.reason}")
        elif ended.outcome == "held" and ended.note:
            self.say(f"  {ended.note}")

    def tick(self, running: Collection[Job], left: int) -> None:
        pass
