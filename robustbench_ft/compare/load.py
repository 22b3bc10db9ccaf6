"""Load runs for a comparison: rows, their samples on every test set, and which rows share training runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import ACCURACY, WORST, title_of
from robustbench_ft.record.store import Record
from robustbench_ft.record.summary import ModelUsed
from robustbench_ft.stats.intervals import Examples, Sample, cluster_codes
from robustbench_ft.stats.macro_f1 import DRAWS, macro_f1_draws, macro_recall_draws, stack
from robustbench_ft.stats.worst_group import worst_group_draws

from .rows import Row, Run, check_same_data, reported_selection, rows, run_sets
from .scores import Scores, SplitReader, stacked

OFFICIAL = "official"
METRICS = (OFFICIAL, ACCURACY, "macro_f1", "nll", "brier")
PER_EXAMPLE = (ACCURACY, "nll", "brier")
RANGES = {"nll": (0.0, float("inf")), "brier": (0.0, 2.0)}  # of one example's score
CLASS_DRAWS = {"macro_f1": macro_f1_draws, "macro_recall": macro_recall_draws}
LOWER_IS_BETTER = ("nll", "brier")


@dataclass(frozen=True, eq=False)
class RunSet:
    """All rows of one suite and model, ready to be compared."""

    suite: str
    version: int
    model: str
    weights: str
    protocol: str
    metric: str  # 'official', or one metric for every split
    val: str  # the split that selects
    test: str  # the ID test set
    shifts: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]  # kinds of shift
    official: Mapping[str, str]  # split -> its official metric, where that is not accuracy
    n: Mapping[str, int]
    digests: Mapping[str, str]
    clusters: Mapping[str, NDArray[np.int64] | None]  # split -> codes
    cluster_names: Mapping[str, str]
    rows: tuple[Row, ...]
    samples: Mapping[str, Mapping[str, Sample]]  # row name -> split -> sample; a split with a hole is absent
    records: tuple[Record, ...]
    readers: Mapping[str, SplitReader]
    views: dict[str, SplitReader] = field(default_factory=dict[str, SplitReader])
    partial: bool = False
    selects_on_reported: bool = False  # candidates are selected on images that the table reports

    @property
    def title(self) -> str:
        note = " (partial data: no claim)" if self.partial else ""
        return f"{self.suite} v{self.version}, model {self.model}, protocol {self.protocol}{note}"

    @property
    def stream(self) -> str:
        """Names random draws."""
        metric = ACCURACY if self.metric == OFFICIAL and self.only_accuracy else self.metric
        return f"{self.suite}-v{self.version}-{metric}"

    @property
    def higher_is_better(self) -> bool:
        return self.metric not in LOWER_IS_BETTER

    @property
    def only_accuracy(self) -> bool:
        """True if every number that is compared is an accuracy."""
        return all(self.metric_of(split) == ACCURACY for split in (self.test, *self.shifts))

    def metric_of(self, split: str) -> str:
        """The metric by which a split is compared here."""
        return self.official.get(split, ACCURACY) if self.metric == OFFICIAL else self.metric

    def column(self, split: str) -> str:
        """The title of a split's column: its name, and its metric where that is not accuracy."""
        name = "ID" if split == self.test else split
        metric = self.metric_of(split)
        return (
            f"{name}: {title_of(metric).partition(',')[0]}" if self.metric == OFFICIAL and metric != ACCURACY else name
        )

    def reader(self, split: str) -> SplitReader:
        """Correctness on a split, or on a view of it that is not a column of its own."""
        found = self.readers.get(split)
        if found is not None and found.metric == ACCURACY:
            return found
        return self.views.setdefault(split, SplitReader(split, ACCURACY))

    def missing(self, row: Row) -> tuple[str, ...]:
        return tuple(split for split in (self.test, *self.shifts) if split not in self.samples[row.name])

    def complete(self, row: Row) -> bool:
        return not set(self.missing(row)) & set(self.shifts)

    def sets(self, row: Row, splits: Sequence[str] | None = None) -> list[Sample]:
        return [self.samples[row.name][split] for split in (self.shifts if splits is None else splits)]

    @cached_property
    def origins(self) -> dict[str, str]:
        """Record folder -> folder of the training run it holds. A family whose last alpha predicts exactly what a plain
        run of the same seed does was made from that run: its rows are paired with it, seed by seed."""
        plain = [r for r in self.records if not r.summary.axis and not r.config.deterministic]
        found = {str(r.folder): str(r.folder) for r in self.records}
        for record in self.records:
            axis = record.summary.axis
            last = max(axis, key=lambda c: axis[c]) if axis else ""
            for other in plain if axis and axis[last] == 1 else ():
                if other.seed == record.seed and self._same((record, last), (other, other.summary.default)):
                    found[str(record.folder)] = str(other.folder)
        return found

    def _same(self, a: Run, b: Run) -> bool:
        """True if two candidates answer every example of every test set alike."""
        for split in (self.test, *self.shifts):
            reader = self.reader(split)
            if reader.read(*a) is None or reader.read(*b) is None:
                return False
            if not np.array_equal(reader.predictions(*a), reader.predictions(*b)):
                return False
        return True

    def origin(self, row: Row) -> tuple[str, ...]:
        return tuple(self.origins[str(record.folder)] for record, _ in row.runs)

    def paired(self, a: Row, b: Row) -> bool:
        """True if both rows have the same seeds and share a training run (same predictions on every split)."""
        return a.seeds == b.seeds and bool(set(self.origin(a)) & set(self.origin(b)))


def load(
    records: Sequence[Record], metric: str = OFFICIAL, grids: bool = True, headlines: bool = False
) -> list[RunSet]:
    """One set per suite and model; everything that makes rows incomparable is an error.

    With `headlines`, each method has the row of its default candidate only.
    """
    return [run_set_of(group, metric, grids, given_of(group, grids, headlines)) for group in run_sets(records)]


