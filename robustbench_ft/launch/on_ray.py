"""The launcher of a Ray cluster: each attempt is a Ray task with the CPUs, the GPU and the memory of a cell.

Ray keeps worker processes from task to task, so what they import is imported once; a process that had a GPU ends with
its task, as CUDA cannot change its GPU. Ray retries nothing (`max_retries=0`): a task that it started again on its own
would meet the lock of its dead worker and be told 'held', and nobody would count how often that happens. So a task
whose worker or node died comes back to `run_cells`, which knows about locks.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from robustbench_ft.errors import RbftError
from robustbench_ft.plan import Plan
from robustbench_ft.runner import RunOptions
from robustbench_ft.sweep import failure

from . import elsewhere, signals
from .elsewhere import Errand, Losses
from .launcher import Ended, Job

GIB = 2**30
LOOK = 5.0  # seconds between two looks at what the cluster has


@dataclass(frozen=True)
class Asked:
    """What `--launcher ray` was asked for."""

    address: str = ""  # '': the environment variable RAY_ADDRESS, or else a cluster of this machine for this command
    jobs: int = 0  # tasks at a time; 0: as many as fit into the cluster
    threads: int = 1  # CPUs of each
    memory: float = 0.0  # GiB of each; 0: not counted
    gpus: int = 0  # of each

    @property
    def resources(self) -> dict[str, float]:
        """By Ray's names."""
        asked = {"CPU": self.threads, "GPU": self.gpus, "memory": int(self.memory * GIB)}
        return {name: float(n) for name, n in asked.items() if n}

    @property
    def text(self) -> str:
        """'2 CPUs, 1 GPU and 8 GiB'."""
        words = [f"{self.threads} CPU{'s' * (self.threads > 1)}"]
        words += [f"{self.gpus} GPU"] * bool(self.gpus) + [f"{self.memory:g} GiB"] * bool(self.memory)
        return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def carry_out(errand: Errand) -> dict[str, Any]:
    """What a Ray worker runs. A cancelled task gets SIGINT, a worker that Ray ends gets SIGTERM: both stop the cell."""
    with signals.graceful() as stopped, _printed() as printed:
        return {**elsewhere.carry_out(errand, stopped), "printed": printed()}


@contextmanager
def _printed() -> Generator[Callable[[], str], None, None]:
    """What is printed meanwhile goes to a file; yields what gives its end."""
    with tempfile.NamedTemporaryFile("ab", prefix="rbft-ray-", suffix=".log") as file:
        kept = [(number, os.dup(number)) for number in (1, 2)]
        sys.stdout.flush()
        for number, _ in kept:
            os.dup2(file.fileno(), number)

        def end() -> str:
            sys.stdout.flush()
            return failure.printed(Path(file.name))

        try:
            yield end
        finally:
            sys.stdout.flush()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)


