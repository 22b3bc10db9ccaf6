"""What every method and every suite must fulfil, as small named checks; third parties run them on their own:

@pytest.mark.parametrize("check", check_method(MyMethod), ids=str)
def test_my_method_keeps_the_contract(check: Check) -> None:
    check()
"""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import model_ref
from .data import ArrayImages, Split
from .errors import MissingDataError
from .images.roots import Roots
from .prompts import Task
from .recipe import Recipe
from .suite import Suite, sealed

if TYPE_CHECKING:
    from .clip import Clip, State
    from .method import Family, Method

RECIPE = Recipe(lr=1e-3, weight_decay=0.1, steps=4, batch=8, warmup_fraction=0.25, augment="shift", validate_every=2)
TEST_IMAGES = 60
TASK = Task(("cat", "house", "umbrella"), ("a photo of a {}", "a sketch of a {}"))  # words the embedded model knows


@dataclass(frozen=True)
class Check:
    """One claim."""

    name: str
    run: Callable[[], None]  # raises an `AssertionError` that says what is wrong


def check_method(kind: "type[Method]", model: str = model_ref.EMBEDDED, task: Task = TASK) -> Iterator[Check]:
    """The contract of a method. `fit` is called on a small model with random images, for four steps."""
    trial = _Trial(kind, model, task)
    yield Check("frozen-dataclass-with-legal-defaults", partial(_is_frozen, kind))
    yield Check("fields-survive-json", partial(_survives_json, kind))
    yield Check("weights-are-finite", trial.finite)
    yield Check("head-keeps-its-classes", trial.keeps_classes)
    yield Check("same-seed-same-weights", trial.repeats)
    yield Check("stopped-fit-resumes-to-the-same-weights", trial.resumes)
    if not kind.transductive:
        yield Check("predictions-do-not-depend-on-other-images", trial.predicts_each_alone)
    if kind.trains:
        yield Check("another-seed-other-weights", trial.varies)


def check_suite(suite: Suite) -> Iterator[Check]:
    """The contract of a suite, held against the data under its roots."""
    yield Check("card-is-complete", partial(_card_is_complete, suite))
    yield Check("names-are-consistent", partial(_names_are_consistent, suite))
    if suite.places:
        yield Check("missing-data-is-named", partial(_missing_is_named, suite))
    yield Check("prompts-name-every-class", partial(_prompts, suite))
    for name in dict.fromkeys((suite.train, *suite.splits)):
        yield Check(f"{name}-is-what-the-card-says", partial(_split_is_sound, suite, name))
    yield Check("ids-are-disjoint", partial(_disjoint, suite))
    yield Check("loads-the-same-twice", partial(_stable, suite))


