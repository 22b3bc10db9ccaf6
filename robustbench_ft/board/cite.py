"""How a row is named for good: its permalink, its date, its method's file, and a BibTeX entry."""

import re

from robustbench_ft import registry
from robustbench_ft.claims import claim
from robustbench_ft.claims.schema import FIXED
from robustbench_ft.compare.text import points
from robustbench_ft.errors import RbftError

from .table import Board, Row
from .text import one_line, tex

METHODS = "methods"  # folder of the built-in methods, beside the leaderboards folder
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def link(row: Row) -> str:
    """The row's place on its page: model, claim, and how its candidate was chosen. No other row moves it."""
    rule = "" if row.result.selection == FIXED else f".{row.result.selection}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{row.source.place.model}.{row.source.place.name}{rule}")


def links(board: Board) -> dict[str, str]:
    """Row key -> permalink. Rows that one claim and rule give twice are numbered in board order."""
    found: dict[str, str] = {}
    for row in board.rows:
        name, taken = link(row), [*found.values()]
        number = next(k for k in range(1, len(taken) + 2) if (name if k == 1 else f"{name}.{k}") not in taken)
        found[row.key] = name if number == 1 else f"{name}.{number}"
    return found


def date(row: Row) -> str:
    """The day on which the claim was made; '' where it does not say."""
    return row.claim.trust.date or ""


def method_files(row: Row) -> tuple[str, ...]:
    """File names of the built-in methods that the row is made of; none of a method from elsewhere."""
    return tuple(entry.source.name for entry in _entries(row) if entry.shelf == "builtin" and entry.source.name)


def _entries(row: Row) -> list[registry.Entry]:
    try:
        return [registry.resolve("method", part) for part in registry.parts(row.method)]
    except RbftError:
        return []  # not installed here


def summary(row: Row) -> str:
    """What the method says of itself, with its authors; '' where it is not installed."""
    found = _entries(row)
    return found[0].summary if len(found) == 1 else ""


def bibtex(board: Board, row: Row) -> str:
    """An entry for the row as it stands: numbers, seeds and the digest of its claim."""
    place, trust = row.source.place, row.claim.trust
    title = f"{row.name} on {board.title}"
    numbers = ", ".join(f"{name} {points(row.estimate(name))}" for name in ("mean OOD", "ID"))
    note = f"{numbers} (%, 95 % intervals), {len(row.seeds)} seeds; claim sha256 {claim.digest(row.source.raw)[:16]}"
    year, month = (trust.date[:4], MONTHS[int(trust.date[5:7]) - 1]) if trust.date else ("", "")
    fields = {
        "author": f"{{{_field(trust.by or 'robustbench_ft developers')}}}",
        "title": _field(title),
        "howpublished": _field(f"Leaderboards of robustbench_ft, {place.file.as_posix()}"),
        "note": _field("; ".join(part for part in (note, trust.source or summary(row)) if part)),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    lines += [f"  year = {{{year}}},", f"  month = {month},"] if year else []
    return "\n".join([f"@misc{{rbft-{place.suite}-{link(row)},", *lines, "}"])


def _field(text: str) -> str:
    """Text inside braces: TeX's own signs are quoted, and signs that lead out of LaTeX's first 128 are commands."""
    return tex(one_line(text)).replace("±", r"$\pm$")
