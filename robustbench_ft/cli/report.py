"""`rbft report`: tables from records."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft.errors import RbftError
from robustbench_ft.tabular import MACHINE

from .options import FORMAT, HEADLINES, SUITE, WIDE, find
from .show import show

if TYPE_CHECKING:
    from robustbench_ft.compare.report import Table


def print_table(table: "Table", val: bool = False) -> None:
    """In one piece where the terminal is wide enough, else the means first and the single shifts below."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable

    from robustbench_ft.compare import report

    console = Console(width=None if sys.stdout.isatty() else 240)
    head = table.header(val)
    whole = _rich(table, range(len(head)), val)
    if Measurement.get(console, console.options.update(width=1000), whole).maximum <= console.width:
        console.print(whole)
    else:
        singles = [k for k, name in enumerate(("method", "seeds", *table.columns(val))) if name in table.run_set.shifts]
        console.print(_rich(table, [k for k in range(len(head)) if k not in singles], val))
        console.print(_rich(table, [0, *singles], val))
    console.print(report.footnote(table), highlight=False, style="dim")
    if table.further:
        more = RichTable()
        for k, name in enumerate(("method", *(column.title for column in table.further))):
            more.add_column(name, justify="right" if k else "left")
        for line in table.lines:
            more.add_row(*table.further_texts(line))
        console.print(more)
        console.print(report.FURTHER, highlight=False, style="dim")


def _rich(table: "Table", columns: Sequence[int], val: bool) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.title, title_justify="left")
    head = table.header(val)
    for k in columns:
        shown.add_column(head[k], justify="right" if k else "left", no_wrap=True)
    for line in table.lines:
        texts = table.texts(line, val)
        shown.add_row(*(Text(texts[k]) for k in columns))  # intervals may hold brackets, which are no markup
    return shown


@click.command("report", context_settings=WIDE)
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@FORMAT
@SUITE
@HEADLINES
@click.option("--val", is_flag=True, help="Also show ID validation, on which everything is chosen.")
@click.option(
    "--baseline", "--against", "baseline", metavar="ROW",
    help="Also show differences to this row (a method or a row's name).",
)  # fmt: skip
@click.option(
    "--figure", "picture", type=click.Path(path_type=Path), help="Also draw ID against OOD accuracy into this PNG."
)
@click.option(
    "--factors", "factors", type=click.Path(path_type=Path), metavar="FILE",
    help="Also show ID error by factor, e.g. imagenet_x_val_multi_factor.jsonl of ImageNet-X.",
)  # fmt: skip
@click.option(
    "--without", type=click.Path(path_type=Path), metavar="CSV",
    help="With --factors: images to leave out, e.g. prototypical_paths.csv of ImageNet-X.",
)  # fmt: skip
def report_command(
    runs: tuple[Path, ...], suite: str | None, style: str, headlines: bool, val: bool, baseline: str | None,
    picture: Path | None, factors: Path | None, without: Path | None,
) -> None:  # fmt: skip
    """Tables from records, without torch. RUNS are folders of records or of published claims (default: runs)."""
    from robustbench_ft.compare import factors as by_factor
    from robustbench_ft.compare import figure, report

    if (without and not factors) or (factors and style == "json"):
        raise RbftError("--factors FILE prints text (not json), and --without needs it; write both")
    described = by_factor.read(factors, without) if factors else None
    found = report.tables(find(runs, suite), headlines)
    if style == "json":
        click.echo(report.as_json(found), nl=False)
    elif style in MACHINE:
        texts = [text for table in found for text in report.sections(table, val, baseline)]
        show([*texts, *(by_factor.text(table, described) for table in found if described)], style)
    else:
        for table in found:
            if style == "markdown":
                click.echo(report.markdown(table, val))
            else:
                print_table(table, val)
            if baseline:
                show([report.against(table, baseline)], style)
            if described:
                show([by_factor.text(table, described)], style)
    if picture:
        for k, table in enumerate(found):
            path = picture if len(found) == 1 else picture.with_stem(f"{picture.stem}-{table.run_set.suite}-{k}")
            figure.scatter(table, path)
            click.echo(f"figure   {path}", err=True)
