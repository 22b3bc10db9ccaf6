"""A comparison in words: one table of claims, one of exploratory cells, and what was assumed. Text only."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from robustbench_ft.metrics import METRICS

from .load import OFFICIAL, RunSet
from .text import (
    MISSING,
    Text,
    estimate_json,
    number,
    p_text,
    points,
    recipes_line,
    sizes_line,
    span,
    starred,
    states_line,
)
from .verdicts import MIN_SEEDS_FOR_LETTERS, Claim, Comparison, Line

REPORTED = "Candidates and checkpoints are selected on images that the table reports, as the protocol says."


def metric_title(run_set: RunSet) -> str:
    """Name of the metric whose values a table holds."""
    if run_set.metric != OFFICIAL:
        return f"{METRICS[run_set.metric].title}{', %' if unit_of(run_set) == 100 else ''}"
    return "top-1 accuracy, %" if run_set.only_accuracy else "official metrics, %"


def unit_of(run_set: RunSet) -> float:
    """100 for shares, 1 for losses."""
    return 100.0 if run_set.higher_is_better else 1.0


def main_table(found: Comparison) -> Text:
    """One line per row: best first, then those that are not ranked, each with its reason."""
    run_set, unit = found.run_set, unit_of(found.run_set)
    claims = {claim.row: claim for claim in found.claims}
    base = next(line for line in found.lines if found.baseline and line.row.name == found.baseline.name)
    beside = ("mean OOD accuracy",) if base.accuracies else ()
    confirmed = "Holm" if found.family == "ood-mean" else "BH, exploratory"
    header = (
        "method", "seeds", run_set.column(run_set.test), "mean OOD", *beside,
        *(("letters",) if found.lettered else ()), "rank", "P(best)", f"difference to {base.row.name}", "p",
        f"p {confirmed}", "reading",
    )  # fmt: skip
    body = tuple(_line(line, claims.get(line.row.name), base, unit, found.lettered) for line in found.lines)
    ranked = sum(line.status == "ranked" for line in found.lines)
    return Text(
        f"{run_set.title}: {metric_title(run_set)}", header, body, assumptions(found),
        ranked if ranked < len(found.lines) else 0,
    )  # fmt: skip


def _line(line: Line, claim: Claim | None, base: Line, unit: float, lettered: bool) -> tuple[str, ...]:
    row, ood = line.row, line.cells.get("mean OOD")
    name = f"{row.name} = {', '.join(row.also)}" if row.also else row.name
    name += " (diverged)" if line.diverged else ""
    identity = line.cells.get("ID")
    head = (
        name, "det." if row.deterministic else number(len(row.runs)),
        points(identity.estimate, unit=unit) if identity else MISSING,
        points(ood.estimate, unit=unit) if ood else MISSING,
    )  # fmt: skip
    beside = line.accuracies.get("mean OOD")
    head += (points(beside.estimate, unit=unit) if beside else MISSING,) if base.accuracies else ()
    rank = line.rank
    place = MISSING if rank is None else str(rank.low) if rank.low == rank.high else f"{rank.low}-{rank.high}"
    head += (line.letters or MISSING,) if lettered else ()
    head += (place, MISSING if rank is None else number(rank.p_best, ".2f"))
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
        reading = f"not resolved: these runs can detect {unit * claim.detectable:.2g} or more"
    if line.status != "ranked":
        reading = f"{reading} ({line.status})"
    return (*head, gap, p_text(claim.estimate.p), p_text(claim.p_adjusted), reading)


def _no_claim(line: Line, base: Line) -> str:
    if line.row.oracle:
        return "oracle: chosen on OOD, unranked"
    if line.row.transductive or base.row.transductive:
        return "transductive: its answers depend on other test images, unranked"
    return f"{base.status if line.status == 'ranked' else line.status}: no claim about a method"


def cell_table(found: Comparison) -> Text:
    """Differences on single shifts and kinds of shift."""
    unit = unit_of(found.run_set)
    columns = list(dict.fromkeys(claim.on for claim in found.exploratory))
    by_place = {(claim.row, claim.on): claim for claim in found.exploratory}
    names = list(dict.fromkeys(claim.row for claim in found.exploratory))
    correction = "BH, exploratory" if found.family == "ood-mean" else "Holm, the declared family"

    def text(claim: Claim | None) -> str:
        if claim is None:
            return MISSING
        star = "*" if claim.tested and claim.verdict != "unresolved" else ""
        return starred(points(claim.estimate, signed=True, unit=unit), star)

    body = tuple((name, *(text(by_place.get((name, column))) for column in columns)) for name in names)
    size = sum(claim.tested for claim in found.exploratory)
    shown = [found.run_set.column(c) if c in found.run_set.shifts else c for c in columns]
    return Text(
        f"Differences to {found.baseline_name} by test set", ("method", *shown), body,
        f"95 % intervals, unadjusted; * adjusted p < .05 ({correction}, {size} cells). One seed or oracle: no test.",
    )  # fmt: skip


def assumptions(found: Comparison) -> str:
    """One line that states estimand, interval and correction."""
    run_set = found.run_set
    units = sorted({run_set.cluster_names.get(split, "example") for split in run_set.shifts})
    paired = sorted({claim.row for claim in found.claims if claim.paired_seeds})
    pairing = f"seeds of {', '.join(paired)} paired (same training runs)" if paired else "seeds independent"
    family = "mean OOD" if found.family == "ood-mean" else "cells by test set"
    claims = (
        f"Holm over {found.family_size} comparisons with {found.baseline_name} on {family}"
        if found.family_size
        else "no comparison is tested: one seed tells of a checkpoint, not of a method"
    )
    m, parts = len(found.pairs), ["no letters, no ranks: fewer than two rows with 3 seeds"]
    if m > 1:
        groups = "letters" if found.lettered else "letters (more than 26, in --json)"
        parts = [f"{groups}: Holm over {m * (m - 1) // 2} pairs of rows with {MIN_SEEDS_FOR_LETTERS}+ seeds",
                 f"ranks: 95 % of {found.draws} {found.drawn} bootstrap draws"]  # fmt: skip
    seeds = span([len(line.row.runs) for line in found.lines if not line.row.deterministic])
    text = "; ".join([
        "Estimand: a fresh seed on fresh images of the same kind",
        f"95 % two-way t intervals, unadjusted (S = {seeds} seeds x {' or '.join(units)}s, n = "
        f"{span([run_set.n[split] for split in run_set.shifts])} per set)",
        f"differences paired on examples, {pairing}", claims, *parts, "mean OOD: equal weights, ID not in it",
    ])  # fmt: skip
    least, said = found.permutation, [f"{text}."]
    if least.get("power") == "impossible":
        said.append(
            f"With {least['seeds']} seeds only the t test can be significant, and it takes seed means as normal: a "
            f"rank or permutation test cannot reach Holm's first step (least p {least['minimum_p']:.2g}; "
            f"{least['seeds_needed']} seeds could)."
        )
    return " ".join([*said, *(note for note in notes(found) if note)])


def notes(found: Comparison) -> list[str]:
    """What a reader must know of these rows besides: recipes, selection on reported images, few images."""
    run_set = found.run_set
    return [
        recipes_line([line.row for line in found.lines]),
        states_line([line.row for line in found.lines]),
        REPORTED if run_set.selects_on_reported else "",
        sizes_line({("ID" if split == run_set.test else split): n for split, n in run_set.n.items()}),
    ]


def as_json(found: Comparison) -> dict[str, Any]:
    """Every number of a comparison, unrounded."""
    run_set = found.run_set
    return {
        "suite": run_set.suite, "suite_version": run_set.version, "model": run_set.model, "weights": run_set.weights,
        "protocol": run_set.protocol, "metric": run_set.metric,
        "metrics": {split: run_set.metric_of(split) for split in run_set.n},
        "splits": {
            split: {"n": run_set.n[split], "digest": run_set.digests.get(split),
                    "role": "ID" if split == run_set.test else "OOD",
                    "unit": run_set.cluster_names.get(split, "example")}
            for split in run_set.n
        },
        "baseline": found.baseline.name if found.baseline else None, "family": found.family,
        "family_size": found.family_size,
        "rows": [_line_json(line) for line in found.lines],
        "comparisons": [_claim_json(claim) for claim in found.claims],
        "cells": [_claim_json(claim) for claim in found.exploratory],
        "pairs": {"rows": list(found.pairs), "p": found.p_raw.tolist(), "p_holm": found.p_holm.tolist()},
        "bootstrap": {"draws": found.draws, "kind": found.drawn, "stream": run_set.stream},
        "permutation_test": dict(found.permutation),
        "assumptions": assumptions(found),
    }  # fmt: skip


def _line_json(line: Line) -> dict[str, Any]:
    row = line.row
    cells = {
        name: {**estimate_json(cell.estimate), "sd": cell.sd, "S": len(cell.runs), "per_seed": list(cell.runs)}
        for name, cell in line.cells.items()
    }
    return {
        "name": row.name, "also": list(row.also), "method": row.method, "setting": row.setting,
        "selection": row.selection, "oracle": row.oracle, "deterministic": row.deterministic, "seeds": list(row.seeds),
        "candidates": [candidate for _, candidate in row.runs], "status": line.status, "missing": list(line.missing),
        "transductive": row.transductive, "recipe": row.recipe,
        "accuracies": {
            name: {**estimate_json(c.estimate), "per_seed": list(c.runs)} for name, c in line.accuracies.items()
        },
        "diverged": line.diverged, "letters": line.letters, "rank": asdict(line.rank) if line.rank else None,
        "cells": cells, "runs": [record.cell["digest"] for record, _ in row.runs],
    }  # fmt: skip


def _claim_json(claim: Claim) -> dict[str, Any]:
    return {
        "row": claim.row, "on": claim.on, **estimate_json(claim.estimate), "paired_seeds": claim.paired_seeds,
        "tested": claim.tested, "p": claim.estimate.p if claim.tested else None, "p_adjusted": claim.p_adjusted,
        "verdict": claim.verdict, "detectable": claim.detectable,
    }  # fmt: skip


def sections(found: Comparison) -> Sequence[Text]:
    """All tables of one comparison, in order."""
    return (main_table(found), *((cell_table(found),) if found.exploratory else ()))
