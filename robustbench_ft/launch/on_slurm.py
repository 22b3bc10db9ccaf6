"""The launcher of a Slurm cluster: attempts go as job arrays, written by submitit.

An answer is a file of JSON in the folder of this sweep, `OUT/slurm/TIME-PID`, which has to be on shared storage, as OUT
has. Jobs without an answer are looked for with `squeue`, so no accounting is needed.

Near its time limit, and where the partition says so before it is preempted, a job gets SIGUSR1: it writes a checkpoint
and puts itself back into the queue, launcher or no launcher. On SIGTERM it writes a checkpoint too, and Slurm decides:
a job that was preempted or requeued is started again by Slurm, and one that was cancelled is not.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from robustbench_ft import atomic, distributed
from robustbench_ft.errors import RbftError
from robustbench_ft.plan import Plan
from robustbench_ft.progress import Progress
from robustbench_ft.runner import InterruptedRun, RunOptions
from robustbench_ft.sweep import failure

from . import elsewhere, order, signals, together
from .elsewhere import Errand, Losses
from .launcher import Ended, Job

LOOK = 3.0  # seconds between two looks at the queue
GONE = 3  # looks that miss a job before it is taken for gone: a file may show late on shared storage
LARGEST = 1000  # jobs of one array; Slurm's own limit is 1001 unless it is configured
MANY = 100_000  # attempts that are submitted at a time, where --jobs does not say so
STOP = "stop"  # a file: the launcher asks its jobs to stop
DEFAULTS = {"time": "4:00:00", "signal": "USR1@90", "requeue": True}
GPUS = ("gpus", "gpus_per_node", "gpus_per_task", "gres")


@dataclass(frozen=True)
class Asked:
    """What `--launcher slurm` was asked for."""

    words: Mapping[str, str]  # options of sbatch
    jobs: int = 0  # that run at a time; 0: all that Slurm lets
    threads: int = 1  # CPUs of each task
    gpus: int = 0  # of each task
    devices: int = 1  # tasks of a cell

    def sbatch(self) -> dict[str, Any]:
        """Options of sbatch. Raises `RbftError` where nodes cannot share the tasks of a cell."""
        text = self.words.get("nodes", "1")
        nodes = int(text) if text.isdigit() else 0
        if not nodes or self.devices % nodes:
            raise RbftError(f"--slurm nodes={text}: --devices {self.devices} cannot be shared among so many")
        here = self.devices // nodes
        own = {**DEFAULTS, "nodes": nodes, "ntasks_per_node": here, "cpus_per_task": self.threads}
        if self.gpus and not any(name in self.words for name in GPUS):
            own["gpus_per_node"] = here * self.gpus
        return {name.replace("_", "-"): value for name, value in {**own, **self.words}.items()}


def carry_out(errand: Errand, answer: str, stop: str) -> None:
    """What a job runs, in each of its tasks; the first writes the answer."""
    with signals.graceful() as heard:
        stopped = _asked(heard, Path(stop))
        where = distributed.place(os.environ)
        device = json.loads(errand.text)["device"]
        with distributed.joined(where, device) as (_, ranks):
            if not ranks.first:
                _follow(errand, ranks)
                return
            content = elsewhere.carry_out(errand, stopped, ranks, Progress())
            if ranks.world > 1:
                together.tell_end(order.read(errand.text).run_options(Progress(), ranks), stopped())
    if content["outcome"] == "stopped" and heard() and not Path(stop).exists():
        if heard.number == signal.SIGUSR1:
            _requeue(os.environ)
        raise SystemExit(0)  # without an answer: this job is started again, or Slurm says that it was cancelled
    atomic.write_bytes(Path(answer), json.dumps(content).encode(), "")


def _asked(heard: Callable[[], bool], stop: Path) -> Callable[[], bool]:
    """Whether a signal came, or the launcher made the file `stop`, which is looked for once a second."""
    looked, found = 0.0, False

    def stopped() -> bool:
        nonlocal looked, found
        if not found and time.monotonic() - looked > 1.0:
            looked, found = time.monotonic(), stop.exists()
        return found or heard()

    return stopped


def _follow(errand: Errand, ranks: Any) -> None:
    os.chdir(errand.folder)
    found = order.read(errand.text)
    cell = found.job.cell
    with suppress(InterruptedRun):
        together.follow(Plan((cell,), {cell.suite: found.suite.load()}), found.run_options(Progress(), ranks))


def _requeue(environment: Mapping[str, str]) -> None:
    """Put this job back into the queue; that ends it."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array else environment["SLURM_JOB_ID"]
    subprocess.run(["scontrol", "requeue", name], check=False, timeout=60)


@dataclass
class _Sent:
    """An attempt that Slurm has."""

    job: Job
    name: str  # '17', or '17_3' in an array
    answer: Path
    log: Path
    when: str  # ISO 8601
    missed: int = 0  # looks at the queue, in a row


