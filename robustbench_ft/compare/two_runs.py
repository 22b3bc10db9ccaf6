"""`rbft diff`: two runs of anything. First what differs around them, then which answers flipped."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError, unknown
from robustbench_ft.record.store import Record, model_config
from robustbench_ft.stats.pairs import Flips, flips

from .text import MISSING, Text, interval, number, p_text

IGNORED = ("cost", "stages", "data", "schema")  # of env.json: measured, shown apart, or of the file
MOST_CLASSES = 5
MOST_IMAGES = 4


@dataclass(frozen=True)
class Change:
    """One value that differs between the runs."""

    where: str  # 'configuration', 'environment', 'data'
    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class SplitDiff:
    """One split that both runs answered."""

    split: str
    accuracies: tuple[float, float]
    flips: Flips
    changed: float  # share of examples with another prediction, right or wrong
    gained: Mapping[int, tuple[int, int, int]]  # class -> (examples, only A right, only B right)
    only_a: tuple[str, ...]  # ids of examples that only A gets right
    only_b: tuple[str, ...]


@dataclass(frozen=True)
class TwoRuns:
    a: Record
    b: Record
    candidates: tuple[str, str]
    changes: tuple[Change, ...]
    splits: tuple[SplitDiff, ...]
    skipped: Mapping[str, str]  # split -> why it cannot be compared
    classes: tuple[str, ...]  # names in label order; empty where neither run tells them


def two_runs(left: Record, right: Record, candidates: tuple[str, str] | None = None) -> TwoRuns:
    """Two runs side by side; families are compared by their default candidates unless named."""
    chosen = candidates or (str(left.metrics["default"]), str(right.metrics["default"]))
    for record, candidate in zip((left, right), chosen, strict=True):
        if candidate not in record.metrics["candidates"]:
            raise RbftError(unknown(f"candidate of {record.folder}", candidate, record.metrics["candidates"]))
    found: list[SplitDiff] = []
    skipped: dict[str, str] = {}
    for split in _splits(left):
        if split not in _splits(right):
            skipped[split] = f"only in {left.folder}"
            continue
        compared = _split(left, right, chosen, split)
        if isinstance(compared, str):
            skipped[split] = compared
        else:
            found.append(compared)
    skipped |= {split: f"only in {right.folder}" for split in _splits(right) if split not in _splits(left)}
    changes, names = tuple(_changes(left, right)), class_names(left) or class_names(right)
    return TwoRuns(left, right, chosen, changes, tuple(found), skipped, names)


def _splits(record: Record) -> list[str]:
    splits = record.metrics["splits"]
    return [splits["val"], splits["test"], *splits["shifts"]]


def _changes(a: Record, b: Record) -> Iterator[Change]:
    for where, left, right in (("configuration", a.cell, b.cell), ("environment", _env(a), _env(b)),
                               ("data", a.env.get("data", {}), b.env.get("data", {}))):  # fmt: skip
        flat = _flat(left), _flat(right)
        for name in sorted({*flat[0], *flat[1]}):
            if flat[0].get(name) != flat[1].get(name):
                yield Change(where, name, flat[0].get(name), flat[1].get(name))


def _env(record: Record) -> dict[str, Any]:
    found = {name: value for name, value in record.env.items() if name not in IGNORED}
    if "manifest" in found:  # when the data were checked says nothing of the data
        found["manifest"] = found["manifest"].get("digest")
    return found


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{prefix}{name}.") if isinstance(inner, dict) else {f"{prefix}{name}": inner}
    return found


def _split(a: Record, b: Record, candidates: tuple[str, str], split: str) -> SplitDiff | str:
    """Joined by example id; a reason in place of a result where the examples are not the same."""
    for record, candidate in zip((a, b), candidates, strict=True):
        if not record.holds(candidate, split):
            return f"no predictions in {record.folder}"
    left, right = a.predictions(candidates[0], split), b.predictions(candidates[1], split)
    if len(set(left.ids)) != len(left.ids) or len(set(right.ids)) != len(right.ids):
        raise RbftError(f"split '{split}': example ids are not unique in one of the runs; run it again")
    if set(left.ids) != set(right.ids):
        shared = len(set(left.ids) & set(right.ids))
        return f"different examples: {shared} shared of {len(left)} and {len(right)}"
    order = np.arange(len(left))
    if left.ids != right.ids:
        place = {example: k for k, example in enumerate(right.ids)}
        order = np.array([place[example] for example in left.ids])
    if not np.array_equal(left.label, right.label[order]):
        return "same examples, different labels"
    return _compared(split, left, right, order)


def _compared(split: str, left: Predictions, right: Predictions, order: np.ndarray) -> SplitDiff:
    mine, theirs = left.correct, right.correct[order]
    changed = float((left.prediction != right.prediction[order]).mean())
    only_a, only_b = mine & ~theirs, theirs & ~mine
    size = int(left.label.max()) + 1
    counts = [np.bincount(left.label[mask], minlength=size) for mask in (slice(None), only_a, only_b)]
    gained = {int(c): (int(counts[0][c]), int(counts[1][c]), int(counts[2][c]))
              for c in np.flatnonzero(counts[1] + counts[2])}  # fmt: skip
    ids = [tuple(left.ids[k] for k in np.flatnonzero(mask)) for mask in (only_a, only_b)]
    return SplitDiff(split, (float(mine.mean()), float(theirs.mean())), flips(mine, theirs), changed, gained, *ids)


def class_names(record: Record) -> tuple[str, ...]:
    """Names of the classes in label order, from the record or from its saved model; empty where neither tells."""
    told = record.env.get("labels", {}).get("classes")
    return tuple(told or model_config(record.folder).get("rbft", {}).get("classes") or ())


def sections(found: TwoRuns) -> list[Text]:
    """Differences around the runs first: they explain those in the answers."""
    title = f"A = {found.a.folder} ({found.candidates[0]}), B = {found.b.folder} ({found.candidates[1]})"
    body = tuple((c.where, c.name, _short(c.a), _short(c.b)) for c in found.changes)
    none = (("all", "equal", "", ""),)
    made = [Text(title, ("what", "name", "A", "B"), body or none, "Equal values, costs and timings are not shown.")]
    rows = tuple(_row(split) for split in found.splits)
    made.append(Text(
        "Answers",
        ("split", "n", "A", "B", "B - A, pt", "churn", "other class", "only A right", "only B right", "mid-p"), rows,
        "Churn: examples that only one run gets right; ± 95 % half-width over examples; mid-p McNemar, unadjusted: of "
        "these two checkpoints, not of their methods.",
    ))  # fmt: skip
    classes = tuple(_class_row(split, found.classes) for split in found.splits if split.gained)
    if classes:
        made.append(Text("Classes that flipped most", ("split", "class: only A right / only B right (n)"), classes, ""))
    images = tuple((s.split, _some(s.only_a), _some(s.only_b)) for s in found.splits if s.only_a or s.only_b)
    if images:
        made.append(Text("Images that flipped", ("split", "only A right", "only B right"), images,
                         f"The first {MOST_IMAGES} of each; --json names them all."))  # fmt: skip
    if found.skipped:
        made.append(Text("Not compared", ("split", "reason"), tuple(found.skipped.items()), ""))
    return made


def _row(found: SplitDiff) -> tuple[str, ...]:
    f = found.flips
    gap, half = 100 * (0 - f.difference), 196 * f.se  # no "-0.00" where nothing differs
    return (
        found.split, number(f.n), *(number(100 * a, ".2f") for a in found.accuracies),
        interval(f"{gap:+.2f} ± {half:.2f}", gap, gap - half, gap + half), _share(f.churn), _share(found.changed),
        number(f.b), number(f.c), p_text(f.test.mid_p),
    )  # fmt: skip


def _share(value: float) -> str:
    return number(100 * value, text=f"{100 * value:.2f} %")


def _class_row(found: SplitDiff, names: Sequence[str]) -> tuple[str, str]:
    ordered = sorted(found.gained.items(), key=lambda item: (-(item[1][1] + item[1][2]), item[0]))
    named = {c: names[c] if c < len(names) else str(c) for c, _ in ordered}
    shown = ", ".join(f"{named[c]}: {a}/{b} ({n})" for c, (n, a, b) in ordered[:MOST_CLASSES])
    more = len(ordered) - MOST_CLASSES
    return found.split, f"{shown}{f' and {more} more' if more > 0 else ''}"


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - MOST_IMAGES
    return f"{', '.join(ids[:MOST_IMAGES])}{f' and {more} more' if more > 0 else ''}"


def _short(value: Any) -> str:
    text = MISSING if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def as_json(found: TwoRuns) -> dict[str, Any]:
    return {
        "a": str(found.a.folder), "b": str(found.b.folder), "candidates": list(found.candidates),
        "changes": [asdict(change) for change in found.changes], "skipped": dict(found.skipped),
        "class_names": list(found.classes),
        "splits": [
            {"split": s.split, "accuracies": list(s.accuracies), **asdict(s.flips), "changed": s.changed,
             "only_a": list(s.only_a), "only_b": list(s.only_b),
             "classes": {str(c): list(counts) for c, counts in s.gained.items()}}
            for s in found.splits
        ],
    }  # fmt: skip
