"""What reruns a published row: its printed numbers with their tolerances, and a plan with its authors' recipe."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustbench_ft import metrics, model_ref, plan, registry
from robustbench_ft.board import paper
from robustbench_ft.board.paper import Row
from robustbench_ft.errors import PlanError, RbftError, unknown
from robustbench_ft.images.roots import Roots
from robustbench_ft.method import Method
from robustbench_ft.plan import Plan, Request
from robustbench_ft.recipe import PUBLISHED, Recipe
from robustbench_ft.record.store import Record
from robustbench_ft.reference.verdict import QUANTILE
from robustbench_ft.suite import Suite

ID = "ID"
SPREADS = 2.0  # printed standard deviations over seeds that a rerun of one seed may differ by


@dataclass(frozen=True)
class Rate:
    """Training images per second, as `rbft bench` measured them."""

    images: float
    what: str  # the title of its table: model, suite, batch, precision
    machine: str


@dataclass(frozen=True)
class Reproduction:
    """One published row, and the plan that makes it again."""

    method: str
    suite: Suite
    kind: type[Method]
    plan: Plan
    rows: tuple[Row, ...]  # printed for this method, suite and model; the authors' own first

    @property
    def recipe(self) -> Recipe:
        """The authors' recipe for this suite."""
        return self.kind.published[self.suite.recipe_key]

    @property
    def row(self) -> Row | None:
        """The row that is held against the rerun."""
        return self.rows[0] if self.rows else None

    @property
    def images(self) -> int | None:
        """Images seen in training; None where the length is in epochs and the card counts no training images."""
        n = self.suite.counts.get(self.suite.under("as-published").train, 0)
        recipe = self.recipe
        return None if not (n or recipe.steps) else recipe.steps * recipe.batch or recipe.epochs * n

    @property
    def evaluated(self) -> int | None:
        """Images to be predicted at the end; None where the card does not count them all."""
        counts = [self.suite.counts.get(split, 0) for split in self.suite.under("as-published").evaluate]
        return sum(counts) if all(counts) else None


def published() -> list[tuple[str, str]]:
    """(method, suite) of every recipe that the authors of a built-in method state."""
    found: list[tuple[str, str]] = []
    for name, entry in sorted(registry.entries("method").items()):
        if entry.shelf == "builtin":
            found += [(name, suite) for suite in sorted(registry.load("method", name, Method).published)]
    return found


def make(
    method: str, suite: str, rows: Path, roots: Roots | None = None, model: str = "", pretrained: str | None = None,
    seeds: str = "", precision: str = "auto",
) -> Reproduction:  # fmt: skip
    """What reruns a method as its authors ran it on a suite. Raises `RbftError` where no recipe is published for it.

    `rows` is the file of printed numbers. Seeds are those of the printed row where it names them, else 0.
    """
    try:
        name = registry.resolve("method", method).name
    except RbftError as error:
        raise PlanError([str(error)]) from error
    kind = registry.load("method", name, Method)
    base = suite.partition("+")[0]
    if base not in {key.partition("+")[0] for key in kind.published}:
        raise _unpublished(name, kind, base)
    asked = Request(
        (name,), (suite,), (model,) if model else (), pretrained, seeds or "0", "as-published", precision,
    )  # fmt: skip
    made = plan.make(asked, roots)
    key = made.suite_of(made[0]).recipe_key
    if key not in kind.published:
        raise _unpublished(name, kind, key)
    found = [row for row in paper.load(rows) if _is_of(row, name, key, made[0].model)]
    alpha = f"({made[0].settings.get('alpha', '')})"
    found.sort(key=lambda row: (row.secondary, other_recipe(row, kind.published[key]), alpha not in row.method))
    if found and not seeds and (stated := re.fullmatch(r"seed (\d+)", found[0].seeds)):
        made = plan.make(Request(
            asked.method, asked.suite, asked.model, pretrained, stated[1], "as-published", precision,
        ), roots, loaded=list(made.suites.values()))  # fmt: skip
    return Reproduction(name, made.suite_of(made[0]), kind, made, tuple(found))


