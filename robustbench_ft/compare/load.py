"""From records to what a comparison needs: rows, their samples on every test set, and which rows share runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robustbench_ft.errors import RbftError
from robustbench_ft.rows import Row, Run, arenas, check_same_data, rows
from robustbench_ft.scores import Scores, SplitReader, stacked
from robustbench_ft.stats.intervals import Examples, Sample
from robustbench_ft.stats.macro_f1 import DRAWS, macro_f1_draws, stack
from robustbench_ft.store import Record

METRICS = ("accuracy", "macro_f1", "nll", "brier")


@dataclass(frozen=True, eq=False)
class Arena:
    """All rows of one suite and model, ready to be compared."""

    suite: str
    version: int
    model: str
    weights: str
    protocol: str
    metric: str
    test: str  # the ID test set
    shifts: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]  # kinds of shift
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

    @property
    def title(self) -> str:
        note = " (partial data: no claim)" if self.partial else ""
        return f"{self.suite} v{self.version}, model {self.model}, protocol {self.protocol}{note}"

    @property
    def stream(self) -> str:
        """Names random draws."""
        return f"{self.suite}-v{self.version}-{self.metric}"

    @property
    def higher_is_better(self) -> bool:
        return self.metric in ("accuracy", "macro_f1")

    def reader(self, split: str) -> SplitReader:
        """Of a split, or of a view of it that is not a column of its own."""
        found = self.readers.get(split)
        return found or self.views.setdefault(split, SplitReader(split, "accuracy"))

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
        plain = [r for r in self.records if not r.metrics["axis"] and not r.cell["deterministic"]]
        found = {str(r.folder): str(r.folder) for r in self.records}
        for record in self.records:
            axis: dict[str, float] = record.metrics["axis"]
            last = max(axis, key=lambda c: axis[c]) if axis else ""
            for other in plain if axis and axis[last] == 1 else ():
                if other.seed == record.seed and self._same((record, last), (other, str(other.metrics["default"]))):
                    found[str(record.folder)] = str(other.folder)
        return found

    def _same(self, a: Run, b: Run) -> bool:
        """Two candidates answer every example of every test set alike."""
        reader = self.readers[self.test]
        if reader.read(*a) is None or reader.read(*b) is None:
            return False
        if not np.array_equal(reader.predictions(*a), reader.predictions(*b)):
            return False
        for split in self.shifts:
            left, right = self.readers[split].read(*a), self.readers[split].read(*b)
            if left is None or right is None or not np.array_equal(left, right):
                return False
        return True

    def origin(self, row: Row) -> tuple[str, ...]:
        return tuple(self.origins[str(record.folder)] for record, _ in row.runs)

    def paired(self, a: Row, b: Row) -> bool:
        """Runs of one seed belong together, and both rows have the same seeds: proved, never assumed from numbers."""
        return a.seeds == b.seeds and bool(set(self.origin(a)) & set(self.origin(b)))


def load(records: Sequence[Record], metric: str = "accuracy") -> list[Arena]:
    """One arena per suite and model; everything that makes rows incomparable is an error."""
    return [_arena(group, metric) for group in arenas(records)]


def _arena(records: Sequence[Record], metric: str) -> Arena:
    check_same_data(records)
    cell, meta = records[0].cell, records[0].metrics
    test, shifts = str(meta["splits"]["test"]), tuple(map(str, meta["splits"]["shifts"]))
    made = rows(records)
    readers = {split: SplitReader(split, "accuracy" if metric == "macro_f1" else metric) for split in (test, *shifts)}
    scores = {split: {row.name: stacked(readers[split], row.runs) for row in made} for split in readers}
    names: dict[str, str] = meta.get("clusters", {})
    clusters = {split: _clusters(readers[split], made, scores[split], names.get(split)) for split in readers}
    samples: dict[str, dict[str, Sample]] = {row.name: {} for row in made}
    for split, reader in readers.items():
        present = [row for row in made if scores[split][row.name] is not None]
        made_samples = _samples(f"{cell['suite']}-v{cell['suite_version']}", reader, present, scores[split],
                                clusters[split], metric)  # fmt: skip
        for name, sample in made_samples.items():
            samples[name][split] = sample
    data = records[0].env["data"]
    return Arena(
        suite=cell["suite"], version=cell["suite_version"], model=cell["model"]["name"],
        weights=cell["model"]["weights"], protocol=cell["protocol"], metric=metric, test=test, shifts=shifts,
        groups={name: tuple(members) for name, members in meta["shift_groups"].items()},
        n={split: len(reader.label) for split, reader in readers.items()},
        digests={split: str(data[split]["digest"]) for split in readers if split in data},
        clusters=clusters, cluster_names=names, rows=tuple(made), samples=samples, records=tuple(records),
        readers=readers, partial=bool(cell.get("partial")),
    )  # fmt: skip


def _clusters(
    reader: SplitReader, made: Sequence[Row], scores: Mapping[str, Scores | None], name: str | None
) -> NDArray[np.int64] | None:
    if name is None:
        return None
    run = next((row.runs[0] for row in made if scores[row.name] is not None), None)
    return None if run is None else reader.group(*run, name)


def _samples(
    suite: str, reader: SplitReader, present: Sequence[Row], scores: Mapping[str, Scores | None],
    clusters: NDArray[np.int64] | None, metric: str,
) -> dict[str, Sample]:  # fmt: skip
    """Row name -> its sample: additive scores as they are, macro-F1 by resamples that all rows share."""
    if metric != "macro_f1":
        return {row.name: Examples(_present(scores[row.name]), clusters) for row in present}
    if not present:
        return {}
    predictions = np.stack([reader.predictions(*run) for row in present for run in row.runs])
    drawn = macro_f1_draws(reader.label, predictions, DRAWS, suite, reader.split, clusters=clusters)
    found: dict[str, Sample] = {}
    for row in present:
        found[row.name], drawn = stack(drawn[: len(row.runs)]), drawn[len(row.runs) :]
    return found


def _present(scores: Scores | None) -> Scores:
    if scores is None:
        raise RbftError("a row without scores was asked for them")
    return scores


def examples_of(arena: Arena, runs: Sequence[Run], splits: Sequence[str]) -> list[Examples] | None:
    """Examples of any candidate's runs, e.g. one alpha; None where a split is missing. Additive metrics only."""
    found: list[Examples] = []
    for split in splits:
        scores = stacked(arena.reader(split), runs)
        if scores is None:
            return None
        found.append(Examples(scores, arena.clusters.get(split)))
    return found
