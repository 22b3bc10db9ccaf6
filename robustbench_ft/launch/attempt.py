"""One attempt at a cell, wherever the worker is: lock it, run it, and tell how it ended."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from robustbench_ft import earlier, memory, runner
from robustbench_ft.errors import RbftError
from robustbench_ft.progress import Advance, Progress
from robustbench_ft.record import store
from robustbench_ft.runner import InterruptedRun, RunOptions
from robustbench_ft.suite import Suite
from robustbench_ft.sweep import failure, lock
from robustbench_ft.sweep.lock import Lock, LostLockError, Observer, Work

from .launcher import Ended, Job
from .together import tell_cell


def attempt(
    job: Job, suite: Callable[[], Suite], options: RunOptions, stopped: Callable[[], bool], observer: Observer
) -> Ended:
    """Run the cell, unless another worker holds it or has finished it meanwhile; `suite` gives its suite.

    `KeyboardInterrupt` alone is raised.
    """
    try:
        held = lock.take(job.folder, observer, job.seen_dead)
    except RbftError as error:
        return Ended(job, "refused", failure=failure.refused(error))
    if held is None:
        return Ended(job, "held")
    with held:
        ended = _with_lock(job, suite, options, stopped, held)
        held.release(finished=ended.outcome in ("done", "refused"))
    if ended.outcome == "refused":
        _leave_no_trace(job.folder, options.out)
    return ended


def _with_lock(
    job: Job, suite: Callable[[], Suite], options: RunOptions, stopped: Callable[[], bool], held: Lock
) -> Ended:
    folder, begun = job.folder, False

    def hold() -> None:
        nonlocal begun
        begun = True
        held.check()

    ranks = options.devices.ranks

    def stop() -> bool:
        return ranks.any(stopped() or held.is_lost())

    try:
        if job.renew and _differs(job):
            earlier.clear(folder)
        if store.is_done(folder):
            return Ended(job, "done", "done by another worker meanwhile")
        failure.clear(folder)
        tell_cell(options, job)
        runner.run_cell(job.cell, suite(), folder, replace(options, progress=_Told(options.progress, held)), stop, hold)
        return Ended(job, "done")
    except LostLockError as error:
        if ranks.world > 1:
            raise
        return Ended(job, "held", str(error))
    except InterruptedRun as error:
        return Ended(job, "held" if held.is_lost() else "stopped", str(error))
    except (Exception, SystemExit) as error:
        if ranks.world > 1:  # the others may wait for this one in the middle of a step
            if begun:
                failure.write(folder, failure.of_error(error))
            raise
        if isinstance(error, RbftError) and not begun:
            return Ended(job, "refused", failure=failure.refused(error))
        found = replace(failure.of_error(error), attempts=job.attempt)
    memory.free(options.device)  # what the failed cell took is out of reach only now
    failure.write(folder, found)
    return Ended(job, "failed", failure=found)


def _differs(job: Job) -> bool:
    """Whether the record still is of other code, or damaged; another worker may have made it anew."""
    found = earlier.standing(job.cell, job.folder, whole=True)
    return bool(found.changed or found.edited or found.damage)


def _leave_no_trace(folder: Path, out: Path) -> None:
    """Remove the folders that only the lock has made."""
    for path in (folder, *folder.parents):
        if path == out.parent or not path.is_relative_to(out):
            return
        with suppress(OSError):  # it is not empty
            path.rmdir()


class _Told(Progress):
    """The progress of a cell, told to its lock as well."""

    def __init__(self, inner: Progress, held: Lock) -> None:
        self.inner, self.held = inner, held

    def say(self, line: str) -> None:
        self.inner.say(line)

    @contextmanager
    def bar(self, label: str, total: int, unit: str, done: int = 0) -> Generator[Advance, None, None]:
        began, count = time.monotonic(), done

        def tell() -> None:
            rate = (count - done) / max(1e-9, time.monotonic() - began)
            self.held.work = Work(label, count, total, unit, rate)

        tell()
        with self.inner.bar(label, total, unit, done) as advance:

            def advance_both(n: int = 1, note: str = "") -> None:
                nonlocal count
                count += n
                tell()
                advance(n, note)

            yield advance_both
