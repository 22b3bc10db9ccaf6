"""Tables on a terminal, or in a form for other programs."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from robustbench_ft import tabular
from robustbench_ft.tabular import MACHINE, Text


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
        shown = Table(title=text.title, title_justify="left", caption=text.caption, caption_justify="left")
        for k, column in enumerate(text.header):
            shown.add_column(column, justify="left" if k in text.words else "right", overflow="fold")
        for k, row in enumerate(text.body, start=1):
            # row names may hold brackets, which are no markup
            shown.add_row(*map(RichText, row), end_section=k == text.rule_after)
        console.print(shown)
        console.print()


def beside(line: str, style: str) -> None:
    """Print a line that is no table: to standard error where standard output is for other programs."""
    click.echo(line, err=style in MACHINE)


def under(heading: str, texts: Sequence[Text]) -> list[Text]:
    """Tables whose titles begin with what they are about, so that those of several suites can be told apart."""
    return [
        text if text.title.startswith(heading) else replace(text, title=f"{heading}: {text.title}") for text in texts
    ]
