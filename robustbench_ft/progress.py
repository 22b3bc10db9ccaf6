"""Progress for long work: a rich bar on a terminal, a plain line now and then elsewhere. Torch-free."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_SECONDS = 10.0


class Advance(Protocol):
    def __call__(self, n: int = 1, note: str = "") -> None: ...


class Progress:
    """Silent; the base of the two that speak."""

    def say(self, line: str) -> None:
        """One line of text."""

    @contextmanager
    def bar(self, label: str, total: int, unit: str, done: int = 0) -> Generator[Advance, None, None]:
        """Work of `total` units, `done` of them finished before; call the yielded function as it advances."""
        yield lambda n=1, note="": None


class PlainProgress(Progress):
    """Lines on standard error, at most one every ten seconds for each piece of work and one at its end."""

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, label: str, total: int, unit: str, done: int = 0) -> Generator[Advance, None, None]:
        began = spoke = time.monotonic()
        count, last = done, ""

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal spoke, count, last
            count, last, now = count + n, note, time.monotonic()
            if now - spoke >= PLAIN_SECONDS and count < total:
                spoke = now
                rate = (count - done) / (now - began)
                left = (total - count) / rate if rate else 0.0
                self.say(f"  {label}: {count}/{total} {unit}, {rate:.1f} {unit}/s, {left:.0f} s left {note}".rstrip())

        yield advance
        seconds = time.monotonic() - began
        rate = (count - done) / seconds if seconds else 0.0
        self.say(f"  {label}: {count}/{total} {unit} in {seconds:.1f} s ({rate:.1f} {unit}/s) {last}".rstrip())


class RichProgressBar(Progress):
    """Live bars with rate and time left on a terminal."""

    def __init__(self) -> None:
        self.console = console()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    @contextmanager
    def bar(self, label: str, total: int, unit: str, done: int = 0) -> Generator[Advance, None, None]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        bars = RichProgress(
            TextColumn("  {task.description:<14}"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=self.console,
        )  # fmt: skip
        with bars:
            task = bars.add_task(label, total=total, completed=done, note="", rate="")
            yield _advance(bars, task, unit, done)


@lru_cache
def console() -> "Console":
    """The console of standard error: one for all, so that a line said while a bar is drawn goes above it."""
    from rich.console import Console

    return Console(stderr=True)


def _advance(bars: "RichProgress", task: "TaskID", unit: str, done: int) -> Advance:
    began = time.monotonic()

    def advance(n: int = 1, note: str = "") -> None:
        rate = (bars.tasks[task].completed + n - done) / max(1e-9, time.monotonic() - began)
        bars.update(task, advance=n, note=note, rate=f"{rate:.1f} {unit}/s")

    return advance


def choose() -> Progress:
    """Rich on a terminal, plain lines otherwise."""
    return RichProgressBar() if sys.stderr.isatty() else PlainProgress()
