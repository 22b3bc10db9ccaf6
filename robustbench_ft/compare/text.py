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
