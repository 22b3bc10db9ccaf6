"""Evaluation: every candidate of a run on one split, in a single pass over its pixels."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from .clip import Clip
from .data import TOP_K, Floats, Ints, LabelSpace, Predictions, Split
from .errors import RbftError
from .method import Candidates, FeatureScorer, Scorer, TransductiveScorer, candidates_of
from .pixels.loader import Loader
from .progress import Advance
from .ranks import Ranks

ALONE = Ranks()
CHUNK = 2048  # images decoded and held at once: candidates take turns on it
BATCH = 256  # images in one forward pass
FEW = 24  # images in one when a sample is predicted again
SAME = 1e-2  # tolerance of log-probabilities, relative and in nats
Columns = dict[str, Tensor]
Members = Sequence[Sequence[int]] | None  # of the classes of a label space; None: the suite's own classes
Parts = dict[int, dict[str, dict[str, Columns]]]
Seen = dict[Clip, Tensor]  # tower -> its features of one chunk


def predict(
    model: Clip | Candidates,
    split: Split,
    advance: Advance = lambda n=1, note="": None,
    check: Callable[[], None] = lambda: None,
    workers: int = 0,
    ranks: Ranks = ALONE,
    keep: bool = True,
) -> dict[str, Predictions]:
    """Predictions of each candidate (a single model is called 'final'), in split order, in all label spaces.

    `check` is called before each piece of work and may raise, on all ranks together; `advance` hears of every image and
    candidate done; `workers` threads decode (0: as many as there are cores); with `keep`, pixels are kept in the cache.
    Each rank predicts some of the chunks, of
    the batches that one rank would make, and the first has the result; the others get nothing. Where a candidate looks
    at all images before it answers, each rank predicts them all.
    """
    found = candidates_of(model)
    loader = Loader(found.clip, split, workers)
    found.clip.eval()
    spaces = {"": LabelSpace(split.members, split.labels), **split.also}
    for name in found.members:
        if isinstance(scorer := found.use(name), TransductiveScorer):
            _show(scorer, found.clip, loader, check, keep)
            ranks = ALONE
    size = _chunk(len(split), ranks.world)
    starts = range(0, len(split), size)
    chunks = loader.chunks(size, keep, only=ranks.share(len(starts)))
    parts: Parts = {}  # start of a chunk -> candidate -> label space -> columns
    for turn in range(0, len(starts), ranks.world):  # all ranks take as many turns, some without a chunk at the end
        if ranks.world > 1:
            check()
        heard = sum(min(size, len(split) - start) for start in starts[turn : turn + ranks.world])
        for start, pixels in islice(chunks, 1):
            parts[start], seen = {}, Seen()
            for name in found.members:
                if ranks.world == 1:
                    check()
                answer = _answer(found.use(name), found.clip, loader, pixels, seen)
                parts[start][name] = {
                    key: _scored(answer(space.members), space.labels[start : start + len(pixels)])
                    for key, space in spaces.items()
                }
                advance(heard, split.name)
    assert next(chunks, None) is None  # the end keeps the pixels that were read
    whole = {start: part for some in ranks.collect(parts) for start, part in some.items()}
    if not whole:
        return {}
    return {name: _whole(split, spaces, [whole[start][name] for start in starts]) for name in found.members}


def _chunk(n: int, world: int) -> int:
    """Images of one chunk: `CHUNK` at most, and as many for each of `world` ranks, in whole batches."""
    if world == 1:
        return CHUNK
    turns = math.ceil(n / (world * CHUNK))
    return BATCH * math.ceil(n / (world * turns * BATCH))


def _scored(logits: Tensor, labels: Ints) -> Columns:
    """Columns of the rows of logits [n, K] that have a label."""
    found = torch.tensor(labels).to(logits.device)
    return _score(logits[found >= 0], found[found >= 0])


def of_logits(split: Split, logits: Tensor) -> Predictions:
    """Predictions in the split's own classes, from logits [N, K] of the suite's."""
    labels = torch.tensor(split.labels).to(logits.device)  # a copy: the array is read-only
    return _join(split, split.labels, [_score(reduce(logits, split.members), labels)], {})


def depends_on_others(model: Clip | Candidates, split: Split, before: Predictions, rows: Sequence[int]) -> bool:
    """Whether the default candidate predicts other things when `rows` are shown alone, in this order, in small batches.

    `before` are its predictions on the whole split. Log-probabilities are compared, of the true and of the top class: a
    relative difference of 1 % and .01 nats is what other batch sizes may do to rounding. Examples that the split's
    label space leaves out are not compared.
    """
    found = candidates_of(model)
    default, clip = found.use(found.default), found.clip
    if isinstance(default, TransductiveScorer):
        return True
    clip.eval()
    place = {example: k for k, example in enumerate(before.ids)}
    rows = [row for row in rows if split.ids[row] in place]
    loader = Loader(clip, split)
    parts = [rows[k : k + FEW] for k in range(0, len(rows), FEW)]
    logits = torch.cat([_answer(default, clip, loader, loader.read(part), {})(split.members) for part in parts])
    now = _score(logits, torch.from_numpy(split.labels[rows]).to(logits.device))
    then = [place[split.ids[row]] for row in rows]
    pairs = (
        (now["log_prob"].numpy(), before.log_prob[then]),
        (now["top_probs"][:, 0].log().numpy(), np.log(before.confidence[then])),
    )
    return not all(np.allclose(a, b, rtol=SAME, atol=SAME) for a, b in pairs)


def reduce(logits: Tensor, members: Members) -> Tensor:
    """[n, K] -> [n, K']: the logit of each class of a label space, the largest of its members'."""
    if members is None:
        return logits
    if all(len(some) == 1 for some in members):
        return logits[:, [some[0] for some in members]]
    return torch.stack([logits[:, list(some)].amax(dim=1) for some in members], dim=1)


@torch.inference_mode()
def _answer(
    model: Scorer, clip: Clip, loader: Loader, pixels: Tensor, seen: Seen
) -> Callable[[Members], Tensor]:  # fmt: skip
    """Members of a label space -> logits [n, K'] of one chunk, in float32 whatever training computed in.

    `seen` keeps the features of this chunk for the next candidate.
    """
    if not isinstance(model, FeatureScorer):
        return partial(reduce, _of_chunk(model.logits, clip, loader, pixels))
    for tower in model.towers:
        if tower not in seen:
            seen[tower] = _of_chunk(tower.encode_image, tower, loader, pixels)
    rows = list(zip(*(seen[tower].split(BATCH) for tower in model.towers), strict=True))

    @torch.inference_mode()
    def answer(members: Members) -> Tensor:
        return torch.cat([model.answer(partial(reduce, members=members), *features).float() for features in rows])

    return answer


def _of_chunk(act: Callable[[Tensor], Tensor], clip: Clip, loader: Loader, pixels: Tensor) -> Tensor:
    with clip.exact():
        return torch.cat([act(loader.normalise(batch)).float() for batch in pixels.split(BATCH)])


@torch.inference_mode()
def _show(model: TransductiveScorer, clip: Clip, loader: Loader, check: Callable[[], None], keep: bool) -> None:
    """Let a scorer look at all images of a split, in the batches that it will be asked about."""

    def images() -> Iterator[Tensor]:
        for _, pixels in loader.chunks(CHUNK, keep):
            check()
            yield from map(loader.normalise, pixels.split(BATCH))

    with clip.exact():
        model.prepare(images(), partial(reduce, members=loader.split.members))


@torch.inference_mode()
def _score(logits: Tensor, labels: Tensor) -> Columns:
    """The stored columns for one chunk, on the CPU, from logits [n, K] and labels [n]."""
    log_probs = logits.log_softmax(dim=-1)
    probs = log_probs.exp()
    order = log_probs.sort(dim=-1, descending=True, stable=True).indices  # of equals the first, as argmax takes it
    top = order[:, : min(TOP_K, probs.shape[1])]
    columns = {
        "log_prob": log_probs.gather(1, labels[:, None])[:, 0],
        "sum_sq": probs.square().sum(dim=-1),
        "top_classes": top,
        "top_probs": probs.gather(1, top),
    }
    return {name: column.cpu() for name, column in columns.items()}


def _whole(split: Split, spaces: Mapping[str, LabelSpace], chunks: Sequence[Mapping[str, Columns]]) -> Predictions:
    """One table in the split's own classes, holding those in other label spaces."""
    also = {key: _join(split, spaces[key].labels, [chunk[key] for chunk in chunks], {}) for key in spaces if key}
    return _join(split, split.labels, [chunk[""] for chunk in chunks], also)


def _join(split: Split, labels: Ints, chunks: list[Columns], also: Mapping[str, Predictions]) -> Predictions:
    kept = np.flatnonzero(labels >= 0)
    if not len(kept):
        raise RbftError(f"split '{split.name}' has no example in one of its label spaces; check its suite")
    whole = {name: torch.cat([chunk[name] for chunk in chunks]).numpy() for name in chunks[0]}
    if not np.isfinite(whole["log_prob"]).all():
        raise RbftError(f"the model's outputs on split '{split.name}' are not finite; try a smaller lr or fp32")
    classes: Ints = whole["top_classes"].astype(np.int64)
    probs: Floats = whole["top_probs"]
    return Predictions(
        ids=split.ids if len(kept) == len(labels) else tuple(split.ids[k] for k in kept), label=labels[kept],
        prediction=classes[:, 0], confidence=probs[:, 0], log_prob=whole["log_prob"], sum_sq=whole["sum_sq"],
        top_classes=classes, top_probs=probs, groups={name: values[kept] for name, values in split.groups.items()},
        also=also,
    )  # fmt: skip
