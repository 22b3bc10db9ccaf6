"""Write docs/reproduce.md, the ledger of published rows: `python docs/reproduce.py [--check]`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustbench_ft import reproduce
from robustbench_ft.board.paper import FILE
from robustbench_ft.recipe import in_words
from robustbench_ft.reproduce.row import ID, Reproduction, held

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reproduce.md"
BOARDS = ROOT / "leaderboards"
HEAD = ("method", "suite", "model", "claimed, in %", "source", "recipe", "images", "measured here")
TEXT = """# Published rows, and who ran them again

Every recipe that the authors of a method here publish, on the suite they publish it for. One of them:

    rbft reproduce lipsum domainnet --dry-run

says what is claimed and by whom, recipe, protocol, seeds, steps, images, memory and disk, the traps, and GPU-hours
where a rate of this machine is given (`--bench FILE`, what `rbft bench` printed). Without `--dry-run` it runs just that
(`rbft run` with `--protocol as-published`), and ends with claimed beside measured. A row is claimed by the source that
is named; where several print one, `rbft reproduce` shows all. Measured rows are claims on the boards under the papers'
protocol (`rbft leaderboard`); *not yet run*: nobody has handed one in.
"""


def page() -> str:
    """The ledger as Markdown."""
    rows: list[Sequence[str]] = [HEAD, ("---",) * len(HEAD)]
    for method, suite in reproduce.published():
        found = reproduce.make(method, suite, BOARDS / FILE, precision="fp32")
        ref, row = found.plan[0].model, found.row
        claimed = ", ".join(f"{one.column} {100 * one.printed:.2f}" for one in held(found)) or "no row at hand"
        name = "" if row is None else f"{row.method}: "
        images = "not counted" if found.images is None else f"{found.images:,}"
        model = " ".join(filter(None, (ref.name, ref.pretrained)))
        rows.append((
            f"[{method}](methods/{method}.md)", suite, model, name + claimed,
            "" if row is None else row.source, in_words(found.plan[0].recipe or {}), images, measured(found),
        ))  # fmt: skip
    body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return f"{TEXT}\n{body}\n\nMade by `python docs/reproduce.py`. Do not edit.\n"


def measured(found: Reproduction) -> str:
    """Accuracy of the reruns on the committed boards under the papers' protocol."""
    ref, shown = found.plan[0].model, list[str]()
    for path in sorted(BOARDS.glob(f"{found.suite.base}-v*.json")):
        for board in json.loads(path.read_text(encoding="utf-8")):
            if (board["protocol"], board["model"]) == ("as-published", ref.label):
                rows = [row for row in board["rows"] if row["method"] == found.method]
                shown += [f"{row['name']}: {numbers(row['accuracy'], found)}" for row in rows]
    return "; ".join(shown) or "not yet run"


def numbers(accuracy: Mapping[str, Any], found: Reproduction) -> str:
    columns = (ID, *found.suite.shifts)
    return ", ".join(f"{name} {100 * accuracy[name]['value']:.2f}" for name in columns if name in accuracy)


def stale() -> bool:
    """Whether the page is not what it would be now."""
    return not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit("stale: run `python docs/reproduce.py`" if stale() else 0)
    PAGE.write_text(page(), encoding="utf-8")
