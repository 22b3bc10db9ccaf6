"""Join claims to what `compare` finds of their rows together, as boards.

Letters, ranks and differences need every row's predictions at once and are computed again whenever a row is added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from robustbench_ft import few_shot, registry
from robustbench_ft.claims.claim_store import StoredClaim
from robustbench_ft.claims.schema import BY_REPORTED, BY_VALIDATION, FIXED, ORACLE, RowResult
from robustbench_ft.compare import Comparison, Line, compare, find_row
from robustbench_ft.compare.load import RunSet, run_set_of
from robustbench_ft.compare.rows import Row as ComparedRow
from robustbench_ft.compare.tradeoffs import Beyond, beyond
from robustbench_ft.errors import RbftError
from robustbench_ft.stats import ranks, stability
from robustbench_ft.suite import Card, Suite

from . import paper
from .table import REFERENCE, Board, Row, recipe_groups

METHOD = "ft"  # its claim is the baseline where `board.toml` names none


def boards(
    claims: Sequence[StoredClaim], published: Sequence[paper.Row] = (), baseline: str | None = None
) -> list[Board]:
    """One board per suite version, model and protocol. Claims are taken as they are: audit them first.

    `baseline` names a row of every board; without it `board.toml` of the suite does.
    """
    groups: dict[tuple[str, str, str, str], list[StoredClaim]] = {}
    for one in claims:
        identity = one.claim.identity
        key = one.place.suite, one.place.model, identity.weights, identity.protocol
        groups.setdefault(key, []).append(one)
    return [_board(group, published, baseline) for _, group in sorted(groups.items())]


def card_of(suite: str) -> Card | None:
    """None for a suite that is not installed here."""
    base, *options = suite.split("+")
    try:
        card, shots = registry.load("suite", base, Suite).card, few_shot.read(base, options)
    except RbftError:
        return None
    return card if shots is None else replace(card, note="; ".join(filter(None, (shots.note, card.note))))


def _board(group: Sequence[StoredClaim], published: Sequence[paper.Row], baseline: str | None) -> Board:
    identity = group[0].claim.identity
    run_set = run_set_of([record for one in group for record in one.records], grids=False)
    notes = group[0].board
    base, why = _baseline(run_set, group, baseline, notes.baseline)
    found = compare(run_set, base, explore=False)
    curve = next((one.claim.training.config_sha256 for one in group if one.place.name in notes.curve), "")
    more, places = beyond(found, curve), _placed(found)
    rows = _rows(group, found, more, places)
    return Board(
        suite=identity.suite, version=identity.suite_version, model=run_set.model, weights=identity.weights,
        protocol=identity.protocol, columns=_columns(group[0]), rows=tuple(rows), run_set=run_set,
        resolution=places.resolution, by_gain=any(row.gain for row in rows), curve=more.reference,
        p_pairs=_p_pairs(found),
        baseline=base.name if base else None, no_baseline=why, card=card_of(identity.suite),
        paper=tuple(row for row in published if row.suite == identity.suite), notes=notes.notes,
    )  # fmt: skip


def _columns(one: StoredClaim) -> Mapping[str, tuple[str, ...]]:
    return {name: tuple(splits) for name, splits in one.claim.results.columns.items()}


def _baseline(
    run_set: RunSet, group: Sequence[StoredClaim], asked: str | None, named: Sequence[str]
) -> tuple[ComparedRow | None, str]:
    """The row that others are compared with, or why there is none. A row's rank never decides."""
    if asked is not None:
        return find_row(run_set, asked), ""
    claims = [one for one in group if one.place.name in named]
    if named and not claims:
        return None, f"board.toml names the baseline {', '.join(named)}, which has no claim here"
    if not claims:
        claims = [one for one in group if one.claim.identity.method == METHOD and not one.claim.training.is_changed]
    if len(claims) != 1:
        return None, f"{len(claims)} claims of {METHOD}, and board.toml names none of them the baseline"
    digest = claims[0].claim.training.config_sha256
    row = next(row for row in run_set.rows if row.config.digest == digest and row.selection == "fixed")
    return (row, "") if run_set.complete(row) else (None, f"the baseline {row.name} lacks a test set")


