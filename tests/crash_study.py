"""What is left of a cell that is killed, stopped, or runs out of disk: `python tests/crash_study.py --write`.

A tiny cell is disturbed at every event in its folder (a file opened to be written, a rename, a removal, a new folder),
then run again. It must end as the undisturbed one: predictions, metrics and weights bit by bit. Where a fault is one
that the program sees, it must say so in one line. Each try is a fork of this process, so torch is imported once.
"""

import argparse
import contextlib
import errno
import hashlib
import importlib
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny

PAGE = Path(__file__).parent.parent / "docs" / "results" / "crashes.md"
METHODS = ("ft", "wise-ft")
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SIZES = (2_000, 5_000, 20_000, 50_000, 100_000, 150_000, 200_000, 300_000)  # bytes; what is said needs some, too
TRACEBACK = 70  # exit code of a child that ended in one
Prelude = Callable[[], object]


@dataclass(frozen=True)
class Cell:
    """The command that is disturbed."""

    method: str
    folder: Path  # of everything that belongs to the study
    steps: int = 6

    def words(self, out: Path, *more: str) -> list[str]:
        model = f"local-dir:{self.folder / 'model'}"
        return [
            "run", "--method", self.method, "--suite", "tiny", "--model", model, "--device", "cpu", "--threads", "1",
            "--set", f"steps={self.steps}", "--checkpoint-steps", "1", "--out", str(out), *more,
        ]  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How one try ended."""

    code: int  # as a shell has it; -9 after a kill
    text: str

    @property
    def one_line(self) -> bool:
        """True if the fault was told in one line, without a traceback."""
        lines = [line for line in self.text.splitlines() if line.startswith("rbft: ")]
        return self.code in (1, 2, 130) and len(lines) == 1 and "Traceback" not in self.text


def run(cell: Cell, out: Path, prelude: Prelude = lambda: None, watch: Callable[[int], object] | None = None) -> Ended:
    """The command in a child; `watch` is told its process and may disturb it."""
    log = cell.folder / "said"
    pid = spawn(cell.words(out), log, prelude)
    if watch is not None:
        threading.Thread(target=watch, args=(pid,), daemon=True).start()
    _, status = os.waitpid(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def spawn(words: Sequence[str], log: Path, prelude: Prelude = lambda: None) -> int:
    """A child that runs these words of the command line; what it says goes into `log`."""
    log.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _child(words, log, prelude)
    return pid


def _child(words: Sequence[str], log: Path, prelude: Prelude) -> None:
    code = TRACEBACK
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        from robustbench_ft.cli import main

        prelude()
        main(list(words))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def hook(out: Path, act: Callable[[int], object]) -> None:
    """Call `act` with the number of each event under `out`, before it happens."""
    inside, lock, count = str(out), threading.Lock(), [0]

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or not args or not str(args[0]).startswith(inside):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & WRITES):
            return
        with lock:
            count[0] += 1
            number = count[0]
        act(number)

    sys.addaudithook(hear)


def kill_at(out: Path, k: int) -> Prelude:
    def act(number: int) -> None:
        if number == k:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: hook(out, act)


def refuse_from(out: Path, k: int, number: int) -> Prelude:
    """Every event from the k-th on is refused by the system with an error of this number."""

    def act(event: int) -> None:
        if event >= k:
            raise OSError(number, os.strerror(number))

    return lambda: hook(out, act)


def limited(size: int) -> Prelude:
    """No file may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def after(seconds: float, *signals: signal.Signals) -> Callable[[int], None]:
    """Send these signals, the first after some time and others shortly behind it."""

    def watch(pid: int) -> None:
        time.sleep(seconds)
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(0.05)

    return watch


def result(out: Path) -> str:
    """Digest of all that a finished cell says: predictions, metrics and weights."""
    digest = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.is_file() and (path.suffix in (".parquet", ".safetensors") or path.name == "metrics.json"):
            digest.update(str(path.relative_to(out)).encode() + path.read_bytes())
    return digest.hexdigest()


