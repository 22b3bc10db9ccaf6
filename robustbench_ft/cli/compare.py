"""The commands that compare: parsing and printing. Nothing heavy is imported before a command needs it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft.errors import RbftError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustbench_ft.compare import Comparison
    from robustbench_ft.compare.text import Text
    from robustbench_ft.record.store import Record

WIDE: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
FOLDER = click.Path(path_type=Path)
ROOT = click.option(
    "--root", "root", multiple=True, metavar="DIR",
    help="Folder of downloaded data; repeat for several, SUITE/SPLIT=DIR names one split's.  [env: RBFT_DATA]",
)  # fmt: skip
PARTIAL = click.option(
    "--allow-partial", is_flag=True, help="Run on data whose counts differ from the card; such runs make no claims."
)
WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), help="Threads that decode images.  [default: as many as there are cores]"
)
FORMATS = click.Choice(["terminal", "markdown"])
METRIC = click.option(
    "--metric", type=click.Choice(["official", "accuracy", "macro_f1", "nll", "brier"]), default="official",
    show_default=True, help="official: the metric that each test set is known by.",
)  # fmt: skip


SUITE = click.option("--suite", metavar="NAME", help="Only runs on this suite.")


@click.command(context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER)
@click.option("--baseline", default="ft", show_default=True, metavar="ROW", help="A method, or a row's whole name.")
@SUITE
@click.option(
    "--family", type=click.Choice(["ood-mean", "per-split"]), default="ood-mean", show_default=True,
    help="What the claims are about: Holm inside this family, all else is exploratory.",
)  # fmt: skip
@METRIC
@click.option("--format", "style", type=FORMATS, default="terminal", show_default=True)
@click.option("--json", "target", type=FOLDER, metavar="FILE", help="Also write every number, unrounded.")
@click.option("--exact-bootstrap", is_flag=True, help="Multinomial draws for ranks instead of Gaussian ones: slower.")
def compare(
    runs: tuple[Path, ...], baseline: str, suite: str | None, family: str, metric: str, style: str,
    target: Path | None, exact_bootstrap: bool,
) -> None:  # fmt: skip
    """Methods against a baseline: intervals, tests, letters, rank intervals.

    RUNS are folders of records, or of published claims, as in `rbft compare runs leaderboards/shapes-v1` (default:
    runs). Where one suite cannot be compared, the others are.
    """
    from robustbench_ft.compare import compare as compared
    from robustbench_ft.compare import load, tables, tradeoffs
    from robustbench_ft.errors import PlanError
    from robustbench_ft.record import store

    found: list[Comparison] = []
    problems: list[str] = []
    for arena in load(find(runs, suite), metric):
        try:
            found.append(compared(arena, baseline, family, exact_bootstrap))
        except RbftError as error:
            problems.append(str(error))
    further = [tradeoffs.beyond(comparison) for comparison in found]
    if target and found:
        content = [tables.as_json(c) | tradeoffs.as_json(b) for c, b in zip(found, further, strict=True)]
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
        store.write_bytes(target, text.encode())
    for comparison, more in zip(found, further, strict=True):
        _show([*tables.sections(comparison), *tradeoffs.sections(more)], style)
    if problems:
        raise PlanError(problems)


def find(runs: "Sequence[Path]", suite: str | None) -> "list[Record]":
    """Records and published runs under these folders, of one suite where it is named."""
    from robustbench_ft.claims.shelf import find_runs

    found = find_runs(runs or (Path("runs"),))
    chosen = [record for record in found if suite in (None, record.cell.get("suite"))]
    if not chosen:
        known = sorted({str(record.cell.get("suite")) for record in found})
        raise RbftError(f"no run on suite '{suite}' there; there are runs on {', '.join(known)}")
    return chosen


@click.command(context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER)
@SUITE
@click.option("--family", type=click.IntRange(min=1), default=1, show_default=True, help="Comparisons to correct for.")
@METRIC
@click.option("--format", "style", type=FORMATS, default="terminal", show_default=True)
def power(runs: tuple[Path, ...], suite: str | None, family: int, metric: str, style: str) -> None:
    """Which differences these runs could show, and how many seeds would show more."""
    from robustbench_ft.compare import designs, load

    for arena in load(find(runs, suite), metric):
        _show([designs.power_table(arena, family)], style)


@click.command(context_settings=WIDE)
@click.argument("run_a", type=FOLDER)
@click.argument("run_b", type=FOLDER)
@click.option("--candidate", nargs=2, metavar="A B", help="Candidates of families.  [default: each run's own]")
@click.option("--format", "style", type=FORMATS, default="terminal", show_default=True)
@click.option("--json", "target", type=FOLDER, metavar="FILE", help="Also write every number, unrounded.")
def diff(run_a: Path, run_b: Path, candidate: tuple[str, str] | None, style: str, target: Path | None) -> None:
    """Two runs, example by example: what differs in configuration, environment and data, then what flipped."""
    from robustbench_ft.claims.shelf import find_run
    from robustbench_ft.compare import two_runs
    from robustbench_ft.record import store

    found = two_runs.two_runs(find_run(run_a), find_run(run_b), candidate)
    if target:
        store.write_json(target, two_runs.as_json(found))
    _show(two_runs.sections(found), style)


COMMANDS = (compare, diff, power)


def _show(texts: "Sequence[Text]", style: str) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as RichText

    from robustbench_ft.compare.text import markdown

    if style == "markdown":
        for text in texts:
            click.echo(markdown(text))
        return
    console = Console(width=None if sys.stdout.isatty() else 200)
    for text in texts:
        shown = Table(title=text.title, title_justify="left", caption=text.caption, caption_justify="left")
        for k, column in enumerate(text.header):
            shown.add_column(column, justify="right" if k else "left", overflow="fold")
        for k, row in enumerate(text.body, start=1):
            # row names may hold brackets, which are no markup
            shown.add_row(*map(RichText, row), end_section=k == text.rule_after)
        console.print(shown)
        console.print()
