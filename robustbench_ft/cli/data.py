"""`rbft data`: is a suite's data all there and sound, and where does one get it? Parsing and printing only."""

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft import tabular
from robustbench_ft.errors import RbftError, StoppedError

from . import completion
from .options import FOLDER, FORMAT, ROOT, WIDE
from .show import beside, show

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from robustbench_ft.doctor import Examination
    from robustbench_ft.doctor.wilds import Agreement

STYLES = {"ok": "green", "notes": "cyan", "note": "cyan", "WRONG": "bold red", "missing": "red", "DIFFERS": "bold red"}
PLAIN = 1000  # columns where nobody's terminal sets a limit


@click.group(context_settings=WIDE)
def data() -> None:
    """A suite's data on this machine: whole, readable, the same as elsewhere, and where to get them."""


@data.command(short_help="Count, open and compare the images.", context_settings=WIDE)
@click.argument("suite", shell_complete=completion.suites)
@ROOT
@click.option("--sample", type=click.IntRange(min=0), metavar="N", help="Images to open per split.  [default: 1000]")
@click.option("--all", "whole", is_flag=True, help="Open and digest every image.")
@click.option("--copies/--no-copies", default=True, show_default=True, help="Look for identical files.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads.  [default: two for each core]")
@FORMAT
@click.option("--list", "listing", type=FOLDER, metavar="FILE", help="Write every finding, one image a line.")
@click.option("--manifest", type=FOLDER, metavar="FILE", help="Write ids, labels, sizes and digests (Parquet).")
@click.option("--against", type=FOLDER, metavar="FILE", help="Compare with a manifest made elsewhere.")
@click.option("--with-wilds", is_flag=True, help="Hold a WILDS suite against the package `wilds` on the same files.")
def check(suite: str, root: tuple[str, ...], whole: bool, **options: Any) -> None:
    """Count, open and compare the images of every split; exit 1 where a run would stop or mislead.

    Sizes and identical files are looked for among all images, contents in a sample (or --all).
    """
    from robustbench_ft import doctor, model_ref, suite_ref
    from robustbench_ft.doctor import manifest, report, wilds
    from robustbench_ft.doctor.scan import SAMPLE, default_workers
    from robustbench_ft.images import roots
    from robustbench_ft.progress import choose
    from robustbench_ft.record import store

    if whole and options["sample"] is not None:
        raise RbftError("--all opens every image and --sample a number of them; give one of the two")
    for option in ("listing", "manifest"):
        _claim(options[option], "--list" if option == "listing" else "--manifest")
    sample = None if whole else SAMPLE if options["sample"] is None else options["sample"]
    extent = doctor.Extent(sample, options["workers"] or default_workers(), options["copies"])
    try:
        if options["with_wilds"]:
            wilds.check_available(suite_ref.load(suite, partial=True))
        found = doctor.examine(suite, roots.choose(root, os.environ), extent, choose(), options["against"])
        held = wilds.compare(found.suite, found.splits, choose()) if options["with_wilds"] else ()
    except KeyboardInterrupt as error:
        raise StoppedError("interrupted; nothing was kept or written, run the same command again") from error
    if options["listing"]:
        store.write_bytes(options["listing"], report.listing(found).encode())
    if options["manifest"]:
        store.write_bytes(options["manifest"], manifest.to_bytes(found.suite, found.splits, found.seen))
    if options["style"] == "json":
        told = report.as_json(found) | ({"wilds": [asdict(one) for one in held]} if options["with_wilds"] else {})
        click.echo(json.dumps(told, indent=2, sort_keys=True, allow_nan=False))
    elif options["style"] != "terminal":
        tables = [report.table(found), *([report.table_of_findings(found)] if any(report.sections(found)) else [])]
        show([*tables, *([wilds.table(held)] if options["with_wilds"] else [])], options["style"])
        beside(report.verdict(found, _roots(root)), options["style"])
    else:
        _show(found, _roots(root))
        if options["with_wilds"]:
            _show_held(held)
    model_ref.check_prompts(model_ref.default(found.suite).name, found.suite)
    sys.exit(0 if found.ready and not any(one.difference for one in held) else 1)


def _roots(root: tuple[str, ...]) -> str:
    """The options again, for a command that is printed."""
    return "".join(f" --root {shlex.quote(text)}" for text in root)