def stray(out: Path) -> list[str]:
    """Temporary files that were left behind."""
    return [path.name for path in out.rglob(".*")]


@dataclass
class Study:
    """Counts of outcomes, by kind of fault."""

    cell: Cell
    wanted: str  # result of the undisturbed cell
    events: int
    seconds: float  # of the undisturbed cell
    counts: dict[str, Counter[str]]
    failed: list[str]

    def out(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.cell.folder, prefix="out-"))

    def judge(self, kind: str, out: Path, ended: Ended, may_fail: bool = False) -> None:
        """Run again what was disturbed, and count how it ends. `may_fail`: the fault has to be told in one line."""
        told = "finished all the same" if ended.code == 0 else "killed" if ended.code < 0 else "told in one line"
        if ended.code == TRACEBACK or (ended.code > 0 and not ended.one_line):
            told = "told in more than one line"
            self.failed.append(f"{kind}: {ended.text[-600:]}")
        if ended.code < 0 and may_fail:
            self.failed.append(f"{kind}: died with {ended.code}")
        again = run(self.cell, out)
        same = again.code == 0 and result(out) == self.wanted and not stray(out)
        if not same:
            self.failed.append(f"{kind}: rerun ended with {again.code}, {stray(out)}: {again.text[-600:]}")
        self.counts.setdefault(kind, Counter()).update([told, "same result" if same else "OTHER RESULT"])


def study(cell: Cell, every: int, moments: int, only: Sequence[str] = (), seed: int = 0) -> Study:
    """All faults on one cell, or those of some kinds: each `every`-th event, and so many random moments."""
    warm = Path(tempfile.mkdtemp(dir=cell.folder, prefix="out-"))
    run(cell, warm)  # fills the caches
    out, count = Path(tempfile.mkdtemp(dir=cell.folder, prefix="out-")), cell.folder / "count"
    began = time.monotonic()
    first = run(cell, out, lambda: hook(out, lambda number: count.write_text(str(number))))
    found = Study(cell, result(out), int(count.read_text()), time.monotonic() - began, {}, [])
    if first.code or result(warm) != found.wanted:
        raise SystemExit(f"the undisturbed cell fails: {first.text}")
    draw = random.Random(seed)
    for kind, act in _faults(found, every, moments, draw):
        if only and kind not in only:
            continue
        print(f"{cell.method}: {kind}", file=sys.stderr, flush=True)
        act()
    return found


