"""`rbft leaderboard`: claims in, checks, pages out. Parsing and printing only; nothing heavy at module level."""

import atexit
import gc
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft.tabular import Text

from . import completion
from .options import FOLDER, FORMAT, WIDE
from .show import beside, show

if TYPE_CHECKING:
    from robustbench_ft.claims.claim_store import StoredClaim
    from robustbench_ft.claims.schema import Level
    from robustbench_ft.images.roots import Roots

ROOT = click.option(
    "--boards",
    "--root",
    "root",
    type=FOLDER,
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of claims and boards.",
)
SUITE = click.option(
    "--suite", metavar="NAME", shell_complete=completion.suites,
    help="Only this suite (or suite version, e.g. shapes-v2).",
)  # fmt: skip
SOURCE = click.option("--source", metavar="TEXT", help="Where the method comes from: a DOI, an arXiv id, a repository.")
NOTES = click.option("--notes", metavar="TEXT", help="Shown with the claim.")
PLACE = click.option(
    "--predictions-at", "place", metavar="PLACE",
    help="Keep predictions out of git: they will lie in this folder, at https://..., or at hf://datasets/ORG/NAME.",
)  # fmt: skip
DATA_ROOT = click.option(
    "--data-root", multiple=True, metavar="DIR",
    help="Folder of downloaded data, as `rbft run --root`.  [env: RBFT_DATA]",
)  # fmt: skip


def checked_place(place: str | None) -> str | None:
    """What --predictions-at names, if it can be one."""
    from robustbench_ft.claims import elsewhere

    return place and elsewhere.check_place(place)


def today() -> str:
    """The day in UTC."""
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).date().isoformat()


@click.group(context_settings=WIDE)
def leaderboard() -> None:
    """Claims beside their predictions, and the boards made from them."""


@leaderboard.command(short_help="Make claims of the runs found under RUNS.", context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER, required=True)
@ROOT
@click.option("--origin", type=click.Choice(["rerun", "submitted"]), default="rerun", show_default=True)
@click.option("--author", "--by", "by", metavar="NAME", help="Who made the runs.")
@SOURCE
@NOTES
@PLACE
@click.option("--replace", is_flag=True, help="Put these claims in the place of others of the same configuration.")
def add(
    runs: tuple[Path, ...], root: Path, replace: bool, origin: str, by: str | None, source: str | None,
    notes: str | None, place: str | None,
) -> None:  # fmt: skip
    """Make a claim of every method setting found under RUNS, with the predictions it needs."""
    from robustbench_ft.claims import claim_store, elsewhere
    from robustbench_ft.claims.schema import Trust

    trust = Trust(origin, by, source, notes, date=today(), predictions=checked_place(place))
    made = claim_store.add(runs, root, trust, overwrite=replace)
    size = 0
    for one in made:
        files = [one.path, *(root / one.place.predictions).rglob("*")]
        size += sum(path.stat().st_size for path in files if path.is_file())
        click.echo(f"claim    {one.path} (seeds {', '.join(map(str, one.seeds))})")
        if elsewhere.ignore(one):
            click.echo(f"next     copy {root / one.place.predictions} to {place}/{one.place.predictions.as_posix()}")
    click.echo(f"{len(made)} claims, {size / 2**20:.1f} MiB with their predictions; next: rbft leaderboard build")


@leaderboard.command(short_help="Recompute every number of every claim.", context_settings=WIDE)
@ROOT
@SUITE
@click.option("--only", metavar="CLAIM", help="Read this one claim and no other; its path, or a part of it.")
@click.option("--fetch", is_flag=True, help="First get the predictions that claims have elsewhere.")
@click.option("--data", is_flag=True, help="Also hold ids, labels and images against the suite on this machine.")
@DATA_ROOT
@click.option("--rescore", type=click.IntRange(min=1), metavar="K", help="Predict K images per split again.")
@click.option("--draw", type=int, metavar="N", help="Repeats the draw of images that a --rescore printed.")
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Records with weights, to re-score.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N, to re-score.")
@click.option(
    "--verified-by", "--mark", "mark", metavar="NAME",
    help="Write into claims that pass how far and by whom they were verified.",
)  # fmt: skip
@FORMAT
def verify(root: Path, suite: str | None, data: bool, data_root: tuple[str, ...], **options: Any) -> None:
    """Recompute every number of every claim from its predictions; name whatever differs and exit with 2."""
    from robustbench_ft.claims import audit, claim_store
    from robustbench_ft.images import roots

    roots = roots.choose(data_root, os.environ)
    claims = audit.select(root, suite, options["only"])
    if options["fetch"]:
        _fetch(claims)
    report = audit.audit_each(claims, roots if data else None)
    level: Level = "predictions" if data else "metrics"
    lines: list[str] = []
    if options["rescore"]:
        lines, level = _rescore(claims, report, roots, options), "rescored"
    remarks, style = audit.remarks(claims), options["style"]
    if style != "terminal":
        head = ("verdict", "claim", "checked", "problems", "remarks")
        rows = (
            ("FAILED" if problems else "ok", name, level, "; ".join(problems), "; ".join(remarks.get(name, ())))
            for name, problems in report.items()
        )
        show([Text("", head, tuple(rows), words=tuple(range(5)))], style)
    for name, problems in report.items():
        if style == "terminal":
            click.echo(f"{'FAILED' if problems else 'ok':<8} {name}")
        for problem in problems:
            click.echo(f"rbft: {name}: {problem}", err=True)
    if style == "terminal":
        lines += [f"remark   {name}: {remark}" for name, some in remarks.items() for remark in some]
    for line in lines:
        beside(line, style)
    failed = sum(bool(problems) for problems in report.values())
    beside(f"{len(report) - failed} of {len(report)} claims hold ({level})", style)
    if options["mark"]:
        for one in claims:
            if not report[one.place.file.as_posix()]:
                claim_store.mark(one, level, options["mark"])
    if failed:
        sys.exit(2)


