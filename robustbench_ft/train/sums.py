"""Sums of gradients over ranks, begun while the backward pass that makes them still runs.

Why not torch's DistributedDataParallel: it wraps one module and learns from that module's forward pass which gradients
to wait for. Methods here call either tower, parts of one, `functional_call` with weights of their own, or nothing at
all in some steps, and hang parameters beside the model. Hooks on the parameters hear of all of these.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from robustbench_ft.ranks import Ranks, buckets

Wait = Callable[[], object]


class GradientSums:
    """Replaces the gradients of `parameters` by their sums over ranks.

    Parameters are put into buckets, the last of the model first. All ranks sum all buckets in this order, so one
    is begun when its gradients and the buckets before it are there. A gradient that comes after all (a parameter that
    had none in the step before) has its bucket summed again. What no rank has a gradient for keeps none.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
        self.ranks, self.parameters = ranks, list(parameters)
        self.buckets = buckets(list(reversed(self.parameters))) if ranks.world > 1 else []
        self.home = {id(p): k for k, bucket in enumerate(self.buckets) for p in bucket}
        self.expected: set[int] | None = None  # parameters heard of in the last pass of the step before; None: all
        self.heard = set[int]()
        self.begun: list[tuple[Tensor, Wait]] = []
        self.late = set[int]()  # buckets
        self.armed = False
        self.handles = (
            [p.register_post_accumulate_grad_hook(self._hear) for p in self.parameters] if self.buckets else []
        )

    def __enter__(self) -> "GradientSums":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        for handle in self.handles:
            handle.remove()

    def arm(self) -> None:
        """The next backward pass is the last of this step: what it completes may be summed."""
        self.armed, self.heard = bool(self.buckets), set()

    def finish(self, terms: Sequence[Tensor]) -> None:
        """Sum what has not begun, and the loss terms, and wait for all of it."""
        if not self.buckets:
            self.ranks.sum([*terms, *(p.grad for p in self.parameters if p.grad is not None)])
            return
        if self.armed:
            self.expected = self.heard
        self.armed = False
        while len(self.begun) < len(self.buckets):
            self._begin()
        values = torch.stack([term.detach() for term in terms])
        waiting = self.ranks.begin_sum(values)
        flags = [p.grad is not None for p in self.parameters] + [k in self.late for k in range(len(self.buckets))]
        union = self.ranks.union(flags)
        exists = {id(p) for p, flag in zip(self.parameters, union, strict=False) if flag}
        late = [k for k in range(len(self.buckets)) if union[len(self.parameters) + k]]
        for k in late:  # after those begun too early, in the same order everywhere
            self.begun[k][1]()
            self.begun[k] = self._of(k)
        waiting()
        for term, value in zip(terms, values, strict=True):
            term.detach().copy_(value)
        for bucket, (flat, wait) in zip(self.buckets, self.begun, strict=True):
            wait()
            for p, value in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = value.view_as(p) if id(p) in exists else None
        self.begun, self.late = [], set()

    def _hear(self, parameter: Tensor) -> None:
        if not self.armed:
            return
        self.heard.add(id(parameter))
        home = self.home[id(parameter)]
        if home < len(self.begun):
            self.late.add(home)
        while len(self.begun) < len(self.buckets) and self._is_there(self.buckets[len(self.begun)]):
            self._begin()

    def _is_there(self, bucket: Sequence[Tensor]) -> bool:
        return all(id(p) in self.heard for p in bucket if self.expected is None or id(p) in self.expected)

    def _begin(self) -> None:
        self.begun.append(self._of(len(self.begun)))

    @torch.no_grad()
    def _of(self, k: int) -> tuple[Tensor, Wait]:
        parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self.buckets[k]]
        flat = torch.cat(parts)
        return flat, self.ranks.begin_sum(flat)
