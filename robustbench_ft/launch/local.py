"""The launcher of local processes: each keeps its process over many cells, and has a GPU of its own where there are.

A worker is the same interpreter with the same import path. It is in a session of its own, so that Ctrl-C reaches the
launcher alone, which then asks every worker to stop by closing its input. Workers of a launcher that was killed find
their input closed, too.
"""

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

from robustbench_ft.pixels.loader import available_workers
from robustbench_ft.plan import Plan
from robustbench_ft.runner import RunOptions
from robustbench_ft.sweep import failure

from . import order, work
from .launcher import Ended, Job

PATIENCE = 30.0  # seconds that workers without a cell have to end
START = "import sys; sys.path[:] = {path}; from robustbench_ft.launch.worker import main; main({threads})"


@dataclass
class _Worker:
    process: "subprocess.Popen[str]"
    output: IO[bytes]  # what it prints
    place: int  # from 0, among those that live
    job: Job | None = None
    asked: bool = False  # to stop
    listener: threading.Thread | None = None

    @property
    def name(self) -> str:
        return f"{socket.gethostname()}:{self.process.pid}"

    def printed(self) -> str:
        """The end of what it printed since its cell began."""
        return failure.printed(Path(self.output.name))

    def stop(self) -> None:
        """Ask it to stop in good order."""
        self.asked = True
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()

    def bury(self) -> int:
        """Close what is open of a process that has ended, or is about to; its exit code."""
        status = self.process.wait()
        self.stop()
        if self.listener:
            self.listener.join()
        self.output.close()
        return status


Message = tuple[_Worker, Mapping[str, Any] | None]  # None: its output ended, as it has itself


@dataclass
class Local:
    """`jobs` worker processes; each computes with `threads` threads."""

    plan: Plan
    options: RunOptions
    stopped: Callable[[], bool]
    jobs: int
    threads: int
    workers: list[_Worker] = field(default_factory=list[_Worker])
    messages: "queue.Queue[Message]" = field(default_factory=queue.Queue[Message])

    def __post_init__(self) -> None:
        self.slots = self.jobs
        self.options = replace(self.options, workers=self.options.workers or max(1, available_workers() // self.jobs))
        self.places = gpus(self.options.device, self.jobs, os.environ)

    def submit(self, job: Job) -> None:
        """Give the attempt to a worker without one; they are started when there is something to do."""
        idle = next((worker for worker in self.workers if worker.job is None and not worker.asked), None)
        worker = idle or self._start()
        worker.job = job
        assert worker.process.stdin is not None  # a pipe
        with suppress(OSError):  # it has just died: `poll` hears of it
            worker.process.stdin.write(order.to_text(order.make(job, self.plan, self.options)) + "\n")
            worker.process.stdin.flush()

    def _start(self) -> _Worker:
        taken = {worker.place for worker in self.workers}
        place = next((k for k in range(self.jobs) if k not in taken), 0)
        output = tempfile.NamedTemporaryFile("ab", prefix="rbft-worker-", suffix=".log")  # noqa: SIM115
        code = START.format(path=sys.path, threads=self.threads)
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
            encoding="utf-8", env=os.environ | self.places[place], start_new_session=True,
        )  # fmt: skip
        worker = _Worker(process, output, place)
        self.workers.append(worker)
        worker.listener = threading.Thread(target=self._listen, args=(worker,), name=worker.name, daemon=True)
        worker.listener.start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None  # a pipe
        with worker.process.stdout as answers:
            for line in answers:
                with suppress(ValueError):
                    self.messages.put((worker, json.loads(line)))
        self.messages.put((worker, None))

    def poll(self, seconds: float) -> Sequence[Ended]:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                worker, message = self.messages.get(timeout=left)
            except queue.Empty:
                break
            ended = self._died(worker) if message is None else self._heard(worker, message)
            if ended:
                return (ended,)
        return ()

    def _heard(self, worker: _Worker, message: Mapping[str, Any]) -> Ended | None:
        job = worker.job
        if "say" in message:
            self.options.progress.say(f"{job.title if job else worker.name}: {message['say'].strip()}")
        if "ended" not in message or job is None:
            return None
        worker.job, ended = None, work.ended(job, message["ended"])
        if ended.failure and ended.outcome == "failed":
            ended = replace(ended, failure=failure.add_printed(job.folder, ended.failure, worker.printed()))
        if ended.outcome == "stopped":
            worker.stop()  # a signal was sent to it alone: another one takes its place
        return ended

    def _died(self, worker: _Worker) -> Ended | None:
        asked, job, printed, status = worker.asked, worker.job, worker.printed(), worker.bury()
        self.workers.remove(worker)
        if job is None:
            return None
        if asked and status == 0:
            return Ended(job, "stopped", "stopped before it began")
        found = failure.died(status, worker.name, printed, job.attempt)
        failure.write(job.folder, found)
        return Ended(job, "failed", failure=found)

    def cancel(self) -> None:
        for worker in self.workers:
            worker.stop()

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel()
        deadline = time.monotonic() + (0.0 if error else PATIENCE)
        for worker in self.workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
            worker.bury()


def gpus(device: torch.device, jobs: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What every worker finds in its environment: one GPU, of those that this process may see, in turn.

    Nothing on a CPU, and where one GPU is named ('cuda:1').
    """
    if str(device) != "cuda":
        return [{} for _ in range(jobs)]
    visible = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = visible or [str(k) for k in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": names[k % len(names)]} for k in range(jobs)]


def processes(jobs: int, threads: int) -> Callable[[Plan, RunOptions, Callable[[], bool]], Local]:
    """What `run_cells` makes a launcher of local processes with."""

    def make(plan: Plan, options: RunOptions, stopped: Callable[[], bool]) -> Local:
        return Local(plan, options, stopped, jobs, threads)

    return make