@data.command(short_help="Where the data come from, and how they must lie.", context_settings=WIDE)
@click.argument("suite", shell_complete=completion.suites)
@ROOT
@FORMAT
def where(suite: str, root: tuple[str, ...], style: str) -> None:
    """Where a suite's data come from, under which terms, how they must lie, and what is there already."""
    from rich.table import Table
    from rich.text import Text

    from robustbench_ft import suite_ref
    from robustbench_ft.doctor import sources
    from robustbench_ft.images import roots

    loaded = suite_ref.load(suite, roots.choose(root, os.environ))
    if style != "terminal":
        facts = tuple((part.title, word, text) for part in sources.parts(loaded) for word, text in part.facts)
        show([tabular.Text(sources.heading(loaded), ("part", "fact", "text"), facts, words=(0, 1, 2))], style)
        return
    shown: list[RenderableType] = [Text(sources.heading(loaded))]
    for part in sources.parts(loaded):
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for word, text in part.facts:
            table.add_row(f"  {word}", Text(text, style="green" if text.startswith("found") else ""))
        shown += [Text(""), Text(part.title, style="bold"), table]
    _print(shown)


def _claim(path: Path | None, option: str) -> None:
    """A file that cannot be written is told before the work."""
    if path is None:
        return
    if path.is_dir():
        raise RbftError(f"{option} {path}: that is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise RbftError(f"{option} {path}: there is no folder {path.absolute().parent}; make it or name another file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise RbftError(f"{option} {path}: nothing can be written to {path.absolute().parent}; name another file")


def _show(found: "Examination", roots: str) -> None:
    """The table in one piece where it fits, else places below it; then findings, and the next step."""
    from rich.table import Table
    from rich.text import Text

    from robustbench_ft import model_ref
    from robustbench_ft.doctor import report

    texts = [report.row(found, line) for line in found.lines]
    shown: list[RenderableType] = [Text(f"{found.suite.name}: {found.suite.card.title}", style="bold"), Text("")]
    columns = [name for name in report.HEADER if any(row[name] for row in texts)]
    whole = _table(texts, columns)
    if _width(whole) <= _console().width:
        shown.append(whole)
    else:
        shown.append(_table(texts, [name for name in columns if name not in report.PLACES]))
        shown += [Text(""), _table([row for row in texts if row["place"]], ["split", *report.PLACES])]
    grid = Table.grid(padding=(0, 2))
    for k in range(3):
        grid.add_column(no_wrap=k < 2, overflow="fold")
    for split, word, lines in report.sections(found):
        for k, line in enumerate(lines):
            grid.add_row(*(Text(text, style=STYLES[word] if k == 0 and text == word else "")
                           for text in ((split, word, line) if k == 0 else ("", "", line))))  # fmt: skip
    if grid.row_count:
        shown += [Text(""), grid]
    shown.append(Text(""))
    shown += [Text(line, style="dim") for line in report.footer(found)]
    shown.append(Text(f"model {model_ref.default(found.suite).text}", style="dim"))
    shown.append(Text(report.verdict(found, roots), style="bold green" if found.ready else "bold red"))
    _print(shown)


def _show_held(held: "tuple[Agreement, ...]") -> None:
    """A line for each split and quantity, and what they come to."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("split", "quantity", "verdict", "held against the package wilds"):
        table.add_column(name, overflow="fold", no_wrap=name == "verdict")
    for one in held:
        word = "DIFFERS" if one.difference else "ok"
        table.add_row(one.split, one.what, Text(word, style=STYLES[word]), one.text)
    wrong = sum(bool(one.difference) for one in held)
    verdict = (
        f"{wrong} of {len(held)} quantities differ from what the package wilds reads"
        if wrong
        else (f"all {len(held)} quantities are what the package wilds reads and computes")
    )
    _print([Text(""), table, Text(""), Text(verdict, style="bold red" if wrong else "bold green")])


def _table(texts: "list[dict[str, str]]", columns: "list[str]") -> Any:
    from rich.table import Table
    from rich.text import Text

    from robustbench_ft.doctor import report

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(
            name, justify="right" if name in report.RIGHT else "left", overflow="fold",
            no_wrap=name in ("split", "verdict", *report.RIGHT),
        )  # fmt: skip
    for row in texts:
        table.add_row(*(Text(row[name], style=STYLES.get(row[name], "") if name == "verdict" else "")
                        for name in columns))  # fmt: skip
    return table


def _width(shown: Any) -> int:
    from rich.measure import Measurement

    console = _console()
    return Measurement.get(console, console.options.update(width=PLAIN), shown).maximum


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN, highlight=False, soft_wrap=False)


def _print(shown: "list[RenderableType]") -> None:
    """As it is on a terminal; elsewhere lines end where their text does."""
    console = _console()
    if console.is_terminal:
        for item in shown:
            console.print(item)
        return
    with console.capture() as capture:
        for item in shown:
            console.print(item)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))
