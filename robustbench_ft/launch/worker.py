"""A worker process: orders come on standard input, one line each; how they ended goes to standard output.

What methods print goes where errors go, a file of the launcher that each order empties. When the input ends, because
the launcher closed it or is no more, the running cell stops in good order.
"""

import json
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import torch

from .signals import graceful
from .work import Told, Work, content


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
    work = Work(Told(lambda line: send({"say": line})))
    with graceful() as signalled:

        def stopped() -> bool:
            return ended.is_set() or signalled()

        while not stopped() and (line := _next(waiting, stopped)) is not None:
            with suppress(OSError):  # it is no file where the launcher does not keep it
                os.ftruncate(2, 0)
            send({"ended": content(work.carry_out(line, stopped))})


def _next(waiting: "queue.Queue[str | None]", stopped: Callable[[], bool]) -> str | None:
    while not stopped():
        with suppress(queue.Empty):
            return waiting.get(timeout=0.2)
    return None


def _take_over_streams() -> tuple[TextIO, TextIO]:
    """Orders and answers; standard input is empty from now on, and standard output goes where errors go."""
    orders, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return orders, answers