@dataclass
class OnSlurm:
    """Attempts submitted between two looks go as one array."""

    plan: Plan
    options: RunOptions
    asked: Asked
    batch: list[Job] = field(default_factory=list[Job])
    running: list[_Sent] = field(default_factory=list[_Sent])
    losses: Losses = field(default_factory=Losses)
    number: int = 0  # of the next answer
    cancelled: bool = False
    looked: float = 0.0

    def __enter__(self) -> "OnSlurm":
        self.slots = self.asked.jobs or MANY
        self.sbatch = self.asked.sbatch()
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.folder = self.options.out.absolute() / "slurm" / name
        self.folder.mkdir(parents=True)
        return self

    def submit(self, job: Job) -> None:
        self.batch.append(job)

    def poll(self, seconds: float) -> Sequence[Ended]:
        batch, self.batch = self.batch, []
        for k in range(0, len(batch), LARGEST):
            self._send(batch[k : k + LARGEST])
        time.sleep(0.0 if batch else seconds)
        found = [*self._answered()]
        if time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            found += self._gone()
        return found

    def _send(self, jobs: Sequence[Job]) -> None:
        executor: Any = import_module("submitit").SlurmExecutor(self.folder)
        executor.update_parameters(
            job_name="rbft",
            nodes=int(self.sbatch["nodes"]),
            ntasks_per_node=int(self.sbatch["ntasks-per-node"]),
            array_parallelism=self.asked.jobs or len(jobs),
            stderr_to_stdout=True,
            additional_parameters=self.sbatch,
        )
        errands = [elsewhere.make(job, self.plan, self.options, self.asked.threads) for job in jobs]
        answers = [self.folder / f"answer-{self.number + k}.json" for k in range(len(jobs))]
        self.number += len(jobs)
        stop = [str(self.folder / STOP)] * len(jobs)
        try:
            sent = executor.map_array(carry_out, errands, map(str, answers), stop)
        except Exception as error:  # of submitit: what sbatch said
            raise RbftError(f"sbatch refuses the cells: {failure.one_line(_said(error))}; see --slurm") from error
        for job, answer, one in zip(jobs, answers, sent, strict=True):
            self.running.append(_Sent(job, one.job_id, answer, Path(one.paths.stdout), failure.now()))

    def _answered(self) -> Iterator[Ended]:
        there = set(os.listdir(self.folder))  # asked anew, so that NFS does too
        for one in [sent for sent in self.running if sent.answer.name in there]:
            self.running.remove(one)
            ended = elsewhere.ended(one.job, json.loads(one.answer.read_bytes()), self.options.progress)
            if ended.failure and ended.outcome == "failed":
                failure.add_printed(one.job.folder, ended.failure, failure.printed(one.log))
            yield ended

    def _gone(self) -> Iterator[Ended]:
        """Attempts whose jobs are not in the queue any more, and have left no answer."""
        queue = _ask("squeue", "--me", "--noheader", "--array", "--format=%i") if self.running else None
        if queue is None:  # the controller does not answer
            return
        there = set(queue.split())
        for one in [*self.running]:
            one.missed = 0 if one.name in there else one.missed + 1
            if one.missed >= GONE and not one.answer.exists():
                self.running.remove(one)
                yield self._end_of(one)

    def _end_of(self, one: _Sent) -> Ended:
        """How a job ended that is gone."""
        found = failure.read(one.job.folder)
        if found and found.when >= one.when:  # of several ranks, all end where one fails
            return Ended(one.job, "failed", failure=found)
        state = (_ask("scontrol", "show", "job", "--oneliner", one.name) or "").partition("JobState=")[2].split(" ")[0]
        said = f"Slurm job {one.name} is gone ({state.lower() or 'it is not known any more'})"
        if state == "CANCELLED" and not self.cancelled:
            died = failure.Failure("died", f"Slurm job {one.name} was cancelled", failure.now(), f"slurm:{one.name}")
            failure.write(one.job.folder, died)
            return Ended(one.job, "failed", failure=died)
        return self.losses.lost(one.job, said, f"slurm:{one.name}", failure.printed(one.log), self.cancelled)

    def cancel(self) -> None:
        self.cancelled = True
        (self.folder / STOP).touch()
        names = [one.name for one in self.running]
        if names:
            _ask("scancel", "--state=PENDING", *names)
            _ask("scancel", "--signal=USR1", *names)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.running:
            _ask("scancel", *(one.name for one in self.running))
            return  # its jobs may still write here
        with suppress(OSError):
            shutil.rmtree(self.folder)
            self.folder.parent.rmdir()


def _said(error: Exception) -> str:
    """What a command wrote where errors go, as far as the exception knows it."""
    return str(getattr(error.__cause__ or error, "stderr", "") or error)


def _ask(*words: str) -> str | None:
    """What a command of Slurm answers; None where it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def cluster(asked: Asked) -> Callable[[Plan, RunOptions, Callable[[], bool]], OnSlurm]:
    """What `run_cells` makes a launcher of a Slurm cluster with."""

    def make(plan: Plan, options: RunOptions, stopped: Callable[[], bool]) -> OnSlurm:
        return OnSlurm(plan, options, asked)

    return make
