"""Numbers and tables as text: one form of each, for reports, comparisons, boards and pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from robustbench_ft.recipe import differing
from robustbench_ft.stats.intervals import Estimate

from .rows import Row

MISSING = "—"
SMALL = 100  # images: with fewer, a table says how many there are


@dataclass(frozen=True)
class Text:
    """A table as it is printed."""

    title: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    caption: str
    rule_after: int = 0  # rows above this line are ranked; 0: no line


def points(value: Estimate, signed: bool = False, unit: float = 100.0) -> str:
    """'71.3 ± 0.4', or '100.0 [70.1, 100.0]' where the interval is not symmetric.

    Two decimals where the standard error is below 0.1 points.
    """
    digits = 1 if unit * value.se >= 0.1 or value.se == 0 else 2
    sign = "+" if signed else ""
    shown = f"{unit * value.value:{sign}.{digits}f}"
    if value.symmetric:
        return f"{shown} ± {unit * value.half_width:.{digits}f}"
    return f"{shown} [{unit * value.low:{sign}.{digits}f}, {unit * value.high:{sign}.{digits}f}]"


def p_text(p: float | None) -> str:
    """'< .001', '.023', '1'; never 0."""
    return MISSING if p is None else "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"


def recipes_line(rows: Sequence[Row]) -> str:
    """What the recipes of trained rows have in common or not, as a sentence; empty for fewer than two methods."""
    recipes = {row.name: row.recipe for row in rows if row.recipe is not None}
    if len({row.method for row in rows if row.recipe is not None}) < 2:
        return ""
    words = differing(recipes)
    return f"Recipes differ: {', '.join(words)}." if words else "All trained rows share one recipe."


def states_line(rows: Sequence[Row]) -> str:
    """A warning where runs beside each other are of several states of a method, of the metrics, or of the records.

    Settings and recipes are in the names of rows and in `recipes_line`; a state of the code is in neither.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        for record, _ in row.runs:
            cell, told = record.config, record.summary
            code = cell.code.sha256[:8] if cell.code else "not noted"
            schemas = (cell.schema, record.environment.schema, told.schema)
            found.setdefault(f"version of {row.method}", set()).add(str(cell.method_version))
            found.setdefault(f"code of {row.method}", set()).add(code)
            found.setdefault("list of metrics", set()).add(str(told.version))
            found.setdefault("schema of records", set()).add("/".join(map(str, sorted(set(schemas)))))
            for name, version in cell.shared.items():
                found.setdefault(name, set()).add(str(version))
    differ = [f"{name} ({', '.join(sorted(values))})" for name, values in found.items() if len(values) > 1]
    return f"Runs are not of one state: {', '.join(differ)}; run the older ones again." if differ else ""


def sizes_line(n: Mapping[str, int]) -> str:
    """A warning that names the test sets with few images; empty where there are none."""
    few = ", ".join(f"{name} {size}" for name, size in n.items() if size < SMALL)
    return f"Few images: {few}." if few else ""


def span(values: Sequence[int]) -> str:
    """'3', or '3-5'."""
    if not values:
        return "no"
    return str(min(values)) if min(values) == max(values) else f"{min(values)}-{max(values)}"


def grid(
    header: Sequence[str], body: Sequence[Sequence[str]], style: str = "github", words: Sequence[int] = (0,)
) -> str:
    """Markdown of texts; columns in `words` are aligned to the left, all others to the right."""
    align = tuple("left" if k in words else "right" for k in range(len(header)))
    return tabulate([list(row) for row in body], list(header), tablefmt=style, disable_numparse=True, colalign=align)


def markdown(text: Text) -> str:
    """GitHub Markdown with bars escaped."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in text.body]
    return f"**{text.title}**\n\n{grid(text.header, body)}\n\n{text.caption}\n"


def estimate_json(found: Estimate) -> dict[str, Any]:
    """Every number of an estimate, unrounded."""
    return {
        "value": found.value, "interval": [found.low, found.high], "half_width": found.half_width, "se": found.se,
        "df": found.df, "v_seed": found.v_seed, "v_examples": found.v_examples,
    }  # fmt: skip
