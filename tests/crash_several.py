"""Faults of several processes, and of the clock, as kinds of crash_study.py."""

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from crash_study import Ended, Prelude, Study, kill_at, result, run, spawn, stray

from robustbench_ft.sweep import states

DAY = 86_400.0
PATIENCE = 120.0  # seconds until the workers of a killed launcher have to be gone


def kinds(
    study: Study, events: Sequence[int], moments: int, draw: random.Random
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Name of a kind of fault, and what tries it."""
    yield "kill -9, and the clock jumps", lambda: _clock(study, events)
    yield "two processes on one cell", lambda: _two(study, moments)
    yield "launcher of two workers killed", lambda: _launcher(study, max(1, moments // 10), draw)


def shifted(seconds: float) -> Prelude:
    """In the child, the clock of the machine is ahead by so many seconds (behind, where negative)."""

    def act() -> None:
        real = time.time
        time.time = lambda: real() + seconds

    return act


def _both(*preludes: Prelude) -> Prelude:
    def act() -> None:
        for one in preludes:
            one()

    return act


def _clock(study: Study, events: Sequence[int]) -> None:
    """Killed under a clock that is wrong by ten years; all files are then of that time."""
    for k, event in enumerate(events):
        off, out = (-1) ** k * 3650 * DAY, study.out()
        ended = run(study.cell, out, _both(shifted(off), kill_at(out, event)))
        for path in out.rglob("*"):
            os.utime(path, (time.time() + off, time.time() + off))
        study.judge("kill -9, and the clock jumps", out, ended)


def _two(study: Study, moments: int) -> None:
    """The second one has a clock that is a day ahead, begins at some moment of the first, and waits for it."""
    kind = "two processes on one cell"
    for k in range(moments):
        out, logs = study.out(), [study.cell.folder / f"said-{name}" for name in "ab"]
        first = spawn(study.cell.words(out), logs[0])
        time.sleep(study.seconds * k / moments)
        second = spawn(study.cell.words(out), logs[1], shifted(DAY))
        ends = [
            Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), log.read_text(errors="replace"))
            for pid, log in zip((first, second), logs, strict=True)
        ]
        steps = sum(text.count('"event": "start"') for text in _logs(out))
        if any(end.code for end in ends) or steps != 1:
            study.failed.append(f"{kind}: {[end.code for end in ends]}, trained {steps} times: {ends[1].text[-600:]}")
        study.judge(kind, out, ends[0])


def _logs(out: Path) -> list[str]:
    return [path.read_text() for path in out.rglob("log.jsonl")]


def _launcher(study: Study, tries: int, draw: random.Random) -> None:
    """Its workers notice, stop in good order, and the same command goes on."""
    kind, more = "launcher of two workers killed", ("--seeds", "0-1", "--jobs", "2")
    log, undisturbed = study.cell.folder / "said", study.out()
    began = time.monotonic()
    _wait(spawn(study.cell.words(undisturbed, *more), log))
    seconds, wanted = time.monotonic() - began, result(undisturbed)
    for _ in range(tries):
        out = study.out()
        pid = spawn(study.cell.words(out, *more), log)
        time.sleep(draw.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = _wait(pid)
        gone = _workers_gone(out)
        again = _wait(spawn(study.cell.words(out, *more), log))
        same = gone and again == 0 and result(out) == wanted and not stray(out)
        if not same:
            study.failed.append(f"{kind}: workers gone {gone}, {again}, {stray(out)}: {log.read_text()[-600:]}")
        told = "killed" if code < 0 else "finished all the same"
        study.counts.setdefault(kind, Counter()).update([told, "same result" if same else "OTHER RESULT"])


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _workers_gone(out: Path) -> bool:
    """Whether no cell is held any more, after a while."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if not any(one.state == "running" for one in states.read(states.find([out]))):
            return True
        time.sleep(0.5)
    print("workers of a killed launcher still run", file=sys.stderr)
    return False
