"""From claims to boards: what can only be said of rows together.

Letters, ranks and differences need every row's predictions at once and are recomputed whenever a row is added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robustbench_ft import registry, stats
from robustbench_ft.errors import RbftError
from robustbench_ft.stats import Estimate, Examples
from robustbench_ft.stats import lines as stats_lines
from robustbench_ft.stats.letters import compact_letters
from robustbench_ft.stats.multiplicity import holm
from robustbench_ft.stats.ranks import (
    DRAWS,
    EXACT_DRAWS,
    RankInterval,
    TestSet,
    example_draws,
    needs_exact,
    rank_intervals,
    suite_draws,
)  # fmt: skip
from robustbench_ft.stats.robustness import (
    Curve,
    EffectiveRobustness,
    Point,
    matched_id_gain,
    rising,
)  # fmt: skip
from robustbench_ft.store import Json
from robustbench_ft.suite import Card, Suite

from . import claim, paper
from .claim import BY_VALIDATION, ORACLE
from .shelf import Stored
from .table import Board, Row

ENOUGH_SEEDS = 3  # for letters and ranks
BASELINE = "ft"


def boards(claims: Sequence[Stored], published: Sequence[paper.Row] = (), baseline: str = BASELINE) -> list[Board]:
    """One board per suite version, model and protocol. Claims are taken as they are: audit them first."""
    groups: dict[tuple[Any, ...], list[Stored]] = {}
    for one in claims:
        identity = one.content["identity"]
        key = (one.place.suite, one.place.model, identity["weights"], identity["protocol"])
        groups.setdefault(key, []).append(one)
    return [_board(group, published, baseline) for _, group in sorted(groups.items())]


def card_of(suite: str) -> Card | None:
    """None for a suite that is not installed here."""
    try:
        return registry.load("suite", suite.partition("+")[0], Suite).card
    except RbftError:
        return None


def _board(group: Sequence[Stored], published: Sequence[paper.Row], baseline: str) -> Board:
    identity = group[0].content["identity"]
    wanted = {name: tuple(splits) for name, splits in group[0].content["results"]["columns"].items()}
    drafts = [
        Row("", " ".join(part for part in (one.content["identity"]["method"], setting) if part), one, result, False)
        for one in group
        for result, setting in zip(one.content["results"]["rows"], _settings(one, group), strict=True)
    ]
    drafts = [
        replace(row, ranked=not row.oracle and (len(row.seeds) >= ENOUGH_SEEDS or row.deterministic)) for row in drafts
    ]
    drafts.sort(key=lambda row: (not row.ranked, row.oracle, -row.estimate("mean OOD").value, row.name))
    rows = [replace(row, key=f"r{k}") for k, row in enumerate(drafts)]
    reference = next((row for row in rows if row.ranked and baseline in (row.name, row.method)), None)
    rows = _compared(rows, wanted, identity, reference)
    model = " ".join(part for part in (identity["model"], identity["pretrained"]) if part)
    return Board(
        suite=identity["suite"], version=identity["suite_version"], model=model, weights=identity["weights"],
        protocol=identity["protocol"], columns=wanted, rows=tuple(rows),
        baseline=reference.name if reference else None, card=card_of(identity["suite"]),
        paper=tuple(row for row in published if row.suite == identity["suite"]),
    )  # fmt: skip


def _compared(
    rows: Sequence[Row], wanted: Mapping[str, Sequence[str]], identity: Json, reference: Row | None
) -> list[Row]:
    ranked = [row for row in rows if row.ranked]
    shifts = list(wanted["mean OOD"])
    ood = {row.key: [row.correct(split) for split in shifts] for row in rows}
    origins = _origins(rows)

    def gap(a: Row, b: Row) -> Estimate:
        """Rows made from the same fits are paired, seed by seed."""
        paired = origins[a.key] == origins[b.key] and a.seeds == b.seeds
        return stats.difference(ood[a.key], ood[b.key], paired_seeds=paired)

    letters: dict[str, str] = {}
    ranks: dict[str, RankInterval] = {}
    if len(ranked) > 1:
        letters = dict(zip([row.key for row in ranked], compact_letters(_all_pairs(ranked, gap)), strict=True))
        name = f"{identity['suite']}-v{identity['suite_version']}-accuracy"
        sets = [
            TestSet(s, {row.name: ood[row.key][k].scores for row in ranked}, rows[0].source.runs[0].codes(s))
            for k, s in enumerate(shifts)
        ]
        drawn = [example_draws(name, one, EXACT_DRAWS if needs_exact(one) else DRAWS) for one in sets]
        fewest = min(len(next(iter(found.values()))) for found in drawn)
        cut = [{row: values[:fewest] for row, values in found.items()} for found in drawn]
        ranks = rank_intervals(suite_draws(name, cut, {row.name: origins[row.key] for row in ranked}))
    gaps = {row.key: gap(row, reference) for row in ranked if reference and row.key != reference.key}
    adjusted = dict(zip(gaps, holm([gap.p for gap in gaps.values()]).tolist(), strict=True)) if gaps else {}
    curve = _reference_curve(rows, wanted)
    lines = stats_lines.axes(identity["suite"], shifts)
    return [
        replace(
            row, letters=letters.get(row.key, ""), rank=ranks.get(row.name), against=gaps.get(row.key),
            p_adjusted=adjusted.get(row.key), gain=_gain(row, curve, wanted, origins),
            effective=_effective(row, lines),
        )
        for row in rows
    ]  # fmt: skip


def _origins(rows: Sequence[Row]) -> dict[str, str]:
    """Row key -> the fits it was made from. A family whose last alpha answers as a plain method's runs do is theirs."""
    plain = [row for row in rows if not row.claim["results"]["curve"] and not row.deterministic]
    found: dict[str, str] = {}
    for row in rows:
        curve = row.claim["results"]["curve"]
        last = [curve[-1]["candidate"]] * len(row.seeds) if curve and curve[-1]["alpha"] == 1 else None
        parent = next((other for other in plain if last and _same_answers(row, last, other)), row)
        found[row.key] = parent.source.place.name
    return found


