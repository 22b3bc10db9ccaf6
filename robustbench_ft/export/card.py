"""The model card: what the model is, its numbers with intervals, data, recipe, limits, and the code that loads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_ft import __version__, metrics
from robustbench_ft.board.ranking import card_of
from robustbench_ft.clip import card as folder_card
from robustbench_ft.compare.text import points
from robustbench_ft.recipe import in_words
from robustbench_ft.record.store import Record

from . import hub, table
from .table import Numbers


@dataclass(frozen=True)
class Subject:
    """What a card is about."""

    record: Record
    candidate: str
    numbers: Numbers
    config: Mapping[str, Any]  # open_clip_config.json
    licence: str  # an id of the hub; '': not said

    @property
    def own(self) -> Mapping[str, Any]:
        """The part of the configuration that this package wrote."""
        return self.config["rbft"]

    @property
    def suite(self) -> str:
        return f"{self.record.config.suite} v{self.record.config.suite_version}"

    @property
    def title(self) -> str:
        chosen = "" if self.candidate == "final" else f" ({self.candidate})"
        return f"{self.record.config.method}{chosen} on {self.suite}"


def text(subject: Subject, with_results: bool) -> str:
    """README.md of an exported folder; `with_results` also puts the numbers where the hub reads them."""
    parts = [
        hub.front_matter(subject.record, subject.numbers, subject.title, _licence_id(subject), with_results),
        f"# {subject.title}\n",
        f"{_summary(subject)}\n",
        *folder_card.usage(subject.config, subject.own),
        "## Results\n",
        f"{table.markdown(subject.numbers)}\n",
        f"{_reading(subject)}\n",
        "## Data\n",
        *(f"- {line}" for line in _data(subject)),
        "\n## Recipe\n",
        *(f"- {line}" for line in _recipe(subject)),
        "\n## Limits\n",
        *(f"- {line}" for line in _limits(subject)),
        f"\nLicence: {subject.licence or folder_card.licence(subject.config)}. Written by robustbench_ft "
        f"{__version__}; `rbft.json` holds the configuration and every number unrounded.",
    ]
    return "\n".join(parts) + "\n"


def _licence_id(subject: Subject) -> str:
    return subject.licence or ("mit" if folder_card.is_embedded(subject.config) else "")


def _summary(subject: Subject) -> str:
    config, own = subject.record.config, subject.own
    verb = "evaluated without training" if config.recipe is None else f"fine-tuned by `{config.method}`"
    return (
        f"A CLIP ({own.get('parent_name', config.model.name)}) {verb} on the suite `{subject.suite}`, protocol "
        f"{config.protocol}, seed {config.seed}. It answers with one of {len(own['classes'])} classes."
    )


def _reading(subject: Subject) -> str:
    several = len(subject.numbers.seeds) > 1
    fresh = (
        f" The last column is over the seeds {', '.join(map(str, subject.numbers.seeds))} and images: what training "
        "anew with another seed would give."
        if several
        else ""
    )
    return (
        "In %, ± half-width of the 95 % interval. That of this model is over images: the same weights on fresh images "
        f"of the same kind.{fresh} Mean OOD: equal weights over the shifts, ID not in it."
    )


def _data(subject: Subject) -> list[str]:
    record = subject.record
    card, known, summary = card_of(record.config.suite), record.environment.data, record.summary
    evaluated = {split.partition("@")[0] for column in subject.numbers.columns for split in column.splits}
    lines = [f"{card.title}. Source: {card.paper}. Licence of the data: {card.licence}. {card.home}."] if card else []
    lines += [f"{card.note}."] if card and card.note else []
    learnt = [name for name in known if name not in evaluated and name != summary.splits.val]
    for name in learnt if record.config.recipe is not None else []:
        size = f", {known[name].n:,} images" if known[name].n >= 0 else ""
        lines.append(f"Trained on `{name}`{size} (SHA-256 `{known[name].digest[:16]}`).")
    lines.append(f"Selected on `{summary.splits.val}`; no shift was looked at before the last prediction.")
    if record.config.protocol == "as-published":
        lines[-1] = f"Selected on `{summary.splits.val}`, as the method's authors did (protocol as-published)."
    return lines


def _recipe(subject: Subject) -> list[str]:
    config = subject.record.config
    settings = ", ".join(f"{key} = {value}" for key, value in sorted(config.settings.items()))
    lines = [f"Method `{config.method}` version {config.method_version}; settings: {settings or 'none'}."]
    if config.recipe is None:
        lines.append("Nothing was trained.")
    else:
        lines.append(f"{config.recipe_source}: {in_words(config.recipe)}.")
    lines.append(f"Precision of training: {config.precision}. Configuration `{config.digest[:16]}`.")
    again = f"rbft run --method {config.method} --suite {config.suite} --seeds {config.seed}"
    return [*lines, f"Trained again by `{again}` and the settings above."]


def _limits(subject: Subject) -> list[str]:
    record, numbers = subject.record, subject.numbers
    summary = record.summary
    best, ood = numbers.column("ID"), numbers.column("mean OOD")
    gap = 100 * (best.own.value - ood.own.value)
    fallen = f"{abs(gap):.1f} points {'below' if gap >= 0 else 'above'} ID"
    shifts = [numbers.column(name) for name in summary.splits.shifts]
    worst = min(shifts, key=lambda column: column.own.value)
    lines = [
        f"Mean OOD is {fallen}; the hardest shift measured is `{worst.name}`, {points(worst.own)}. Shifts of other "
        "kinds were not measured.",
        _calibration(numbers, summary.splits.test, worst.name),
        _classes(record, subject.candidate, list(subject.own["classes"])),
        "It answers with one of its classes for every image, also where none of them is in it.",
    ]
    if len(numbers.seeds) == 1 and not record.config.deterministic:
        lines.append("One training seed: how much another seed would move these numbers is not known.")
    if record.config.partial:
        lines.append("It was run on partial data (`--allow-partial`): its numbers make no claim.")
    if summary.transductive:
        lines.append("Its answers depend on the other images of a test set (transductive).")
    if any(stage.diverged for stage in record.environment.stages):
        lines.append("Training diverged; these are the last finite weights.")
    return lines


def _calibration(numbers: Numbers, test: str, worst: str) -> str:
    at = numbers.calibration
    return (
        f"Confidence is off by {100 * at[test]:.1f} points on ID and {100 * at[worst]:.1f} on `{worst}` (expected "
        "calibration error, temperature 1)."
    )


def _classes(record: Record, candidate: str, classes: Sequence[str]) -> str:
    """The class of the ID test set that is found least often."""
    answers = record.predictions(candidate, record.summary.splits.test)
    recall = metrics.per_class_recall(answers)
    worst = min(recall, key=lambda label: recall[label])
    if recall[worst] == 1:
        return "Every image of the ID test set is answered right."
    name = classes[worst] if worst < len(classes) else str(worst)
    return f"Of its classes `{name}` is found least often: {100 * recall[worst]:.1f} % of its ID test images."
