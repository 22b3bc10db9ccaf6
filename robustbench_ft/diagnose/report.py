"""Tables of a diagnosis: measures of each row, correlations, forgetting, and what was not diagnosed. Torch-free."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from robustbench_ft import tabular
from robustbench_ft.compare.text import MISSING, Text
from robustbench_ft.compare.text import markdown as text_markdown
from robustbench_ft.metrics import title_of

from .correlate import Correlation, Correlations, Scopes, scopes
from .points import TITLES, Diagnosis, Point

SHORT = ("distortion", "energy_gap")  # measures that have a table by split


def sections(found: Diagnosis) -> list[Text]:
    """Every table, in reading order."""
    by_split = [_by_split(found, name) for name in SHORT if name in found.measured]
    every = scopes(found)
    ranked = [_ranked(every.every, ""), every.headlines and _ranked(every.headlines, ", headline models only")]
    tables = [_overview(found), *by_split, *ranked, _by_group(every), _forgetting(found), _missing(found)]
    return [table for table in tables if table is not None]


def markdown(found: Diagnosis) -> str:
    """All tables as GitHub Markdown."""
    return "\n".join(map(text_markdown, sections(found)))


def as_json(every: Sequence[Diagnosis]) -> str:
    """Every number, unrounded: of each model on each split, and the correlations."""
    content = [{**asdict(found), "correlations": asdict(scopes(found))} for found in every]
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def rows(found: Diagnosis) -> list[dict[str, Any]]:
    """One plain dict per model: shares as fractions, measures as means over the shifts."""
    reference = None if found.zero_shot is None else _mean(found.zero_shot[split] for split in found.shifts)
    return [
        {
            "suite": found.suite, "model": found.model, "row": point.row, "method": point.method,
            "candidate": point.candidate, "seed": point.seed, "ID": point.scores[found.test],
            "mean OOD": point.score(found.shifts),
            "change": None if reference is None else point.score(found.shifts) - reference,
            **{TITLES[name]: point.mean(name, found.shifts) for name in found.measured},
            "remembered": point.remembered,
        }
        for point in found.points
    ]  # fmt: skip


def _overview(found: Diagnosis) -> Text:
    header = ("model", "seeds", "ID", "mean OOD", "change", *(TITLES[name] for name in found.measured))
    body: list[tuple[str, ...]] = []
    for row, points in found.rows.items():
        shifts = [point.score(found.shifts) for point in points]
        means = [number(_mean_of(points, name, found.shifts)) for name in found.measured]
        identity = percent(_mean(point.scores[found.test] for point in points))
        body.append(
            (row, tabular.number(len(points)), identity, percent(_mean(shifts)), _change(found, shifts), *means)
        )
    return Text(found.title, header, tuple(body), _caption(found))


def _caption(found: Diagnosis) -> str:
    metrics = "Official metric of the stored predictions in %, means over seeds; change: from zero-shot"
    lacking = " (no record of zero-shot here: `rbft run --method zero-shot` adds it)" if found.zero_shot is None else ""
    texts = (
        f" and {found.texts:,} random texts" if found.texts else
        "; no energy gap: the model does not state the id range that random texts are drawn from"
    )  # fmt: skip
    sizes = sorted(set(found.images.values()))
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return (
        f"{metrics}{lacking}. Measures: means over {len(found.shifts)} shifts, against the zero-shot model, on {n} "
        f"fixed images of each{texts}."
    )


def _by_split(found: Diagnosis, name: str) -> Text:
    splits = (found.test, *found.shifts)
    body = tuple(
        (row, *(number(_mean_of(points, name, (split,))) for split in splits)) for row, points in found.rows.items()
    )
    header = ("model", *("ID" if split == found.test else split for split in splits))
    return Text(f"{TITLES[name][0].upper()}{TITLES[name][1:]} by test set", header, body, "Means over seeds.")


def _ranked(every: Correlations, which: str) -> Text:
    seeds = tuple(every.models)
    body = tuple(
        (line.name, *(_signed(line.by_seed[seed]) for seed in seeds), _over_seeds(line)) for line in _lines(every)
    )
    counts = ", ".join(f"{n} of seed {seed}" for seed, n in every.models.items())
    one = " One seed: no interval, run more with --seeds." if len(seeds) == 1 else ""
    return Text(
        f"Spearman's rank correlation with mean OOD{which}",
        ("measure", *(f"seed {seed}" for seed in seeds), "over seeds"), body,
        f"Over the models of a seed ({counts or 'none'}; those that agree in every number count once, zero-shot is "
        "none); over seeds: mean and 95 % t interval, which seeds that agree do not have. It is about these models: "
        f"others may order otherwise.{one}",
    )  # fmt: skip


def _by_group(every: Scopes) -> Text | None:
    """The correlations with each kind of shift, over seeds."""
    if not every.groups:
        return None
    columns = [{line.name: _over_seeds(line) for line in _lines(found)} for found in every.groups.values()]
    body = tuple((line.name, *(column[line.name] for column in columns)) for line in _lines(every.every))
    return Text(
        "The same by kind of shift, all models", ("measure", *every.groups), body,
        "Measure and official metric, both as means over the shifts of one kind; mean over seeds and 95 % t interval.",
    )  # fmt: skip


def _lines(every: Correlations) -> list[Correlation]:
    return [*every.measures.values(), *([every.difference] if every.difference else [])]


def _over_seeds(line: Correlation) -> str:
    found = line.over_seeds
    if found is None:
        return MISSING
    if found.low is None or found.high is None:
        return tabular.number(found.value, text=f"{found.value:+.2f} {MISSING}")
    return tabular.interval(
        f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]", found.value, found.low, found.high
    )


def _forgetting(found: Diagnosis) -> Text | None:
    told = found.forgetting
    if told is None:
        return None
    body: list[tuple[str, ...]] = []
    for row, points in found.rows.items():
        after = [point.remembered for point in points if point.remembered is not None]
        change = tabular.number(100 * (_mean(after) - told.before), "+.1f")
        body.append((row, tabular.number(len(points)), percent(told.before), percent(_mean(after)), change))
    return Text(
        f"Forgetting: zero-shot on {told.suite}", ("model", "seeds", "before", "after", "change"), tuple(body),
        f"{title_of(told.metric)} in % on {told.images} fixed images of its split '{told.split}', with a head from the "
        "tuned model's own text tower; means over seeds.",
    )  # fmt: skip


def _missing(found: Diagnosis) -> Text | None:
    if not found.missing:
        return None
    body = tuple((one.row, tabular.number(one.seed), ", ".join(one.candidates), one.reason) for one in found.missing)
    return Text("Not diagnosed", ("record", "seed", "candidates", "why"), body, "They are in no number above.")


def _change(found: Diagnosis, shifts: Sequence[float]) -> str:
    if found.zero_shot is None:
        return MISSING
    return tabular.number(100 * (_mean(shifts) - _mean(found.zero_shot[split] for split in found.shifts)), "+.1f")


def _mean_of(points: Sequence[Point], name: str, splits: Sequence[str]) -> float | None:
    values = [point.mean(name, splits) for point in points]
    return None if any(value is None for value in values) else _mean(value for value in values if value is not None)


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def percent(value: float) -> str:
    """A share as percent, '71.3'."""
    return tabular.number(100 * value, ".1f")


def number(value: float | None) -> str:
    """Three significant digits, '0.0123'."""
    return tabular.number(value, ".3g")


def _signed(value: float | None) -> str:
    return tabular.number(value, "+.2f")
