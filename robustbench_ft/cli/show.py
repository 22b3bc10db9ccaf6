"""Tables on a terminal, or as Markdown."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from robustbench_ft.compare.text import Text


def show(texts: "Sequence[Text]", style: str) -> None:
    """Print each table in `style`, 'terminal' or 'markdown'."""
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
