"""Numbers and tables as text: one form of each, for reports, comparisons, boards and pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_ft.recipe import differing
from robustbench_ft.stats.intervals import Estimate
from robustbench_ft.tabular import MISSING, Text, grid, interval, markdown, number, starred

from .rows import Row

__all__ = (
    "MISSING", "SMALL", "Text", "estimate_json", "grid", "interval", "markdown", "number", "p_text", "points",
    "recipes_line", "sizes_line", "span", "starred",
)  # fmt: skip
SMALL = 100  # images: with fewer, a table says how many there are


def points(value: Estimate, signed: bool = False, unit: float = 100.0) -> str:
    """'71.3 ± 0.4', or '100.0 [70.1, 100.0]' where the interval is not symmetric.

    Two decimals where the standard error is below 0.1 points. The numbers behind it are kept, unrounded.
    """
    digits = 1 if unit * value.se >= 0.1 or value.se == 0 else 2
    sign = "+" if signed else ""
    shown = f"{unit * value.value:{sign}.{digits}f}"
    ends = f"± {unit * value.half_width:.{digits}f}"
    if not value.symmetric:
        ends = f"[{unit * value.low:{sign}.{digits}f}, {unit * value.high:{sign}.{digits}f}]"
    return interval(f"{shown} {ends}", unit * value.value, unit * value.low, unit * value.high)


def p_text(p: float | None) -> str:
    """'< .001', '.023', '1'; never 0."""
    if p is None:
        return MISSING
    return number(p, text="< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1")


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


def estimate_json(found: Estimate) -> dict[str, Any]:
    """Every number of an estimate, unrounded."""
    return {
        "value": found.value, "interval": [found.low, found.high], "half_width": found.half_width, "se": found.se,
        "df": found.df, "v_seed": found.v_seed, "v_examples": found.v_examples,
    }  # fmt: skip
