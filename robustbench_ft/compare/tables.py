"""A comparison in words: one table of claims, one of exploratory cells, and what was assumed. Text only."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from robustbench_ft.metrics import METRICS
from robustbench_ft.stats.intervals import Estimate

from .claims import FOR_LETTERS, Claim, Comparison, Line

MISSING = "—"


@dataclass(frozen=True)
class Text:
    """A table as it is printed."""

    title: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    caption: str
    rule_after: int = 0  # rows above this line are ranked; 0: no line


def points(value: Estimate, signed: bool = False, unit: float = 100.0) -> str:
    """'71.3 ± 0.4'; two decimals where the standard error is below 0.1 points."""
    digits = 1 if unit * value.se >= 0.1 or value.se == 0 else 2
    sign = "+" if signed else ""
    return f"{unit * value.value:{sign}.{digits}f} ± {unit * value.half_width:.{digits}f}"


def p_text(p: float) -> str:
    return "<.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def main_table(found: Comparison) -> Text:
    """One line per row: best first, then those that are not ranked, each with its reason."""
    arena = found.arena
    unit = 100.0 if arena.metric in ("accuracy", "macro_f1") else 1.0
    claims = {claim.row: claim for claim in found.claims}
    base = next(line for line in found.lines if line.row.name == found.baseline.name)
    confirmed = "Holm" if found.family == "ood-mean" else "BH, exploratory"
    header = (
        "method", "seeds", "ID", "mean OOD", "letters", "rank", "P(best)",
        f"difference to {found.baseline.name}", "p", f"p {confirmed}", "reading",
    )  # fmt: skip
    body = tuple(_line(line, claims.get(line.row.name), base, unit) for line in found.lines)
    ranked = sum(line.status == "ranked" for line in found.lines)
    return Text(
        f"{arena.title}: {METRICS[arena.metric].title}{', %' if unit == 100 else ''}", header, body, assumptions(found),
        ranked if ranked < len(found.lines) else 0,
    )  # fmt: skip


def _line(line: Line, claim: Claim | None, base: Line, unit: float) -> tuple[str, ...]:
    row, ood = line.row, line.cells.get("mean OOD")
    name = f"{row.name} = {', '.join(row.also)}" if row.also else row.name
    name += " (diverged)" if line.diverged else ""
    identity = line.cells.get("ID")
    head = (
        name, "det." if row.deterministic else str(len(row.runs)),
        points(identity.estimate, unit=unit) if identity else MISSING,
        points(ood.estimate, unit=unit) if ood else MISSING,
    )  # fmt: skip
    rank = line.rank
    place = MISSING if rank is None else str(rank.low) if rank.low == rank.high else f"{rank.low}-{rank.high}"
    head += (line.letters or MISSING, place, MISSING if rank is None else f"{rank.p_best:.2f}")
    if line is base:
        return (*head, "baseline", "", "", line.status if line.status != "ranked" else "")
    if claim is None:
        return (*head, MISSING, MISSING, MISSING, line.status)
    gap = points(claim.estimate, signed=True, unit=unit)
    if not claim.tested:
        return (*head, gap, MISSING, MISSING, _no_claim(line, base))
    reading = claim.verdict
    if claim.estimate.se == 0 and claim.estimate.value == 0:
        reading = "same answers"
    elif claim.verdict == "unresolved" and claim.detectable is not None:
        reading = f"unresolved: sees {unit * claim.detectable:.2g} or more"
    if line.status != "ranked":
        reading = f"{reading} ({line.status})"
    return (*head, gap, p_text(claim.estimate.p), p_text(claim.p_adjusted or 0.0), reading)


def _no_claim(line: Line, base: Line) -> str:
    if line.row.oracle:
        return "oracle: chosen on OOD, unranked"
    return f"{base.status if line.status == 'ranked' else line.status}: no claim about a method"


def cell_table(found: Comparison) -> Text:
    """Differences on single shifts and kinds of shift."""
    unit = 100.0 if found.arena.metric in ("accuracy", "macro_f1") else 1.0
    columns = list(dict.fromkeys(claim.on for claim in found.exploratory))
    by_place = {(claim.row, claim.on): claim for claim in found.exploratory}
    names = list(dict.fromkeys(claim.row for claim in found.exploratory))
    correction = "BH, exploratory" if found.family == "ood-mean" else "Holm, the declared family"

    def text(claim: Claim | None) -> str:
        if claim is None:
            return MISSING
        star = "*" if claim.tested and claim.verdict != "unresolved" else ""
        return points(claim.estimate, signed=True, unit=unit) + star

    body = tuple((name, *(text(by_place.get((name, column))) for column in columns)) for name in names)
    size = sum(claim.tested for claim in found.exploratory)
    return Text(
        f"Differences to {found.baseline.name} by test set", ("method", *columns), body,
        f"95 % intervals, unadjusted; * adjusted p < .05 ({correction}, {size} cells). One seed or oracle: no test.",
    )  # fmt: skip


def assumptions(found: Comparison) -> str:
    """What the numbers rest on, in one line."""
    arena = found.arena
    units = sorted({arena.cluster_names.get(split, "example") for split in arena.shifts})
    paired = sorted({claim.row for claim in found.claims if claim.paired_seeds})
    pairing = f"seeds of {', '.join(paired)} paired (same training runs)" if paired else "seeds independent"
    family = "mean OOD" if found.family == "ood-mean" else "cells by test set"
    claims = (
        f"Holm over {found.family_size} comparisons with {found.baseline.name} on {family}"
        if found.family_size
        else "no comparison is tested: one seed tells of a checkpoint, not of a method"
    )
    m, parts = len(found.pairs), ["no letters, no ranks: fewer than two rows with 3 seeds"]
    if m > 1:
        parts = [f"letters: Holm over {m * (m - 1) // 2} pairs of rows with {FOR_LETTERS}+ seeds",
                 f"ranks: 95 % of {found.draws} {found.drawn} bootstrap draws"]  # fmt: skip
    seeds = _range([len(line.row.runs) for line in found.lines if not line.row.deterministic])
    text = "; ".join([
        "Estimand: a fresh seed on fresh images of the same kind",
        f"95 % two-way t intervals, unadjusted (S = {seeds} seeds x {' or '.join(units)}s, n = "
        f"{_range([arena.n[split] for split in arena.shifts])} per set)",
        f"differences paired on examples, {pairing}", claims, *parts, "mean OOD: equal weights, ID not in it",
    ])  # fmt: skip
    least = found.permutation
    if least.get("power") != "impossible":
        return f"{text}."
    return (
        f"{text}. A rank or permutation test of {least['seeds']} seeds cannot reach Holm's first step (least p "
        f"{least['minimum_p']:.2g}; {least['seeds_needed']} seeds could) - power: impossible; the t interval leans on "
        "normal seed means instead."
    )


def _range(values: Sequence[int]) -> str:
    if not values:
        return "no"
    return str(min(values)) if min(values) == max(values) else f"{min(values)}-{max(values)}"


def markdown(text: Text) -> str:
    """GitHub Markdown, bars escaped, numbers to the right."""
    align = ("left", *("right" for _ in text.header[1:]))
    body = [[cell.replace("|", "\\|") for cell in row] for row in text.body]
    table = tabulate(body, text.header, tablefmt="github", disable_numparse=True, colalign=align)
    return f"**{text.title}**\n\n{table}\n\n{text.caption}\n"


def as_json(found: Comparison) -> dict[str, Any]:
    """Every number of a comparison, unrounded."""
    arena = found.arena
    return {
        "suite": arena.suite, "suite_version": arena.version, "model": arena.model, "weights": arena.weights,
        "protocol": arena.protocol, "metric": arena.metric,
        "metric_version": METRICS[arena.metric].version,
        "splits": {
            split: {"n": arena.n[split], "digest": arena.digests.get(split),
                    "role": "ID" if split == arena.test else "OOD", "unit": arena.cluster_names.get(split, "example")}
            for split in arena.n
        },
        "baseline": found.baseline.name, "family": found.family, "family_size": found.family_size,
        "rows": [_line_json(line) for line in found.lines],
        "comparisons": [_claim_json(claim) for claim in found.claims],
        "cells": [_claim_json(claim) for claim in found.exploratory],
        "pairs": {"rows": list(found.pairs), "p": found.p_raw.tolist(), "p_holm": found.p_holm.tolist()},
        "bootstrap": {"draws": found.draws, "kind": found.drawn, "stream": arena.stream},
        "permutation_test": dict(found.permutation),
        "assumptions": assumptions(found),
    }  # fmt: skip


def _line_json(line: Line) -> dict[str, Any]:
    row = line.row
    cells = {
        name: {**_estimate_json(cell.estimate), "sd": cell.sd, "S": len(cell.runs), "per_seed": list(cell.runs)}
        for name, cell in line.cells.items()
    }
    return {
        "name": row.name, "also": list(row.also), "method": row.method, "setting": row.setting,
        "selection": row.selection, "oracle": row.oracle, "deterministic": row.deterministic, "seeds": list(row.seeds),
        "candidates": [candidate for _, candidate in row.runs], "status": line.status, "missing": list(line.missing),
        "diverged": line.diverged, "letters": line.letters, "rank": asdict(line.rank) if line.rank else None,
        "cells": cells, "runs": [record.cell["digest"] for record, _ in row.runs],
    }  # fmt: skip


def _claim_json(claim: Claim) -> dict[str, Any]:
    return {
        "row": claim.row, "on": claim.on, **_estimate_json(claim.estimate), "paired_seeds": claim.paired_seeds,
        "tested": claim.tested, "p": claim.estimate.p if claim.tested else None, "p_adjusted": claim.p_adjusted,
        "verdict": claim.verdict, "detectable": claim.detectable,
    }  # fmt: skip


def _estimate_json(found: Estimate) -> dict[str, Any]:
    return {
        "value": found.value, "interval": [found.low, found.high], "half_width": found.half_width, "se": found.se,
        "df": found.df, "v_seed": found.v_seed, "v_examples": found.v_examples,
    }  # fmt: skip


def sections(found: Comparison) -> Sequence[Text]:
    """All tables of one comparison, in order."""
    return (main_table(found), *((cell_table(found),) if found.exploratory else ()))
