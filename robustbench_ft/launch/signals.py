"""Ctrl-C, SIGTERM and SIGHUP: the first asks for an end in good order, a second one ends at once. Torch-free."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

# a scheduler sends SIGTERM or SIGUSR1 before time is up, a closed terminal SIGHUP
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


@contextmanager
def graceful() -> Generator[Callable[[], bool], None, None]:
    """While this is open, the first signal only sets a flag; a second one raises `KeyboardInterrupt`.

    Yields whether there was one. A SIGHUP that is ignored, as under nohup, stays ignored. Threads other than the main
    one hear no signals.
    """
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        known = []
    heard = [n for n in known if not (n == getattr(signal, "SIGHUP", None) and signal.getsignal(n) == signal.SIG_IGN)]
    previous = {number: signal.signal(number, handle) for number in heard}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