def given_of(records: Sequence[Record], grids: bool, headlines: bool) -> list[Row] | None:
    """The rows of `headlines`, for `run_set_of`; None for all rows."""
    return [row for row in rows(records, grids) if row.headline] if headlines else None


def run_set_of(
    records: Sequence[Record], metric: str = OFFICIAL, grids: bool = True, given: Sequence[Row] | None = None
) -> RunSet:
    """The set of runs on one suite with one model; `given` are its rows where they are not those of `rows`."""
    check_same_data(records)
    cell, told, data = records[0].config, records[0].summary, records[0].environment.data
    val, test, shifts = told.splits.val, told.splits.test, tuple(told.splits.shifts)
    made = rows(records, grids) if given is None else given
    official = {s: m for s in (val, test, *shifts) if (m := told.official_of(s)) != ACCURACY}
    chosen = {s: official.get(s, ACCURACY) if metric == OFFICIAL else metric for s in (test, *shifts)}
    readers = {s: SplitReader(s, m if m in PER_EXAMPLE else ACCURACY) for s, m in chosen.items()}
    scores = {split: {row.name: stacked(readers[split], row.runs) for row in made} for split in readers}
    names = told.clusters
    clusters = {split: _clusters(readers[split], made, scores[split], names.get(split)) for split in readers}
    samples: dict[str, dict[str, Sample]] = {row.name: {} for row in made}
    for split, reader in readers.items():
        present = [row for row in made if scores[split][row.name] is not None]
        of_split = samples_of(
            chosen[split], f"{cell.suite}-v{cell.suite_version}", reader,
            {row.name: row.runs for row in present}, clusters[split],
        )  # fmt: skip
        for name, sample in of_split.items():
            samples[name][split] = sample
    return RunSet(
        suite=cell.suite, version=cell.suite_version, model=model_name(cell.model), weights=cell.model.weights,
        protocol=cell.protocol, metric=metric, val=val, test=test, shifts=shifts,
        groups={name: tuple(members) for name, members in told.shift_groups.items()}, official=official,
        n={split: len(reader.label) for split, reader in readers.items()},
        digests={split: data[split].digest for split in readers if split in data},
        clusters=clusters, cluster_names=names, rows=tuple(made), samples=samples, records=tuple(records),
        readers=readers, partial=cell.partial, selects_on_reported=reported_selection(told),
    )  # fmt: skip


def model_name(model: ModelUsed) -> str:
    """The model's name with its pretrained tag."""
    return " ".join(part for part in (model.name, model.pretrained) if part)


def _clusters(
    reader: SplitReader, made: Sequence[Row], scores: Mapping[str, Scores | None], name: str | None
) -> NDArray[np.int64] | None:
    if name is None:
        return None
    run = next((row.runs[0] for row in made if scores[row.name] is not None), None)
    return None if run is None else cluster_codes(reader.group(*run, name))


def samples_of(
    metric: str, suite: str, reader: SplitReader, rows: Mapping[str, Sequence[Run]],
    clusters: NDArray[np.int64] | None,
) -> dict[str, Sample]:  # fmt: skip
    """Row name -> its sample: additive scores as they are, other metrics by resamples that all rows share."""
    if metric in PER_EXAMPLE:
        ends = RANGES.get(metric)  # correctness is known to lie in [0, 1]
        return {name: Examples(_present(stacked(reader, runs)), clusters, ends) for name, runs in rows.items()}
    every = list(dict.fromkeys(run for runs in rows.values() for run in runs))
    if not every:
        return {}
    if metric in CLASS_DRAWS:
        predictions = np.stack([reader.predictions(*run) for run in every])
        drawn = CLASS_DRAWS[metric](reader.label, predictions, DRAWS, suite, reader.split, clusters=clusters)
    else:
        group = reader.group(*every[0], metric.removeprefix(WORST))
        correct = np.stack([reader.predictions(*run) == reader.label for run in every])
        drawn = worst_group_draws(correct, group, DRAWS, suite, reader.split, clusters=clusters)
    place = {run: k for k, run in enumerate(every)}
    return {name: stack([drawn[place[run]] for run in runs]) for name, runs in rows.items()}


def _present(scores: Scores | None) -> Scores:
    if scores is None:
        raise RbftError("a row without scores was asked for them")
    return scores


def examples_of(run_set: RunSet, runs: Sequence[Run], splits: Sequence[str]) -> list[Examples] | None:
    """Correctness of any candidate's runs, e.g. one alpha; None where a split is missing."""
    found: list[Examples] = []
    for split in splits:
        scores = stacked(run_set.reader(split), runs)
        if scores is None:
            return None
        found.append(Examples(scores, run_set.clusters.get(split)))
    return found


def sample_of(run_set: RunSet, runs: Sequence[Run], split: str) -> Sample | None:
    """A row's sample on a split that is in none of the set's columns, by its metric; None where it is missing."""
    suite = f"{run_set.suite}-v{run_set.version}"
    return split_sample(
        run_set.metric_of(split), suite, split, runs, run_set.cluster_names.get(split.partition("@")[0])
    )


def split_sample(metric: str, suite: str, split: str, runs: Sequence[Run], cluster: str | None) -> Sample | None:
    """The sample of these runs on one split, with clusters of the group column `cluster`; None where it is missing."""
    reader = SplitReader(split, metric if metric in PER_EXAMPLE else ACCURACY)
    if stacked(reader, runs) is None:
        return None
    clusters = cluster_codes(reader.group(*runs[0], cluster)) if cluster else None
    return samples_of(metric, suite, reader, {"": runs}, clusters)[""]
