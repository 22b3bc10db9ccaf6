"""The commands that compare: parsing and printing. Nothing heavy is imported before a command needs it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustbench_ft.errors import RbftError
from robustbench_ft.tabular import MACHINE

from .options import FOLDER, FORMAT, HEADLINES, METRIC, SUITE, WIDE, find
from .show import show, under

if TYPE_CHECKING:
    from robustbench_ft.compare import Comparison


@click.command(context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER)
@click.option("--baseline", default="ft", show_default=True, metavar="ROW", help="A method, or a row's whole name.")
@SUITE
@HEADLINES
@click.option(
    "--family", type=click.Choice(["ood-mean", "per-split"]), default="ood-mean", show_default=True,
    help="What the claims are about: Holm inside this family, all else is exploratory.",
)  # fmt: skip
@METRIC
@FORMAT
@click.option("--json", "target", type=FOLDER, metavar="FILE", help="Also write every number, unrounded.")
@click.option("--exact-bootstrap", is_flag=True, help="Multinomial draws for ranks instead of Gaussian ones: slower.")
def compare(
    runs: tuple[Path, ...], baseline: str, suite: str | None, headlines: bool, family: str, metric: str, style: str,
    target: Path | None, exact_bootstrap: bool,
) -> None:  # fmt: skip
    """Methods against a baseline: intervals, tests, letters, rank intervals.

    RUNS are folders of records, or of published claims, as in `rbft compare runs leaderboards/shapes-v2` (default:
    runs). Where one suite cannot be compared, the others are.
    """
    from robustbench_ft.compare import compare as compared
    from robustbench_ft.compare import load, tables, tradeoffs
    from robustbench_ft.errors import PlanError
    from robustbench_ft.record import store

    found: list[Comparison] = []
    problems: list[str] = []
    for run_set in load(find(runs, suite), metric, headlines=headlines):
        try:
            found.append(compared(run_set, baseline, family, exact_bootstrap))
        except RbftError as error:
            problems.append(str(error))
    further = [tradeoffs.beyond(comparison) for comparison in found]
    content = [tables.as_json(c) | tradeoffs.as_json(b) for c, b in zip(found, further, strict=True)]
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    if target and found:
        store.write_bytes(target, text.encode())
    if style == "json":
        click.echo(text, nl=False)
    else:
        made = [
            (c.run_set.title, [*tables.sections(c), *tradeoffs.sections(b)])
            for c, b in zip(found, further, strict=True)
        ]
        show([text for title, some in made for text in (under(title, some) if style in MACHINE else some)], style)
    if style == "terminal":
        for comparison in found:
            _advise(comparison)
    if problems:
        raise PlanError(problems)


def _advise(comparison: "Comparison") -> None:
    """The last lines, for somebody who wants to choose a method."""
    import textwrap

    from robustbench_ft.compare.advice import advice

    for k, line in enumerate(advice(comparison)):
        label = f"advice   {comparison.run_set.suite}: " if k == 0 else " " * 9
        click.echo(textwrap.fill(line, 100, initial_indent=label, subsequent_indent=" " * 9))


@click.command(context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER)
@SUITE
@click.option(
    "--comparisons", "--family", "family", type=click.IntRange(min=1), default=1, show_default=True,
    help="Comparisons to correct for.",
)  # fmt: skip
@METRIC
@FORMAT
def power(runs: tuple[Path, ...], suite: str | None, family: int, metric: str, style: str) -> None:
    """Which differences these runs could show, and how many seeds would show more."""
    from robustbench_ft.compare import designs, load

    show([designs.power_table(run_set, family) for run_set in load(find(runs, suite), metric)], style)


@click.command(context_settings=WIDE)
@click.argument("run_a", type=FOLDER)
@click.argument("run_b", type=FOLDER)
@click.option("--candidate", nargs=2, metavar="A B", help="Candidates of families.  [default: each run's own]")
@FORMAT
@click.option("--json", "target", type=FOLDER, metavar="FILE", help="Also write every number, unrounded.")
def diff(run_a: Path, run_b: Path, candidate: tuple[str, str] | None, style: str, target: Path | None) -> None:
    """Two runs, example by example: what differs in configuration, environment and data, then what flipped."""
    from robustbench_ft.claims.claim_store import find_run
    from robustbench_ft.compare import two_runs
    from robustbench_ft.record import store

    found = two_runs.two_runs(find_run(run_a), find_run(run_b), candidate)
    if target:
        store.write_json(target, two_runs.as_json(found))
    if style == "json":
        click.echo(json.dumps(two_runs.as_json(found), indent=2, sort_keys=True, allow_nan=False))
    else:
        show(two_runs.sections(found), style)
