"""Tables on a terminal, or in a form for other programs."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from robustbench_ft import tabular
from robustbench_ft.tabular import MACHINE, Text

WORDS = 30  # signs in which the words of a last column are read well


def show(texts: Sequence[Text], style: str) -> None:
    """Print tables in one of `tabular.STYLES`. All tables of a command go in together: JSON is one document."""
    if style != "terminal":
        click.echo(tabular.render(texts, style), nl=style == "markdown")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as RichText

    console = Console(width=None if sys.stdout.isatty() else 200)
    for text in texts:
        parts = pieces(text, console.width)
        for which, columns in enumerate(parts):
            last = which == len(parts) - 1
            shown = Table(
                title=text.title if which == 0 else None, title_justify="left", caption_justify="left",
                caption=text.caption if last else None,
            )  # fmt: skip
            for k in columns:
                shown.add_column(text.header[k], justify="left" if k in text.words else "right", overflow="fold")
            for k, row in enumerate(text.body, start=1):
                # row names may hold brackets, which are no markup
                shown.add_row(*(RichText(row[column]) for column in columns), end_section=k == text.rule_after)
            console.print(shown)
        console.print()


def pieces(text: Text, width: int) -> list[list[int]]:
    """Columns of tables that fit into `width` signs, each with the first column; one table where all fit.

    Headings are wrapped between words, and the last column where it has words. A column that is too wide beside the
    first one alone is wrapped, too.
    """
    wide = [
        max(len(cell) for cell in ("", *name.split(), *(row[k] for row in text.body))) + 3
        for k, name in enumerate(text.header)
    ]
    wide[-1] = min(wide[-1], WORDS) if len(wide) > 1 else wide[-1]
    if sum(wide) + 1 <= width or len(wide) < 3:
        return [list(range(len(wide)))]
    found: list[list[int]] = [[0]]
    left = width - 1 - wide[0]
    for k in range(1, len(wide)):
        if len(found[-1]) > 1 and wide[k] > left:
            found.append([0])
            left = width - 1 - wide[0]
        found[-1].append(k)
        left -= wide[k]
    return found


def beside(line: str, style: str) -> None:
    """Print a line that is no table: to standard error where standard output is for other programs."""
    click.echo(line, err=style in MACHINE)


def under(heading: str, texts: Sequence[Text]) -> list[Text]:
    """Tables whose titles begin with what they are about, so that those of several suites can be told apart."""
    return [
        text if text.title.startswith(heading) else replace(text, title=f"{heading}: {text.title}") for text in texts
    ]
