"""The contract of a method: a frozen dataclass of hyper-parameters with `fit`, and what `fit` is given.

`fit` sees ID train and ID validation. No path leads from it to a shift: `TrainSet` holds none, and suites and drawing
are sealed until the last prediction is made.
"""

import hashlib
import inspect
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, get_type_hints, runtime_checkable

import torch
from torch import Tensor

from . import clip as clips
from . import model_ref
from .clip import Clip, State
from .data import Split
from .errors import RbftError
from .memory import MicroBatch
from .progress import Progress
from .prompts import Task
from .ranges import Space
from .ranks import Ranks
from .recipe import Recipe
from .suite import ACCURACY


@dataclass(frozen=True)
class TrainSet:
    """ID data, and the classes and prompts that name its labels."""

    train: Split
    val: Split  # selects checkpoints and candidates; never trained on
    task: Task
    metric: str = ACCURACY  # of `val`: what checkpoints are selected by, a name of `metrics.score`
    suite: str = ""  # its name


class Companion(Protocol):
    """What lives beside the model while it is trained; it is stored, resumed and selected with it."""

    def after_step(self, step: int, of: int) -> None:
        """Hear that the update number `step` (from 0) out of `of` was made."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


@dataclass(frozen=True)
class Run:
    """What one execution of `fit` may rely on besides the data."""

    seed: int
    device: torch.device
    precision: str = "fp32"  # while training: 'tf32'; 'bf16' or 'fp16' in the blocks of the image tower
    folder: Path | None = None  # for resume checkpoints; None: keep none
    progress: Progress = field(default_factory=Progress)
    log: Callable[[Mapping[str, Any]], None] = lambda line: None
    checkpoint_seconds: float = 30.0
    stopped: Callable[[], bool] = lambda: False  # asked after every step; True ends the fit in good order
    workers: int = 0  # threads that decode images; 0: as many as there are cores
    gpu_decode: bool = False  # decode training JPEGs on the GPU
    prefix: str = ""  # of random streams, stages and checkpoints: 'member-1.'
    ranks: Ranks = field(default_factory=Ranks)  # the processes that fit this model together
    separable: bool = True  # of the method: a batch may be cut; False: parts of it are only encoded apart
    micro_batch: MicroBatch = field(default_factory=MicroBatch)  # wins over the recipe's
    low_memory: bool = False  # moments and the best checkpoint in main memory
    checkpoint_steps: int = 0  # also after every so many steps; 0: by time alone
    companions: tuple[Callable[[Clip], Companion], ...] = ()  # made for every stage, beside the method's own

    @property
    def rank(self) -> int:
        """This process takes the rows [rank::world] of every batch."""
        return self.ranks.rank

    @property
    def world(self) -> int:
        return self.ranks.world

    def sum_over_ranks(self, tensors: Sequence[Tensor]) -> None:
        """Replace gradients and loss terms by their sums over ranks, in place."""
        self.ranks.sum(tensors)

    def branch(self, name: str) -> "Run":
        """A run inside this one with random streams, stages and checkpoints of its own, e.g. one member of a soup."""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"branch '{name}': use letters, digits, '-' and '_'; it becomes part of a file name")
        return replace(self, prefix=f"{self.prefix}{name}.")

    def load_teacher(self, name: str, pretrained: str | None = None) -> Clip:
        """A second pre-trained model by its open_clip name, frozen, on this run's device.

        Its weights are stated in the log. Declare a setting that names it as `ModelName`, so that cells state them too.
        """
        ref = model_ref.resolve(*model_words(name)) if pretrained is None else model_ref.resolve(name, pretrained)
        self.log({"event": "teacher", "model": ref.name, "pretrained": ref.pretrained, "weights": ref.weights})
        return clips.load(ref).to(self.device).eval()

    def generator(self, stream: str, step: int = 0) -> torch.Generator:
        """A CPU generator for one named stream at one step: the same wherever and whenever it is asked for.

        Streams are hashed from (seed, name, step), so a new one moves no other and nothing needs saving to resume.
        """
        digest = hashlib.sha256(f"{self.seed}/{self.prefix}{stream}/{step}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Scorer(Protocol):
    """What evaluation asks of a candidate. A `Clip` is one; so is anything else that answers with logits."""

    def logits(self, images: Tensor, /) -> Tensor:
        """[B, 3, H, W] normalised -> [B, K]"""
        ...

    def save(self, folder: Path, note: Mapping[str, Any], /) -> None: ...


Reduce = Callable[[Tensor], Tensor]  # logits [B, K] -> [B, K'], of the classes that a split is scored in


@runtime_checkable
class FeatureScorer(Scorer, Protocol):
    """A scorer that needs of an image only its features; each tower runs once for all candidates that name it."""

    towers: Sequence[Clip]  # frozen copies: never the model of `Candidates`, which changes with the candidate

    def answer(self, reduce: Reduce, *features: Tensor) -> Tensor:
        """Unit features [B, D] of each tower -> logits [B, K'], each tower's own taken through `reduce` first."""
        ...


@runtime_checkable
class TransductiveScorer(Scorer, Protocol):
    """A scorer that looks at all images of a split before it answers for the first. Its rows are never ranked."""

    def prepare(self, images: Iterable[Tensor], reduce: Reduce, /) -> None:
        """Look at a split.

        `images` are its batches [B, 3, H, W], normalised, once and in order; labels are not shown. `logits` is then
        asked of the same batches.
        """
        ...


@dataclass(frozen=True)
class Candidates:
    """Several models that one fit gives, e.g. the alphas of WiSE-FT: one module, and what makes each of them."""

    clip: Clip
    members: Mapping[str, Callable[[], State | Scorer]]  # name -> its tensors, or what answers in its place, always one
    default: str  # the method's headline row
    axis: Mapping[str, float] = field(default_factory=dict[str, float])  # candidate -> its alpha, for curves

    def use(self, candidate: str) -> Scorer:
        """The module with this candidate's tensors in place, or what answers in its place."""
        made = self.members[candidate]()
        if not isinstance(made, Mapping):
            return made
        self.clip.restore(made)
        return self.clip


def candidates_of(model: Any) -> Candidates:
    """What `fit` returned, as candidates: a single model is one called 'final'. Raises `RbftError` for others."""
    if isinstance(model, Candidates):
        strangers = {model.default, *model.axis} - set(model.members)
        if strangers:
            raise RbftError(
                f"fit returned Candidates whose default or axis names {', '.join(sorted(strangers))}; "
                f"its members are {', '.join(model.members)}"
            )
        return model
    if isinstance(model, Clip):
        return Candidates(model, {"final": dict[str, Tensor]}, "final")
    raise RbftError(f"fit returned {type(model).__name__}; end it with `return clip`, or return Candidates")


FILE, MODEL = "names a file", "names a model"
FileName = Annotated[str, FILE]  # type of a setting: the digest of a cell takes the file's content, not its path
ModelName = Annotated[str, MODEL]  # type of a setting, e.g. 'ViT-B-32 openai': the digest takes the model's weights


def model_words(text: str) -> tuple[str, str | None]:
    """'ViT-B-32 openai' -> name and pretrained tag. A folder has no tag, and may have blanks in its name."""
    if text.strip().startswith("local-dir:"):
        return text.strip(), None
    name, _, tag = text.strip().partition(" ")
    return name, tag.strip() or None


SIGNATURES = {"objective": ("self", "clip", "data", "run"), "skip": ("self", "clip", "data")}


@dataclass(frozen=True)
class Method(ABC):
    """One way to fine-tune. Fields are its hyper-parameters: `--set name=value` checks names and types against them."""

    version: ClassVar[int] = 1  # raise it whenever a number could change
    trains: ClassVar[bool] = True  # False: nothing is fitted, so there is no recipe and no seed to vary
    transductive: ClassVar[bool] = False  # True: a prediction depends on the other images of its split
    single_model: ClassVar[bool] = True  # False: the headline answers with several models, so nothing can follow it
    published: ClassVar[Mapping[str, Recipe]] = {}  # suite name -> the authors' recipe; a subclass does not inherit it
    separable: ClassVar[bool] = True  # False: the loss is no mean over examples, so it sees the whole batch at once
    averages: ClassVar[bool] = False  # True: an average of the weights along the path is a model, so `NAME+ema` is one
    later: ClassVar[tuple[str, ...]] = ()  # settings younger than published cells: at their defaults, in no digest
    # candidate -> (setting, value, method): with this value it is that method, to the bit; `rbft check method` holds it
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {}
    ranges: ClassVar[Mapping[str, Space]] = {}  # setting -> where `rbft tune` looks; the learning rate needs none here
    # what `rbft show` and the method's page say; none of it changes a number
    equation: ClassVar[str] = ""  # what is minimised or computed, in plain text with the names of the fields
    source: ClassVar[str] = ""  # the paper, and the code that was read: 'owner/name@commit, file'
    oracle: ClassVar[str] = ""  # what its numbers were checked against; 'none: why' where nothing exists
    traps: ClassVar[tuple[str, ...]] = ()  # what goes wrong with the released code or the printed equation, one each
    passes: ClassVar[float] = 1.0  # forward passes of the image tower for each image predicted, of the default

    recipe: Recipe | None = None  # resolved by the plan before `fit`: --set, the method's own, or the suite's

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse the signatures of 0.2 in one line; called with another argument they would end in a traceback."""
        super().__init_subclass__(**options)
        cls.published = vars(cls).get("published", {})  # a method that is FT and more has authors of its own
        for name, wanted in SIGNATURES.items():
            given = tuple(inspect.signature(vars(cls)[name]).parameters) if name in vars(cls) else wanted
            if len(given) < len(wanted):
                raise RbftError(
                    f"{cls.__module__}: {cls.__name__}.{name}({', '.join(given)}) is {name}({', '.join(wanted)}) since "
                    "version 0.3; add what is missing, also where it calls super()"
                )

    @abstractmethod
    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        """Train `clip` in place and return it, or candidates."""

    def skip(self, clip: Clip, data: TrainSet) -> str:
        """Why this method cannot be used with this model on this suite; empty when it can. Asked before a record."""
        return ""

    def problems(self) -> list[str]:
        """What is wrong with the values of the fields, one line each; empty when nothing is."""
        return []

    @classmethod
    def reload(cls, folder: Path, load: Callable[[str], Clip]) -> Candidates:
        """Build what the headline's `save` wrote to `folder`, for a headline that is no `Clip`; the default answers.

        `load('tuned')` gives the model that `Clip.save` wrote to its subfolder 'tuned'.
        """
        raise RbftError(
            f"{cls.__name__} saves its model in a form of its own and has no `reload` to read it; write one, or use "
            "the stored predictions"
        )

    @property
    def resolved(self) -> Recipe:
        """The recipe, once the plan has put it in place."""
        if self.recipe is None:
            raise ValueError(f"{type(self).__name__} has no recipe yet: the plan resolves it before fit")
        return self.recipe

    def around(self, method: "Method", clip: Clip, data: TrainSet, run: Run) -> "Clip | Candidates":
        """Fit `method`, and do to it what this method does to FT: what makes `NAME+THIS` possible."""
        raise NotImplementedError

    @staticmethod
    def composed(inner: "type[Method]", outer: "type[Method]", names: tuple[str, str]) -> "type[Method]":
        """The method `NAME+OUTER`: the settings of `inner`, and those that `outer` itself declares."""
        return _composed(inner, outer, names)


@lru_cache
def _composed(inner: type[Method], outer: type[Method], names: tuple[str, str]) -> type[Method]:
    title = "+".join(names)
    if outer.around is Method.around:
        raise RbftError(f"method '{title}': '{names[1]}' cannot follow another method; wise-ft, ema and path can")
    if not inner.trains:
        raise RbftError(f"method '{title}': '{names[0]}' trains nothing, so there is nothing for '{names[1]}' to do")
    if not inner.single_model:
        raise RbftError(
            f"method '{title}': '{names[0]}' answers with several models, so there are no weights for '{names[1]}'"
        )
    if names[1] == "ema" and not inner.averages:
        turned = inner.around is not Method.around and inner is not outer
        raise RbftError(
            f"method '{title}': '{names[0]}' does not declare `averages`: it is no single path of weights whose mean "
            "is a model" + (f"; {names[1]}+{names[0]} is possible" if turned else "")
        )
    hints = get_type_hints(outer, include_extras=True)
    own = [f for f in fields(outer) if f.name in vars(outer).get("__annotations__", {})]
    if shared := {f.name for f in own} & {f.name for f in fields(inner)}:
        raise RbftError(f"method '{title}': both have the setting {', '.join(sorted(shared))}")

    def parts(method: Any) -> tuple[Method, Method]:
        theirs = {f.name: getattr(method, f.name) for f in fields(inner)}
        return inner(**theirs), outer(recipe=method.recipe, **{f.name: getattr(method, f.name) for f in own})

    def fit(self: Method, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        first, then = parts(self)
        return then.around(first, clip, data, run)

    def problems(self: Method) -> list[str]:
        return [line for method in parts(self) for line in method.problems()]

    source = type(outer.__name__, (), {"__module__": outer.__module__})  # its file is part of the composition's code
    space = {
        "fit": fit, "problems": problems, "version": 100 * inner.version + outer.version, "reduces_to": {},
        "later": (*inner.later, *outer.later), "published": inner.published, "averages": False,
        "ranges": {**inner.ranges, **{f.name: outer.ranges[f.name] for f in own if f.name in outer.ranges}},
        "around": Method.around, "__module__": inner.__module__, "__doc__": f"{title}: {inner.__doc__} {outer.__doc__}",
    }  # fmt: skip
    made = [(f.name, hints[f.name], field(default=f.default)) for f in own]
    return make_dataclass(title, made, bases=(inner, source), namespace=space, frozen=True)


def problems_of(method: Method) -> list[str]:
    """What is wrong with the fields of a method; one line each."""
    return method.problems()


def __getattr__(name: str) -> Any:
    if name == "Family":
        warnings.warn("Family is called Candidates now; the old name goes with 0.4", DeprecationWarning, stacklevel=2)
        return Candidates
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
