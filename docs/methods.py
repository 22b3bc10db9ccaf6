"""Write docs/methods/*.md, one page for each registered method and their index: `python docs/methods.py [--check]`."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustbench_ft import registry
from robustbench_ft.cli import method_card
from robustbench_ft.cli.method_card import Card

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "methods"
PARITY = ROOT / "docs" / "parity.md"
BOARDS = ROOT / "leaderboards"
MADE = "Made by `python docs/methods.py` from the method's file, docs/parity.md and the boards. Do not edit."
WRONG = "What these tests would notice"
Row = Sequence[str]


def pages() -> dict[str, str]:
    """File name -> text, of all pages."""
    entries = {name: entry for name, entry in sorted(registry.entries("method").items()) if entry.shelf == "builtin"}
    cards = {name: method_card.card(name, entry) for name, entry in entries.items()}
    parity, boards = parity_rows(list(cards.values())), board_rows()
    made = {f"{name}.md": page(card, parity[name], boards.get(name, [])) for name, card in cards.items()}
    return {**made, "index.md": index(cards, parity, boards)}


def page(card: Card, parity: Sequence[Row], boards: Sequence[Row]) -> str:
    """The page of one method."""
    entry, recipes = card.entry, dict(card.recipes)
    recipes |= {"other suites": "the suite's own"} if card.trains else {}
    symbols = [(f"`{s.name}`", s.type, s.default, s.comment, g.owner) for g in card.groups for s in g.symbols]
    papers = [
        (row.suite, f"{row.model} {row.pretrained}", row.method, printed(row), row.source)
        for row in method_card.paper_rows(entry, BOARDS / method_card.paper.FILE)
    ]
    also = [("Also called", ", ".join(f"`{alias}`" for alias in entry.aliases))] if entry.aliases else []
    facts = [("Equation", f"`{card.equation}`"), ("Source", card.source), ("Checked against", card.oracle), *also,
             ("Cost", card.cost), ("File", f"`{entry.source.name}`")]  # fmt: skip
    parts = [
        f"# {entry.name}\n\n{entry.summary}\n\n{card.text}",
        table("", ("", ""), [row for row in facts if row[1].strip("`")]),
        bullets("Traps", card.traps),
        bullets("Declared", card.facts),
        table("Settings", ("setting", "type", "default", "what it is", "declared by"), symbols),
        table("Recipes", ("suite", "recipe"), list(recipes.items())),
        table("Measured here", ("board", "row", "seeds", "ID", "mean OOD", "to the baseline", "trained"), boards),
        table("Rows of papers, as printed, in %", ("suite", "model", "row", "numbers", "where"), papers),
        table("Parity", ("quantity", "reference", "max error", "tolerance", ""), parity),
        f"`rbft show {entry.name}` prints this page for a terminal. {MADE}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def printed(row: method_card.paper.Row) -> str:
    return ", ".join(f"{name} {cell.text}" for name, cell in row.cells.items())


def index(cards: Mapping[str, Card], parity: Mapping[str, Sequence[Row]], boards: Mapping[str, Sequence[Row]]) -> str:
    """All methods in one table."""
    rows = [
        (f"[{name}]({name}.md)", card.entry.summary.partition(": ")[2] or card.entry.summary,
         "no" if card.oracle.startswith("none") or not card.oracle else "yes",
         str(sum(not row[-1] for row in parity[name])), str(len(boards.get(name, []))), str(len(card.traps)))
        for name, card in cards.items()
    ]  # fmt: skip
    head = ("method", "idea", "checked against other code", "numbers compared", "rows on boards", "traps")
    return f"# Methods\n\n{table('', head, rows)}\n\n{MADE}\n"


def parity_rows(cards: Sequence[Card]) -> dict[str, list[Row]]:
    """Method -> its lines of docs/parity.md; versions that are wrong on purpose are marked.

    A line is a method's if its quantity starts with the method's name or alias, or with a run that the oracle names.
    """
    names = {alias: card.entry.name for card in cards for alias in (card.entry.name, *card.entry.aliases)}
    found: dict[str, list[Row]] = {card.entry.name: [] for card in cards}
    wrong = False
    for line in PARITY.read_text(encoding="utf-8").splitlines() if PARITY.exists() else []:
        wrong = line.startswith(f"## {WRONG}") or (wrong and not line.startswith("## "))
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        words, run = re.sub(r"[^a-z0-9.]+", "-", cells[0].lower()), re.split(r"[:,]", cells[0])[0]
        named = [name for name in names if words == name or words.startswith(f"{name}-")]
        owners = [card.entry.name for card in cards if run in card.oracle.replace(":", "").split()]
        owners = owners or [names[name] for name in sorted(named, key=len)[-1:]]
        for owner in owners if len(cells) == 4 else ():
            found[owner].append((*cells, "wrong on purpose: noticed" if wrong else ""))
    return found


def board_rows() -> dict[str, list[Row]]:
    """Method -> its rows on the committed boards."""
    found: dict[str, list[Row]] = {}
    for path in sorted(BOARDS.glob("*-v*.json")):
        for board in json.loads(path.read_text(encoding="utf-8")):
            title = f"[{board['suite']} v{board['version']}](../../leaderboards/{path.stem}.md), {board['model']}"
            for row in board["rows"]:
                found.setdefault(row["method"].partition("+")[0], []).append((title, *board_row(board, row)))
    return found


def board_row(board: Mapping[str, Any], row: Mapping[str, Any]) -> Row:
    """Name, seeds, ID and mean OOD in %, the difference to the baseline in points, and what was trained."""
    against = row["against_baseline"]
    gap = f"{points(against, '+.1f')} to {board['baseline']}" if against else "—"
    name = row["name"] if row["ranked"] else f"{row['name']} (unranked)"
    means = [points(row["accuracy"].get(column)) for column in ("ID", "mean OOD")]
    return (name, str(len(row["seeds"])), *means, gap, f"{row['cost']['trained_parameters'] or 0:,.0f} parameters")


def points(found: Mapping[str, Any] | None, form: str = ".1f") -> str:
    """An estimate with its half-width, times 100."""
    return f"{100 * found['value']:{form}} ± {100 * found['half_width']:.1f}" if found else "—"


def bullets(title: str, texts: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {text}" for text in texts) if texts else ""


def table(title: str, head: Row, rows: Sequence[Row]) -> str:
    """A Markdown table under its title; '' where it has no rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {title}\n\n{body}" if title else body


def stale() -> list[str]:
    """Names of pages that are not what they would be now, are missing, or are of no method."""
    made = pages()
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    return sorted(name for name in made.keys() | on_disk.keys() if made.get(name) != on_disk.get(name))


if __name__ == "__main__":
    if "--check" in sys.argv:
        names = stale()
        sys.exit(f"stale: {', '.join(names)}; run `python docs/methods.py`" if names else 0)
    PAGES.mkdir(exist_ok=True)
    for path in PAGES.glob("*.md"):
        path.unlink()
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
