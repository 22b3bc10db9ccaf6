"""What every method and every suite must fulfil, as small named checks; third parties run them on their own:

@pytest.mark.parametrize("check", check_method(MyMethod), ids=str)
def test_my_method_keeps_the_contract(check: Check) -> None:
    check()
"""

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import model_ref
from .data import ArrayImages, Split
from .errors import MissingDataError, RbftError, unknown
from .images.roots import Roots
from .prompts import Task
from .recipe import Recipe
from .suite import Suite, sealed

if TYPE_CHECKING:
    from .clip import State
    from .method import Candidates, Method
    from .watch import Gradients

# No warm-up: with a rate of 0 at first, an anchored penalty would never act on the weights that are judged.
RECIPE = Recipe(lr=1e-3, weight_decay=0.1, steps=6, batch=8, augment="shift", select="last", validate_every=2)
TEST_IMAGES = 60
TASK = Task(("cat", "house", "umbrella"), ("a photo of a {}", "a sketch of a {}"))  # words the embedded model knows


@dataclass(frozen=True)
class Check:
    """One claim."""

    name: str
    run: Callable[[], None]  # raises an `AssertionError` that says what is wrong, in one line

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.name


def check_method(kind: "type[Method]", model: str = model_ref.EMBEDDED, task: Task = TASK) -> list[Check]:
    """The contract of a method. `fit` is called on a small model with random images, for six steps."""
    return [Check(check.name, partial(_in_one_line, check.run)) for check in _method_checks(kind, model, task)]


def _in_one_line(act: Callable[[], None]) -> None:
    """A wrong return value or setting fails a check like anything else."""
    try:
        act()
    except (RbftError, SystemExit) as error:
        left = isinstance(error, SystemExit)
        raise AssertionError(f"it ends the program, sys.exit({error})" if left else str(error)) from error


def _method_checks(kind: "type[Method]", model: str, task: Task) -> Iterator[Check]:
    trial = _Trial(kind, model, task)
    yield Check("frozen-dataclass-with-legal-defaults", partial(_is_frozen, kind))
    yield Check("fields-survive-json", partial(_survives_json, kind))
    if kind.ranges:
        yield Check("ranges-are-of-its-settings-and-legal", partial(_has_legal_ranges, kind))
    yield Check("weights-are-finite", trial.finite)
    yield Check("head-keeps-its-classes", trial.keeps_classes)
    yield Check("same-seed-same-weights", trial.repeats)
    yield Check("global-random-state-is-left-alone", trial.leaves_random_state)
    yield Check("global-torch-state-is-not-drawn-from", trial.draws_its_own)
    yield Check("data-is-left-alone", trial.leaves_data)
    yield Check("stopped-fit-resumes-to-the-same-weights", trial.resumes)
    yield Check("saved-model-predicts-the-same", trial.saves)
    yield Check("finite-in-bf16", trial.finite_in_bf16)
    if kind.trains:
        yield Check("best-checkpoint-resumes-to-the-same-weights", trial.resumes_best)
    for candidate, (field, value, other) in kind.reduces_to.items():
        name = f"{candidate}-with-{field}={value}-is-{other}"
        yield Check(name, partial(trial.reduces, candidate, field, value, other))
    if kind.trains:
        yield Check("parts-of-a-batch-add-up-to-its-gradient", trial.adds_up)
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


def _has_legal_ranges(kind: "type[Method]") -> None:
    known = {f.name: type(f.default) is int for f in fields(kind) if f.name != "recipe"}
    for name, space in kind.ranges.items():
        _claim(name in known, f"ranges: {unknown('setting', name, known)}")
        for u in (0.0, 1 - 1e-9):
            value: Any = space.at(u, known[name])
            problems = kind(**{name: value}).problems()
            _claim(not problems, f"ranges: {name}={value} is in its range and not legal: {'; '.join(problems)}")


