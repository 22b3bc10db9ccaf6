"""The third step of the ladder: stored weights predict again on images drawn at random, and must agree with the claim.

Bit equality is not asked for: logits differ between machines. Torch is imported when it is needed.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustbench_ft.data import Ints, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.record.store import Record, find_records
from robustbench_ft.stats.pairs import flips
from robustbench_ft.stats.streams import generator

from .claim_store import StoredClaim

if TYPE_CHECKING:
    from robustbench_ft.clip import Clip
    from robustbench_ft.saved import SavedScorer
    from robustbench_ft.suite import Suite

DISAGREEMENT = 0.005  # of the images drawn may get another class
MID_P = 0.001


@dataclass(frozen=True)
class Verdict:
    """One run, scored again."""

    seed: int
    images: int
    disagreeing: int
    mid_p: float  # McNemar: is one of the two more often right?

    @property
    def passes(self) -> bool:
        # among few images a single near tie would be too many
        return self.disagreeing <= max(1.0, DISAGREEMENT * self.images) and self.mid_p > MID_P

    @property
    def text(self) -> str:
        return (
            f"seed {self.seed}: {self.disagreeing} of {self.images} images get another class, "
            f"McNemar mid-p {self.mid_p:.3g}"
        )


def draw() -> int:
    """A number for `rescore` that whoever made a claim could not know."""
    return secrets.randbits(48)


def rescore(
    one: StoredClaim, runs: Path, k: int, data: Roots | None = None, device: str = "cpu", *, drawn: int
) -> list[Verdict]:
    """A verdict for each listed seed; weights come from the `model/` folders of records under `runs`.

    `drawn` chooses the images: the same number chooses the same images again.
    """
    from robustbench_ft import suite_ref

    identity, digest = one.claim.identity, one.claim.training.config_sha256
    records = {record.seed: record for record in find_records([runs]) if record.config.digest == digest}
    missing = [seed for seed in one.seeds if seed not in records or not (records[seed].folder / "model").is_dir()]
    if missing:
        raise RbftError(
            f"{one.place.file}: no weights of seed {', '.join(map(str, missing))} under {runs}; re-scoring needs the "
            "records that the claim was made from, with their model/ folders"
        )
    suite = suite_ref.load(identity.suite, data, version=identity.suite_version)
    return [_verdict(one, records[seed], suite, k, device, drawn) for seed in one.seeds]


def _verdict(one: StoredClaim, record: Record, suite: "Suite", k: int, device: str, seed: int) -> Verdict:
    from robustbench_ft import saved
    from robustbench_ft.environment import choose_device

    model = saved.load(record.folder / "model", choose_device(device))
    bundle = next(run for run in one.runs if run.seed == record.seed)
    before: list[Ints] = []
    after: list[Ints] = []
    labels: list[Ints] = []
    for name in one.claim.data.splits:
        if "@" in name:
            continue  # the same images in another label space
        split, stored = suite.split(name), bundle.choices[name][bundle.summary.default]
        place = {example: row for row, example in enumerate(bundle.any(name).ids)}
        size = min(k, len(split))
        stream = generator("rescore", seed, one.place.file, record.seed, name)
        drawn = np.sort(stream.choice(len(split), size, replace=False))
        ids = tuple(split.ids[i] for i in drawn)
        unknown = [example for example in ids if example not in place]
        if unknown:
            raise RbftError(
                f"{one.place.file}: split '{name}' on this machine contains example {unknown[0]}, which the claim "
                "does not; it is a different version of the data: get the version that the claim names"
            )
        found = _answers(model, split, drawn)
        before.append(stored[[place[example] for example in ids]])
        after.append(found[0])
        labels.append(found[1])
    old, new, label = (np.concatenate(parts) for parts in (before, after, labels))
    test = flips(old == label, new == label).test
    return Verdict(record.seed, len(old), int((old != new).sum()), test.mid_p)


def _answers(model: "Clip | SavedScorer", split: Split, drawn: Ints) -> tuple[Ints, Ints]:
    """Predictions and labels of the rows drawn. A scorer that looks at a split first is shown the whole split."""
    from robustbench_ft.method import TransductiveScorer, candidates_of
    from robustbench_ft.predict import predict
    from robustbench_ft.saved import SavedScorer

    found = candidates_of(model.candidates if isinstance(model, SavedScorer) else model)
    if not isinstance(found.use(found.default), TransductiveScorer):
        answers = predict(found, split.take(drawn))[found.default]
        return answers.prediction, answers.label
    answers = predict(found, split)[found.default]
    place = {example: row for row, example in enumerate(answers.ids)}
    rows = [place[split.ids[k]] for k in drawn]
    return answers.prediction[rows], answers.label[rows]