def _faults(study: Study, every: int, moments: int, draw: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
    import crash_several  # it imports this module

    cell, events = study.cell, range(1, study.events + 1, every)

    def at_events(kind: str, make: Callable[[Path, int], Prelude], may_fail: bool = False) -> Callable[[], None]:
        def act() -> None:
            for k in events:
                out = study.out()
                study.judge(kind, out, run(cell, out, make(out, k)), may_fail)

        return act

    def at_moments(kind: str, *signals: signal.Signals) -> Callable[[], None]:
        def act() -> None:
            for _ in range(moments):
                out = study.out()
                study.judge(kind, out, run(cell, out, watch=after(draw.uniform(0, study.seconds), *signals)))

        return act

    def sized(kind: str) -> Callable[[], None]:
        def act() -> None:
            for size in SIZES[:: max(1, every // 8)]:
                out = study.out()
                study.judge(kind, out, run(cell, out, limited(size)), may_fail=True)

        return act

    for kind, make, told in (
        ("kill -9 at an event", kill_at, False),
        ("disk full from an event on", lambda out, k: refuse_from(out, k, errno.ENOSPC), True),
        ("folder read-only from an event on", lambda out, k: refuse_from(out, k, errno.EROFS), True),
    ):
        yield kind, at_events(kind, make, told)
    for kind, signals in (
        ("kill -9 at a random moment", (signal.SIGKILL,)),
        ("SIGTERM", (signal.SIGTERM,)),
        ("SIGINT", (signal.SIGINT,)),
        ("SIGINT twice", (signal.SIGINT, signal.SIGINT)),
        ("SIGHUP", (signal.SIGHUP,)),
        ("SIGSTOP, then SIGCONT", (signal.SIGSTOP, signal.SIGCONT)),
    ):
        yield kind, at_moments(kind, *signals)
    yield "files limited in size", sized("files limited in size")
    yield "a flipped bit in a checkpoint", lambda: _flipped(study, events, draw)
    yield "a loss that is not finite", lambda: _diverged(study)
    yield from crash_several.kinds(study, events, moments, draw)


def _flipped(study: Study, events: Sequence[int], draw: random.Random) -> None:
    kind = "a flipped bit in a checkpoint"
    for k in events[len(events) // 3 :: 3]:
        out = study.out()
        ended = run(study.cell, out, kill_at(out, k))
        for path in out.rglob("resume-fit.pt"):
            whole = bytearray(path.read_bytes())
            whole[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(whole)
        again = run(study.cell, out)
        if again.one_line and "is damaged: delete it" in again.text:  # there was no checkpoint before it
            for path in out.rglob("resume-fit.pt"):
                path.unlink()
        study.judge(kind, out, ended)


def _diverged(study: Study) -> None:
    """It ends, says so, and ends alike again."""
    kind, found = "a loss that is not finite", []
    for _ in range(2):
        out = study.out()
        cell = Cell(study.cell.method, study.cell.folder, study.cell.steps)
        words = [*cell.words(out), "--set", "lr=1e30"]
        log = cell.folder / "said"
        pid = spawn(words, log)
        _, status = os.waitpid(pid, 0)
        found.append((os.waitstatus_to_exitcode(status), result(out), "diverged" in log.read_text()))
    same = found[0] == found[1] and found[0][0] == 0 and found[0][2]
    if not same:
        study.failed.append(f"{kind}: {found}")
    study.counts[kind] = Counter(["finished all the same", "same result" if same else "OTHER RESULT"])


TOLD = ("killed", "told in one line", "told in more than one line", "finished all the same")
HEAD = ("fault", "tries", *TOLD, "then run again: same result")


def table(studies: Sequence[Study]) -> str:
    """Markdown: one row for each kind of fault, over all cells."""
    total: dict[str, Counter[str]] = {}
    for one in studies:
        for kind, counts in one.counts.items():
            total.setdefault(kind, Counter()).update(counts)
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    for kind, counts in total.items():
        tries = counts["same result"] + counts["OTHER RESULT"]
        cells = [kind, tries, *(counts[word] for word in TOLD), f"{counts['same result']} of {tries}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def page(studies: Sequence[Study], every: int) -> str:
    events = ", ".join(f"{one.cell.method} {one.events}" for one in studies)
    which = "every event" if every == 1 else f"every {every}th event"
    return f"""# Cells that are killed, stopped, or run out of disk

Made by `python tests/crash_study.py --write`; {which} in a cell's folder ({events}: files opened to be written,
renames, removals, new folders). Each try disturbs a tiny cell on a CPU and runs the same command again. "Same result"
means that predictions, metrics and weights are those of an undisturbed cell, bit by bit, and that no temporary file is
left.

{table(studies)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="disturb each N-th event")
    parser.add_argument("--moments", type=int, default=50, help="random moments for each signal and cell")
    parser.add_argument("--method", action="append", help="cells of these methods")
    parser.add_argument("--kind", action="append", help="only faults that are called so in the table")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(RBFT_CACHE=str(folder / "cache"), OMP_NUM_THREADS="1")
        sys.path.insert(0, str(tiny.write_shelves(folder / "site")))
        tiny.write_model(folder / "model")
        for name in ("cli", "compare.figure", "compare.report", "plan", "runner"):
            importlib.import_module(f"robustbench_ft.{name}")  # what every child needs, as it is now

        studies = [
            study(Cell(method, folder), asked.every, asked.moments, asked.kind or ())
            for method in asked.method or METHODS
        ]
    text = page(studies, asked.every)
    print(text)
    if asked.write:
        PAGE.write_text(text)
    failed = [line for one in studies for line in one.failed]
    print("\n".join(failed), file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
