"""The check itself: numbers on a fixed subset beside published ones, and the causes that only the model shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustbench_ft import clip as clips
from robustbench_ft import metrics, reference
from robustbench_ft.clip import Clip
from robustbench_ft.data import Predictions, Split
from robustbench_ft.model_ref import ModelRef
from robustbench_ft.progress import Progress
from robustbench_ft.prompts import Task
from robustbench_ft.reference import Finding, Reference, Verdict
from robustbench_ft.reference.causes import options
from robustbench_ft.suite import Suite

from . import variants
from .subset import choose

MOST = 2_000  # images of a split
SURE = 2.0  # standard errors of a paired difference that count as seen


@dataclass(frozen=True)
class Setup:
    """What is checked, and where."""

    suite: Suite
    model: ModelRef
    key: tuple[str, str]  # open_clip name and tag whose published numbers it is held against
    device: torch.device
    images: int = MOST  # at most, of each split
    workers: int = 0
    progress: Progress = field(default_factory=Progress)

    @property
    def task(self) -> Task:
        return Task(self.suite.classes, self.suite.templates)

    def load(self) -> Clip:
        """The model with its zero-shot head, computing in float32."""
        clip = clips.load(self.model).to(self.device)
        clip.start_from_zero_shot(self.task)
        return clip.eval()


@dataclass(frozen=True)
class Answer:
    """What a check found."""

    verdicts: tuple[Verdict, ...]
    findings: Mapping[str, Sequence[Finding]]  # of the splits that are outside
    notes: tuple[str, ...]  # where model and published weights disagree in their configuration, seen in a number or not

    @property
    def right(self) -> bool:
        """Whether every number is inside."""
        return all(verdict.inside for verdict in self.verdicts)


def canary(setup: Setup, published: Mapping[str, Sequence[Reference]]) -> Answer:
    """Verdicts on a fixed subset of each split in `published`, and the causes of those that are outside."""
    clip, verdicts, findings = setup.load(), list[Verdict](), dict[str, list[Finding]]()
    for name, numbers in published.items():
        whole = setup.suite.split(name)
        chosen = choose(whole, setup.images)
        with setup.progress.bar("canary", len(chosen), "images") as advance:
            pixels = variants.decoded(clip, chosen, setup.workers, advance)
        found = variants.predictions(clip, chosen, pixels)
        verdict = reference.judge(name, found, numbers)
        verdicts.append(verdict)
        if not verdict.inside:
            findings[name] = _findings(setup, clip, verdict, found, chosen, len(chosen) == len(whole))
            findings[name] += _by_model(setup, clip, verdict, chosen, pixels, found)
    return Answer(tuple(verdicts), findings, tuple(variants.contradictions(clip, setup.key)))


def explain(setup: Setup, verdicts: Mapping[Verdict, Predictions]) -> Answer:
    """Causes of a finished run's numbers, from its predictions and from the model, which is loaded for these alone."""
    outside = {verdict: stored for verdict, stored in verdicts.items() if not verdict.inside}
    if not outside:
        return Answer(tuple(verdicts), {}, ())
    clip, findings = setup.load(), dict[str, list[Finding]]()
    for verdict, stored in outside.items():
        split = setup.suite.split(verdict.split)
        chosen = choose(split, setup.images)
        pixels = variants.decoded(clip, chosen, setup.workers)
        findings[verdict.split] = _findings(setup, clip, verdict, stored, split, True)
        base = variants.predictions(clip, chosen, pixels)
        findings[verdict.split] += _by_model(setup, clip, verdict, chosen, pixels, base)
    return Answer(tuple(verdicts), findings, tuple(variants.contradictions(clip, setup.key)))


