"""What the JSON files of a record hold, typed, and checked where they are read. Torch-free.

`cell.json` is a `CellRecord`, `env.json` an `Environment`, `metrics.json` a `Summary`. Fields that came later have the
value that earlier records mean by leaving them out; fields that are not listed here are kept in the file and not read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError

from robustbench_ft import file_names
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import ACCURACY, METRICS, WORST
from robustbench_ft.suite import is_column

SCHEMA = 1  # of all three files; raised when a field changes its meaning
AGAIN, RESTORE = "run the cell again", "restore the file"  # what to do with a damaged record, own or published
MOST_PROBLEMS = 3  # that are named in one line


def _nameable(name: str) -> str:
    if why := file_names.problem(name):
        raise ValueError(f"{name[:60]!r} cannot name a file: it {why}")
    return name


Name = Annotated[str, AfterValidator(_nameable)]  # of what is also a file or folder
Kind = TypeVar("Kind")


def _is_one(value: object) -> bool:
    return value == 1


def _is_none(value: object) -> bool:
    return value is None


def _in_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text[:60]!r} holds characters that cannot be printed")
    return text


Text = Annotated[str, AfterValidator(_in_one_line)]  # shown in tables


@dataclass(frozen=True)
class ModelUsed:
    """The pre-trained model of a cell, as `ModelRef` names it."""

    name: Text
    pretrained: Text
    weights: Text


@dataclass(frozen=True)
class Code:
    """Digests of the method's source, as `provenance.Code` found them."""

    sha256: str
    files: dict[str, str] = field(default_factory=dict[str, str])
    distribution: str = ""


@dataclass(frozen=True)
class CellRecord:
    """cell.json: everything that could move a number, resolved."""

    suite: Name
    suite_version: int
    method: Name
    method_version: int
    model: ModelUsed
    protocol: Literal["clean", "as-published"]
    precision: Text
    seed: int
    digest: Annotated[str, Field(min_length=8)]  # of the configuration without the seed
    settings: dict[str, Any]
    recipe: dict[str, Any] | None  # None: nothing is trained
    deterministic: bool
    recipe_source: str
    partial: bool = False
    suite_definition: str = ""
    shared: dict[str, int] = field(default_factory=dict[str, int])  # versions of what several recipes share
    code: Code | None = None  # None: of a version that did not note it
    schema: int = SCHEMA


@dataclass(frozen=True)
class Data:
    """One split as it was found."""

    digest: str
    n: int = -1  # images; -1: not noted


@dataclass(frozen=True)
class Cost:
    """What a cell cost; rates are per second of that work, None where nothing was done."""

    fit_seconds: FiniteFloat
    evaluate_seconds: FiniteFloat | None = None
    fit_images_per_second: FiniteFloat | None = None
    evaluate_images_per_second: FiniteFloat | None = None
    peak_memory_mib: FiniteFloat | None = None
    trained_parameters: int | None = None
    # of the image tower for each image predicted, of the default candidate; claims leave it out where it is 1
    passes: Annotated[FiniteFloat, Field(exclude_if=_is_one)] = 1.0
    # share of the steps' time spent waiting for data; None: not measured, or nothing was trained
    waiting: Annotated[FiniteFloat | None, Field(exclude_if=_is_none)] = None


@dataclass(frozen=True)
class Stage:
    """One stage of training."""

    diverged: bool
    stage: str = ""
    seconds: FiniteFloat | None = None
    images: int | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Labels:
    """What stored labels stand for, where no registered suite says it."""

    classes: list[str] = field(default_factory=list[str])  # in label order


@dataclass(frozen=True)
class Fetched:
    """What a model that is known by name stood for when the cell was run."""

    repository: Text
    revision: Text  # a commit of the hub; '' of a plain download
    file: Text
    sha256: Text


@dataclass(frozen=True)
class Environment:
    """env.json: machine, versions, data and cost, as far as tables read them."""

    data: dict[str, Data]
    cost: Cost
    stages: list[Stage]
    labels: Labels = field(default_factory=Labels)
    manifest: dict[str, Any] | None = None
    # None: not fetched, or not noted, as before 0.4
    weights: Annotated[Fetched | None, Field(exclude_if=_is_none)] = None
    schema: int = SCHEMA


