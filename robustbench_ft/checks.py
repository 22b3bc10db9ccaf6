"""What every method and every suite must fulfil, as small named checks; third parties run them on their own:

@pytest.mark.parametrize("check", check_method(MyMethod), ids=str)
def test_my_method_keeps_the_contract(check: Check) -> None:
    check()
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import model_ref
from .data import ArrayImages, Split
from .errors import MissingDataError
from .recipe import Recipe
from .suite import CardOnly, Suite, Task, sealed

if TYPE_CHECKING:
    from .clip import Clip, State
    from .method import Family, Method

RECIPE = Recipe(lr=1e-3, weight_decay=0.1, steps=4, batch=8, warmup_fraction=0.25, augment="shift", validate_every=2)
TASK = Task(("cat", "house", "umbrella"), ("a photo of a {}", "a sketch of a {}"))  # words the embedded model knows


@dataclass(frozen=True)
class Check:
    """One claim. Calling it raises an `AssertionError` that says what is wrong."""

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def check_method(kind: "type[Method]", model: str = model_ref.EMBEDDED, task: Task = TASK) -> Iterator[Check]:
    """The contract of a method. `fit` is called on a small model with random images, for four steps."""
    trial = _Trial(kind, model, task)
    yield Check("frozen-dataclass-with-legal-defaults", partial(_is_frozen, kind))
    yield Check("fields-survive-json", partial(_survives_json, kind))
    yield Check("weights-are-finite", trial.finite)
    yield Check("head-keeps-its-classes", trial.keeps_classes)
    yield Check("same-seed-same-weights", trial.repeats)
    yield Check("stopped-fit-resumes-to-the-same-weights", trial.resumes)
    if kind.trains:
        yield Check("another-seed-other-weights", trial.varies)


def check_suite(suite: Suite) -> Iterator[Check]:
    """The contract of a suite. One that is registered with its card only must say what it would need."""
    yield Check("card-is-complete", partial(_card_is_complete, suite))
    yield Check("names-are-consistent", partial(_names_are_consistent, suite))
    if suite.card.layout:
        yield Check("missing-data-is-named", partial(_missing_is_named, suite))
    if isinstance(suite, CardOnly):
        return
    yield Check("prompts-name-every-class", partial(_prompts, suite))
    for name in dict.fromkeys((suite.train, *suite.splits)):
        yield Check(f"{name}-is-what-the-card-says", partial(_split_is_sound, suite, name))
    yield Check("ids-are-disjoint", partial(_disjoint, suite))
    yield Check("loads-the-same-twice", partial(_stable, suite))


def _claim(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _is_frozen(kind: "type[Method]") -> None:
    own: Any = vars(kind).get("__dataclass_params__")
    _claim(own is not None and own.frozen, f"write @dataclass(frozen=True) above {kind.__name__}")
    _claim(not kind().problems(), f"the defaults are not legal: {'; '.join(kind().problems())}")


def _survives_json(kind: "type[Method]") -> None:
    fields = {name: value for name, value in asdict(kind()).items() if name != "recipe"}
    back: dict[str, Any] = json.loads(json.dumps(fields, allow_nan=False))
    _claim(kind(**back) == kind(), f"{kind(**back)} is what comes back of {kind()}")


class _Trial:
    """Fits one method on random images."""

    def __init__(self, kind: "type[Method]", model: str, task: Task) -> None:
        self.kind, self.model, self.task = kind, model, task
        self.once = cache(self.fit)  # by seed

    def fit(self, seed: int, folder: Path | None = None, stop_after: int = sys.maxsize) -> "Mapping[str, State]":
        """All tensors of each candidate; resumes from what `folder` holds, and is asked to stop after some steps."""
        import torch

        from . import clip as clips
        from .method import Run, TrainSet

        steps = iter(range(1, sys.maxsize))
        clip = clips.load(model_ref.resolve(self.model, None))
        train, val = (self._split(name, n, clip.image_size) for name, n in (("train", 24), ("val", 12)))
        run = Run(seed, torch.device("cpu"), folder=folder, stopped=lambda: next(steps) >= stop_after)
        method = self.kind(recipe=RECIPE if self.kind.trains else None)
        with sealed():
            return _states(method.fit(clip, TrainSet(train, val, self.task), run))

    def _split(self, name: str, n: int, size: int) -> Split:
        pixels = np.random.RandomState(n).randint(0, 256, (n, size, size, 3)).astype(np.uint8)
        return Split(
            name, ArrayImages(pixels), np.arange(n) % len(self.task.classes), tuple(f"{name}{i}" for i in range(n))
        )

    def finite(self) -> None:
        bad = [
            f"{name}:{k}" for name, state in self.once(0).items() for k, t in state.items() if not t.isfinite().all()
        ]
        _claim(not bad, f"not finite: {', '.join(bad)}")

    def keeps_classes(self) -> None:
        rows = {name: len(state["head"]) for name, state in self.once(0).items()}
        _claim(set(rows.values()) == {len(self.task.classes)}, f"{len(self.task.classes)} classes, head rows {rows}")

    def repeats(self) -> None:
        import torch

        torch.manual_seed(1)  # a method draws from `run.generator` only
        self._same(self.fit(0), "fitted again with the same seed")

    def varies(self) -> None:
        _claim(bool(_differing(self.once(0), self.once(1))), "two seeds give the same weights: is the seed ignored?")

    def resumes(self) -> None:
        from .train import InterruptedRun

        with tempfile.TemporaryDirectory() as folder:
            try:
                self.fit(0, Path(folder), stop_after=RECIPE.steps - 1)
            except InterruptedRun:
                _claim(any(Path(folder).iterdir()), "a stopped fit left nothing to resume from")
            self._same(self.fit(0, Path(folder)), "stopped and resumed")

    def _same(self, other: "Mapping[str, State]", what: str) -> None:
        different = _differing(self.once(0), other)
        _claim(not different, f"{what}, these differ: {', '.join(different)}")


def _states(model: "Clip | Family") -> "Mapping[str, State]":
    from .method import Family

    if not isinstance(model, Family):
        return {"final": {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}}
    _claim({model.default, *model.axis} <= set(model.members), "the default or the axis names a candidate that is none")
    return {name: dict(_states(model.use(name))["final"]) for name in model.members}


def _differing(a: "Mapping[str, State]", b: "Mapping[str, State]") -> list[str]:
    return [f"{name}:{key}" for name, state in a.items() for key in state if not state[key].equal(b[name][key])]


def _card_is_complete(suite: Suite) -> None:
    missing = [name for name in ("title", "paper", "licence", "home") if not getattr(suite.card, name).strip()]
    if not suite.card.layout:
        missing += [f"count of {name}" for name in {suite.train, *suite.splits} - set(suite.card.counts)]
    _claim(not missing, f"the card lacks: {', '.join(missing)}")


def _names_are_consistent(suite: Suite) -> None:
    _claim(len(set(suite.shifts)) == len(suite.shifts) > 0, "shifts must be named, each once")
    _claim(not {suite.train, suite.val, suite.test} & set(suite.shifts), "a shift is also an ID split")
    known, grouped = {suite.train, *suite.splits}, {s for members in suite.shift_groups.values() for s in members}
    _claim(grouped <= set(suite.shifts), f"shift_groups: no shifts: {', '.join(grouped - set(suite.shifts))}")
    _claim(
        set(suite.card.counts) <= known, f"the card counts {', '.join(set(suite.card.counts) - known)}: no such split"
    )


def _missing_is_named(suite: Suite) -> None:
    with tempfile.TemporaryDirectory() as empty:
        for root in (None, Path(empty)):
            try:
                type(suite)(suite.name, root).split(suite.test)
            except MissingDataError as error:
                unsaid = [text for text in (*suite.card.layout, suite.card.home) if text not in str(error)]
                _claim(not unsaid, f"the message does not name {', '.join(unsaid)}: {error}")
            else:
                raise AssertionError(f"split '{suite.test}' loads from {root}, where there is no data")


def _prompts(suite: Suite) -> None:
    _claim(len(set(suite.classes)) == len(suite.classes) > 1, "two class names at least, each once")
    _claim(all(name.strip() for name in suite.classes), "a class has no name")
    sound = all(template.count("{}") == 1 for template in suite.templates)
    _claim(bool(suite.templates) and sound, "one template at least, each with one {}")


def _split_is_sound(suite: Suite, name: str) -> None:
    split = suite.split(name)  # checks sizes and labels itself
    _claim(split.name == name, f"split '{name}' calls itself '{split.name}'")
    _claim(len(split) == suite.card.counts.get(name, len(split)) > 0, f"split '{name}' has {len(split)} images")
    _claim(0 <= split.labels.min() <= split.labels.max() < len(suite.classes), f"split '{name}': labels out of range")
    [image] = split.images.read([len(split) - 1])
    _claim(image.mode == "RGB", f"split '{name}': images are {image.mode}, not RGB")


def _disjoint(suite: Suite) -> None:
    owner: dict[str, str] = {}
    for name in dict.fromkeys((suite.train, *suite.splits)):
        for example in suite.split(name).ids:
            _claim(example not in owner, f"example '{example}' is in both '{owner.get(example)}' and '{name}'")
            owner[example] = name


def _stable(suite: Suite) -> None:
    again = type(suite)(suite.name, suite.root)
    for name in (suite.train, *suite.splits):
        _claim(suite.split(name).ids == again.split(name).ids, f"split '{name}' is in another order when loaded again")
        _claim(suite.split(name).digest == again.split(name).digest, f"split '{name}' differs when loaded again")
