"""What a sweep says while it runs. Torch-free."""

import sys
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from robustbench_ft.progress import Progress, RichProgressBar, console
from robustbench_ft.sweep import states
from robustbench_ft.sweep.lock import Observer
from robustbench_ft.sweep.states import duration

from .launcher import Ended, Job

if TYPE_CHECKING:
    from rich.table import Table as RichTable

LINES_SECONDS = 30.0  # between two rounds of lines


class View(Protocol):
    """Hears of everything that happens to the cells of a sweep."""

    def say(self, line: str) -> None: ...

    def begin(self, job: Job) -> None: ...

    def end(self, ended: Ended) -> None: ...

    def tick(self, running: Collection[Job], left: int) -> None:
        """Called about twice a second with the attempts that run, and how many cells are not begun."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was, however the sweep ended."""
        ...


class OneByOne:
    """Of cells that are run one after the other: their titles, and between them the bars of each."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, line: str) -> None:
        self.progress.say(line)

    def begin(self, job: Job) -> None:
        self.say(job.title if job.attempt == 1 else f"{job.title}: attempt {job.attempt}")

    def end(self, ended: Ended) -> None:
        if ended.failure and ended.outcome == "failed":
            self.say(f"  failed: {ended.failure.reason}")
        elif ended.failure:
            self.say(f"  refused: {ended.failure.reason}")
        elif ended.outcome == "held" and ended.note:
            self.say(f"  {ended.note}")

    def tick(self, running: Collection[Job], left: int) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """Of cells that are run side by side: a line when one begins or ends, and now and then how far each is."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.spoke, self.began = progress, time.monotonic(), dict[Path, float]()
        self.observer = Observer()

    def say(self, line: str) -> None:
        self.progress.say(line)

    def begin(self, job: Job) -> None:
        self.began[job.folder] = time.monotonic()
        self.say(f"{job.title}: begun" if job.attempt == 1 else f"{job.title}: begun again, attempt {job.attempt}")

    def end(self, ended: Ended) -> None:
        seconds = time.monotonic() - self.began[ended.job.folder]
        if ended.failure:
            self.say(f"{ended.job.title}: {ended.outcome}: {ended.failure.reason}")
        elif ended.outcome == "done":
            self.say(f"{ended.job.title}: {ended.note or f'done in {duration(seconds)}'}")
        else:
            self.say(f"{ended.job.title}: {ended.note or 'another worker is at it'}")

    def tick(self, running: Collection[Job], left: int) -> None:
        if time.monotonic() - self.spoke < LINES_SECONDS:
            return
        self.spoke = time.monotonic()
        for job, state in zip(running, states.read([job.folder for job in running], self.observer), strict=True):
            self.say(f"  {job.title}: {', '.join(filter(None, (states.work_text(state), state.validation)))}")
        self.say(f"  {len(running)} running, {left} to go")

    def close(self) -> None:
        pass


class Table(Lines):
    """The same lines on a terminal, above a table of the cells that run."""

    def __init__(self, progress: Progress) -> None:
        from rich.live import Live

        super().__init__(progress)
        self.counts: Counter[str] = Counter()
        self.live = Live(console=console(), transient=True, auto_refresh=False)

    def end(self, ended: Ended) -> None:
        super().end(ended)
        self.counts[ended.outcome] += 1

    def tick(self, running: Collection[Job], left: int) -> None:
        if not running:
            self.live.stop()
            return
        self.live.start()
        self.live.update(self.table(running, left), refresh=True)

    def close(self) -> None:
        self.live.stop()

    def table(self, running: Collection[Job], left: int) -> "RichTable":
        """A row for each cell that runs."""
        from rich.table import Table as RichTable
        from rich.text import Text

        told = ", ".join(f"{n} {outcome}" for outcome, n in self.counts.items())
        shown = RichTable(caption=f"{len(running)} running, {left} to go{told and f', {told}'}", caption_justify="left")
        for name in ("cell", "phase", "step", "rate", "left", "ID validation"):
            shown.add_column(name, justify="left" if name in ("cell", "phase") else "right")
        for job, state in zip(running, states.read([job.folder for job in running], self.observer), strict=True):
            work = state.work
            step = f"{work.done}/{work.total}" if work.total else ""
            rate = f"{work.rate:.1f} {work.unit}/s" if work.rate else ""
            time_left = duration(work.left) if work.left is not None else ""
            shown.add_row(*map(Text, (job.title, work.phase or "begin", step, rate, time_left, state.validation)))
        return shown


def side_by_side(progress: Progress) -> View:
    """A table on a terminal, lines elsewhere."""
    return Table(progress) if sys.stderr.isatty() and isinstance(progress, RichProgressBar) else Lines(progress)
