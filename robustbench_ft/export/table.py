"""The numbers of an exported model: of its own run, and of a fresh seed where other seeds lie beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustbench_ft import metrics, stats
from robustbench_ft.claims.claim import columns
from robustbench_ft.compare.load import split_sample
from robustbench_ft.compare.text import MISSING, grid, points
from robustbench_ft.record.store import Record, is_done
from robustbench_ft.stats import Estimate
from robustbench_ft.stats.intervals import Sample


@dataclass(frozen=True)
class Column:
    """One test set, or a mean over several."""

    name: str
    splits: tuple[str, ...]
    metric: str  # '' where its test sets have different ones
    images: int
    own: Estimate  # of this model; the interval is over images
    fresh: Estimate | None  # over seeds and images; None: no other seed lies beside the run


@dataclass(frozen=True)
class Numbers:
    """Every column of a run, and how its probabilities fit."""

    columns: tuple[Column, ...]
    seeds: tuple[int, ...]  # of the runs behind `fresh`
    calibration: Mapping[str, float]  # test set -> expected calibration error

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def measure(record: Record, candidate: str) -> Numbers:
    """The official metric of each test set, with 95 % intervals."""
    runs = [record, *_siblings(record)]
    summary, sizes = record.summary, dict[str, int]()
    wanted = {name: splits for name, splits in columns(summary).items() if name != "ID val"}
    own, fresh, calibration = dict[str, Sample](), dict[str, Sample](), dict[str, float]()
    for split in dict.fromkeys(split for splits in wanted.values() for split in splits):
        answers = record.predictions(candidate, split)
        sizes[split], calibration[split] = len(answers), metrics.ece(answers)
        own[split] = _sample([record], candidate, split)
        if len(runs) > 1:
            fresh[split] = _sample(runs, candidate, split)
    found: list[Column] = []
    for name, splits in wanted.items():
        kinds = {summary.official_of(split) for split in splits}
        found.append(
            Column(
                name, splits, kinds.pop() if len(kinds) == 1 else "", sum(sizes[split] for split in splits),
                stats.mean([own[split] for split in splits]),
                stats.mean([fresh[split] for split in splits]) if fresh else None,
            )
        )  # fmt: skip
    return Numbers(tuple(found), tuple(sorted(run.seed for run in runs)), calibration)


def _siblings(record: Record) -> list[Record]:
    """Finished runs of the same configuration with other seeds."""
    if record.config.deterministic:
        return []
    folders = [f for f in sorted(record.folder.parent.glob("seed-*")) if f != record.folder and is_done(f)]
    others = [Record(folder) for folder in folders]
    return [other for other in others if other.config.digest == record.config.digest and other.seed != record.seed]


def _sample(runs: Sequence[Record], candidate: str, split: str) -> Sample:
    first = runs[0]
    named = candidate != first.summary.default
    chosen = [(run, candidate if named else run.summary.default) for run in runs]
    suite = f"{first.config.suite}-v{first.config.suite_version}"
    cluster = first.summary.clusters.get(split.partition("@")[0])
    found = split_sample(first.summary.official_of(split), suite, split, chosen, cluster)
    assert found is not None, split
    return found


def markdown(numbers: Numbers) -> str:
    """The table of a model card."""
    several = len(numbers.seeds) > 1
    header = ["test set", "metric", "images", "this model"]
    header += [f"a fresh seed ({len(numbers.seeds)} runs)"] if several else []
    body = [
        [c.name, (metrics.title_of(c.metric) if c.metric else MISSING), f"{c.images:,}", points(c.own)]
        + ([points(c.fresh) if c.fresh else MISSING] if several else [])
        for c in numbers.columns
    ]
    return grid(header, body, words=(0, 1))