@dataclass(frozen=True)
class Splits:
    """Which split has which part."""

    val: Name
    test: Name
    shifts: Annotated[list[Name], Field(min_length=1)]
    extra: list[Name] = field(default_factory=list[str])

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that every table reads."""
        return tuple(dict.fromkeys((self.val, self.test, *self.shifts)))


@dataclass(frozen=True)
class Summary:
    """metrics.json: which splits and candidates there are, and every metric of them."""

    default: Name  # the candidate that is the headline
    axis: dict[str, FiniteFloat]  # candidate -> alpha; empty: the method is no family
    splits: Splits
    shift_groups: dict[str, list[Name]]
    candidates: dict[Name, dict[str, dict[str, FiniteFloat]]]  # candidate -> split or view -> metric -> value
    official: dict[str, str] = field(default_factory=dict[str, str])
    views: list[str] = field(default_factory=list[str])
    clusters: dict[str, str] = field(default_factory=dict[str, str])  # split -> group column
    relative_errors: dict[str, dict[Name, Annotated[float, Field(gt=0)]]] = field(
        default_factory=dict[str, dict[str, float]]
    )  # a mean of errors -> split -> error that counts as 1
    gaps: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])  # accuracy on one minus other
    selection_metric: str | None = None
    transductive: bool = False
    id_val: str | None = None
    version: int = 1  # of the list of metrics
    schema: int = SCHEMA

    def official_of(self, split: str) -> str:
        """The official metric of a split."""
        return self.official.get(split, ACCURACY)

    def problems(self) -> list[str]:
        """Parts that contradict each other; empty for a sound summary."""
        lost = [name for name in (self.default, *self.axis) if name not in self.candidates]
        found = [f"candidates: lacks '{name}'" for name in dict.fromkeys(lost)]
        named = {*self.official.values(), *((self.selection_metric,) if self.selection_metric else ())}
        found += [f"official: no metric is called '{name}'" for name in sorted(named) if not _is_metric(name)]
        named_alike = [name for name in (*self.splits.shifts, *self.splits.extra) if is_column(name)]
        found += [f"splits: '{name}' is a column of every table, and no name of a shift" for name in named_alike]
        grouped = {name for members in self.shift_groups.values() for name in members}
        found += [f"shift_groups: '{name}' is no shift" for name in sorted(grouped - {*self.splits.shifts})]
        found += [f"shift_groups.{name}: is empty" for name, members in self.shift_groups.items() if not members]
        for name, errors in self.relative_errors.items():
            lost = sorted(set(errors) - {*self.splits.columns, *self.splits.extra})
            found += [f"relative_errors.{name}: '{split}' is no split" for split in lost]
            found += [] if errors else [f"relative_errors.{name}: is empty"]
        known = {*self.splits.columns, *self.splits.extra, *self.views}
        for name, views in self.gaps.items():
            found += [f"gaps.{name}: '{view}' is no split or view" for view in sorted(set(views) - known)]
        chosen = self.selection_metric or self.official_of(self.splits.val)
        needed = [(split, self.official_of(split)) for split in self.splits.columns]
        for name, scores in self.candidates.items():
            for split, metric in (*needed, (self.splits.val, chosen)):
                if metric not in scores.get(split, {}):
                    found.append(f"candidates.{name}.{split}: lacks '{metric}'")
        return found


def _is_metric(name: str) -> bool:
    return name in METRICS or (name.startswith(WORST) and name != WORST)


def read_cell(content: Any, path: Path, hint: str = AGAIN) -> CellRecord:
    """Check the content of cell.json. Raises `RbftError` with file and field."""
    found = read_as(CellRecord, content, path, hint)
    rate = (found.recipe or {}).get("lr", 0.0)
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise damaged(path, ["recipe.lr: is no number"], hint)
    return found


def read_environment(content: Any, path: Path, hint: str = AGAIN) -> Environment:
    """Check the content of env.json. Raises `RbftError` with file and field."""
    return read_as(Environment, content, path, hint)


def read_summary(content: Any, path: Path, hint: str = AGAIN) -> Summary:
    """Check the content of metrics.json. Raises `RbftError` with file and field."""
    found = read_as(Summary, content, path, hint)
    if problems := found.problems():
        raise damaged(path, problems, hint)
    return found


def read_part(content: Any, path: Path, hint: str = AGAIN) -> Summary:
    """Check a summary whose numbers are kept elsewhere, as claims keep it: its candidates are none."""
    plain: Any = {**content, "candidates": {}} if isinstance(content, dict) else content
    return read_as(Summary, plain, path, hint)


def read_as(kind: type[Kind], content: Any, path: Path, hint: str, newest: int = SCHEMA) -> Kind:
    """Check the content of a JSON file against a type. Raises `RbftError` with file and field, or its newer schema."""
    schema = cast(Mapping[str, Any], content).get("schema", newest) if isinstance(content, dict) else newest
    if isinstance(schema, int) and schema > newest:
        raise RbftError(f"{path} has schema {schema}, this version reads {newest}: update robustbench_ft")
    try:
        return cast(Kind, _adapter(kind).validate_json(json.dumps(content), strict=True))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'its content'}: {_lowered(e['msg'])}" for e in error.errors()]
        raise damaged(path, problems, hint) from error


def _lowered(said: str) -> str:
    own = said.removeprefix("Value error, ")
    return own if own != said else said.lower()


@lru_cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def damaged(path: Path, problems: list[str], hint: str) -> RbftError:
    """The error of a file with these problems, of which the first few are named."""
    shown = [" ".join(problem.split()) for problem in problems[:MOST_PROBLEMS]]
    more = f" and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    return RbftError(f"{path} is damaged: {'; '.join(shown)}{more}; {hint}")
