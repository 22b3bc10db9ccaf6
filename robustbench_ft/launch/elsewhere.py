"""What launchers of a cluster share: an order with its surroundings, and how often a cell may lose its worker."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from robustbench_ft.errors import RbftError
from robustbench_ft.plan import Plan
from robustbench_ft.progress import Progress
from robustbench_ft.ranks import Ranks
from robustbench_ft.runner import RunOptions
from robustbench_ft.sweep import failure
from robustbench_ft.sweep.failure import Failure

from . import order, work
from .launcher import Ended, Job
from .work import Told, Work

LOSSES = 3  # workers that a cell may lose in all; then it is taken for the fault of the cell
OWN = "RBFT_"  # environment variables that go along


@dataclass(frozen=True)
class Errand:
    """An order, and what a worker that was not started from here has to be told besides."""

    text: str
    folder: str  # where relative paths begin
    environment: Mapping[str, str]
    threads: int


def make(job: Job, plan: Plan, options: RunOptions, threads: int) -> Errand:
    """The errand of an attempt. Images are decoded with as many threads, unless --workers says otherwise."""
    own = {name: value for name, value in os.environ.items() if name.startswith(OWN)}
    sent = replace(options, workers=options.workers or threads)
    return Errand(order.to_text(order.make(job, plan, sent)), os.getcwd(), own, threads)


_kept: list[Work] = []  # of this process: the suite that it has loaded


def carry_out(
    errand: Errand, stopped: Callable[[], bool], ranks: Ranks | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """How it ended, for `work.ended`; under 'said' what a terminal would have shown, unless `progress` takes it."""
    said: list[str] = []
    try:
        os.chdir(errand.folder)
    except OSError as error:
        reason = f"{socket.gethostname()} does not see {errand.folder} ({error.strerror}): start where all workers can"
        return {**work.content(failure.refused(RbftError(reason))), "said": said}
    os.environ.update(errand.environment)
    torch.set_num_threads(errand.threads)
    if not _kept:
        _kept.append(Work(Progress()))
    _kept[0].progress = progress or Told(said.append)
    return {**work.content(_kept[0].carry_out(errand.text, stopped, ranks)), "said": said}


def ended(job: Job, content: Mapping[str, Any], progress: Progress) -> Ended:
    """The `Ended` of what `carry_out` returned, once what it said is shown."""
    for line in content["said"]:
        progress.say(f"{job.title}: {line.strip()}")
    return work.ended(job, content)


@dataclass
class Losses:
    """Workers that went away in the middle of a cell: it is begun again elsewhere, but not for ever."""

    of: Counter[Path] = field(default_factory=Counter[Path])

    def lost(self, job: Job, reason: str, worker: str, detail: str = "", asked: bool = False) -> Ended:
        """'stopped', so that it is begun again; 'failed' when it happened `LOSSES` times; `asked`: to stop."""
        self.of[job.folder] += 1
        if asked:
            return Ended(job, "stopped", f"{reason}; it goes on from its last checkpoint")
        if self.of[job.folder] < LOSSES:
            return Ended(job, "stopped", f"{reason}; it is begun again from its last checkpoint")
        found = Failure("died", f"{reason}, for the {LOSSES}rd time", failure.now(), worker, job.attempt, detail)
        failure.write(job.folder, found)
        del self.of[job.folder]
        return Ended(job, "failed", failure=found)
