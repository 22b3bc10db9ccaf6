"""The launcher that runs cells in this process, one after the other."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from robustbench_ft.plan import Plan
from robustbench_ft.runner import RunOptions
from robustbench_ft.sweep.lock import Observer

from .attempt import attempt
from .launcher import Ended, Job


class Here:
    """A cell is run while `poll` waits. Its bars are drawn by `options.progress`."""

    def __init__(self, plan: Plan, options: RunOptions, stopped: Callable[[], bool]) -> None:
        self.plan, self.options, self.stopped = plan, options, stopped
        self.slots = 1
        self.job: Job | None = None
        self.observer = Observer()

    def submit(self, job: Job) -> None:
        self.job = job

    def poll(self, seconds: float) -> Sequence[Ended]:
        job, self.job = self.job, None
        if job is None:
            time.sleep(seconds)
            return ()
        return (attempt(job, lambda: self.plan.suite_of(job.cell), self.options, self.stopped, self.observer),)

    def cancel(self) -> None:
        """Nothing to do: the running attempt asks `stopped` itself."""

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass
