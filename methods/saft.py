"""SAFT: fine-tune only the weights with the largest gradients at the start (Nguyen et al., ECCV 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.train import ImageBatches, LossTerms, backward, indices_at, train

from .ft import FT

State = dict[str, Tensor]


@dataclass(frozen=True)
class SAFT(FT):
    """Trains the `fraction` of all weights whose mean gradient over ID train at theta0 is largest; the rest stay.

    The weights are those that FT moves: image tower and head. The paper's are both towers of CLIP, whose text tower
    makes the head; that a head of its own is ranked with the tower is ours. Gradients are of the loss with the
    evaluation transform, over all of ID train, and one threshold holds for all tensors. The rest is held where it was
    after every update, so weight decay does not move it either.

    A run that was stopped computes the gradients again.
    """

    equation: ClassVar[str] = "FT of the weights with the largest |mean_x grad CE(theta0; x)|, a share fraction"
    source: ClassVar[str] = (
        "Nguyen et al., ECCV 2024, arXiv 2407.03036; ayush939/FineTuneCLIP@45d77ac, saft.py (unofficial)"
    )
    oracle: ClassVar[str] = (
        "none: no code of the authors is known. The selection is that of an unofficial file, FineTuneCLIP@45d77ac"
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"final": ("fraction", 1.0, "ft")}

    fraction: float = 1e-3  # of all weights that FT moves

    def tune(self, clip: Clip, data: TrainSet, run: Run) -> Clip:
        self.start(clip, data)
        sparse = Sparse(clip, top(self.gradients(clip, data, run), self.fraction))
        handles = [clip.get_parameter(name).register_hook(partial(sparse.masked, name)) for name in sparse.chosen]
        try:
            return train(clip, data, self.objective(clip, data, run), self.resolved, run, companions=[sparse])
        finally:
            for handle in handles:
                handle.remove()

    def gradients(self, clip: Clip, data: TrainSet, run: Run) -> State:
        """Name -> |mean gradient over ID train|, at the weights as they are."""
        source, objective = ImageBatches(clip, data, run.workers), self.objective(clip, data, run)
        recipe = replace(self.resolved, steps=0, epochs=1, shuffle=False, augment="none")
        n, size = len(source), recipe.batch

        def share(batch: Batch) -> LossTerms:
            whole = min(size, n - batch.step * size)  # images in this batch; the last one is smaller
            return {name: term * (whole / n) for name, term in objective(batch).items()}

        with clip.exact(), run.progress.bar("gradients", n, "images") as advance:
            for step in range(recipe.total_steps(n)):
                batch = source.batch(clip, indices_at(step, n, recipe, run), step, recipe, run)
                backward(share, batch, recipe.micro_batch, run)
                advance(len(batch.labels))
        found = {name: p.grad for name, p in clip.named_parameters() if p.grad is not None}
        run.sum_over_ranks(list(found.values()))
        clip.zero_grad()
        return {name: gradient.abs() for name, gradient in found.items()}

    def problems(self) -> list[str]:
        return [] if 0 < self.fraction <= 1 else [f"fraction={self.fraction} must be above 0, and at most 1"]


def top(sizes: State, fraction: float) -> State:
    """Name -> what to train, bool: the int(fraction * all) largest of all tensors together, at least one, and ties."""
    everything = torch.cat([size.flatten() for size in sizes.values()])
    chosen = max(1, int(fraction * len(everything)))
    threshold = everything.topk(chosen).values[-1]
    return {name: size >= threshold for name, size in sizes.items()}


class Sparse:
    """A companion that lets the chosen weights move, and puts the others back after every update."""

    def __init__(self, clip: Clip, chosen: State) -> None:
        self.clip, self.chosen = clip, chosen
        self.start = {name: clip.get_parameter(name).detach().clone() for name in chosen}

    def masked(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of one parameter, 0 where it does not move."""
        return gradient * self.chosen[name]

    @torch.no_grad()
    def after_step(self, step: int, of: int) -> None:
        for name, chosen in self.chosen.items():
            parameter = self.clip.get_parameter(name)
            parameter.copy_(torch.where(chosen, parameter, self.start[name]))  # weight decay had moved them

    def state_dict(self) -> State:
        return dict(self.chosen)

    def load_state_dict(self, state: State, /) -> None:
        self.chosen.update(state)
