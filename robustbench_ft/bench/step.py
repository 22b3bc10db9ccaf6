"""`rbft bench`: what the harness and each method cost, side by side with a bare loop in one process.

All contestants take turns in several rounds and are compared within each, so a machine that speeds up or slows down
does so for all of them; the figures to quote are the ratios.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from robustbench_ft import environment, registry
from robustbench_ft.errors import RbftError, unknown
from robustbench_ft.method import Method
from robustbench_ft.progress import Progress
from robustbench_ft.settings import own_settings, parse
from robustbench_ft.tabular import MISSING, Text, interval, number

from .contestant import WARMUP as WARMUP
from .contestant import BareLoop, Contestant, Setting, Steps, Work, peak_flops

LEAST, MOST = 3, 15  # rounds, where their number is not given
SECONDS = 75.0  # no further round is begun after them, where the number of rounds is not given
ALL = "all"
BARE, FT = "bare loop", "ft"


@dataclass(frozen=True)
class Timings:
    """What was measured: seconds of a step, by round and contestant, with the operations of one."""

    setting: Setting
    work: Mapping[str, Work]
    rounds: Sequence[Mapping[str, float]]  # medians over the steps of a turn
    peaks: Sequence[float]  # operations per second of a matrix product, by round
    left_out: Mapping[str, str]  # method -> why it was not measured

    def seconds(self, name: str) -> float:
        """Of one step: median over rounds."""
        return statistics.median(round_[name] for round_ in self.rounds)

    def ratios(self, name: str, reference: str) -> list[float]:
        """Of seconds, by round."""
        return [round_[name] / round_[reference] for round_ in self.rounds]

    def floor(self, name: str) -> float | None:
        """Operations of a step over those of FT: a guide to the ratio of seconds, as operations differ in speed."""
        return self.work[name].flops / self.work[FT].flops if FT in self.work else None

    def share(self, name: str) -> float:
        """Of the device's measured peak: median over rounds."""
        pairs = zip(self.rounds, self.peaks, strict=True)
        return statistics.median(self.work[name].flops / round_[name] / peak for round_, peak in pairs)


def measure(setting: Setting, methods: Sequence[str], progress: Progress) -> Timings:
    """Seconds and operations of one optimiser step of a bare loop and of each method.

    A method may be followed by settings, as in 'lipsum mode=expected'; 'all' is every method.
    """
    environment.use(setting.precision, setting.device)
    entrants, left_out = contestants(setting, methods)
    work: dict[str, Work] = {}
    with progress.bar("count operations", len(entrants), "methods") as advance:
        for one in entrants:
            work[one.name] = one.count()
            advance(1, one.name)
    rounds: list[dict[str, float]] = []
    peaks: list[float] = []
    began = time.monotonic()
    with progress.bar("bench", (setting.rounds or MOST) * len(entrants), "turns") as advance:
        while not _enough(len(rounds), setting.rounds, time.monotonic() - began):
            peaks.append(peak_flops(setting.device, setting.precision, setting.cpu_time))
            rounds.append({})
            for one in entrants:
                rounds[-1][one.name] = statistics.median(one.seconds(work[one.name]))
                advance(1, one.name)
    return Timings(setting, work, rounds, peaks, left_out)


def _enough(done: int, asked: int, seconds: float) -> bool:
    """Whether no further round is begun: by number, or by time where no number was asked for."""
    if asked:
        return done >= asked
    return done >= MOST or (done >= LEAST and seconds * (done + 1) / done > SECONDS)


def contestants(setting: Setting, methods: Sequence[str]) -> tuple[list[Contestant], dict[str, str]]:
    """The bare loop, then the methods; and why those are left out that 'all' names and that cannot be run here."""
    data, found, left_out = setting.data(), list[Steps](), dict[str, str]()
    every = [*registry.entries("method")] if ALL in methods else []
    for text in dict.fromkeys([*every, *(text for text in methods if text != ALL)]):
        one = Steps(setting, data, text, *parsed(text))
        reason = one.skips()
        if reason and text not in every:
            raise RbftError(f"{text} cannot be measured with model '{setting.model.name}': {reason}")
        if reason:
            left_out[text] = reason
        else:
            found.append(one)
    return [BareLoop(setting, data), *found], left_out


