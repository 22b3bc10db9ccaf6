"""What `checks` fits, and what it sees of it: tensors, the gradients of updates, draws from torch's own generator.

Gradients come by `Ranks.sum`, which every update calls. Draws show in the weights when the state that `train`
seeds before every step is another one.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from . import clip as clips
from . import model_ref
from .clip import Clip, State
from .method import Candidates, Method, TrainSet
from .ranks import Ranks

TOLERANCE = 1e-4  # of float32 sums in another order, relative to the largest entry of a tensor
SMALL = 1e-3  # a tensor whose entries are this small beside those of others is held to their scale: it may be all noise


class Gradients(Ranks):
    """A single rank that keeps what it is given to sum: the loss terms, and the gradients, of every update.

    Given those of an earlier fit, it puts them in the place of this fit's. So both take the same steps, and every
    update of the two is computed at the same weights.
    """

    def __init__(self, earlier: "Gradients | None" = None) -> None:
        self.earlier = earlier
        self.updates: list[list[Tensor]] = []

    def sum(self, tensors: Sequence[Tensor]) -> None:
        self.updates.append([tensor.detach().clone() for tensor in tensors])
        if self.earlier and len(self.updates) <= len(self.earlier.updates):
            for tensor, before in zip(tensors, self.earlier.updates[len(self.updates) - 1], strict=False):
                if tensor.shape == before.shape:
                    tensor.detach().copy_(before)

    def differ(self, other: "Gradients") -> str:
        """The first difference that is no rounding, in a few words; empty when there is none."""
        if len(self.updates) != len(other.updates):
            return f"{len(self.updates)} sums over ranks against {len(other.updates)}"
        for k, (ours, theirs) in enumerate(zip(self.updates, other.updates, strict=True), start=1):
            if [t.shape for t in ours] != [t.shape for t in theirs]:
                return f"other tensors in update {k}"
            for what, scalar in (("the loss", True), ("the gradient", False)):
                pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if (a.dim() == 0) == scalar]
                if far := _furthest(pairs):
                    return f"{what} of update {k} is {far:.1%} off"
        return ""


def _furthest(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The largest difference, relative to the tensor that it is in; 0 where rounding explains them all."""
    scales = [float(a.abs().max()) for a, _ in pairs]
    least = SMALL * max(scales, default=0.0)
    off = [float((a - b).abs().max()) / (max(scale, least) or 1.0) for (a, b), scale in zip(pairs, scales, strict=True)]
    return max((far for far in off if far > TOLERANCE), default=0.0)


@contextmanager
def without_dropout() -> Generator[None, None, None]:
    """While this is open, dropout does nothing: its draws follow the parts of a batch, as the contract allows."""

    def keep(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return input

    with mock.patch.object(nn.functional, "dropout", keep):
        yield


@contextmanager
def other_global_state() -> Generator[None, None, None]:
    """While this is open, `torch.manual_seed` gives torch's own generator another state than was asked for.

    A module's forward pass finds the state that was asked for: what a model drops is the model's affair.
    """
    seed, inside = torch.manual_seed, 0
    asked, other = torch.get_rng_state(), torch.get_rng_state()

    def salted(value: int) -> torch.Generator:
        nonlocal asked
        seed(value)
        asked = torch.get_rng_state()
        return seed(value ^ 1)  # of a seed, the CPU's generator takes the low 32 bits

    def enter(*_: Any) -> None:
        nonlocal inside, other
        if not inside:
            other = torch.get_rng_state()
            torch.set_rng_state(asked)
        inside += 1

    def leave(*_: Any) -> None:
        nonlocal inside, asked
        inside -= 1
        if not inside:
            asked = torch.get_rng_state()
            torch.set_rng_state(other)

    hooks = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        with mock.patch.object(torch, "manual_seed", salted):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def begin(method: Method, model: str, data: TrainSet | Callable[[int], TrainSet]) -> tuple[Clip, TrainSet]:
    """The model and the data of a fit; `data` may be made for the model's image size.

    A method that cannot be used with the embedded model, e.g. as it needs a ViT, gets one with random weights. Raises
    `AssertionError` where it cannot be used with that either.
    """
    clip = clips.load(model_ref.resolve(model, None))
    given = data(clip.image_size) if callable(data) else data
    if model == model_ref.EMBEDDED and method.skip(clip, given):
        clip = clips.random_vit()
        if reason := method.skip(clip, given):
            raise AssertionError(f"`skip` refuses the model that it is checked with: {reason}")
    return clip, given


def noise(size: int) -> Tensor:
    """Eight images, always the same."""
    return torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))


def tensors(found: Candidates) -> State:
    """'candidate:tensor' -> values; 'candidate:answers' of one that answers without weights."""
    state: State = {}
    for who in found.members:
        model = found.use(who)
        if isinstance(model, Clip):
            state |= {f"{who}:{name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}
        else:
            with torch.no_grad():
                state[f"{who}:answers"] = model.logits(noise(found.clip.image_size))
    return state
