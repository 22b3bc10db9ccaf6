"""The shipped effective-robustness lines: named, hashed, and fitted by this command from the public table.

    python -m robustbench_ft.stats.lines testbed_top1.csv [--check]

The table holds percent accuracies of modestyachts/imagenet-testbed (MIT). `lines.json` keeps coefficients, covariance,
fit set and hash, not the table. Its list of standard models is that repository's own (plotting/model_types.py,
'Standard training'), without names holding aws, batch64 or subsample.

Formulas: docs/statistics.md, 'Effective robustness'.
"""

import csv
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_ft.errors import RbftError

from .intervals import Examples
from .robustness import EffectiveRobustness, Line, fit_line, measured_effective_robustness

PATH = Path(__file__).with_name("lines.json")
PIVOT = 0.9186  # ImageNet-A was filtered against a ResNet-50 of this ID accuracy: a kink
AXES = {  # id: (OOD column, ID column, which part of the ID axis)
    "imagenet-v2": ("imagenetv2-matched-frequency-format-val", "val", "all"),
    "imagenet-sketch": ("imagenet-sketch", "val", "all"),
    "imagenet-r": ("imagenet-r", "val-on-imagenet-r-classes", "all"),
    "imagenet-a": ("imagenet-a", "val-on-imagenet-a-classes", "above"),
    "imagenet-a-low": ("imagenet-a", "val-on-imagenet-a-classes", "below"),
    "objectnet": ("objectnet-1.0-beta", "val-on-objectnet-classes", "all"),
}


# suite -> shift -> its lines, and the ID set (a view of it: ID accuracy on the shift's own classes) they are met at
SHIFTS: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "imagenet": {
        "v2": ("test", ("imagenet-v2",)),
        "sketch": ("test", ("imagenet-sketch",)),
        "r": ("test@r-classes", ("imagenet-r",)),
        "a": ("test@a-classes", ("imagenet-a", "imagenet-a-low")),
        "objectnet": ("test@objectnet-classes", ("objectnet",)),
    }
}


@dataclass(frozen=True)
class NamedLine:
    """A line and what makes its numbers comparable with others': print the id and the hash beside them."""

    id: str
    ood: str  # columns of the public table
    identity: str
    transform: str
    models: tuple[str, ...]
    line: Line

    @property
    def digest(self) -> str:
        """SHA-256 of fit set, transform, class subset and coefficients (12 digits: later ones differ by machine)."""
        coefficients = f"{self.line.intercept:.12g} {self.line.slope:.12g}"
        text = "\n".join((self.id, self.ood, self.identity, self.transform, *sorted(self.models), coefficients))
        return hashlib.sha256(text.encode()).hexdigest()


def fit_all(table: Path, models: tuple[str, ...]) -> list[NamedLine]:
    """Every line of AXES from the public table."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = {row["model"]: row for row in csv.DictReader(file)}
        chosen = [rows[name] for name in models]
        return [_fit(name, chosen) for name in AXES]
    except (OSError, KeyError, ValueError) as error:
        raise RbftError(f"cannot fit lines from {table}: {error}") from error


def load() -> dict[str, NamedLine]:
    """The shipped lines by id."""
    content = json.loads(PATH.read_text(encoding="utf-8"))
    return {entry["id"]: _named(entry) for entry in content["lines"]}


@dataclass(frozen=True)
class Axis:
    """The lines of one shift, and the ID set whose accuracy they are met at."""

    identity: str
    lines: tuple[NamedLine, ...]

    def at(self, accuracy: float) -> NamedLine:
        """The line for this ID accuracy: ImageNet-A's is broken at the model it was filtered against."""
        return self.lines[0] if len(self.lines) == 1 or accuracy > PIVOT else self.lines[1]

    def robustness(self, identity: Examples, ood: Examples) -> EffectiveRobustness | None:
        """Effective robustness from correctness [S, n] on the ID set and on the shift; None where R2 is too low."""
        line = self.at(float(identity.scores.mean())).line
        return measured_effective_robustness(line, identity, ood) if line.explains else None


def axes(suite: str, shifts: Sequence[str]) -> dict[str, Axis]:
    """Shift -> its axis, for the shifts of a suite that have lines."""
    wanted = {shift: entry for shift, entry in SHIFTS.get(suite.partition("+")[0], {}).items() if shift in shifts}
    shipped = load() if wanted else {}
    return {s: Axis(identity, tuple(shipped[name] for name in names)) for s, (identity, names) in wanted.items()}


def _fit(name: str, rows: Sequence[Mapping[str, Any]]) -> NamedLine:
    ood, identity, part = AXES[name]
    found = [(r["model"], float(r[identity]) / 100, float(r[ood]) / 100) for r in rows if r[identity] and r[ood]]
    if part != "all":
        found = [f for f in found if (f[1] > PIVOT if part == "above" else f[1] < PIVOT)]
    line = fit_line(np.array([f[1] for f in found]), np.array([f[2] for f in found]))
    return NamedLine(name, ood, identity, "natural-log logit on both axes", tuple(f[0] for f in found), line)


def _plain(named: NamedLine) -> dict[str, Any]:
    return {**asdict(named), "covariance": named.line.covariance, "sha256": named.digest}


def _named(entry: Mapping[str, Any]) -> NamedLine:
    coefficients: dict[str, Any] = {**entry["line"], "id_range": tuple(entry["line"]["id_range"])}
    line = Line(**coefficients)
    named = NamedLine(entry["id"], entry["ood"], entry["identity"], entry["transform"], tuple(entry["models"]), line)
    if named.digest != entry["sha256"]:
        raise RbftError(f"line '{named.id}' in {PATH.name} does not match its hash; reinstall robustbench_ft")
    return named


def main(arguments: list[str]) -> int:
    content = json.loads(PATH.read_text(encoding="utf-8"))
    fitted = fit_all(Path(arguments[0]), tuple(content["standard_models"]))
    made = {**content, "lines": [_plain(line) for line in fitted]}
    text = json.dumps(made, indent=1, sort_keys=True) + "\n"
    for line in fitted:
        print(f"{line.id:<16} n {line.line.n:<3} slope {line.line.slope:.4f} intercept {line.line.intercept:.4f} "
              f"R2 {line.line.r2:.3f} ER sd {100 * line.line.er_sd:.2f} pt  {line.digest[:12]}")  # fmt: skip
    if "--check" in arguments:
        fresh = {line.id: line.digest for line in fitted}
        return int(fresh != {name: line.digest for name, line in load().items()})
    PATH.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (RbftError, IndexError) as problem:
        sys.exit(f"rbft: {problem or 'name the table'}")
