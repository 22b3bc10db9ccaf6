"""Run the cells of a plan on a launcher: what next, what again, what counts as failed, and when to stop."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from robustbench_ft import cache, earlier
from robustbench_ft.errors import FailedError, PlanError
from robustbench_ft.plan import Plan
from robustbench_ft.progress import Progress
from robustbench_ft.record import store
from robustbench_ft.runner import InterruptedRun, RunOptions, check_writable, tidy
from robustbench_ft.sweep import failure, lock, planned
from robustbench_ft.sweep.failure import Failure
from robustbench_ft.sweep.lock import Observer

from .here import Here
from .launcher import Ended, Job, Launcher
from .local import processes
from .signals import graceful
from .together import follow, tell_end
from .view import OneByOne, View, side_by_side

TICK = 0.5  # seconds between two looks at what waits for others
MakeLauncher = Callable[[Plan, RunOptions, Callable[[], bool]], AbstractContextManager[Launcher]]


@dataclass(frozen=True)
class Policy:
    """What to do about cells that fail."""

    max_failures: int | None = None  # stop the sweep at so many failed cells; None: never
    retry: int = 0  # how often a failed cell is tried again, each time from its last checkpoint
    dead: float = lock.DEAD  # seconds without a sign after which a worker of another machine is taken for dead


def run_cells(
    plan: Plan, options: RunOptions, policy: Policy = Policy(), make: MakeLauncher = Here, view: View | None = None
) -> list[Path]:
    """Run what is not done yet; returns the folders of all cells.

    Raises `PlanError` where no cell could be begun, `FailedError` where some failed (the others went on), and
    `InterruptedRun` when asked to stop. The same call again goes on from there. Of several ranks the first decides, and
    the others do as it says; a cell that fails there ends them all.
    """
    if not options.devices.ranks.first:
        return follow(plan, options)
    check_writable(options.out)
    cache.check()
    for suite in plan.suites.values():
        suite.check_ready()
    folders = [options.out / cell.folder for cell in plan]
    renewed = earlier.to_renew(plan, folders, options.changed)
    jobs: dict[Path, Job] = {}
    for k, (cell, folder) in enumerate(zip(plan, folders, strict=True), start=1):
        title = f"[{k}/{len(plan)}] {cell.method} on {cell.suite}, seed {cell.seed}"
        jobs.setdefault(folder, Job(cell, folder, title, folder in renewed))
    with graceful() as stopped:
        sweep = _Sweep(plan, options, policy, view or OneByOne(options.progress), stopped)
        noted = planned.write(options.out, [folder.relative_to(options.out) for folder in jobs])
        try:
            with make(plan, options, stopped) as launcher:
                sweep.run(deque(jobs.values()), launcher)
            tell_end(options, stopped())
        finally:
            sweep.view.close()
            if not sweep.began:
                _forget_plan(noted)
        return sweep.result(list(jobs))


def choose(
    jobs: int = 1,
    threads: int | None = None,
    policy: Policy = Policy(),
    progress: Progress | None = None,
    make: MakeLauncher | None = None,
) -> Callable[[Plan, RunOptions], list[Path]]:
    """`run_cells` on the launcher that `make` makes; None: in this process, or in `jobs` local ones.

    Those compute with `threads` threads each. None shares the threads that torch would take among them.
    """
    if jobs == 1 and make is None:
        return partial(run_cells, policy=policy)
    told = progress or Progress()
    if make is None:
        each = threads or max(1, torch.get_num_threads() // jobs)
        told.say(
            f"{jobs} processes of {each} thread{'s' * (each != 1)} each; a run repeats to the bit with as many threads"
        )
        make = processes(jobs, each)
    return partial(run_cells, policy=policy, make=make, view=side_by_side(told))


def _forget_plan(noted: Path | None) -> None:
    if noted:
        with suppress(OSError):
            noted.unlink()
            noted.parent.rmdir()


@dataclass
class _Sweep:
    """The state of one call of `run_cells`."""

    plan: Plan
    options: RunOptions
    policy: Policy
    view: View
    stopped: Callable[[], bool]
    began: bool = False  # any cell was begun, or was there before
    settled: int = 0  # cells that are done or failed
    failures: dict[Path, Failure] = field(default_factory=dict[Path, Failure])
    running: dict[Path, Job] = field(default_factory=dict[Path, Job])
    waiting: deque[Job] = field(default_factory=deque[Job])
    elsewhere: dict[Path, Job] = field(default_factory=dict[Path, Job])  # other workers hold these cells
    notes: list[str] = field(default_factory=list[str])  # of attempts that stopped in good order

    def __post_init__(self) -> None:
        self.observer = Observer(self.policy.dead)
        self.left_of_suite = Counter(cell.suite for cell in {cell.folder: cell for cell in self.plan}.values())

    def run(self, jobs: deque[Job], launcher: Launcher) -> None:
        """Until every cell is settled, or until it is asked to stop and nothing runs any more."""
        self.waiting, cancelled = jobs, False
        while self.waiting or self.running or self.elsewhere:
            if self.stopped() or self.has_enough():
                if not self.running:
                    return
                if not cancelled:
                    launcher.cancel()
                cancelled = True
            else:
                self.look_elsewhere()
                self.submit(launcher)
            for ended in launcher.poll(TICK) if self.running or self.elsewhere else ():
                self.end(ended)
            self.view.tick(self.running.values(), len(self.waiting) + len(self.elsewhere))

    def has_enough(self) -> bool:
        return self.policy.max_failures is not None and len(self.failures) >= self.policy.max_failures

    def submit(self, launcher: Launcher) -> None:
        """Begin cells while there is room for them."""
        while self.waiting and len(self.running) < launcher.slots and not self.stopped():
            job = self.waiting.popleft()
            if store.is_done(job.folder) and not job.renew:
                self.was_done(job)
                continue
            state, held = self.observer.look(job.folder)
            owner = held.owner.text if held and held.owner else "another worker"
            if state == "held":
                if job.folder not in self.elsewhere:
                    self.view.say(f"{job.title}: {owner} is at work on it; the others first")
                self.elsewhere[job.folder] = job
                continue
            if state == "dead" and held:
                why = "is gone" if held.is_dead else f"gave no sign for {self.policy.dead:.0f} s"
                self.view.say(f"{job.title}: taking over from {owner}, which {why}")
                job = replace(job, seen_dead=held.number)
            self.view.begin(job)
            self.running[job.folder] = job
            launcher.submit(job)

    def was_done(self, job: Job) -> None:
        self.began = True
        self.view.say(f"{job.title}: {earlier.standing(job.cell, job.folder).note}")
        if self.options.save_candidates and not (job.folder / store.MODELS / store.INDEX).exists():
            self.view.say("  it was run without --save-candidates; choose another --out to have them")
        tidy(job.folder)
        lock.clear(job.folder)  # its worker was killed after the last write
        failure.clear(job.folder)
        self.settle(job)

    def look_elsewhere(self) -> None:
        """Cells whose workers finished them, let them go or died are there to be begun again."""
        for folder, job in [*self.elsewhere.items()]:
            if store.is_done(folder) or self.observer.look(folder)[0] != "held":
                del self.elsewhere[folder]
                self.waiting.append(job)

    def end(self, ended: Ended) -> None:
        """Take note of how an attempt ended."""
        job = self.running.pop(ended.job.folder)
        self.began |= ended.outcome != "refused"
        self.view.end(ended)
        if ended.outcome == "held":
            self.elsewhere[job.folder] = replace(job, seen_dead=0)
        elif ended.outcome == "stopped" and not self.stopped() and not self.has_enough():
            self.waiting.append(replace(job, renew=False, seen_dead=0))  # its worker was told to end, and not by us
        elif ended.outcome == "stopped":
            self.notes.append(ended.note)
        elif ended.outcome == "failed" and job.attempt <= self.policy.retry and not self.stopped():
            self.waiting.appendleft(replace(job, attempt=job.attempt + 1, renew=False, seen_dead=0))
        else:
            if ended.failure:
                self.failures[job.folder] = ended.failure
            self.settle(job)

    def settle(self, job: Job) -> None:
        self.settled += 1
        self.left_of_suite[job.cell.suite] -= 1
        if not self.left_of_suite[job.cell.suite]:
            self.plan.suite_of(job.cell).forget()

    def result(self, folders: Sequence[Path]) -> list[Path]:
        """The folders of all cells; raises where there is something else to tell."""
        lines = [f"failed   {folder}: {found.reason}" for folder, found in self.failures.items()]
        refused = {folder: found for folder, found in self.failures.items() if found.kind == "refused"}
        if refused and not self.began:
            raise PlanError(dict.fromkeys(found.reason for found in refused.values()))
        for folder, found in refused.items():
            failure.write(folder, found)
        left = len(folders) - self.settled
        if self.stopped() and left:
            for line in lines:
                self.view.say(line)
            raise InterruptedRun(self.note(len(folders)))
        if self.failures:
            n = len(self.failures)
            stop = f"; stopped there, {left} not run (--max-failures)" if left else ""
            head = f"{n} of {len(folders)} cell{'s' * (len(folders) != 1)} failed{stop}"
            (folder, found), *others = self.failures.items()
            more = f"`rbft logs {folder}` tells more"
            told = [f"{head}; {more}", *lines] if others else [f"{head}: {found.reason}; {folder}, {more}"]
            raise FailedError(told, self.done(folders), self.failures)
        return [*folders]

    def done(self, folders: Sequence[Path]) -> list[Path]:
        return [folder for folder in folders if store.is_done(folder)]

    def note(self, n: int) -> str:
        """Where it was stopped, in a few words."""
        if len(self.notes) == 1:
            return self.notes[0]
        if self.notes:
            return f"stopped {len(self.notes)} cells at their last step, with {self.settled} of {n} done or failed"
        return f"stopped after cell {self.settled} of {n}"
