"""Verdicts and findings as lines of text and as plain values. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_ft.tabular import Text, number

from .causes import Finding, ordered
from .verdict import Verdict

HEAD = ("split", "images", "measured", "published", "gap", "tolerance", "verdict")


def lines(
    title: str, verdicts: Sequence[Verdict], findings: Mapping[str, Sequence[Finding]], notes: Sequence[str] = ()
) -> list[str]:
    """A table, `notes`, and below it what was found for each split that is outside."""
    outside = [verdict for verdict in verdicts if not verdict.inside]
    right = len(verdicts) - len(outside)
    head = f"setup    {title}: " + ("right, " if not outside else "") + f"{right} of {len(verdicts)} splits inside"
    found = [head, *_table([HEAD, *map(_row, verdicts)])]
    for reference in dict.fromkeys(verdict.reference.source for verdict in verdicts):
        found.append(f"         published: {reference}; tolerance: 99 % of sampling, both sides, and an allowance")
    for verdict in verdicts:
        found += [f"         {line}" for line in _notes(verdict)]
    found += [f"         note: the model {note}" for note in notes]
    for verdict in outside:
        found += [f"{verdict.split}: {100 * verdict.gap:+.1f} points; likely causes, in this order"]
        looked = ordered(findings.get(verdict.split, ()))
        shown = [f for f in looked if f.state in ("found", "possible")]
        found += [f"  {k}. {f.cause} ({f.state}): {f.text}" for k, f in enumerate(shown, start=1)]
        found += [] if shown else ["  none of those that can be checked here explains it"]
        found += [f"  {f.state}: {f.cause}: {f.text}" for f in looked if f not in shown]
    return found


def table(title: str, verdicts: Sequence[Verdict], findings: Mapping[str, Sequence[Finding]]) -> list[Text]:
    """A line for each split, and one for each cause that was looked for."""
    made = [Text(title, tuple(HEAD), tuple(map(_row, verdicts)))]
    causes = tuple((v.split, f.cause, f.state, f.text) for v in verdicts for f in ordered(findings.get(v.split, ())))
    return (
        [*made, Text(f"{title}: causes", ("split", "cause", "state", "what"), causes, words=(0, 1, 2, 3))]
        if causes
        else made
    )


def as_json(verdicts: Sequence[Verdict], findings: Mapping[str, Sequence[Finding]]) -> list[dict[str, Any]]:
    """One object for each split, with its findings in order."""
    return [
        {
            "split": v.split, "n": v.n, "metric": v.reference.metric, "measured": v.measured,
            "published": v.reference.value, "source": v.reference.source, "prompts": v.reference.prompts,
            "gap": v.gap, "tolerance": v.tolerance, "allowance": v.reference.allowance,
            "allowance_for": v.reference.reason, "inside": v.inside,
            "causes": [
                {"cause": f.cause, "state": f.state, "text": f.text} for f in ordered(findings.get(v.split, ()))
            ],
        }
        for v in verdicts
    ]  # fmt: skip


def _row(verdict: Verdict) -> tuple[str, ...]:
    name = verdict.split if verdict.reference.metric == "accuracy" else f"{verdict.split} ({verdict.reference.metric})"
    shown = "inside" if verdict.inside else "OUTSIDE"
    measured, published = (number(100 * value, ".2f") for value in (verdict.measured, verdict.reference.value))
    gap = number(100 * verdict.gap, "+.2f")
    tolerance = number(100 * verdict.tolerance, text=f"±{100 * verdict.tolerance:.2f}")
    return name, number(verdict.n, ","), measured, published, gap, tolerance, shown


def _notes(verdict: Verdict) -> list[str]:
    """What the tolerance allows for beside sampling where that is not small, and other published numbers."""
    own = verdict.reference
    found: list[str] = []
    if own.allowance > type(own).allowance:
        found.append(f"{verdict.split}: {100 * own.allowance:.1f} points allowed {own.reason}")
    found += [f"{verdict.split}: {100 * one.value:.2f} in {one.source}" for one in verdict.elsewhere]
    return found


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "         " + "  ".join(f"{t:<{w}}" if k in (0, 6) else f"{t:>{w}}" for k, (t, w) in
                               enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