def _claim(holds: object, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _is_frozen(kind: "type[Method]") -> None:
    _claim(getattr(vars(kind).get("__dataclass_params__"), "frozen", False), "write @dataclass(frozen=True) above it")
    _claim(not kind().problems(), f"the defaults are not legal: {'; '.join(kind().problems())}")


def _survives_json(kind: "type[Method]") -> None:
    back = json.loads(json.dumps({n: v for n, v in asdict(kind()).items() if n != "recipe"}, allow_nan=False))
    _claim(kind(**back) == kind(), f"{kind(**back)} is what comes back of {kind()}")


class _Trial:
    """Fits one method on random images."""

    def __init__(self, kind: "type[Method]", model: str, task: Task) -> None:
        self.kind, self.model, self.task, self.once = kind, model, task, cache(self.fit)  # by seed

    def fit(self, seed: int, folder: Path | None = None, stop_after: int = sys.maxsize) -> "State":
        """All tensors of each candidate."""
        return _tensors(self.fitted(seed, folder, stop_after))

    def fitted(self, seed: int, folder: Path | None = None, stop_after: int = sys.maxsize) -> "Clip | Family":
        """Resumes from what `folder` holds, and is asked to stop after some steps."""
        import torch

        from . import clip as clips
        from .method import Run, TrainSet

        torch.seed()  # a method draws from `run.generator` only
        steps = iter(range(1, sys.maxsize))
        clip = clips.load(model_ref.resolve(self.model, None))
        data = TrainSet(self.split("train", 24, clip.image_size), self.split("val", 12, clip.image_size), self.task)
        run = Run(seed, torch.device("cpu"), folder=folder, stopped=lambda: next(steps) >= stop_after)
        method = self.kind(recipe=RECIPE if self.kind.trains else None)
        with sealed():
            return method.fit(clip, data, run)

    def split(self, name: str, n: int, size: int) -> Split:
        pixels = np.random.RandomState(n).randint(0, 256, (n, size, size, 3)).astype(np.uint8)
        return Split(name, ArrayImages(pixels), np.arange(n) % len(self.task.classes), tuple(map(str, range(n))))

    def finite(self) -> None:
        _claim(all(t.isfinite().all() for t in self.once(0).values()), "there is a NaN or an infinity in the weights")

    def keeps_classes(self) -> None:
        rows = {name: len(tensor) for name, tensor in self.once(0).items() if name.endswith(":head")}
        _claim(set(rows.values()) == {len(self.task.classes)}, f"{len(self.task.classes)} classes, rows: {rows}")

    def repeats(self) -> None:
        self.same(self.fit(0), "fitted again with the same seed")

    def varies(self) -> None:
        _claim(_differing(self.once(0), self.once(1)), "two seeds give the same weights: is the seed ignored?")

    def resumes(self) -> None:
        from .train import InterruptedRun

        with tempfile.TemporaryDirectory() as folder:
            with suppress(InterruptedRun):
                self.fit(0, Path(folder), stop_after=RECIPE.steps - 1)
            self.same(self.fit(0, Path(folder)), "stopped and resumed")

    def predicts_each_alone(self) -> None:
        from .method import Family
        from .predict import depends_on_others, predict

        model = self.fitted(0)
        clip, name = (model.clip, model.default) if isinstance(model, Family) else (model, "final")
        split = self.split("test", TEST_IMAGES, clip.image_size)
        order = np.random.RandomState(0).permutation(len(split)).tolist()
        with sealed():
            dependent = depends_on_others(model, split, predict(model, split)[name], order)
        _claim(
            not dependent,
            "shown in another order and in other batches, images are predicted otherwise; if the model is meant to "
            "adapt to the images it is tested on, declare `transductive: ClassVar[bool] = True`",
        )

    def same(self, other: "State", what: str) -> None:
        _claim(not _differing(self.once(0), other), f"{what}: {', '.join(_differing(self.once(0), other))} differ")


def _tensors(model: "Clip | Family") -> "State":
    """'candidate:tensor' -> values"""
    from .method import Family

    if not isinstance(model, Family):
        return {f"final:{name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}
    _claim({model.default, *model.axis} <= set(model.members), "the default or the axis names a candidate that is none")
    states = {candidate: _tensors(model.use(candidate)) for candidate in model.members}
    return {f"{who}:{name[6:]}": tensor for who, state in states.items() for name, tensor in state.items()}


def _differing(a: "State", b: "State") -> list[str]:
    return [name for name in a.keys() | b.keys() if name not in a or name not in b or not a[name].equal(b[name])]


def _card_is_complete(suite: Suite) -> None:
    missing = [name for name in ("title", "paper", "licence", "home") if not getattr(suite.card, name).strip()]
    if suite.places:
        missing += [f"source of {n}" for n in suite.places if not any(n in s.splits for s in suite.card.sources)]
    else:
        missing += [f"count of {name}" for name in {suite.train, *suite.splits} - set(suite.card.counts)]
    _claim(not missing, f"the card lacks: {', '.join(missing)}")


def _names_are_consistent(suite: Suite) -> None:
    _claim(len(set(suite.shifts)) == len(suite.shifts) > 0, "shifts must be named, each once")
    _claim(not {suite.train, suite.val, suite.test} & set(suite.shifts), "a shift is also an ID split")
    known, grouped = set(suite.known), {s for members in suite.shift_groups.values() for s in members}
    _claim(grouped <= set(suite.shifts), f"shift_groups: no shifts: {', '.join(grouped - set(suite.shifts))}")
    stray = set(suite.card.counts) - known - set(suite.places)  # an option may bring a split that has a place
    _claim(not stray, f"the card counts {', '.join(stray)}: no such split")


def _missing_is_named(suite: Suite) -> None:
    with tempfile.TemporaryDirectory() as empty:
        for root in (None, Path(empty)):
            try:
                _again(suite, root).check_ready()
                raise AssertionError(f"the suite is ready with {root}, where there is no data")
            except MissingDataError as error:
                unsaid = [text for text in (suite.card.home, "--root") if text not in str(error)]
                _claim(not unsaid, f"the message does not name {', '.join(unsaid)}: {error}")


def _prompts(suite: Suite) -> None:
    _claim(len(set(suite.classes)) > 1, "two class names at least")
    _claim(suite.templates and all(t.count("{}") == 1 for t in suite.templates), "each template needs one {}")


def _again(suite: Suite, root: Roots | Path | None) -> Suite:
    return type(suite)(suite.name, root, suite.chosen, suite.partial)


def _split_is_sound(suite: Suite, name: str) -> None:
    split = suite.split(name)  # compares size and labels with the card and the classes
    _claim(split.name == name and len(split) > 0, f"split '{name}' calls itself '{split.name}', or is empty")
    _claim(min(split.images.read([len(split) - 1])[0].size) > 0, f"split '{name}': its last image is empty")


def _disjoint(suite: Suite) -> None:
    ids = Counter(example for name in {suite.train, *suite.splits} for example in suite.split(name).ids)
    twice = [example for example, n in ids.items() if n > 1]
    _claim(not twice, f"{len(twice)} ids are in two splits: {', '.join(twice[:3])}")


def _stable(suite: Suite) -> None:
    again = _again(suite, suite.roots)
    moved = [n for n in (suite.train, *suite.splits) if suite.split(n).digest != again.split(n).digest]
    _claim(not moved, f"order, labels or pixels differ when loaded again: {', '.join(moved)}")
