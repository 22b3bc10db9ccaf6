"""What a worker does with an order, wherever it is, and how it says what came of it."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from robustbench_ft.environment import choose_device
from robustbench_ft.errors import RbftError
from robustbench_ft.progress import Progress
from robustbench_ft.ranks import Ranks
from robustbench_ft.suite import Suite
from robustbench_ft.sweep import failure
from robustbench_ft.sweep.failure import Failure
from robustbench_ft.sweep.lock import Observer

from . import order
from .attempt import attempt
from .launcher import Ended, Job


class Told(Progress):
    """Hands lines on; bars are seen by the lock of the cell alone."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.tell = tell

    def say(self, line: str) -> None:
        self.tell(line)


class Work:
    """Carries out orders. Suites stay loaded from one to the next."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.observer = Observer()
        self.words: order.SuiteWords | None = None
        self.loaded: Suite | None = None

    def carry_out(self, text: str, stopped: Callable[[], bool], ranks: Ranks | None = None) -> Ended | Failure:
        """How the attempt ended, or why the order could not be read. `ranks` fit the cell together with this process.

        `KeyboardInterrupt` alone is raised, and every error where there are several ranks.
        """
        try:
            found = order.read(text)
            choose_device(found.device)
        except RbftError as error:
            return failure.refused(error)
        options = found.run_options(self.progress, ranks)
        ended = attempt(found.job, lambda: self.suite(found.suite), options, stopped, self.observer)
        sys.stdout.flush()
        return ended

    def suite(self, words: order.SuiteWords) -> Suite:
        """The suite that these words ask for; the last one is kept."""
        if self.loaded is None or words != self.words:
            if self.loaded is not None:
                self.loaded.forget()
            self.words, self.loaded = words, words.load()
        return self.loaded


def content(ended: Ended | Failure) -> dict[str, Any]:
    """An `Ended` without its job, for JSON."""
    if isinstance(ended, Failure):
        return {"outcome": "refused", "note": "", "failure": asdict(ended)}
    return {"outcome": ended.outcome, "note": ended.note, "failure": asdict(ended.failure) if ended.failure else None}


def ended(job: Job, content: Mapping[str, Any]) -> Ended:
    """The `Ended` of a job, from its content."""
    return Ended(
        job, content["outcome"], content["note"], Failure(**content["failure"]) if content["failure"] else None
    )