def _same_answers(row: Row, candidates: Sequence[str], other: Row) -> bool:
    pairs = zip(row.source.runs, candidates, other.source.runs, other.result["candidates"], strict=False)
    return row.seeds == other.seeds and all(
        np.array_equal(mine.choices[split][a], theirs.choices[split][b])
        for mine, a, theirs, b in pairs
        for split in mine.choices
    )


def _all_pairs(rows: Sequence[Row], gap: Callable[[Row, Row], Estimate]) -> Any:
    """Holm-adjusted p [M, M] of every pair, rows as ordered."""
    upper = [(i, j) for i in range(len(rows)) for j in range(i + 1, len(rows))]
    adjusted = np.ones((len(rows), len(rows)))
    for (i, j), p in zip(upper, holm([gap(rows[i], rows[j]).p for i, j in upper]), strict=True):
        adjusted[i, j] = adjusted[j, i] = p
    return adjusted


def _reference_curve(rows: Sequence[Row], wanted: Mapping[str, Sequence[str]]) -> tuple[Row, Curve] | None:
    """The zero-shot-to-FT curve of the family with the most seeds, up to its ID peak."""
    families = [row for row in rows if len(row.curve) > 2]
    if not families:
        return None
    row = max(families, key=lambda row: len(row.seeds))
    runs, names = row.source.runs, [point["candidate"] for point in row.curve]

    def scores(name: str, column: str) -> tuple[Examples, ...]:
        return tuple(claim.correct(runs, [name] * len(runs), split) for split in wanted[column])

    curve = rising([Point(scores(name, "ID")[0], scores(name, "mean OOD")) for name in names])
    return (row, curve) if len(curve.points) > 1 else None


def _gain(
    row: Row, reference: tuple[Row, Curve] | None, wanted: Mapping[str, Sequence[str]], origins: Mapping[str, str]
) -> Estimate | None:
    if reference is None or not row.ranked or row.deterministic or row.source.place == reference[0].source.place:
        return None  # zero-shot is where the curve begins
    family, curve = reference
    point = Point(row.correct(wanted["ID"][0]), tuple(row.correct(split) for split in wanted["mean OOD"]))
    low, high = curve.id_range
    if not low <= point.id_accuracy <= high:
        return None
    paired = origins[row.key] == origins[family.key] and row.seeds == family.seeds
    return matched_id_gain(point, curve, paired)


def _effective(row: Row, axes: Mapping[str, stats_lines.Axis]) -> dict[str, EffectiveRobustness]:
    """By shift, where its ID accuracy is stored and its line explains enough."""
    found: dict[str, EffectiveRobustness] = {}
    for shift, axis in axes.items():
        if axis.identity in row.known_splits:
            effective = axis.robustness(row.correct(axis.identity), row.correct(shift))
            if effective is not None:
                found[shift] = effective
    return found


def _settings(one: Stored, group: Sequence[Stored]) -> list[str]:
    """What sets each row of a claim apart from the others of its method."""
    flat = [_flat(other) for other in group if other.content["identity"]["method"] == one.content["identity"]["method"]]
    own = _flat(one)
    differing = {k: v for k, v in own.items() if k != "alpha" and any(other.get(k) != v for other in flat)}
    shared = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in differing.items()]
    named: list[str] = []
    for result in one.content["results"]["rows"]:
        kind: list[str] = []
        if one.content["results"]["curve"]:
            fixed = result["candidates"][0].replace("-", "=", 1)
            rules = {BY_VALIDATION: "alpha by ID val", ORACLE: "oracle: alpha by OOD"}
            kind = [rules.get(str(result["selection"])) or str(fixed)]
        text = ", ".join([*shared, *kind])
        named.append(f"({text})" if text else "")
    return named


def _flat(one: Stored) -> Json:
    training = one.content["training"]
    return {
        **(training["recipe"] or {}), **training["settings"], "precision": one.content["identity"]["precision"],
    }  # fmt: skip
