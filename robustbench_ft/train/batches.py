"""Batches to learn from: of images, of features computed once, of any split; and the scores that selection needs.

A batch is drawn whole: which examples, and how they are augmented. Parts of it (`Batch.parts`) are rows of what was
drawn, so neither accumulation nor the number of ranks changes a draw.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from robustbench_ft import metrics
from robustbench_ft.clip import Clip
from robustbench_ft.clip.copies import to_device
from robustbench_ft.data import Split
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.pixels.loader import Loader, Pending
from robustbench_ft.predict import of_logits
from robustbench_ft.progress import Advance
from robustbench_ft.ranks import Ranks
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import ACCURACY

ByRows = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]  # (act, inputs [B, ...]) -> act(inputs) [B, ...]
Scores = Mapping[str, float]  # metric -> its value on ID validation; NaN accuracy where a logit is not finite
EVAL_CHUNK = 512
ALONE = Ranks()
AHEAD = 2  # batches of files decoded in advance


@dataclass(frozen=True)
class Batch:
    """What an objective sees. `features` is computed at most once per batch, whoever asks for it.

    A batch may be a part of a larger one (see `parts`). An objective that draws something per example draws it for
    the whole batch, `torch.rand(batch.whole, generator=...)[batch.taken]`, so that cutting changes no draw.
    """

    step: int  # the number of this update, from 0
    labels: Tensor  # [B]
    images: Tensor  # [B, 3, H, W], normalised; empty when features were cached
    encode: Callable[[Tensor], Tensor]
    rows: Tensor = field(
        default_factory=lambda: torch.empty(0, dtype=torch.long)
    )  # [B] on the CPU: places in the split
    of: int = 0  # updates of this stage
    known: Tensor | None = None  # [B, D] features computed earlier
    whole: int = 0  # size of the batch that this one is a part of; 0: its own
    taken: slice = field(default_factory=lambda: slice(None))  # which rows of the whole these are
    apart: ByRows | None = None  # encodes rows in parts, on several ranks; None: all at once

    @cached_property
    def features(self) -> Tensor:
        """Unit image features of the model being trained, [B, D]."""
        return self.by_rows(self.encode, self.images) if self.known is None else self.known

    def by_rows(self, act: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """`act(inputs)`, [B, ...], where a row of the result depends on the same row of `inputs` [B, ...] alone.

        A method whose loss is no mean over examples encodes its batch like this, so that a part of it is in memory at
        a time, and a part of it on each rank. The gradients are those of `act(inputs)`.
        """
        return act(inputs) if self.apart is None else self.apart(act, inputs)

    @property
    def progress(self) -> float:
        """step / of: 0 at the first update, below 1 at the last."""
        return self.step / max(1, self.of)

    def parts(self, size: int = 0, rank: int = 0, world: int = 1) -> "list[Batch]":
        """The rows [rank::world] of this batch, in parts of at most `size` (0: one part); none without rows.

        Of a batch that is a rank's rows already, `size` alone is heard.
        """
        rank, world = (0, 1) if self.taken != slice(None) else (rank, world)
        n, stride = len(self.labels), (size or len(self.labels)) * world
        cuts = [slice(start, min(start + stride, n), world) for start in range(rank, n, max(1, stride))]
        return [self._part(cut) for cut in cuts]

    def _part(self, cut: slice) -> "Batch":
        whole = self.whole or len(self.labels)
        if cut == slice(0, len(self.labels), 1):
            return self if self.whole else replace(self, whole=whole)
        known = None if self.known is None else self.known[cut]
        places = range(whole)[self.taken][cut]
        return replace(
            self, labels=self.labels[cut], images=self.images[cut], rows=self.rows[cut], known=known,
            whole=whole, taken=slice(places.start, places.stop, places.step),
        )  # fmt: skip


class Source(Protocol):
    """Batches to learn from, and scores to select by."""

    metric: str  # which of the scores selects

    def __len__(self) -> int: ...

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch: ...

    def scores(self, clip: Clip) -> Scores:
        """On ID validation: 'accuracy' in [0, 1], and `metric` where that is another."""
        ...


class ImageBatches:
    """Batches of images, the next ones decoded while a step is computed, and validation through the image tower."""

    def __init__(
        self, clip: Clip, data: TrainSet, workers: int = 0, gpu_decode: bool = False, ranks: Ranks = ALONE
    ) -> None:
        self.train, self.val = Loader(clip, data.train, workers, gpu_decode), Loader(clip, data.val, workers)
        self.ranks = ranks  # each of which validates some of the images
        self.labels, self.metric = torch.tensor(data.train.labels), data.metric
        self.begun: dict[int, Pending] = {}  # step -> its batch

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        pending = self.begun.pop(step, None) or self._begin(indices, step, recipe, run)
        self.begun = {later: batch for later, batch in self.begun.items() if later > step}
        for later in range(step + 1, min(step + 1 + AHEAD, recipe.total_steps(len(self)))):
            if later not in self.begun and self.train.native is None:
                self.begun[later] = self._begin(indices_at(later, len(self), recipe, run), later, recipe, run)
        own, of = _own(len(indices), run), recipe.total_steps(len(self))
        labels, images = to_device(self.labels[indices[own]], clip.device), self.train.normalised(pending)
        rows, whole = torch.tensor(indices[own], dtype=torch.long), len(indices) if run.world > 1 else 0
        if step + 1 in self.begun:
            self.train.send(self.begun[step + 1])
        return Batch(step, labels, images, clip.encode_image, rows, of, whole=whole, taken=own)

    def _begin(self, indices: list[int], step: int, recipe: Recipe, run: Run) -> Pending:
        return self.train.ahead(indices, recipe.augment, run.generator("augment", step), _own(len(indices), run))

    def scores(self, clip: Clip) -> Scores:
        return _scores(clip, self.val.split, _features(clip, self.val, self.ranks), self.metric)

    def rating(self, clip: Clip) -> float:
        """What checkpoints are selected by, on ID validation: more is better; -inf where a logit is not finite."""
        value = self.scores(clip).get(self.metric, math.nan)
        return -math.inf if math.isnan(value) else metrics.sign_of(self.metric) * value


class FeatureBatches:
    """Image features computed once with the evaluation transform: for stages that leave the image tower alone."""

    def __init__(self, clip: Clip, data: TrainSet, run: Run) -> None:
        with run.progress.bar("features", len(data.train) + len(data.val), "images") as advance:
            # those of train are read once, and are many: their pixels are not kept
            self.train = _features(clip, Loader(clip, data.train, run.workers), run.ranks, False, advance)
            self.val = _features(clip, Loader(clip, data.val, run.workers), run.ranks, advance=advance)
        self.labels, self.data, self.metric = torch.tensor(data.train.labels), data, data.metric

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        features = self.train[indices]
        labels, of = to_device(self.labels[indices], clip.device), recipe.total_steps(len(self))
        return Batch(step, labels, features[:, :0], lambda _: features, torch.tensor(indices), of, features)

    def scores(self, clip: Clip) -> Scores:
        return _scores(clip, self.data.val, self.val, self.metric)


class Batches:
    """Further batches to learn from, e.g. of ID validation: `Batches(clip, data.val, recipe, run.branch("val"))(step)`.

    Order and augmentation are drawn from the streams of `run`; a branch has its own.
    """

    def __init__(self, clip: Clip, split: Split, recipe: Recipe, run: Run) -> None:
        self.clip, self.recipe, self.run = clip, recipe, run
        self.loader, self.labels = Loader(clip, split, run.workers), torch.tensor(split.labels)

    def __call__(self, step: int) -> Batch:
        """The batch number `step`, from 0: any step may be asked for, any number of times."""
        indices = indices_at(step, len(self.labels), self.recipe, self.run)
        pixels = self.loader.augmented(indices, self.recipe.augment, self.run.generator("augment", step))
        of = self.recipe.total_steps(len(self.labels))
        labels, images = to_device(self.labels[indices], self.clip.device), self.loader.normalise(pixels)
        return Batch(step, labels, images, self.clip.encode_image, torch.tensor(indices), of)


def _own(n: int, run: Run) -> slice:
    """The rows of a batch of `n` that this rank decodes: all of them where the loss sees the whole batch."""
    return run.ranks.share(n) if run.world > 1 and run.separable else slice(None)


@torch.no_grad()
def _features(
    clip: Clip, loader: Loader, ranks: Ranks, keep: bool = True, advance: Advance = lambda n=1, note="": None
) -> Tensor:
    """Of all images of a split [N, D], in chunks; each rank computes every so many of them, and all have the result."""
    n, training = len(loader.split), clip.training
    chunks = [range(start, min(start + EVAL_CHUNK, n)) for start in range(0, n, EVAL_CHUNK)]
    clip.eval()
    rows: list[Tensor] = []
    with clip.exact():
        for _, pixels in loader.chunks(EVAL_CHUNK, keep, ranks.share(len(chunks))):
            rows.append(clip.encode_image(loader.normalise(pixels)))
            advance(len(pixels))
    clip.train(training)
    places = [[k for chunk in chunks[ranks.share(len(chunks), rank)] for k in chunk] for rank in range(ranks.world)]
    return ranks.gather(torch.cat(rows) if rows else None, places)


@torch.no_grad()
def _scores(clip: Clip, val: Split, features: Tensor, metric: str) -> Scores:
    """Of `features` [N, D] of the images of `val`."""
    found = {ACCURACY: accuracy(clip.classify, val.labels, features)}
    if metric != ACCURACY and not math.isnan(found[ACCURACY]):
        found[metric] = metrics.named(metric, of_logits(val, clip.classify(features)))
    return found


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], labels: Any, features: Tensor) -> float:
    """Share of rows of `features` [N, D] classified as `labels` [N]; NaN when a logit is not finite."""
    logits = classify(features)
    if not logits.isfinite().all():
        return math.nan
    return float((logits.argmax(dim=-1).cpu().numpy() == labels).mean())


def indices_at(step: int, n: int, recipe: Recipe, run: Run) -> list[int]:
    """Which of `n` examples make the batch of `step`.

    Counted in steps, permutations follow one another without a seam; counted in epochs, each ends with what is left.
    """
    if recipe.steps:
        places = range(step * recipe.batch, (step + 1) * recipe.batch)
        return [_epoch(run.seed, run.prefix, place // n, n, recipe.shuffle)[place % n] for place in places]
    per_epoch = math.ceil(n / recipe.batch)
    start = step % per_epoch * recipe.batch
    return _epoch(run.seed, run.prefix, step // per_epoch, n, recipe.shuffle)[start : start + recipe.batch]


@lru_cache(maxsize=4)
def _epoch(seed: int, prefix: str, epoch: int, n: int, shuffle: bool) -> list[int]:
    if not shuffle:
        return list(range(n))
    generator = Run(seed, torch.device("cpu"), prefix=prefix).generator("order", epoch)
    return torch.randperm(n, generator=generator).tolist()
