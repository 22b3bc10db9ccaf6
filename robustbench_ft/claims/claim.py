"""A claim: every number of one method setting on one suite version, recomputed from its bundles and nothing else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustbench_ft import file_names, metrics, stats
from robustbench_ft.compare.load import OFFICIAL, RANGES, split_sample
from robustbench_ft.compare.rows import by_oracle, by_validation, reported_selection
from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import ACCURACY
from robustbench_ft.model_ref import ModelRef
from robustbench_ft.record.store import Json
from robustbench_ft.record.summary import CellRecord, Summary
from robustbench_ft.stats import Estimate, Examples, Sample

from . import bundle, digests
from .bundle import Bundle, PublishedRun, split_names
from .schema import (
    BY_REPORTED,
    BY_VALIDATION,
    FIXED,
    ORACLE,
    Claim,
    CurvePoint,
    DataUsed,
    Identity,
    Results,
    RowResult,
    RunEntry,
    SplitData,
    SplitDigests,
    TrainData,
    Training,
    Trust,
)  # fmt: skip

INTERVAL = "two-way t over seeds and examples, 95 %"


@dataclass(frozen=True)
class ClaimPath:
    """Paths of a claim below the leaderboards folder."""

    suite: str  # with its version: 'shapes-v2'
    model: str  # as in the record tree
    name: str  # method and the first eight characters of the configuration's digest

    @property
    def file(self) -> Path:
        return Path(self.suite) / self.model / f"{self.name}.json"

    @property
    def predictions(self) -> Path:
        return Path(self.suite) / "predictions" / self.model / self.name

    def run(self, seed: int) -> Path:
        return self.predictions / f"seed-{seed}"


def place_of(config: CellRecord) -> ClaimPath:
    """Where the claim of this configuration lies. Raises `RbftError` where its names would lead elsewhere."""
    model = config.model
    parts = {
        "the suite": f"{config.suite}-v{config.suite_version}",
        "the model": ModelRef(model.name, model.pretrained, model.weights).label,
        "the method": f"{config.method}-{config.digest[:8]}",
    }
    return ClaimPath(*(file_names.checked(name, what) for what, name in parts.items()))


def columns(summary: Summary) -> dict[str, tuple[str, ...]]:
    """Column -> the splits it is the equal-weight mean of. ID is in no mean."""
    splits, shifts = summary.splits, tuple(summary.splits.shifts)
    found = {"ID val": (splits.val,), "ID": (splits.test,), **{name: (name,) for name in shifts}}
    found |= {f"mean {name}": tuple(members) for name, members in summary.shift_groups.items()}
    further = (*splits.extra, *summary.views)  # in no mean
    return found | {"mean OOD": shifts} | {name: (name,) for name in further}


def make(runs: Sequence[Bundle], files: Mapping[int, Mapping[str, str]], trust: Trust) -> Claim:
    """The claim of these runs; `files` holds the digests of each seed's stored files."""
    runs = sorted(runs, key=lambda run: run.seed)
    _check_same(runs)
    first, config = runs[0], runs[0].config
    return Claim(
        identity=_identity(first),
        data=_data(runs),
        training=Training(
            config_sha256=config.digest, settings=config.settings, recipe=config.recipe,
            recipe_source=config.recipe_source, seeds=[run.seed for run in runs], extra_data=None,
            selection=_selection(first), candidates=len(first.choices[first.summary.splits.test]), code=config.code,
        ),
        runs=[_entry(run, files[run.seed]) for run in runs],
        results=Results(
            metrics_version=metrics.VERSION,
            definitions={name: metric.version for name, metric in metrics.METRICS.items()},
            interval=INTERVAL, complete=True,
            columns={name: list(splits) for name, splits in columns(first.summary).items()},
            rows=_rows(runs), curve=_curve(runs),
        ),
        trust=trust,
    )  # fmt: skip


def _identity(run: Bundle) -> Identity:
    config = run.config
    return Identity(
        suite=config.suite, suite_version=config.suite_version, protocol=config.protocol, method=config.method,
        method_version=config.method_version, deterministic=config.deterministic, model=config.model.name,
        pretrained=config.model.pretrained, weights=config.model.weights, precision=config.precision,
        resolution=run.typed.resolution, head=(config.recipe or {}).get("head"), parent_runs=[],
        transductive=run.summary.transductive,
    )  # fmt: skip


def _selection(run: Bundle) -> str:
    """How the recipe chooses a checkpoint; how a row chooses its candidate is said by the row."""
    recipe = run.config.recipe
    if recipe is None:
        return "none"
    if recipe.get("select", "best") == "last":
        return "last checkpoint"
    return f"checkpoint by {'the reported ID set' if reported_selection(run.summary) else 'ID validation'}"


def config_digest(cell: Json) -> str | None:
    """Recompute `Cell.digest` from cell.json as it is stored: fields that this version does not know count too.

    None for local-dir models, whose path was removed from the claim.
    """
    model = {"weights": cell["model"]["weights"], "name": cell["model"]["name"]}
    if model["name"].startswith("local-dir:"):
        return None
    content = {key: value for key, value in cell.items() if key not in ("seed", "recipe_source", "digest", "code")}
    content["settings"] = {**content["settings"], **content.pop("contents", {})}
    return hashlib.sha256(json.dumps({**content, "model": model}, sort_keys=True).encode()).hexdigest()


def digest(content: Json) -> str:
    """SHA-256 of the whole claim as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check_same(runs: Sequence[Bundle]) -> None:
    """Runs of one claim differ in their seed and in nothing else."""
    first = runs[0]
    partial = [run.seed for run in runs if run.config.partial]
    if partial:
        raise RbftError(
            f"seed {partial[0]} of {first.config.method} on {first.config.suite} was run with --allow-partial; a "
            "claim needs the whole data set: run it again without"
        )
    for run in runs[1:]:
        _check_pair(first, run)
    seeds = [run.seed for run in runs]
    if len(set(seeds)) != len(seeds):
        raise RbftError(f"a seed is there twice: {seeds}; name each record once")


def _check_pair(first: Bundle, run: Bundle) -> None:
    both = f"seeds {first.seed} and {run.seed} of one claim"
    if _source(run) not in (None, _source(first)):
        raise RbftError(
            f"{both} were run with two states of {first.config.method}'s code; run the older one again with "
            "`rbft run --rerun`"
        )
    one: Json = first.record["cell"]  # as stored: fields that this version does not know count too
    other: Json = run.record["cell"]
    for key in sorted({*one, *other} - {"seed", "code"}):
        if other.get(key) != one.get(key):
            raise RbftError(
                f"{both} differ in '{key}': {one.get(key)} and {other.get(key)}; a claim holds runs of one "
                "configuration"
            )
    if run.summary.splits != first.summary.splits:
        raise RbftError(f"{both} were evaluated on different splits")
    found = run.typed.environment.data
    for split, entry in first.typed.environment.data.items():
        if split not in found or found[split].digest != entry.digest:
            raise RbftError(f"{both} saw different data (split '{split}')")


def _source(run: Bundle) -> str | None:
    """The digest of the method's source; None for a run of a version that did not note it."""
    return run.config.code.sha256 if run.config.code else None


def _data(runs: Sequence[Bundle]) -> DataUsed:
    first, known = runs[0], runs[0].typed.environment.data
    found: dict[str, SplitData] = {}
    for split in split_names(first.summary):
        shown, name = first.any(split), split.partition("@")[0]
        if name not in known:
            raise RbftError(f"{bundle.RECORD} of seed {first.seed} does not say on which data '{name}' was evaluated")
        found[split] = SplitData(
            n=len(shown), ids_sha256=digests.ids_digest(shown.ids), labels_sha256=digests.labels_digest(shown.label),
            classes=len(np.unique(shown.label)), content_sha256=known[name].digest, groups=sorted(shown.groups),
            clusters=first.cluster_name(split),
        )  # fmt: skip
    trained = {
        name: TrainData(entry.digest, entry.n if entry.n >= 0 else None)
        for name, entry in known.items()
        if name not in found
    }
    return DataUsed(found, trained, first.summary.splits)


def _entry(run: Bundle, files: Mapping[str, str]) -> RunEntry:
    environment = run.typed.environment
    found = {
        split: SplitDigests(digests.predictions_digest(run, split), digests.probabilities_digest(run, split))
        for split in run.scored
    }
    return RunEntry(
        seed=run.seed, files=dict(files), content=found, environment=run.typed.machine, cost=environment.cost,
        diverged=any(stage.diverged for stage in environment.stages),
    )  # fmt: skip


