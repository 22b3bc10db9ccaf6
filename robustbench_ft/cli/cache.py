"""`rbft cache`: what can be computed again, and how to be rid of it. Parsing and printing only."""

import time
from datetime import datetime, timezone

import click

from robustbench_ft.tabular import Shown, Text, number

from .options import FORMAT, WIDE
from .show import beside, show

DAY = 24 * 3600.0
RIGHT = ("entries", "size")


@click.group("cache", context_settings=WIDE)
def cache_group() -> None:
    """Pixels, heads, drawn splits: kept to save time, and safe to remove at any moment."""


@cache_group.command("ls", context_settings=WIDE)
@click.option("--all", "every", is_flag=True, help="Show every entry, not only sums by kind.")
@FORMAT
def ls(every: bool, style: str) -> None:
    """Show what the cache holds."""
    from robustbench_ft import cache

    found = cache.entries()
    kinds = {kind: [entry for entry in found if entry.kind == kind] for kind in dict.fromkeys(e.kind for e in found)}
    if every:
        head = ("kind", "what", "from", "size", "last used")
        rows = [(e.kind, e.text, str(e.about.get("place", "")), _size(e.size), _ago(e.used)) for e in found]
    else:
        head = ("kind", "entries", "size", "last used")
        rows = [
            (kind, number(len(some)), _size(sum(e.size for e in some)), _ago(max(e.used for e in some)))
            for kind, some in kinds.items()
        ]
    if style != "terminal":
        show([Text("", head, tuple(rows), words=tuple(k for k, name in enumerate(head) if name not in RIGHT))], style)
    elif rows:
        from tabulate import tabulate

        right = ["right" if name in RIGHT else "left" for name in head]
        click.echo(tabulate(rows, head, colalign=right, disable_numparse=True))
    pixels = sum(entry.size for entry in found if entry.kind == "pixels")
    beside(
        f"{cache.root()}: {cache.size_text(sum(entry.size for entry in found))} in {len(found)} entries; pixels "
        f"{cache.size_text(pixels)} of at most {cache.size_text(cache.limit())} (RBFT_CACHE_LIMIT)",
        style,
    )


def _size(found: int) -> str:
    """A size for people; in bytes for programs."""
    from robustbench_ft import cache

    return number(found, text=cache.size_text(found))


@cache_group.command("prune", context_settings=WIDE)
@click.option("--all", "every", is_flag=True, help="Remove every entry.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only entries of this kind; repeat for several.")
@click.option(
    "--unused-days",
    "--older",
    "older",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Entries not used for so many days.",
)
@click.option(
    "--until-size", "--to", "size", metavar="SIZE", help="What was used longest ago, until SIZE is left, e.g. 10GiB."
)
@click.option("--dry-run", is_flag=True, help="Show what would go and remove nothing.")
def prune(every: bool, kinds: tuple[str, ...], older: float | None, size: str | None, dry_run: bool) -> None:
    """Remove entries, and what killed processes left behind.

    Without options only pixels beyond the limit go. Evaluations that read an entry meanwhile are not disturbed.
    """
    from robustbench_ft import cache
    from robustbench_ft.errors import RbftError, unknown

    if every + (older is not None) + (size is not None) > 1:
        raise RbftError("--all, --unused-days and --until-size exclude each other; give one")
    found = cache.entries()
    for kind in kinds:
        if kind not in {entry.kind for entry in found}:
            raise RbftError(unknown("kind of cache entry", kind, {entry.kind for entry in found}))
    bare = not every and older is None and size is None and not kinds
    pool = [e for e in found if (e.kind in kinds if kinds else e.kind == "pixels" or not bare)]
    if older is not None:
        gone = [entry for entry in pool if entry.used < time.time() - older * DAY]
    elif size is not None or bare:
        gone = cache.surplus(pool, cache.parse_size(size, "--until-size") if size is not None else cache.limit())
    else:
        gone = pool
    freed = sum(entry.size for entry in gone)
    if not dry_run:
        for entry in gone:
            cache.forget(entry.path)
        freed += cache.sweep()
    click.echo(f"{'would remove' if dry_run else 'removed'} {len(gone)} entries, {cache.size_text(freed)}")


def _ago(used: float) -> str:
    """How long ago, for people; the moment itself, in UTC, for programs."""
    when = datetime.fromtimestamp(used, timezone.utc).isoformat(timespec="seconds")
    seconds = max(0.0, time.time() - used)
    for size, unit in ((DAY, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return Shown(f"{seconds / size:.0f} {unit} ago", ("", when))
    return Shown("just now", ("", when))
