"""What is diagnosed: models that records kept, and the numbers that were measured of them. Torch-free."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_ft.compare.rows import join, settings
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics.across import suite_mean
from robustbench_ft.record import store
from robustbench_ft.record.store import Record

TITLES = {
    "distortion": "feature distortion",
    "distortion_squared": "squared distortion",
    "raw_distortion": "raw distortion",
    "raw_distortion_squared": "squared raw distortion",
    "energy_gap": "energy gap",
    "energy_gap_scaled": "energy gap with s²",
}
NO_WEIGHTS = "its weights were not kept: run it with --save-model into another --out"
NO_CANDIDATES = "their weights were not kept: run it with --save-candidates into another --out"
NO_MODEL = "a scorer: it answers with more than the weights of one CLIP"
PUBLISHED = "a published run holds no weights: run it with --save-model"
FILES = ("open_clip_config.json", "head.safetensors")  # of a model that `load_saved` reads


@dataclass(frozen=True)
class Measures:
    """One model beside the zero-shot model, on the images of one split.

    F are image features, G text features, both unit rows; s is the scale exp(logit_scale). Subscript 0: zero-shot.
    """

    images: int
    distortion: float  # mean of |F - F0|
    distortion_squared: float  # mean of |F - F0|^2
    raw_distortion: float  # as `distortion`, of projected features before they are normalised
    raw_distortion_squared: float
    energy_gap: float | None  # mean over images and texts of (<G, F> - <G0, F0>)^2; None: no random texts to be drawn
    energy_gap_scaled: float | None  # the same of s <G, F> and s0 <G0, F0>


@dataclass(frozen=True)
class Saved:
    """A model that a record kept."""

    record: Record
    candidate: str
    folder: Path
    row: str  # method, what it sets, and the candidate, as tables name it


@dataclass(frozen=True)
class Missing:
    """Candidates of one record that cannot be diagnosed, and why."""

    row: str
    seed: int
    candidates: tuple[str, ...]
    reason: str

    @property
    def text(self) -> str:
        """One line: who, and why."""
        return f"{self.row}, seed {self.seed}, {', '.join(self.candidates)}: {self.reason}"


@dataclass(frozen=True)
class Point:
    """One model: its stored accuracies, and how far it is from zero-shot."""

    row: str
    method: str
    candidate: str
    seed: int
    cell: str  # digest of the configuration
    trained: bool  # False: zero-shot
    headline: bool  # it is the default candidate of its record
    scores: Mapping[str, float]  # split -> official metric of the stored predictions, all images
    measures: Mapping[str, Measures]  # split -> measures
    remembered: float | None = None  # zero-shot accuracy on the suite that was asked for with `forget`

    def mean(self, measure: str, splits: Sequence[str]) -> float | None:
        """A measure's mean over splits, equal weights; None where it was not measured."""
        return suite_mean({split: getattr(self.measures[split], measure) for split in splits}).suite_mean

    def score(self, splits: Sequence[str]) -> float:
        """Mean of the official metrics over splits, equal weights."""
        return sum(self.scores[split] for split in splits) / len(splits)

    def numbers(self) -> tuple[Any, ...]:
        """All that was measured: models that agree in it are one model."""
        return tuple(sorted(self.scores.items())), tuple(sorted(self.measures.items(), key=lambda item: item[0]))


@dataclass(frozen=True)
class Forgetting:
    """The unrelated suite on which zero-shot accuracy is measured before and after."""

    suite: str
    split: str
    metric: str
    images: int
    before: float  # of the zero-shot model


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was measured of the models of one suite and one pre-trained model."""

    suite: str
    version: int
    model: str
    protocol: str
    test: str
    shifts: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]  # kinds of shift
    images: Mapping[str, int]  # split -> images that were looked at
    texts: int  # random texts behind the energy gap; 0: the model does not say what they are drawn from
    zero_shot: Mapping[str, float] | None  # its scores; None: there is no record of it
    points: tuple[Point, ...]
    missing: tuple[Missing, ...]
    forgetting: Forgetting | None = None

    @property
    def title(self) -> str:
        return f"{self.suite} v{self.version}, model {self.model}, protocol {self.protocol}"

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the measures that there are."""
        return tuple(name for name in TITLES if self.texts or not name.startswith("energy"))

    @property
    def rows(self) -> dict[str, list[Point]]:
        """Row -> its points by seed, in the order of the records."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.row, []).append(point)
        return found


def find_models(records: Sequence[Record]) -> tuple[list[Saved], list[Missing]]:
    """Models that the records of one suite kept, and the candidates of which there is none to be loaded.

    Raises `RbftError` where there is not a single one.
    """
    named = settings({record.config.digest: record.config for record in records})
    found: list[Saved] = []
    missing: list[Missing] = []
    for record in sorted(records, key=_order):
        reasons: dict[str, list[str]] = {}
        for candidate, folder, reason in _candidates(record):
            if folder is None:
                reasons.setdefault(reason, []).append(candidate)
            else:
                found.append(Saved(record, candidate, folder, _row(record, named, candidate)))
        told = _row(record, named)
        missing += [Missing(told, record.seed, tuple(names), reason) for reason, names in reasons.items()]
    if not found:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise RbftError(f"no model to diagnose: {missing[0].text}{more}")
    return found, missing


def _order(record: Record) -> tuple[Any, ...]:
    """Zero-shot first, then by method and learning rate, as tables have it."""
    cell = record.config
    return cell.method != "zero-shot", cell.method, float((cell.recipe or {}).get("lr", 0.0)), cell.digest, record.seed


def _row(record: Record, named: Mapping[str, str], candidate: str = "") -> str:
    """The name of a record's row; with a candidate that of the candidate, where the record has several."""
    told, setting = record.summary, named[record.config.digest]
    shown = candidate.replace("-", "=", 1) if candidate in told.axis else candidate
    text = join(setting, shown if len(told.candidates) > 1 else "")
    return f"{record.config.method} ({text})" if text else record.config.method


def _candidates(record: Record) -> Iterator[tuple[str, Path | None, str]]:
    """Each candidate with the folder of its model, or None and the reason; in the order of its axis or its steps."""
    told, index = record.summary, record.folder / store.MODELS / store.INDEX
    if not (record.folder / "cell.json").exists():
        yield from ((name, None, PUBLISHED) for name in told.candidates)
        return
    kept: Mapping[str, Any] = store.read_json(index) if index.exists() else {}

    def place(name: str) -> tuple[Any, ...]:  # the default of a path is its end
        return told.axis.get(name, 0.0), name == told.default and not told.axis, _natural(name)

    for name in sorted(told.candidates, key=place):
        if name == told.default:
            found, reason = _place(record.folder / "model", NO_WEIGHTS)
        else:
            scorer = name in kept.get("scorers", ())
            found, reason = _place(record.folder / store.MODELS / name, NO_MODEL if scorer else NO_CANDIDATES)
        yield name, found, reason


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 'step-9' before 'step-10'."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _place(folder: Path, otherwise: str) -> tuple[Path | None, str]:
    if not folder.is_dir():
        return None, otherwise
    return (folder, "") if all((folder / name).is_file() for name in FILES) else (None, NO_MODEL)


def scores_of(record: Record, candidate: str, splits: Sequence[str]) -> dict[str, float]:
    """Split -> official metric of the stored predictions."""
    told = record.summary
    return {split: told.candidates[candidate][split][told.official_of(split)] for split in splits}
