"""A reproduction in words: all that is known before hours are spent, and claimed beside measured afterwards."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from robustbench_ft import model_ref, needs, registry
from robustbench_ft.board.paper import Row
from robustbench_ft.errors import RbftError
from robustbench_ft.recipe import Recipe, in_words
from robustbench_ft.record.store import Record

from .row import Rate, Reproduction, held, measured, other_recipe

HOUR = 3600.0  # seconds
WIDTH, LABEL = 100, 11


def describe(found: Reproduction, rate: Rate | None = None, out: Path = Path("runs")) -> list[str]:
    """All that a reader should know before hours are spent: what is claimed, how it was made, and what it takes."""
    suite, ref = found.suite, found.plan[0].model
    fetched = (
        "fetched at run time by open_clip" if model_ref.is_fetched(ref.name, ref.pretrained) else "on this machine"
    )
    named = found.row is not None and found.row.seeds.startswith("seed ")
    lines = [
        ("method", registry.resolve("method", found.method).summary),
        ("suite", f"{suite.name}: {suite.card.title}"),
        *_claims(found),
        ("model", f"{_model(found, ' ')}; weights {fetched}"),
        ("recipe", f"published for {suite.base}: {in_words(found.plan[0].recipe or {})}"),
        ("protocol", _protocol(found)),
        ("seeds", f"{_seeds(found, ', ')} ({'that of the claimed row' if named else 'the source names none'})"),
        *[("trap", trap) for trap in found.kind.traps],
        *_needs(found),
        *_hours(found, rate),
        ("data", _data(found)),
        ("command", _command(found, out)),
    ]
    return [line for label, text in lines for line in _wrapped(label, text)]


def _wrapped(label: str, text: str) -> list[str]:
    """`text` behind its label, later lines below its beginning; commands stay in one piece, to be copied."""
    start = f"{label:<{LABEL}}"
    if label in ("command", ""):
        return [f"{start}{text}"]
    return textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=" " * LABEL, break_on_hyphens=False, break_long_words=False
    )


def _claims(found: Reproduction) -> list[tuple[str, str]]:
    """The printed numbers, their source, how close a rerun should come, and what other sources print."""
    row = found.row
    if row is None:
        return [("claimed", "no printed number for this method, suite and model is at hand")]
    lines = held(found)
    shown = ", ".join(
        f"{one.column} {100 * one.printed:.2f}" + (f" ± {100 * one.tolerance:.1f}" if one.tolerance else "")
        for one in lines
    )
    counted = "" if all(one.tolerance for one in lines) else " (known once the test sets are there to be counted)"
    spread = any(cell.spread is not None for cell in row.cells.values())
    seeds = "two printed standard deviations over seeds" if spread else "the spread over seeds is not printed"
    return [
        ("claimed", f"{row.method}: {shown}"),
        ("source", _source(row)),
        ("tolerance", f"99 % of sampling, on both sides{counted}; {seeds}; other preprocessing is not in it"),
        *([("note", row.note)] if row.note else []),
        *([("caution", "the claimed row was made by another recipe")] if other_recipe(row, found.recipe) else []),
        *(("elsewhere", f"{other.method}: {_cells(other)}; {_source(other)}") for other in found.rows[1:]),
    ]


def _cells(row: Row) -> str:
    return ", ".join(f"{column} {cell.text}" for column, cell in row.cells.items())


def _source(row: Row) -> str:
    return f"{row.paper}; {row.source}{' (second hand)' if row.secondary else ''}"


def _protocol(found: Reproduction) -> str:
    """Which split is learned from and which one selects."""
    roles, suite = found.suite.under("as-published"), found.suite
    start = f"as-published: learns from '{roles.train}', keeps the"
    if found.recipe.select != "best":
        return f"{start} last checkpoint"
    own = ", which is the test set that it reports: done here as there, and never ranked with clean rows"
    best = f"{start} checkpoint with the best {roles.metric} on '{roles.select}'"
    return best + (own if roles.select == suite.test else "")


def _needs(found: Reproduction) -> list[tuple[str, str]]:
    """Steps, images, memory and disk of one seed."""
    recipe = Recipe(**(found.plan[0].recipe or {}))
    lines = needs.lines(found.suite, recipe, found.plan[0].model, "as-published")
    pairs: list[tuple[str, str]] = []
    for label, _, text in (line.partition(" ") for line in lines):
        if label:
            pairs.append((label, text.strip()))
        else:  # the line before goes on
            pairs[-1] = pairs[-1][0], f"{pairs[-1][1]} {text.strip()}"
    images = found.images
    seen = "" if images is None else f": {images:,} training images for each seed"
    return [(label, f"{text}{seen}" if label == "steps" else text) for label, text in pairs]


def _hours(found: Reproduction, rate: Rate | None) -> list[tuple[str, str]]:
    """GPU-hours by a measured rate; where none is known, how to measure one."""
    if rate is None:
        words = f"rbft bench --method {found.method} --model {_model(found, ' --pretrained ')} "
        return [
            ("GPU-hours", "unknown: no rate of this machine is given; measure it, then pass --bench bench.md:"),
            ("", f"{words}--batch {found.recipe.batch} > bench.md"),
        ]
    speed = f"{rate.images:,.0f} training images/s ({rate.what}; {rate.machine})"
    if found.images is None:
        return [("GPU-hours", f"unknown: the card counts no training images; {speed}")]
    hours, seeds = found.images / rate.images / HOUR, len(found.plan)
    return [
        ("GPU-hours", f"{hours:.1f} for each of {seeds} seed{'s' * (seeds > 1)}, validation and evaluation on top"),
        ("", f"by {speed}"),
    ]


def _data(found: Reproduction) -> str:
    try:
        found.suite.check_ready()
    except RbftError as error:
        return str(error)
    return "found" if found.suite.places else "made on this machine"


def _command(found: Reproduction, out: Path) -> str:
    return (
        f"rbft run --method {found.method} --suite {found.suite.reference} --model {_model(found, ' --pretrained ')} "
        f"--protocol as-published --seeds {_seeds(found, ',')} --out {out}"
    )


def _model(found: Reproduction, between: str) -> str:
    ref = found.plan[0].model
    return between.join(filter(None, (ref.name, ref.pretrained)))


def _seeds(found: Reproduction, between: str) -> str:
    return between.join(str(cell.seed) for cell in found.plan)


def compared(found: Reproduction, folders: Sequence[Path]) -> list[str]:
    """Claimed beside measured, a line for each column."""
    row = found.row
    if row is None:
        return ["no printed number to compare with"]
    candidate, n = Record(folders[0]).summary.default, len(folders)
    lines = [
        f"claimed    {row.method}, {row.source}",
        f"measured   candidate '{candidate}', {'one seed' if n == 1 else f'mean of {n} seeds'}",
    ]
    for one in held(found, measured(found, folders)):
        start = f"  {one.column:<10} claimed {100 * one.printed:6.2f}   "
        if one.measured is None:
            lines.append(f"{start}not measured")
            continue
        word = {True: "inside", False: "OUTSIDE", None: "no tolerance is known"}[one.inside]
        gap, tolerance = 100 * (one.measured - one.printed), 100 * (one.tolerance or 0.0)
        lines.append(f"{start}measured {100 * one.measured:6.2f}   {gap:+6.2f} (± {tolerance:.2f})   {word}")
    return lines