@dataclass(frozen=True)
class _Places:
    """Places among ranked rows without the reference: what is trained is ranked against what is trained."""

    tied: Mapping[str, int]
    ranks: Mapping[str, ranks.RankInterval]
    first_over_shifts: Mapping[str, float]
    resolution: stability.Resolution | None  # None: fewer than two such rows


def _placed(found: Comparison) -> _Places:
    methods = {line.row.name: line.row.method for line in found.lines}
    kept = [k for k, name in enumerate(found.pairs) if methods[name] != REFERENCE]
    if len(kept) < 2:
        return _Places({}, {}, {}, None)
    names, adjusted = [found.pairs[k] for k in kept], found.p_holm[np.ix_(kept, kept)]
    run_set = found.run_set
    by_name = {row.name: row for row in run_set.rows}
    means = {name: [float(x.runs.mean()) for x in run_set.sets(by_name[name])] for name in names}
    return _Places(
        dict(zip(names, stability.tied_ranks(adjusted), strict=True)),
        ranks.rank_intervals({name: found.resampled[name] for name in names}),
        stability.first_over_sets(means, run_set.stream), stability.resolution(adjusted),
    )  # fmt: skip


def _p_pairs(found: Comparison) -> dict[frozenset[str], float]:
    """Two rows' names -> their adjusted p."""
    pairs = combinations(range(len(found.pairs)), 2)
    return {frozenset((found.pairs[i], found.pairs[j])): float(found.p_holm[i, j]) for i, j in pairs}


def _rows(group: Sequence[StoredClaim], found: Comparison, more: Beyond, places: _Places) -> list[Row]:
    """Rows of a board: the reference, then by recipe; inside a recipe as `_order` says."""
    sources = {one.claim.training.config_sha256: one for one in group}
    against = {c.row: c for c in found.claims if c.tested}
    gains = {gain.row: gain.estimate for gain in more.gains}
    made: list[Row] = []
    for line in found.lines:
        source, tested, ranked = sources[line.row.config.digest], against.get(line.row.name), line.status == "ranked"
        made.append(Row(
            key="", name=line.row.name, source=source, result=_result(source, line), status=line.status,
            also=line.row.also, transductive=line.row.transductive, letters=line.letters,
            rank=places.ranks.get(line.row.name), tied=places.tied.get(line.row.name),
            first_over_shifts=places.first_over_shifts.get(line.row.name),
            on_curve=line.row.config.digest == more.chosen,
            against=tested.estimate if tested else None, p_adjusted=tested.p_adjusted if tested else None,
            gain=gains.get(line.row.name) if ranked else None, effective=more.effective.get(line.row.name),
        ))  # fmt: skip
    by_gain = any(row.gain for row in made)
    made.sort(key=lambda row: _order(row, by_gain))
    groups = recipe_groups(made, found.baseline_name)
    made = [replace(row, recipe=groups[row.name]) for row in made]
    if max(groups.values()) > 1:
        made.sort(key=lambda row: (not row.reference, not row.ranked, row.oracle, row.recipe))  # stable inside
    return [replace(row, key=f"r{k}") for k, row in enumerate(made)]


def _order(row: Row, by_gain: bool) -> tuple[object, ...]:
    """The reference first, then ranked rows, by gain at equal ID where the board has gains.

    A point of the curve that gains are measured from has gain 0. Ranked rows without a gain, whose ID accuracy lies
    outside of the curve, follow by mean OOD; rows without a claim are last, by mean OOD.
    """
    gain = 0.0 if row.on_curve else row.gain.value if row.gain else None
    known = by_gain and row.ranked and gain is not None
    found = -gain if known and gain is not None else 0.0
    place = not row.reference, not row.ranked, row.oracle
    return *place, not known, found, -row.estimate("mean OOD").value, row.name


def _result(source: StoredClaim, line: Line) -> RowResult:
    """The entry of a claim's results that this row stands for."""
    kinds = {"fixed": (FIXED,), "id_val": (BY_VALIDATION, BY_REPORTED), "oracle": (ORACLE,)}[line.row.selection]
    return next(result for result in source.claim.results.rows if result.selection in kinds)
