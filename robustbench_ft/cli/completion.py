"""What a shell offers when a name is half typed: methods and suites, their files, and the cells of a folder.

It reads names alone, so it answers within a fifth of a second. The README says how to switch it on.
"""

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from robustbench_ft import registry

RUNS = Path("runs")  # where `rbft run` puts cells, and where they are looked for


def methods(ctx: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Registered methods, or files; after a '+', the method to be composed with."""
    return _named(("method",), text) or _files(text)


def suites(ctx: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Registered suites, or files."""
    return _named(("suite",), text) or _files(text)


def both(ctx: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Methods and suites, or files."""
    return _named(("method", "suite"), text) or _files(text)


def cells(ctx: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Folders of cells under `runs`; other paths, where none begins so."""
    found = sorted(path.as_posix() for path in RUNS.glob("*/*/*/seed-*"))
    return [CompletionItem(path) for path in found if path.startswith(text)] or _files(text)


def _named(kinds: tuple[registry.Kind, ...], text: str) -> list[CompletionItem]:
    before, plus, last = text.rpartition("+")
    known = {name: entry.summary for kind in kinds for name, entry in registry.entries(kind).items()}
    return [CompletionItem(before + plus + name, help=known[name]) for name in sorted(known) if name.startswith(last)]


def _files(text: str) -> list[CompletionItem]:
    return [CompletionItem(text, type="file")]
