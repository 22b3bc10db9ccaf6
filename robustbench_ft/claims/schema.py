"""What the JSON files of a claim hold, typed, and checked where they are read. Torch-free.

A claim is a `Claim`, `record.json` of one of its runs a `RunRecord`. A field of a claim that is not listed here is
an error; in record.json it is kept and not read. A field that is absent has the value that its type gives here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, FiniteFloat, PlainSerializer, TypeAdapter

from robustbench_ft.errors import RbftError
from robustbench_ft.record.store import Json
from robustbench_ft.record.summary import (
    RESTORE,
    CellRecord,
    Code,
    Cost,
    Environment,
    Name,
    Splits,
    Summary,
    damaged,
    read_as,
    read_cell,
    read_environment,
    read_part,
)  # fmt: skip
from robustbench_ft.stats import Estimate

from . import fields

SCHEMA = 2  # 2: official metrics, stored interval ends, how checkpoints were chosen, the code of the method
FIXED, BY_VALIDATION, BY_REPORTED, ORACLE = "fixed", "id_val", "reported_id", "oracle"
Level = Literal["none", "metrics", "predictions", "rescored"]  # how far a claim was verified
Day = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")]
REFRESH = "run `rbft leaderboard refresh`"


def _with_ends(stored: Any) -> Any:
    """An estimate whose interval is symmetric is stored without its ends."""
    try:
        value, half_width = stored["value"], stored["half_width"]
        return {"low": value - half_width, "high": value + half_width, **stored}
    except (KeyError, TypeError, OverflowError):
        return stored  # whose fields are checked next


def _absent(value: object) -> bool:
    """True for values that a claim states by leaving the field out."""
    return value is None or value is False


StoredEstimate = Annotated[Estimate, BeforeValidator(_with_ends), PlainSerializer(Estimate.written)]


@dataclass(frozen=True)
class Identity:
    """What was run: suite, method and model."""

    suite: Name
    suite_version: int
    protocol: str
    method: Name
    method_version: int
    deterministic: bool
    model: str
    pretrained: str
    weights: str  # SHA-256
    precision: str
    resolution: int | None  # image side; None: weights were not kept
    head: str | None  # of the recipe; None: nothing is trained
    parent_runs: list[str]
    transductive: Annotated[bool, Field(exclude_if=_absent)] = False


@dataclass(frozen=True)
class SplitData:
    """One evaluated split, or a view of it in another label space."""

    n: int
    ids_sha256: str
    labels_sha256: str
    classes: int
    content_sha256: str
    groups: list[str]
    clusters: str | None  # the group column of examples that come together


@dataclass(frozen=True)
class TrainData:
    """One split that was trained on."""

    digest: str
    n: Annotated[int | None, Field(exclude_if=_absent)] = None  # images; None: not noted


@dataclass(frozen=True)
class DataUsed:
    """The data of a claim."""

    splits: dict[str, SplitData]
    trained_on: dict[str, TrainData]
    roles: Splits


@dataclass(frozen=True)
class Training:
    """How the runs were made."""

    config_sha256: Annotated[str, Field(min_length=8)]
    settings: dict[str, Any]
    recipe: dict[str, Any] | None  # None: nothing is trained
    recipe_source: str
    seeds: Annotated[list[int], Field(min_length=1)]
    extra_data: str | None
    selection: str  # how the recipe chooses a checkpoint
    candidates: int
    code: Annotated[Code | None, Field(exclude_if=_absent)] = None  # None: of a version that did not note it

    @property
    def is_changed(self) -> bool:
        """True if settings were changed by hand, or the recipe was another method's."""
        return "--" in self.recipe_source


@dataclass(frozen=True)
class Git:
    """State of the checkout that rbft was run from."""

    commit: str
    dirty: bool


@dataclass(frozen=True)
class Machine:
    """What a run was made on; None where its record does not say."""

    rbft: str | None = None
    git: Git | None = None  # None: an installed copy
    python: str | None = None
    platform: str | None = None
    packages: dict[str, str | None] | None = None
    device: str | None = None
    gpu: str | None = None
    cuda: str | None = None
    cpu: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class SplitDigests:
    """Digests of one run's answers on one split."""

    predictions_sha256: str
    probabilities_sha256: str


@dataclass(frozen=True)
class RunEntry:
    """One run (seed) of a claim."""

    seed: int
    files: dict[str, str]  # name -> SHA-256
    content: dict[str, SplitDigests]  # by split
    environment: Machine
    cost: Cost
    diverged: bool


@dataclass(frozen=True)
class RowResult:
    """Every number of one selection rule: by metric, then by column."""

    selection: str  # FIXED, BY_VALIDATION, BY_REPORTED or ORACLE
    candidates: list[str]  # by seed
    per_seed: dict[str, dict[str, list[FiniteFloat]]]
    mean: dict[str, dict[str, FiniteFloat]]
    sd: dict[str, dict[str, FiniteFloat | None]]  # None from a single seed
    estimates: dict[str, dict[str, StoredEstimate]]


@dataclass(frozen=True)
class CurvePoint:
    """One alpha of a family."""

    candidate: str
    alpha: FiniteFloat
    id: Annotated[StoredEstimate, Field(alias="ID")]
    mean_ood: Annotated[StoredEstimate, Field(alias="mean OOD")]