def _unpublished(name: str, kind: type[Method], suite: str) -> RbftError:
    having = ", ".join(sorted(kind.published)) or "no suite"
    return RbftError(f"'{name}' has a published recipe for {having}, and none for '{suite}'; see docs/reproduce.md")


def _is_of(row: Row, method: str, suite: str, model: model_ref.ModelRef) -> bool:
    same = paper.METHODS.get(row.method) or re.sub(r"[^a-z0-9]+", "-", row.method.partition(" (")[0].lower())
    return (same, row.suite, row.open_clip_name, row.pretrained) == (method, suite, model.name, model.pretrained)


def other_recipe(row: Row, recipe: Recipe) -> bool:
    """Whether a row's note names a recipe, as in 'FT = WiSE-FT recipe', and it is not this one."""
    named = re.search(r"(\S+) recipe", row.note)
    return named is not None and replace(PUBLISHED.get(named[1].lower(), Recipe()), lr=recipe.lr) != recipe


def rate_of(path: Path, method: str) -> Rate:
    """Read the images/s of a method from what `rbft bench` printed. Raises `RbftError` where they are not there."""
    try:
        text = path.read_text(encoding="utf-8").strip().splitlines()
    except OSError as error:
        raise RbftError(f"cannot read {path}: {error.strerror}; write it with `rbft bench ... > {path}`") from error
    table = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text if line.startswith("|")]
    column = table[0].index("images/s") if table and "images/s" in table[0] else -1
    found = {row[0]: row[column] for row in table[2:] if column >= 0 and len(row) > column}
    if method not in found:
        raise RbftError(f"{path}: {unknown('row of rbft bench', method, found)}; run it with --method {method}")
    try:
        return Rate(float(found[method].replace(",", "")), text[0].partition(":")[0], text[-1])
    except ValueError as error:
        raise RbftError(f"{path}: images/s of {method} is '{found[method]}', no number") from error


@dataclass(frozen=True)
class Held:
    """One printed number beside a measured one, in [0, 1]."""

    column: str  # 'ID' or a shift
    printed: float
    tolerance: float | None  # None: neither the number of images nor a spread is known
    measured: float | None = None  # None: not run

    @property
    def inside(self) -> bool | None:
        """None where there is nothing to compare."""
        if self.measured is None or self.tolerance is None:
            return None
        return abs(self.measured - self.printed) <= self.tolerance


def held(found: Reproduction, measured: Mapping[str, tuple[float, int]] | None = None) -> list[Held]:
    """Every printed number with its tolerance, beside `measured`: column -> value and number of images.

    The tolerance is 99 % of sampling on both sides and two printed standard deviations over seeds, each as far as it is
    known. Other preprocessing is not in it.
    """
    row, lines = found.row, list[Held]()
    for column, cell in row.cells.items() if row else ():
        split = found.suite.test if column == ID else column
        value, n = (measured or {}).get(column, (None, found.suite.card.counts.get(split, 0)))
        printed = cell.value / 100
        sampling = QUANTILE * (2 * printed * (1 - printed) / n) ** 0.5 if n else 0.0
        tolerance = sampling + SPREADS * (cell.spread or 0.0) / 100
        lines.append(Held(column, printed, tolerance or None, value))
    return lines


def measured(found: Reproduction, folders: Sequence[Path]) -> dict[str, tuple[float, int]]:
    """Column -> mean over seeds of the default candidate's accuracy, and number of images."""
    records = [Record(folder) for folder in folders]
    values: dict[str, tuple[float, int]] = {}
    for column in found.row.cells if found.row else ():
        split = found.suite.test if column == ID else column
        scores = [record.summary.candidates[record.summary.default].get(split, {}) for record in records]
        if all(metrics.ACCURACY in score for score in scores):
            mean = sum(score[metrics.ACCURACY] for score in scores) / len(scores)
            values[column] = mean, records[0].environment.data[split].n
    return values