def _fetch(claims: "list[StoredClaim]") -> None:
    """Get what is not here. Raises `PlanError` with a line for each claim of which something could not be got."""
    from robustbench_ft.claims import elsewhere
    from robustbench_ft.errors import PlanError, RbftError

    problems: list[str] = []
    for one in claims:
        try:
            for path in elsewhere.fetch(one):
                click.echo(f"fetched  {path}", err=True)
        except RbftError as error:
            problems.append(f"{one.place.file.as_posix()}: {error}")
    if problems:
        raise PlanError(problems)


def _rescore(
    claims: "list[StoredClaim]", report: dict[str, list[str]], data: "Roots", options: dict[str, Any]
) -> list[str]:
    from robustbench_ft.claims import rescore

    drawn = rescore.draw() if options["draw"] is None else options["draw"]
    lines = [f"drawn    images number {drawn}; --draw {drawn} looks at the same ones again"]
    for one in claims:
        name = one.place.file.as_posix()
        if report[name]:
            continue  # its own files contradict it already
        for verdict in rescore.rescore(one, options["runs"], options["rescore"], data, options["device"], drawn=drawn):
            lines.append(f"scored   {name}, {verdict.text}")
            if not verdict.passes:
                report[name].append(f"{verdict.text}: the weights do not give the stored predictions")
    return lines


@leaderboard.command(short_help="Make claims again in today's form.", context_settings=WIDE)
@ROOT
@SUITE
def refresh(root: Path, suite: str | None) -> None:
    """Make the claims again from their stored files, in the form of this version of rbft; says what changed."""
    from robustbench_ft.claims import claim_store

    changed = claim_store.refresh(root, suite)
    for name, lines in changed.items():
        click.echo(f"wrote    {root / name}: {len(lines)} fields, e.g. {lines[0]}")
    click.echo(f"{len(changed)} claims changed; next: rbft leaderboard build")


@leaderboard.command(short_help="Write boards as CSV, LaTeX or for others.", context_settings=WIDE)
@ROOT
@click.option("--to", "form", type=click.Choice(["csv", "latex", "every-eval-ever", "hf"]), required=True)
@SUITE
@click.option("--out", type=FOLDER, required=True, metavar="FOLDER", help="Where the files are written.")
@click.option("--dry-run", is_flag=True, help="Only list the files and their bytes.")
def export(root: Path, form: Any, suite: str | None, out: Path, dry_run: bool) -> None:
    """Write the boards in other forms: tables, records of Every Eval Ever, or a data set for Hugging Face."""
    import time

    from robustbench_ft.board import formats
    from robustbench_ft.record.store import write_bytes

    made = formats.files(root, form, suite, int(time.time()))
    for name, text in sorted(made.items()):
        click.echo(f"{len(text.encode()):>12,}  {name}")
        if not dry_run:
            write_bytes(out / name, text.encode())
    click.echo(f"{len(made)} files {'would be ' if dry_run else ''}written to {out}")
    if form == "every-eval-ever" and not dry_run:
        click.echo(f"next     find {out} -name '*.json' | xargs every_eval_ever validate    # that project's own check")


@leaderboard.command("schema", context_settings=WIDE)
def schema_command() -> None:
    """Print the JSON Schema of claims. It says what may stand in one; `verify` says whether it is so."""
    import json

    from robustbench_ft.claims.published_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, sort_keys=True))


@contextmanager
def _no_collection() -> Generator[None, None, None]:
    """Many small objects and no cycles: looking for cycles among them takes an eighth of a build."""
    was = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)  # nor when the process ends
    try:
        yield
    finally:
        if was:
            gc.enable()


@leaderboard.command(short_help="Make pages and files of boards from claims.", context_settings=WIDE)
@ROOT
@click.option("--suite", metavar="NAME", help="Only the pages of this suite, and no index.")
@click.option("--baseline", metavar="ROW", help="Differences are shown to this row.  [default: named by board.toml]")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when a page is stale or missing.")
def build(root: Path, suite: str | None, baseline: str | None, check: bool) -> None:
    """Make Markdown, LaTeX, CSV, JSON and a static HTML site from the claims. Equal claims give equal bytes."""
    with _no_collection():
        from robustbench_ft.board import build as builder

        made = builder.files(root, suite, baseline)
    if check:
        lines = builder.stale(root, made)
        for line in lines:
            click.echo(f"rbft: {root / line}", err=True)
        if lines:
            click.echo("rbft: run `rbft leaderboard build` and commit what it writes", err=True)
            sys.exit(1)
        click.echo(f"{len(made)} files are up to date")
        return
    changed = builder.write(root, made)
    for name in changed:
        click.echo(f"wrote    {root / name}")
    click.echo(f"{len(changed)} of {len(made)} files changed; open {root / 'site' / 'index.html'}")
