"""Forward and backward passes of one batch: all at once, or in parts, on one rank or on several.

A loss that is a mean over examples is cut: each part has its own loss, which counts by its share of the batch. Any
other sees the features of the whole batch, and only encoding is cut: by gradient caching (Gao et al., RepL4NLP 2021,
arXiv 2101.06983). Parts are encoded without a graph, the loss gives a gradient for each feature, and parts are encoded
again with a graph to take it further back. The gradients are those of the whole batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from robustbench_ft.errors import RbftError
from robustbench_ft.memory import Draws, free, ran_out, same_draws
from robustbench_ft.method import Run

from .batches import Batch

LossTerms = dict[str, Tensor]  # named parts of a loss, each a scalar; their sum is minimised
Objective = Callable[[Batch], LossTerms]
Act = Callable[[Tensor], Tensor]


class ShortElsewhereError(RuntimeError):
    """Memory ran out on another rank."""


def nothing() -> None:
    """Do nothing."""


def unscaled(loss: Tensor) -> Tensor:
    """Return the loss as it is."""
    return loss


def backward(
    objective: Objective,
    batch: Batch,
    size: int,
    run: Run,
    clear: Callable[[], None] = nothing,
    last: Callable[[], None] = nothing,
    scaled: Act = unscaled,
) -> LossTerms:
    """Add the gradients of this rank's share of `batch`, in parts of at most `size` (0: one part); returns the terms.

    The sums over ranks of gradients and terms are those of the whole batch. `run.micro_batch` wins over `size`, and
    halves where memory runs out, on all ranks together; the pass is then made again. `clear` drops the gradients of the
    step before. It is called once, after the first forward pass: called before it, a CPU step of the embedded model
    took 5 % longer. `last` is called before the last backward pass. `scaled` makes of a loss what is differentiated.
    """
    if not run.micro_batch.auto:
        return _once(objective, batch, run.micro_batch.of(size), run, clear, last, scaled)
    draws = Draws.of(batch.labels.device)
    while (found := _unless_short(objective, batch, run.micro_batch.of(size), run, clear, scaled)) is None:
        clear()
        free(batch.labels.device)
        share = -(-(batch.whole or len(batch.labels)) // run.world)
        run.micro_batch.halve(min(run.micro_batch.of(size) or share, share))
        run.progress.say(f"  memory ran out at step {batch.step}: {run.micro_batch.size} examples at once from now on")
        draws.restore()
    return found


def _unless_short(
    objective: Objective, batch: Batch, size: int, run: Run, clear: Callable[[], None], scaled: Act
) -> LossTerms | None:
    """None on all ranks where memory ran out on one. Gradients are summed after that is known, so not meanwhile."""
    found: LossTerms | None = None
    try:
        found = _once(objective, batch, size, run, clear, nothing, scaled)
    except ShortElsewhereError:
        return None
    except RuntimeError as error:
        if not ran_out(error):
            raise
    return None if run.ranks.any(found is None) else found


def _once(
    objective: Objective, batch: Batch, size: int, run: Run, clear: Callable[[], None], last: Callable[[], None],
    scaled: Act,
) -> LossTerms:  # fmt: skip
    n = len(batch.labels)
    if run.separable:
        return _in_parts(objective, batch, size, run, clear, last, scaled)
    if run.world == 1 and not 0 < size < n:
        return _in_parts(objective, batch, 0, run, clear, last, scaled)
    return _cached(objective, batch, size, run, clear, last, scaled)


def _in_parts(
    objective: Objective, batch: Batch, size: int, run: Run, clear: Callable[[], None], last: Callable[[], None],
    scaled: Act,
) -> LossTerms:  # fmt: skip
    """Passes of a loss that is a mean over examples."""
    found: LossTerms = {}
    parts = batch.parts(size, run.rank, run.world)
    for k, part in enumerate(parts):
        terms = _checked(objective(part))
        if not found:
            clear()
        loss = torch.stack(list(terms.values())).sum()
        share = len(part.labels) / part.whole
        if k == len(parts) - 1:
            last()
        scaled(loss if share == 1 else loss * share).backward()
        for name, term in terms.items():
            value = term.detach() * share
            found[name] = found[name] + value if name in found else value
    if not parts:  # a rank without rows adds nothing
        clear()
    n = batch.whole or len(batch.labels)
    if n < run.world:  # known to all: a rank without rows must hear which terms there are
        names = run.ranks.broadcast(list(found))
        found = {name: found.get(name, torch.zeros((), device=batch.labels.device)) for name in names}
    return found


def _cached(
    objective: Objective, batch: Batch, size: int, run: Run, clear: Callable[[], None], last: Callable[[], None],
    scaled: Act,
) -> LossTerms:  # fmt: skip
    """Passes of a loss that sees the whole batch; what it does besides encoding is done on every rank, counted once."""
    cache = GradientCache(size, run)
    terms = _checked(objective(replace(batch, apart=cache)))
    clear()
    loss = torch.stack(list(terms.values())).sum()
    leaves = [call.features for call in cache.calls]
    if run.ranks.first:
        if not leaves:
            last()
        scaled(loss).backward()
    else:
        found = torch.autograd.grad(scaled(loss), leaves, allow_unused=True) if leaves else ()
        for leaf, gradient in zip(leaves, found, strict=True):
            leaf.grad = gradient
    cache.backward(last)
    terms = {name: term.detach().clone() for name, term in terms.items()}
    return terms if run.ranks.first else {name: torch.zeros_like(term) for name, term in terms.items()}


@dataclass
class Encoded:
    """One call of `Batch.by_rows`."""

    act: Act
    parts: list[Tensor]  # inputs of this rank
    cuts: list[slice]  # where they are in the whole
    draws: list[Draws]  # the state of torch's generators before each
    features: Tensor  # [B, ...], a leaf whose gradient is what the parts are taken back with


@dataclass
class GradientCache:
    """What `Batch.by_rows` does where a batch is encoded in parts of `size` (0: one part), a share on each rank."""

    size: int
    run: Run
    calls: list[Encoded] = field(default_factory=list[Encoded])

    def __call__(self, act: Act, inputs: Tensor) -> Tensor:
        if inputs.requires_grad:
            raise RbftError("by_rows takes data that has no gradient, e.g. images or tokens; put the rest into `act`")
        n, ranks = len(inputs), self.run.ranks
        own, stride = ranks.share(n), (self.size or n) * ranks.world
        cuts = [slice(k, min(k + stride, n), ranks.world) for k in range(own.start, n, max(1, stride))]
        parts, draws, rows = [inputs[cut] for cut in cuts], list[Draws](), list[Tensor]()
        with torch.no_grad():
            for part in parts:
                draws.append(Draws.of(self.run.device))
                rows.append(act(part))
        if self.run.micro_batch.auto and ranks.any(False):  # a rank that ran out has said so in `_unless_short`
            raise ShortElsewhereError
        places = [range(n)[ranks.share(n, rank)] for rank in range(ranks.world)]
        features = ranks.gather(torch.cat(rows) if rows else None, places)
        if torch.is_grad_enabled() and features.is_floating_point():
            features = features.detach().requires_grad_()
            self.calls.append(Encoded(act, parts, cuts, draws, features))
        return features

    def backward(self, last: Callable[[], None]) -> None:
        """Encode again, part by part, and take the gradients of the features back through it."""
        todo = [
            (call, part, cut, draws)
            for call in self.calls
            if call.features.grad is not None
            for part, cut, draws in zip(call.parts, call.cuts, call.draws, strict=True)
        ]
        for k, (call, part, cut, draws) in enumerate(todo):
            assert call.features.grad is not None
            with same_draws(self.run.device, draws):
                again = call.act(part)
            if k == len(todo) - 1:
                last()
            if again.requires_grad:
                again.backward(call.features.grad[cut])


def _checked(terms: Any) -> LossTerms:
    """Refuse what is no dictionary of scalars, before torch fails on it in words of its own."""
    ok = isinstance(terms, Mapping) and terms and all(isinstance(t, Tensor) and t.dim() == 0 for t in terms.values())  # pyright: ignore
    if not ok:
        what = f"{type(terms).__name__}" if not isinstance(terms, Mapping) else "dict with something else"
        raise RbftError(f"the objective returned a {what}; return named scalar tensors, e.g. {{'nll': loss}}")
    return terms  # pyright: ignore