class _Trial:
    """Fits one method on random images."""

    def __init__(self, kind: "type[Method]", model: str, task: Task) -> None:
        self.kind, self.model, self.task, self.once = kind, model, task, cache(self.fit)  # by seed
        self.again, self.under_other_state = cache(partial(self.fit, 0)), cache(self._under_other_state)

    def fit(self, seed: int, folder: Path | None = None, stop_after: int = sys.maxsize, **other: Any) -> "State":
        """All tensors of each candidate, or its answers to noise where it has none."""
        from .watch import tensors

        return tensors(self.fitted(seed, folder, stop_after, **other))

    def fitted(
        self, seed: int, folder: Path | None = None, stop_after: int = sys.maxsize, recipe: Recipe = RECIPE,
        precision: str = "fp32", data: Any = None, kind: "type[Method] | None" = None, settings: Any = None,
        under: AbstractContextManager[object] | None = None, gradients: "Gradients | None" = None,
    ) -> "Candidates":  # fmt: skip
        """Resumes from what `folder` holds, and is asked to stop after some steps."""
        import torch

        from . import failures
        from .method import Run, candidates_of
        from .watch import begin

        torch.seed()  # a method draws from `run.generator` only
        kind, steps = kind or self.kind, iter(range(1, sys.maxsize))
        method = kind(recipe=recipe if kind.trains else None, **(settings or {}))
        clip, data = begin(method, self.model, data or self.data)
        clip.precision = precision
        run = Run(seed, torch.device("cpu"), precision, folder, stopped=lambda: next(steps) >= stop_after)
        run = replace(run, separable=kind.separable, **({"ranks": gradients} if gradients else {}))
        with failures.named(kind.__name__, None), sealed(), under or nullcontext():
            return candidates_of(method.fit(clip, data, run))

    def data(self, size: int) -> Any:
        """A TrainSet of random images."""
        from .method import TrainSet

        return TrainSet(self.split("train", 24, size), self.split("val", 12, size), self.task, suite="trial")

    def split(self, name: str, n: int, size: int) -> Split:
        pixels = np.random.RandomState(n).randint(0, 256, (n, size, size, 3)).astype(np.uint8)
        return Split(name, ArrayImages(pixels), np.arange(n) % len(self.task.classes), tuple(map(str, range(n))))

    def finite(self) -> None:
        _claim(all(t.isfinite().all() for t in self.once(0).values()), "there is a NaN or an infinity in the weights")

    def keeps_classes(self) -> None:
        rows = {name: len(tensor) for name, tensor in self.once(0).items() if name.endswith(":head")}
        rows |= {name: tensor.shape[1] for name, tensor in self.once(0).items() if name.endswith(":answers")}
        _claim(set(rows.values()) == {len(self.task.classes)}, f"{len(self.task.classes)} classes, rows: {rows}")

    def repeats(self) -> None:
        """What is the same under another state of torch's generator is the same again, without a fit more."""
        if _differing(self.once(0), self.under_other_state()):
            self.same(self.again(), "fitted again with the same seed")

    def draws_its_own(self) -> None:
        found = _differing(self.once(0), self.under_other_state())
        _claim(
            not found or _differing(self.once(0), self.again()),
            f"{some(found)} depend on torch's global generator; draw from `run.generator(name, step)`",
        )

    def _under_other_state(self) -> "State":
        from .watch import other_global_state

        return self.fit(0, under=other_global_state())

    def adds_up(self) -> None:
        """Dropout is off, and the parts are of unequal size: 3, 3 and 2."""
        from .watch import Gradients, without_dropout

        whole, parts = Gradients(), Gradients()
        self.fitted(0, gradients=whole, under=without_dropout())
        parts.earlier = whole
        self.fitted(0, gradients=parts, under=without_dropout(), recipe=replace(RECIPE, micro_batch=3))
        found = whole.differ(parts)
        _claim(
            not found,
            f"a batch cut by micro_batch is another one: {found}; a loss that is no mean over examples says so with "
            "`separable: ClassVar[bool] = False`",
        )

    def varies(self) -> None:
        _claim(_differing(self.once(0), self.once(1)), "two seeds give the same weights: is the seed ignored?")

    def leaves_random_state(self) -> None:
        """torch's own state has a check of its own: `train` seeds it before every step, for models that drop paths."""
        random.seed(1)
        np.random.seed(1)
        before = random.getstate(), np.random.get_state()[1].tolist()  # pyright: ignore
        self.fitted(0)
        after = random.getstate(), np.random.get_state()[1].tolist()  # pyright: ignore
        used = [name for name, a, b in zip(("random", "numpy.random"), before, after, strict=True) if a != b]
        _claim(not used, f"fit draws from the global {' and '.join(used)}; draw from `run.generator(name, step)`")

    def leaves_data(self) -> None:
        from . import clip as clips

        data = self.data(clips.load(model_ref.resolve(self.model, None)).image_size)
        before = [self.data(data.train.images.array().shape[1]).train.digest, data.val.digest]
        self.fitted(0, data=data)
        fresh = [Split(s.name, s.images, s.labels, s.ids).digest for s in (data.train, data.val)]
        _claim(fresh == before, "fit changes the pixels or labels it is given; work on copies")

    def resumes(self) -> None:
        self.same(self.stopped_and_resumed(RECIPE), "stopped and resumed")

    def resumes_best(self) -> None:
        recipe = replace(RECIPE, select="best")
        found = _differing(self.fit(0, recipe=recipe), self.stopped_and_resumed(recipe))
        _claim(not found, f"stopped and resumed, with select=best: {some(found)} differ")

    def stopped_and_resumed(self, recipe: Recipe) -> "State":
        """The weights of a fit that was cut before its last step, and started again."""
        from .train import InterruptedRun

        with tempfile.TemporaryDirectory() as folder:
            with suppress(InterruptedRun):
                self.fit(0, Path(folder), stop_after=recipe.steps - 1, recipe=recipe)
            return self.fit(0, Path(folder), recipe=recipe)

    def saves(self) -> None:
        import torch

        from .clip import Clip, load_saved
        from .watch import noise

        found = self.fitted(0)
        model, images = found.use(found.default), noise(found.clip.image_size)
        found.clip.eval()
        single = self.kind.single_model
        _claim(isinstance(model, Clip) == single, f"`single_model` is {single}, its headline is {type(model).__name__}")
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            model.save(folder, {})
            if isinstance(model, Clip):
                back = load_saved(folder)
            else:
                again = self.kind.reload(folder, lambda part: load_saved(folder / part))
                back = again.use(again.default)
        with torch.no_grad():
            same = torch.equal(model.logits(images), back.logits(images))
        _claim(same, "saved and loaded, the model gives other logits: does it use something that is no weight of it?")

    def finite_in_bf16(self) -> None:
        wrong = [name for name, t in self.fit(0, precision="bf16").items() if not t.isfinite().all()]
        _claim(not wrong, f"trained in bf16: {some(wrong)} not finite")

    def reduces(self, candidate: str, field: str, value: Any, other: str) -> None:
        from . import registry
        from .method import Method

        ours = _of(candidate, self.fit(0, settings={field: value}))
        kind = registry.load("method", other, Method)
        theirs = _of("final", _Trial(kind, self.model, self.task).fit(0, kind=kind))
        found = _differing(ours, theirs)
        _claim(not found, f"declared to be {other}, but {some(found)} differ")

    def predicts_each_alone(self) -> None:
        from .predict import depends_on_others, predict

        model = self.fitted(0)
        split = self.split("test", TEST_IMAGES, model.clip.image_size)
        order = np.random.RandomState(0).permutation(len(split)).tolist()
        with sealed():
            dependent = depends_on_others(model, split, predict(model, split)[model.default], order)
        _claim(
            not dependent,
            "shown in another order and in other batches, images are predicted otherwise; if the model is meant to "
            "adapt to the images it is tested on, declare `transductive: ClassVar[bool] = True`",
        )

    def same(self, other: "State", what: str) -> None:
        found = _differing(self.once(0), other)
        _claim(not found, f"{what}: {some(found)} differ")


def some(names: Sequence[str]) -> str:
    """The first three, and how many more: 'a, b, c and 27 more'."""
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _of(candidate: str, state: "State") -> "State":
    return {name.partition(":")[2]: t for name, t in state.items() if name.startswith(f"{candidate}:")}


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
    stray = set(suite.counts) - known - set(suite.places)  # an option may bring a split that has a place
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
