"""`rbft list`, `show` and `check`: what there is, what it is, and whether it keeps its contract."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from robustbench_ft import registry
from robustbench_ft.errors import RbftError
from robustbench_ft.tabular import Text

from . import completion
from .options import FORMAT, PARTIAL, ROOT, WIDE
from .show import beside, show

if TYPE_CHECKING:
    from robustbench_ft.checks import Check


@click.command("list", context_settings=WIDE)
@click.argument("kind", type=click.Choice(["all", "methods", "suites"]), default="all")
@FORMAT
def list_command(kind: str, style: str) -> None:
    """Show the registered methods and suites."""
    if style != "terminal":
        found = [
            (key, entry.name, entry.summary, entry.shelf)
            for key in ("method", "suite")
            if kind in ("all", f"{key}s")
            for entry in sorted(registry.entries(key).values(), key=lambda entry: entry.name)
        ]
        show([Text("", ("kind", "name", "summary", "shelf"), tuple(found), words=(0, 1, 2, 3))], style)
        return
    for title, key in (("Methods", "method"), ("Suites", "suite")):
        if kind not in ("all", title.lower()):
            continue
        click.echo(f"{title}")
        width = max(map(len, registry.entries(key)))
        for entry in sorted(registry.entries(key).values(), key=lambda e: e.name):
            origin = "" if entry.shelf == "builtin" else f" [{entry.shelf}]"
            for line in _lines(f"  {entry.name:<{width}} ", f"{entry.summary}{origin}"):
                click.echo(line)


def _lines(start: str, words: str) -> list[str]:
    """Words behind `start`, on a terminal in lines that fit; elsewhere in one."""
    if not sys.stdout.isatty():
        return [start + words]
    width = max(shutil.get_terminal_size().columns, len(start) + 20)
    return textwrap.wrap(words, width, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)


@click.command("show", context_settings=WIDE)
@click.argument("name", shell_complete=completion.both)
def show_command(name: str) -> None:
    """Show one method or suite: what it is, its settings, its recipe, its data."""
    from .describe import describe

    click.echo(describe(name))


@click.group(context_settings=WIDE)
def check() -> None:
    """Does a method or a suite keep its contract? For authors, built-in or not."""


@check.command("method", short_help="Hold a method to what every method promises.", context_settings=WIDE)
@click.argument("name", required=False, shell_complete=completion.methods)
@click.option("--all", "every", is_flag=True, help="Every registered method, a line each: some ten minutes.")
@FORMAT
def check_method_command(name: str | None, every: bool, style: str) -> None:
    """Fit the method on a small model and random images, and hold it to what every method promises."""
    from robustbench_ft import checks
    from robustbench_ft.method import Method

    if (name is None) != every:
        raise RbftError("name one method, as in `rbft check method ft`, or all with --all")
    if name is not None:
        _run_checks(checks.check_method(registry.load("method", name, Method)), style)
    rows: list[tuple[str, str, str]] = []
    for one in sorted(registry.entries("method")):
        found = checks.check_method(registry.load("method", one, Method))
        problems = [f"{check}: {text}" for check in found if (text := _problem(check))]
        rows.append(("FAILED" if problems else "ok", one, "; ".join(problems) or f"{len(found)} checks"))
        if style == "terminal":
            click.echo(f"{rows[-1][0]:<7} {one}: {rows[-1][2]}")
    if style != "terminal":
        show([Text("", ("verdict", "method", "what"), tuple(rows), words=(0, 1, 2))], style)
    passed = sum(verdict == "ok" for verdict, _, _ in rows)
    beside(f"{passed} of {len(rows)} methods pass", style)
    sys.exit(1 if passed < len(rows) else 0)


@check.command("suite", context_settings=WIDE)
@click.argument("name", shell_complete=completion.suites)
@ROOT
@PARTIAL
@FORMAT
def check_suite_command(name: str, root: tuple[str, ...], allow_partial: bool, style: str) -> None:
    """Load every split of the suite and hold it to its card."""
    from robustbench_ft import checks, suite_ref
    from robustbench_ft.images import roots

    _run_checks(checks.check_suite(suite_ref.load(name, roots.choose(root, os.environ), allow_partial)), style)


def _run_checks(found: "Iterable[Check]", style: str) -> None:
    rows: list[tuple[str, str, str]] = []
    for item in found:
        problem = _problem(item)
        rows.append(("FAILED" if problem else "ok", item.name, problem))
        if style == "terminal":
            click.echo(f"FAILED  {item.name}: {problem}" if problem else f"ok      {item.name}")
    if style != "terminal":
        show([Text("", ("verdict", "check", "problem"), tuple(rows), words=(0, 1, 2))], style)
    sys.exit(1 if any(problem for _, _, problem in rows) else 0)


def _problem(check: "Check") -> str:
    """What fails; empty where it passes."""
    try:
        check.run()
    except AssertionError as error:
        return str(error) or "it fails without a word"
    return ""