def _findings(
    setup: Setup, clip: Clip, verdict: Verdict, found: Predictions, split: Split, whole: bool
) -> list[Finding]:
    """Causes that need no further pass over images."""
    classes, place = setup.suite.n_classes(split), str(split.place or "")
    findings = reference.of_predictions(verdict, found, setup.suite, classes, place, whole)
    findings += [_precision(clip)]
    if (excluded := options(verdict.reference, setup.suite)) is not None:
        return [*findings, excluded]
    published = verdict.reference.task
    if published is None:
        said = verdict.reference.prompts or "the source does not say which"
        return [*findings, Finding("prompts", "not checked", f"the published number's: {said}")]
    return [*findings, Finding("prompts", "ruled out", "those of the published number")] if (
        published == setup.task) else findings  # fmt: skip


def _precision(clip: Clip) -> Finding:
    if variants.is_rounded(clip):
        return Finding(
            "precision", "possible", "every weight is a bfloat16 number: the file was rounded; get one in float32"
        )
    return Finding("precision", "ruled out", "weights are finer than bfloat16, and evaluation computes in float32")


def _by_model(
    setup: Setup, clip: Clip, verdict: Verdict, split: Split, pixels: Tensor, base: Predictions
) -> list[Finding]:
    """Causes for which the model is changed and asked again; `base` are its answers as it is, on the same images."""
    every = list(variants.of(clip, setup.key, verdict.reference, setup.task))
    tried: dict[str, list[_Tried]] = {}
    with setup.progress.bar(f"{verdict.split}: causes", len(every), "variants") as advance:
        for variant in every:
            again = variant.clip.preprocess_key() != clip.preprocess_key()
            seen = variants.decoded(variant.clip, split, setup.workers) if again else pixels
            answers = variants.predictions(variant.clip, split, seen)
            advance(1, variant.what)
            tried.setdefault(variant.cause, []).append(_Tried.of(variant, verdict, base, answers))
    least = min((one.left for some in tried.values() for one in some if one.seen), default=0.0)
    findings = [_best([one.finding(least) for one in some]) for some in tried.values()]
    if "activation" not in tried:
        findings.append(Finding("activation", "ruled out", "the model has neither GELU nor QuickGELU"))
    return findings


def _best(found: Sequence[tuple[Finding, float]]) -> Finding:
    """The finding of one cause that says the most: by state, then by what is left of the gap."""
    return min(found, key=lambda one: (reference.causes.STATES.index(one[0].state), one[1]))[0]


@dataclass(frozen=True)
class _Tried:
    """What one variant made of the images."""

    variant: variants.Variant
    change: float  # of the metric, variant - as it is
    error: float  # standard error of the change, paired
    left: float  # of the gap, once the change is made
    tolerance: float

    @classmethod
    def of(cls, variant: variants.Variant, verdict: Verdict, base: Predictions, answers: Predictions) -> "_Tried":
        metric = verdict.reference.metric
        change = metrics.named(metric, answers) - metrics.named(metric, base)
        error = float(np.sqrt((base.correct != answers.correct).mean() / len(base)))
        more = SURE * error if len(base) < verdict.n else 0.0  # the change is of fewer images than the verdict
        return cls(variant, change, error, abs(verdict.gap + change), verdict.tolerance + more)

    @property
    def seen(self) -> bool:
        """Whether the change is more than noise."""
        return self.change != 0 and abs(self.change) > SURE * self.error

    def state(self, least: float) -> reference.causes.State:
        """'found' where the change closes the gap, and as well as any other does: `least` is what the best one leaves.

        'possible' where another closes it better, or where the weights' own tag asks for a change that does not.
        """
        if self.seen and self.left <= self.tolerance:
            return "found" if self.left - least <= SURE * self.error else "possible"
        return "possible" if self.variant.stated else "ruled out"

    def finding(self, least: float) -> tuple[Finding, float]:
        """What is said of it, and what it leaves of the gap."""
        moved = f"with {self.variant.what}, {100 * self.change:+.1f} points"
        asked = "; the published number was made so" if self.variant.stated else ""
        return Finding(self.variant.cause, self.state(least), f"{moved}{asked}"), self.left
