"""Ctrl-C, SIGTERM and SIGHUP: the first asks for an end in good order, a second one ends at once. Torch-free."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# a scheduler sends SIGTERM or SIGUSR1 before time is up, a closed terminal SIGHUP
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


@dataclass
class Heard:
    """Tells whether a signal came, and which."""

    number: int = 0  # 0: none

    def __call__(self) -> bool:
        return bool(self.number)


@contextmanager
def graceful() -> Generator[Heard, None, None]:
    """While this is open, the first signal only sets a flag; a second one raises `KeyboardInterrupt`.

    Yields whether there was one. A SIGHUP that is ignored, as under nohup, stays ignored. Threads other than the main
    one hear no signals.
    """
    heard = Heard()

    def handle(number: int, frame: FrameType | None) -> None:
        if heard():
            raise KeyboardInterrupt
        heard.number = number

    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        known = []
    kept = [n for n in known if not (n == getattr(signal, "SIGHUP", None) and signal.getsignal(n) == signal.SIG_IGN)]
    previous = {number: signal.signal(number, handle) for number in kept}
    try:
        yield heard
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
