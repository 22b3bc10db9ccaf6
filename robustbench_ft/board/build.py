"""Build the pages of a leaderboards folder. Equal claims give equal bytes; `check` lists stale files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustbench_ft import __version__, registry
from robustbench_ft.claims import audit, claim, claim_store
from robustbench_ft.compare.load import OFFICIAL
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import ACCURACY
from robustbench_ft.record.store import Json, write_bytes
from robustbench_ft.stats import Estimate
from robustbench_ft.suite import Suite

from . import cite, detail, listing, page, paper, ranking, text
from .page import Page
from .table import Board, Row

COMMAND = "rbft leaderboard build"


def files(root: Path, suite: str | None = None, baseline: str | None = None) -> dict[str, str]:
    """Path under `root` -> content of everything made from the claims. A claim that fails its audit stops it."""
    claims = claim_store.find(root, suite)
    check_sound(claims)
    pages = _pages(claims, paper.one_per_paper(paper.load(root / paper.FILE)), baseline, suite)
    if not pages:
        raise RbftError(f"no claim{f' on {suite}' if suite else ''} under {root}; make one with `rbft leaderboard add`")
    made: dict[str, str] = {}
    for one in pages:
        footer = _footer(one)
        made[f"{one.name}.md"] = _markdown(one, footer)
        made[f"site/{one.name}.html"] = page.render(one, footer)
        if one.boards:
            made[f"site/{one.name}-pairs.html"] = detail.render_pairs(one, footer)
            made[f"site/{one.name}-classes.html"] = detail.render_classes(one, footer)
            made[f"{one.name}.csv"] = text.as_csv(one.boards)
            made[f"{one.name}.tex"] = "\n".join(text.latex(board) for board in one.boards)
            made[f"{one.name}.json"] = json.dumps([_plain(b) for b in one.boards], indent=1, sort_keys=True) + "\n"
    if suite is None:
        whole = [_maker()]
        made["index.md"] = _index(pages, whole)
        listed = listing.listed(pages)
        made["site/index.html"] = listing.index(pages, [line for _, line in listed], whole)
        rows = [row for row, _ in listed]
        made["rows.csv"], made["rows.json"] = listing.as_csv(rows), listing.as_json(rows)
    return made


def write(root: Path, made: Mapping[str, str]) -> list[str]:
    """Write what differs; returns the names of the files that did."""
    changed = [name for name, content in made.items() if _read(root / name) != content]
    for name in changed:
        write_bytes(root / name, made[name].encode())
    return changed


def stale(root: Path, made: Mapping[str, str]) -> list[str]:
    """Files that are out of date, a line each."""
    lines: list[str] = []
    for name, content in made.items():
        there = _read(root / name)
        if there is None:
            lines.append(f"{name} is missing")
        elif there != content:
            lines.append(f"{name} is stale")
    known = {Path(name).stem for name in made}
    lines += [
        f"site/{path.name} belongs to no claim"
        for path in sorted((root / "site").glob("*.html"))
        if path.stem not in known and "index" in known
    ]
    return lines


def check_sound(claims: Sequence[claim_store.StoredClaim]) -> None:
    """Raise `RbftError` for the first claim that does not hold."""
    for one in claims:
        problems = audit.audit(one)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise RbftError(f"{one.place.file}: {problems[0]}{more}; see `rbft leaderboard verify`")
    claim_store.check_boards(claims)


def _pages(
    claims: Sequence[claim_store.StoredClaim], published: Sequence[paper.Row], baseline: str | None, suite: str | None
) -> list[Page]:
    boards = ranking.boards(claims, published, baseline)
    pages: dict[tuple[str, int], Page] = {}
    for board in boards:
        mine = tuple(b for b in boards if b.name == board.name)
        pages[board.suite, board.version] = Page(
            board.suite, board.version, mine, board.paper, board.shifts, board.card
        )
    for name in dict.fromkeys(row.suite for row in published):
        if suite not in (None, name) or any(key[0] == name for key in pages):
            continue
        kind = registry.load("suite", name, Suite)
        rows = tuple(row for row in published if row.suite == name)
        pages[name, kind.version] = Page(name, kind.version, (), rows, kind.shifts, kind.card)
    return [pages[key] for key in sorted(pages, key=lambda key: (not pages[key].boards, key))]


def _markdown(one: Page, footer: Sequence[str]) -> str:
    parts = [f"# {one.suite} v{one.version}"]
    if one.card:
        note = f" {one.card.note.capitalize()}." if one.card.note else ""
        parts.append(f"{one.card.title}. Source: {one.card.paper}. Licence of the data: {one.card.licence}.{note}")
    parts += [text.markdown(board).rstrip() for board in one.boards]
    if one.paper and not one.boards:
        parts += ["No method has been run on this suite here yet.", text.paper_markdown(one.paper, one.shifts)]
    return "\n\n".join([*parts, "---", "\n".join(f"{line}  " for line in footer).rstrip()]) + "\n"


def _index(pages: Sequence[Page], footer: Sequence[str]) -> str:
    lines = ["# Leaderboards", "", "| suite | rows run here | rows from papers | page |", "|---|---:|---:|---|"]
    for one in pages:
        rows = sum(len(board.rows) for board in one.boards)
        shown = f"[table]({one.name}.md), [site](site/{one.name}.html)"
        if one.boards:
            shown += f", [pairs](site/{one.name}-pairs.html), [classes](site/{one.name}-classes.html)"
        lines.append(f"| {one.suite} v{one.version} | {rows or text.NONE} | {len(one.paper) or text.NONE} | {shown} |")
    lines += ["", "All rows in one list: [site](site/index.html), [CSV](rows.csv), [JSON](rows.json)."]
    how = "How to submit a row, and how rows are checked: [README.md](README.md)."
    return "\n".join([*lines, "", how, "", "---", "", *footer]) + "\n"


def _maker() -> str:
    return f"Made by `{COMMAND}`, rbft {__version__}. Do not edit."


def _footer(one: Page) -> list[str]:
    lines = [_maker()]
    claims = {row.source.place.file.as_posix(): row.source for board in one.boards for row in board.rows}
    for name, source in sorted(claims.items()):
        lines.append(f"{name} sha256 {claim.digest(source.raw)[:16]}")
    if one.paper:
        lines.append(f"Rows from papers: {paper.FILE}")
    return lines


def _plain(board: Board) -> Json:
    """Every number of a board, to nine digits."""
    shared = {name: getattr(board, name) for name in ("suite", "version", "model", "weights", "protocol", "baseline")}
    metrics = {split: board.run_set.metric_of(split) for split in board.run_set.n}
    shared |= {"metrics": metrics, "recipes": {f"R{n}": recipe for n, recipe in board.recipes.items()}}
    links = cite.links(board)
    shared |= {"resolution": asdict(board.resolution) if board.resolution else None, "by_gain": board.by_gain}
    return _rounded({**shared, "columns": board.columns, "rows": [_row(row, links[row.key]) for row in board.rows]})


def _row(row: Row, link: str) -> Json:
    cost, found = row.cost, row.result.estimates
    return {
        "name": row.name, "method": row.method, "claim": row.source.place.file.as_posix(), "seeds": row.seeds,
        "ranked": row.ranked, "letters": row.letters, "rank": asdict(row.rank) if row.rank else None,
        "tied_rank": row.tied, "first_over_shifts": row.first_over_shifts, "reference": row.reference,
        "on_curve": row.on_curve, "date": cite.date(row) or None, "link": link,
        "against_baseline": asdict(row.against) if row.against else None, "p_adjusted": row.p_adjusted,
        "gain_at_equal_id": asdict(row.gain) if row.gain else None,
        "effective_robustness": {name: asdict(found) for name, found in (row.effective or {}).items()},
        "recipe": row.recipe or None, "transductive": row.transductive, "also": row.also,
        **{name: _estimates(found[name]) for name in (ACCURACY, OFFICIAL) if name in found},
        "cost": {
            "fit_seconds": cost.fit, "fit_images_per_second": cost.fit_rate,
            "evaluate_images_per_second": cost.evaluation_rate, "peak_memory_mib": cost.memory,
            "trained_parameters": cost.parameters, "passes_per_prediction": cost.passes,
        },
    }  # fmt: skip


def _estimates(found: Mapping[str, Estimate]) -> Json:
    return {column: estimate.written() for column, estimate in found.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RbftError(f"cannot read {path}: {error}") from error
