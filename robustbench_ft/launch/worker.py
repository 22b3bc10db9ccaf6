"""A worker process: orders come on standard input, one line each; how they ended goes to standard output.

What methods print goes where errors go, a file of the launcher that each order empties. When the input ends, because
the launcher closed it or is no more, the running cell stops in good order.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TextIO

import torch

from robustbench_ft.errors import RbftError
from robustbench_ft.progress import Progress
from robustbench_ft.suite import Suite
from robustbench_ft.sweep import failure
from robustbench_ft.sweep.lock import Observer

from . import order
from .attempt import attempt
from .launcher import Ended
from .signals import graceful

Send = Callable[[dict[str, Any]], None]


class Sent(Progress):
    """Lines go to the launcher; bars are seen by the lock of the cell alone."""

    def __init__(self, send: Send) -> None:
        self.send = send

    def say(self, line: str) -> None:
        self.send({"say": line})


def main(threads: int) -> None:
    """Work until the input ends, or until a signal comes; torch computes with so many threads."""
    torch.set_num_threads(threads)
    orders, answers = _take_over_streams()
    waiting: queue.Queue[str | None] = queue.Queue()
    ended = threading.Event()

    def listen() -> None:
        for line in orders:
            waiting.put(line)
        ended.set()
        waiting.put(None)

    def send(message: dict[str, Any]) -> None:
        with suppress(OSError):  # the launcher is no more
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    threading.Thread(target=listen, name="orders", daemon=True).start()
    work = _Work(send)
    with graceful() as signalled:

        def stopped() -> bool:
            return ended.is_set() or signalled()

        while not stopped() and (line := _next(waiting, stopped)) is not None:
            send({"ended": work.carry_out(line, stopped)})


def _next(waiting: "queue.Queue[str | None]", stopped: Callable[[], bool]) -> str | None:
    while not stopped():
        with suppress(queue.Empty):
            return waiting.get(timeout=0.2)
    return None


class _Work:
    """Carries out orders. Suites stay loaded from one to the next."""

    def __init__(self, send: Send) -> None:
        self.progress = Sent(send)
        self.observer = Observer()
        self.words: order.SuiteWords | None = None
        self.loaded: Suite | None = None

    def carry_out(self, line: str, stopped: Callable[[], bool]) -> dict[str, Any]:
        """How it ended: 'outcome', 'note' and 'failure' of `Ended`."""
        with suppress(OSError):  # it is no file where the launcher does not keep it
            os.ftruncate(2, 0)
        try:
            found = order.read(line)
        except RbftError as error:
            return {"outcome": "refused", "note": "", "failure": asdict(failure.refused(error))}
        options = found.run_options(self.progress)
        ended = attempt(found.job, lambda: self._suite(found.suite), options, stopped, self.observer)
        sys.stdout.flush()
        return _content(ended)

    def _suite(self, words: order.SuiteWords) -> Suite:
        if self.loaded is None or words != self.words:
            if self.loaded is not None:
                self.loaded.forget()
            self.words, self.loaded = words, words.load()
        return self.loaded


def _content(ended: Ended) -> dict[str, Any]:
    found = asdict(ended.failure) if ended.failure else None
    return {"outcome": ended.outcome, "note": ended.note, "failure": found}


def _take_over_streams() -> tuple[TextIO, TextIO]:
    """Orders and answers; standard input is empty from now on, and standard output goes where errors go."""
    orders, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return orders, answers