@dataclass(frozen=True)
class Results:
    """Every number of a claim."""

    metrics_version: int
    definitions: dict[str, int]  # metric -> version
    interval: str
    complete: bool
    columns: dict[str, list[str]]  # column -> the splits it is the equal-weight mean of
    rows: Annotated[list[RowResult], Field(min_length=1)]
    curve: list[CurvePoint]  # empty: the method is no family


@dataclass(frozen=True)
class Trust:
    """Where a claim comes from and how far it was verified."""

    origin: str  # 'rerun' by the keepers, or 'submitted'
    by: str | None = None
    source: str | None = None  # of the method: a DOI, an arXiv id, a repository
    notes: str | None = None
    verified: Level = "none"
    verified_by: str | None = None
    date: Annotated[Day | None, Field(exclude_if=_absent)] = None  # on which the claim was made, UTC
    predictions: Annotated[str | None, Field(exclude_if=_absent)] = None  # where they lie; None: beside the claim


@dataclass(frozen=True)
class Claim:
    """The JSON file of a claim."""

    identity: Identity
    data: DataUsed
    training: Training
    runs: list[RunEntry]
    results: Results
    trust: Trust
    schema: int = SCHEMA

    def run(self, seed: int) -> RunEntry | None:
        """The entry of one seed, or None."""
        return next((entry for entry in self.runs if entry.seed == seed), None)

    def problems(self) -> list[str]:
        """Parts that contradict each other; empty for a sound claim."""
        splits, rows = {*self.data.splits}, self.results.rows
        found = [
            f"results.columns.{column}: '{split}' is no split of data.splits"
            for column, members in self.results.columns.items()
            for split in members
            if split not in splits
        ]
        found += [f"results.columns: lacks '{name}'" for name in ("ID", "mean OOD") if name not in self.results.columns]
        found += [
            f"results.rows.{k}.candidates: has {len(row.candidates)} entries for {len(self.training.seeds)} seeds"
            for k, row in enumerate(rows)
            if len(row.candidates) != len(self.training.seeds)
        ]
        return found

    def written(self) -> Json:
        """The JSON of the file."""
        return cast(Json, _adapter().dump_python(self, by_alias=True))


@dataclass(frozen=True)
class _Made:
    """The seed and the files of a run, as claims of every schema state them."""

    seed: int
    files: dict[str, str]


@dataclass(frozen=True)
class _Origin:
    runs: list[_Made]
    trust: Trust


@dataclass(frozen=True)
class Origin:
    """What a claim of any schema was made from."""

    files: dict[int, dict[str, str]]  # seed -> name -> SHA-256
    trust: Trust


@dataclass(frozen=True)
class RunRecord:
    """record.json: what a run's own cell.json, env.json and metrics.json say, without the numbers."""

    cell: CellRecord
    environment: Environment
    machine: Machine
    summary: Summary  # without candidates: their numbers are computed from the predictions
    resolution: int | None  # image side of the saved model; None: weights were not kept


@dataclass(frozen=True)
class _Published:
    """Fields of record.json's summary that a record's own metrics.json lacks or may leave out."""

    clusters: dict[str, str]
    resolution: int | None


def read_claim(content: Any, path: Path) -> Claim:
    """Check the content of a claim. Raises `RbftError` with file and field."""
    whole = cast(Mapping[str, Any], content) if isinstance(content, dict) else {}
    missing = {"schema", "identity", "data", "training", "runs", "results", "trust"} - whole.keys()
    if missing:
        raise RbftError(f"{path} is no claim: it lacks {', '.join(sorted(missing))}")
    if isinstance(whole["schema"], int) and whole["schema"] < SCHEMA:
        raise RbftError(f"{path} has schema {whole['schema']}, this version reads {SCHEMA}; {REFRESH}")
    found = read_as(Claim, content, path, RESTORE, SCHEMA)
    if strange := fields.strangers(content, found.written()):
        said = "is not a field" if len(strange) == 1 else "are no fields"
        raise RbftError(f"{path}: {', '.join(strange[:3])} {said} of a claim; correct the name, or leave it out")
    if problems := found.problems():
        raise damaged(path, problems, RESTORE)
    return found


def read_origin(content: Any, path: Path) -> Origin:
    """Check those parts of a claim from which it can be made again. Raises `RbftError` with file and field."""
    found = read_as(_Origin, content, path, RESTORE, SCHEMA)
    return Origin({run.seed: run.files for run in found.runs}, found.trust)


def read_run(content: Any, path: Path) -> RunRecord:
    """Check the content of record.json. Raises `RbftError` with file and field."""
    parts: Mapping[str, Any] = cast(Mapping[str, Any], content) if isinstance(content, dict) else {}
    summary, environment = parts.get("summary"), parts.get("env")
    return RunRecord(
        cell=read_cell(parts.get("cell"), path, RESTORE),
        environment=read_environment(environment, path, RESTORE),
        machine=read_as(Machine, environment, path, RESTORE),
        summary=read_part(summary, path, RESTORE),
        resolution=read_as(_Published, summary, path, RESTORE).resolution,
    )


@lru_cache
def _adapter() -> TypeAdapter[Claim]:
    return TypeAdapter(Claim)