def parsed(text: str) -> tuple[type[Method], dict[str, Any]]:
    """'lipsum mode=expected' -> the method, and its settings that are not the default."""
    name, *pairs = text.split()
    kind, chosen = registry.load("method", registry.resolve("method", name).name, Method), dict[str, Any]()
    types = own_settings(kind)
    for key, _, value in (pair.partition("=") for pair in pairs):
        if key not in types:
            raise RbftError(f"--method '{text}': {unknown('setting', key, types)}")
        try:
            chosen[key] = parse(types[key], value)
        except ValidationError as error:
            raise RbftError(f"--method '{text}': {key}: {error.errors()[0]['msg'].lower()}") from error
    if problems := kind(**chosen).problems():
        raise RbftError(f"--method '{text}': {problems[0]}")
    return kind, chosen


def as_json(timings: Timings) -> str:
    """Every number, by round."""
    setting = timings.setting
    content = {
        "model": setting.model.label, "suite": setting.suite.name, "batch": setting.batch, "steps": setting.steps,
        "precision": setting.precision, "compiled": setting.compiled, "channels_last": setting.channels_last,
        "cpu_time": setting.cpu_time,
        "environment": environment.describe(setting.device),
        "peak_flops_per_second": list(timings.peaks),
        "contestants": {
            name: {
                "flops": work.flops, "stage": work.stage, "seconds": [round_[name] for round_ in timings.rounds],
                "floor": timings.floor(name), "share_of_peak": timings.share(name),
            }
            for name, work in timings.work.items()
        },
        "left_out": dict(timings.left_out),
    }  # fmt: skip
    return json.dumps(content, indent=2) + "\n"


HEAD = ("contestant", "ms/step", "images/s", "GFLOP/step", "GFLOP/s", "of peak", "/ bare loop", "/ ft", "floor")


def table(timings: Timings) -> Text:
    """A line for each contestant."""
    body: list[tuple[str, ...]] = []
    for name, work in timings.work.items():
        seconds, share = timings.seconds(name), timings.share(name)
        body.append((
            name, number(1000 * seconds, ".1f"), number(timings.setting.batch / seconds, ".0f"),
            number(work.flops / 1e9, ".2f"), number(work.flops / seconds / 1e9, ".1f"),
            number(100 * share, text=f"{share:.0%}"), _ratio(timings, name, BARE), _ratio(timings, name, FT),
            number(timings.floor(name), ".2f"),
        ))  # fmt: skip
    return Text("a step of each method", HEAD, tuple(body))


def as_markdown(timings: Timings) -> str:
    """The table, and the machine."""
    setting = timings.setting
    lines = [
        f"{setting.model.label} on {setting.suite.name}, batch {setting.batch}, {_how(setting)}: medians over "
        f"{len(timings.rounds)} rounds of {setting.steps} steps; behind a ratio the middle half of the rounds. "
        "Operations are those of matrix products, convolutions and attention. Floor: operations over those of ft, "
        "a guide to '/ ft', as operations differ in speed. "
        f"Peak: {statistics.median(timings.peaks) / 1e9:,.0f} GFLOP/s, a matrix product in the same "
        "precision, measured in each round.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(f"| {' | '.join(cells)} |" for cells in table(timings).body),
    ]
    lines += ["", *(f"Left out: {name}: {reason}." for name, reason in timings.left_out.items())]
    machine = environment.describe(setting.device)
    kept = {name: machine[name] for name in ("cpu", "gpu", "threads", "python")}
    return "\n".join([*lines, "", json.dumps({**kept, "torch": machine["packages"]["torch"]})])


def _how(setting: Setting) -> str:
    """Precision, and what else moves the rounding."""
    marks = (
        ("compiled", setting.compiled),
        ("channels last", setting.channels_last),
        ("in CPU seconds", setting.cpu_time),
    )
    return ", ".join([setting.precision, *(mark for mark, on in marks if on)])


def _ratio(timings: Timings, name: str, reference: str) -> str:
    """Median over rounds, with the middle half of them."""
    if reference not in timings.work:
        return MISSING
    found = timings.ratios(name, reference)
    if len(found) < 2:
        return number(found[0], ".2f")
    low, middle, high = statistics.quantiles(found, n=4)
    return interval(f"{middle:.2f} ({low:.2f}–{high:.2f})", middle, low, high)