def _rows(runs: Sequence[Bundle]) -> list[RowResult]:
    fixed = [run.summary.default for run in runs]
    if not runs[0].summary.axis:
        return [_row(runs, fixed, FIXED)]
    rule = BY_REPORTED if reported_selection(runs[0].summary) else BY_VALIDATION
    chosen = {rule: [by_validation(run.numbers) for run in runs], ORACLE: [by_oracle(run.numbers) for run in runs]}
    return [_row(runs, fixed, FIXED), *(_row(runs, names, selection) for selection, names in chosen.items())]


def _row(runs: Sequence[Bundle], candidates: Sequence[str], selection: str) -> RowResult:
    wanted = columns(runs[0].summary)
    for run, name in zip(runs, candidates, strict=True):
        lacking = [split for split, scored in run.scored.items() if name not in scored]
        if lacking:
            raise RbftError(f"seed {run.seed} keeps no probabilities of candidate '{name}' on '{lacking[0]}'")
    found = {
        split: [run.scored[split][name] for run, name in zip(runs, candidates, strict=True)]
        for split in split_names(runs[0].summary)
    }
    scores = {split: [metrics.score(p) for p in each] for split, each in found.items()}
    every = sorted({name for each in scores.values() for name in each[0]})
    per_seed = {
        metric: {
            column: [float(np.mean([scores[split][k][metric] for split in splits])) for k in range(len(runs))]
            for column, splits in wanted.items()
            if all(metric in scores[split][0] for split in splits)  # group metrics exist where groups do
        }
        for metric in every
    }
    return RowResult(
        selection=selection,
        candidates=list(candidates),
        per_seed=per_seed,
        mean={m: {c: float(np.mean(v)) for c, v in by.items()} for m, by in per_seed.items()},
        sd={m: {c: _sd(v) for c, v in by.items()} for m, by in per_seed.items()},
        estimates={name: _estimates(runs[0], found, wanted, name) for name in ("accuracy", "nll", "brier")}
        | _official(runs, candidates, wanted),
    )


def _estimates(
    run: Bundle, found: Mapping[str, Sequence[Predictions]], wanted: Mapping[str, Sequence[str]], name: str
) -> dict[str, Estimate]:
    per_example = metrics.METRICS[name].per_example
    assert per_example is not None, name
    samples = {
        split: Examples(np.stack([per_example(p) for p in each]), run.codes(split), RANGES.get(name))
        for split, each in found.items()
    }
    return {column: stats.mean([samples[split] for split in splits]) for column, splits in wanted.items()}


def _official(
    runs: Sequence[Bundle], candidates: Sequence[str], wanted: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Estimate]]:
    """Estimates by the official metrics, where one of them is not accuracy."""
    summary = runs[0].summary
    if all(summary.official_of(split) == ACCURACY for split in split_names(summary)):
        return {}
    found = _by_official(runs, candidates, split_names(summary))
    return {OFFICIAL: {c: stats.mean([found[split] for split in splits]) for c, splits in wanted.items()}}


def _by_official(runs: Sequence[Bundle], candidates: Sequence[str], splits: Sequence[str]) -> dict[str, Sample]:
    """Split -> sample by its official metric, of one candidate per run."""
    first = runs[0]
    chosen = [
        (PublishedRun(Path(f"seed-{run.seed}"), bundle=run), name) for run, name in zip(runs, candidates, strict=True)
    ]
    suite = f"{first.config.suite}-v{first.config.suite_version}"
    samples = {
        split: split_sample(first.summary.official_of(split), suite, split, chosen, first.cluster_name(split))
        for split in splits
    }
    return {split: sample for split, sample in samples.items() if sample is not None}


def _curve(runs: Sequence[Bundle]) -> list[CurvePoint]:
    """ID and mean OOD along a family's axis by the official metrics, with their intervals."""
    axis, wanted = runs[0].summary.axis, columns(runs[0].summary)
    points: list[CurvePoint] = []
    for name, alpha in sorted(axis.items(), key=lambda item: item[1]):
        found = _by_official(runs, [name] * len(runs), [*wanted["ID"], *wanted["mean OOD"]])
        identity, ood = (stats.mean([found[split] for split in wanted[column]]) for column in ("ID", "mean OOD"))
        points.append(CurvePoint(name, alpha, identity, ood))
    return points


def correct(runs: Sequence[Bundle], candidates: Sequence[str], split: str) -> Examples:
    """Correctness [S, n] of one candidate per run."""
    rows = [run.choices[split][name] == run.any(split).label for run, name in zip(runs, candidates, strict=True)]
    return Examples(np.stack(rows), runs[0].codes(split))


def _sd(values: Sequence[float]) -> float | None:
    """Over seeds, ddof 1; none from a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