@dataclass
class OnRay:
    """Connected to the cluster while it is open."""

    plan: Plan
    options: RunOptions
    asked: Asked
    running: dict[Any, Job] = field(default_factory=dict[Any, Job])  # by the reference of its task
    cancelled: bool = False
    losses: Losses = field(default_factory=Losses)
    room: tuple[float, int] = (0.0, 0)  # when the cluster was looked at, and how many cells fit into it

    def __enter__(self) -> "OnRay":
        ray = _ray()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to its makers
        address = self.asked.address or os.environ.get("RAY_ADDRESS") or "local"
        own: dict[str, Any] = {"num_cpus": self.asked.jobs * self.asked.threads or None, "include_dashboard": False}
        with _own_signals():
            try:
                ray.init(address, log_to_driver=False, logging_level="ERROR", **own if address == "local" else {})
            except Exception as error:  # of many kinds
                raise RbftError(
                    f"no Ray cluster at {address}: {failure.one_line(str(error))}; start one with `ray start --head`, "
                    "or leave --ray-address out for one of this machine"
                ) from error
        try:
            self._check_room()
        except BaseException:
            ray.shutdown()
            raise
        self.task = ray.remote(
            num_cpus=self.asked.threads,
            num_gpus=self.asked.gpus,
            memory=int(self.asked.memory * GIB) or None,
            max_retries=0,
        )(carry_out)
        return self

    @property
    def slots(self) -> int:
        """Tasks that are given to Ray at a time. Nodes come and go, so this does too."""
        if self.asked.jobs:
            return self.asked.jobs
        if time.monotonic() - self.room[0] > LOOK:
            self.room = time.monotonic(), max(1, sum(fits(node, self.asked.resources) for node in _nodes()))
        return self.room[1]

    def _check_room(self) -> None:
        """Raise `RbftError` where no node is large enough, unless --jobs says that more of them will come."""
        nodes = _nodes()
        if not self.asked.jobs and not any(fits(node, self.asked.resources) for node in nodes):
            there = "; ".join(dict.fromkeys(_text(node) for node in nodes))
            raise RbftError(
                f"a cell asks for {self.asked.text}, and no node of the Ray cluster has that (there are {there}); ask "
                "for less, or give --jobs N where an autoscaler adds nodes"
            )

    def submit(self, job: Job) -> None:
        errand = elsewhere.make(job, self.plan, self.options, self.asked.threads)
        self.running[self.task.options(name=job.title).remote(errand)] = job

    def poll(self, seconds: float) -> Sequence[Ended]:
        ray = _ray()
        if not self.running:
            time.sleep(seconds)
            return ()
        done, _ = ray.wait([*self.running], num_returns=1, timeout=seconds)
        return [self._ended(reference) for reference in done]

    def _ended(self, reference: Any) -> Ended:
        ray = _ray()
        exceptions = ray.exceptions
        job = self.running.pop(reference)
        try:
            content = ray.get(reference)
        except exceptions.TaskCancelledError:
            return Ended(job, "stopped", "stopped before it began")
        except exceptions.RayTaskError as error:  # not of the cell: that would have been answered
            found = failure.of_error(error)
            failure.write(job.folder, found)
            return Ended(job, "failed", failure=found)
        except exceptions.RayError as error:
            return self.losses.lost(job, *_lost(error), str(error), asked=self.cancelled)
        ended = elsewhere.ended(job, content, self.options.progress)
        if ended.failure and ended.outcome == "failed":
            return replace(ended, failure=failure.add_printed(job.folder, ended.failure, content["printed"]))
        return ended

    def cancel(self) -> None:
        ray = _ray()
        self.cancelled = True
        for reference in self.running:
            ray.cancel(reference)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ray = _ray()
        for reference in self.running:
            with suppress(Exception):  # the cluster may be no more
                ray.cancel(reference, force=True)
        ray.shutdown()


def _lost(error: Exception) -> tuple[str, str]:
    """Why a task has no answer, in a few words, and where it was."""
    exceptions = _ray().exceptions
    if isinstance(error, exceptions.NodeDiedError):
        return "its node of the Ray cluster is gone", "ray"
    if isinstance(error, exceptions.OutOfMemoryError):
        return "Ray ended its worker, as the node ran out of memory (give --ray-memory)", "ray"
    if isinstance(error, exceptions.WorkerCrashedError):
        return "its Ray worker is gone (killed, or out of memory)", "ray"
    return f"Ray lost it: {failure.one_line(str(error))}", "ray"


def _ray() -> Any:
    """Ray, which is imported only where it is used; it is no dependency."""
    return import_module("ray")


def _nodes() -> list[dict[str, float]]:
    """What each node of the cluster has, by Ray's names of resources."""
    return [node["Resources"] for node in _ray().nodes() if node["Alive"]]


def fits(node: dict[str, float], asked: dict[str, float]) -> int:
    """How many cells that ask for so much a node has room for, by Ray's names of resources."""
    return int(min(node.get(name, 0.0) // n for name, n in asked.items()))


def _text(node: dict[str, float]) -> str:
    words = [f"{node.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU") if node.get(name)]
    return " ".join([*words, f"{node.get('memory', 0.0) / GIB:.1f} GiB"])


@contextmanager
def _own_signals() -> Generator[None, None, None]:
    """Keep this process's signal handlers, which `ray.init` replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def cluster(asked: Asked) -> Callable[[Plan, RunOptions, Callable[[], bool]], OnRay]:
    """What `run_cells` makes a launcher of a Ray cluster with."""

    def make(plan: Plan, options: RunOptions, stopped: Callable[[], bool]) -> OnRay:
        return OnRay(plan, options, asked)

    return make
