"""Causes of a number that is outside its tolerance, as far as stored predictions show them. Torch-free.

What needs the model (activation, transform, prompts, precision) is in `canary`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # whose parts are imported where they are first used

from robustbench_ft.data import Ints, Predictions
from robustbench_ft.suite import Suite

from .numbers import Reference
from .verdict import Verdict

State = Literal["found", "possible", "ruled out", "not checked"]
# in the order in which they are met in practice, which is the order in which they are shown
CAUSES = (
    "activation", "preprocessing", "label order", "label space", "another set", "subset", "prompts", "precision",
)  # fmt: skip
STATES: tuple[State, ...] = ("found", "possible", "not checked", "ruled out")
OTHER_V2 = "Threshold-0.7 and Top-Images are easier sets of the same 10,000 images and classes as Matched-Frequency"
HALF = 0.5  # share of the gap that a renumbering must close
CHANCE, MANY = 2.0, 3.0  # times chance that counts as near it; times as many right answers that count as a recovery


@dataclass(frozen=True)
class Finding:
    """One cause that was looked for."""

    cause: str
    state: State
    text: str  # what was seen, and what to do


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """What was found first, then by how often each cause is met."""
    return sorted(findings, key=lambda f: (STATES.index(f.state), CAUSES.index(f.cause)))


def of_predictions(
    verdict: Verdict, predictions: Predictions, suite: Suite, classes: int, place: str = "", whole: bool = True
) -> list[Finding]:
    """What stored predictions of one split tell of the four causes that lie in the data.

    `classes` is how many the split was scored among, `place` where it lies; `whole` is False for a chosen subset.
    """
    return [
        label_order(verdict, predictions, suite.classes if classes == len(suite.classes) else ()),
        label_space(verdict, predictions, classes),
        another_set(verdict, place),
        subset(verdict, whole),
    ]


def label_order(verdict: Verdict, predictions: Predictions, names: Sequence[str] = ()) -> Finding:
    """Whether labels are another numbering of the classes: a known one, or any that fits.

    The fitted numbering is found on every other image and scored on the rest, so that chance gains nothing.
    """
    cause, label, said = "label order", predictions.label, predictions.prediction
    now, published = float((label == said).mean()), verdict.reference
    k = int(max(label.max(), said.max(), len(names) - 1)) + 1

    def explains(right: float) -> bool:
        """Whether a renumbering gives the published number, or brings a number near chance far away from it."""
        near = published.metric == "accuracy" and abs(right - published.value) <= verdict.tolerance
        closes = right - now >= HALF * max(published.value - now, 0.0)
        return right > now and ((near and closes) or (now <= CHANCE / k and right >= MANY * now))

    known = {what: float((order[label] == said).mean()) for what, order in _known_orders(k, names).items()}
    what = max(known, key=known.__getitem__, default="")
    if what and explains(known[what]):
        text = f"labels are those of {what}: read back from it, {100 * known[what]:.1f} % are right"
        return Finding(cause, "found", f"{text}; number the classes as the suite does")
    fitted = _fitted(label, said, k)
    if explains(fitted):
        return Finding(
            cause, "found", f"labels are numbered in another order: renumbered (on other images), {100 * fitted:.1f} % "
            "are right; compare labels with class names",
        )  # fmt: skip
    return Finding(cause, "ruled out", f"no renumbering helps: {100 * fitted:.1f} % at best")


def _known_orders(k: int, names: Sequence[str]) -> Mapping[str, Ints]:
    """Wrong numberings that tools make -> the true class of each wrong label."""
    texts = np.array(sorted(range(k), key=str), np.int64)  # '10' before '2'
    found = {"folders 0, 1, 10, 11, ... sorted as text": texts}
    if len(names) == k:
        found["class names in alphabetical order"] = np.array(sorted(range(k), key=names.__getitem__), np.int64)
    return {what: order for what, order in found.items() if (order != np.arange(k)).any()}


def _fitted(label: Ints, said: Ints, k: int) -> float:
    """Accuracy under the best one-to-one renumbering of labels, each half of the images scored by that of the other.

    Halves are drawn within each class, so that one image per class in each is enough.
    """
    order = np.argsort(label, kind="stable")
    half = np.empty(len(label), np.int64)
    half[order] = np.arange(len(label)) % 2
    right = 0
    for part in (0, 1):
        table = np.zeros((k, k), np.int64)
        np.add.at(table, (label[half == part], said[half == part]), 1)
        _, place = scipy.optimize.linear_sum_assignment(table, maximize=True)
        right += int((place[label[half != part]] == said[half != part]).sum())
    return right / len(label)


def label_space(verdict: Verdict, predictions: Predictions, classes: int) -> Finding:
    """Whether the split was scored among as many classes as the published number, e.g. 200 of ImageNet's 1000."""
    cause, wanted = "label space", verdict.reference.classes
    if classes == wanted:
        return Finding(cause, "ruled out", f"both among {wanted:,} classes")
    text = f"scored among {classes:,} classes, the published number among {wanted:,}"
    own = np.unique(predictions.label)
    if classes > wanted >= len(own):
        allowed = np.isin(predictions.top_classes, own)
        first = predictions.top_classes[np.arange(len(predictions)), allowed.argmax(axis=1)]
        right = float(((first == predictions.label) & allowed.any(axis=1)).mean())
        text += f"; among its own {len(own):,}, as far as the stored top five tell, {100 * right:.1f} % are right"
    return Finding(cause, "found", text)


def another_set(verdict: Verdict, place: str) -> Finding:
    """Whether the images may be another set under the same name: known of ImageNetV2, which has three variants."""
    cause = "another set"
    if verdict.split != "v2":
        return Finding(cause, "not checked", "counts and classes do not tell; `rbft data check` compares the files")
    words = place.lower()
    if any(name in words for name in ("threshold", "top-images", "topimages")):
        return Finding(cause, "found", f"{place} is called like another variant of V2; {OTHER_V2}")
    if verdict.gap > 0:
        return Finding(cause, "possible", f"V2 is easier than the published one; {OTHER_V2}: look where it came from")
    return Finding(cause, "ruled out", "the other variants of V2 are easier, and this number is lower")


def subset(verdict: Verdict, whole: bool) -> Finding:
    """Whether the number of images is that of the published number."""
    cause, n = "subset", verdict.reference.n
    if not whole:
        return Finding(cause, "not checked", f"{verdict.n:,} images were chosen here; the whole split counts")
    if not n:
        return Finding(cause, "not checked", "the source does not say how many images it is of")
    if verdict.n == n:
        return Finding(cause, "ruled out", f"all {n:,} images")
    what = "part of them" if verdict.n < n else "more than there should be"
    return Finding(cause, "found", f"{verdict.n:,} images, the published number is of {n:,}: {what}; get the whole set")


def options(reference: Reference, suite: Suite) -> Finding | None:
    """The prompts finding where an option of the suite makes it another measurement."""
    chosen = [option for option in reference.excludes if option in suite.chosen]
    if not chosen:
        return None
    text = f"'+{chosen[0]}' has other prompts than the published number ({reference.prompts}); leave it out"
    return Finding("prompts", "found", text)
