"""TPGM: project every tensor into a ball around theta0, of a radius learnt on ID validation (Tian et al., 2023)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from robustbench_ft import Batch, Candidates, Clip, Run, TrainSet
from robustbench_ft.train import Batches, InterruptedRun, LossTerms, backward, train

from .ft import FT

STAGE = "radii"
HEAD = ("head", "bias")
Norm = Literal["l2", "mars"]
State = dict[str, Tensor]
TINY = 1e-8  # the smallest radius, and what is added to norms


@dataclass(frozen=True)
class TPGM(FT):
    """Radii are learnt after fine-tuning ('after', the authors' way for CLIP's ViT), or with every step ('during').

    'after' is FT, then `iterations` steps of Adam on the radii: a WiSE-FT with one learnt alpha for each tensor.
    'during' takes one step on the radii and projects after every update; the authors do so on DomainNet with a ResNet,
    with norm 'mars' and without the head. Radii are learnt on batches of ID validation, without augmentation: with
    `select=best` the same images also select the checkpoint. A run stopped among `iterations` begins these again.
    """

    averages: ClassVar[bool] = False  # what it gives is no point of the path
    equation: ClassVar[str] = (
        "theta = theta0 + min(1, gamma / (|d| + 1e-8)) d, d = theta_FT - theta0 of each tensor; "
        "gamma = argmin CE on ID validation"
    )
    source: ClassVar[str] = "Tian et al., CVPR 2023; PotatoTian/TPGM@8d18db0, ImageNet_ViT_Exp/utils/tpgm.py"
    oracle: ClassVar[str] = "tpgm.npz: TPGM@8d18db0"
    traps: ClassVar[tuple[str, ...]] = (
        "the released ViT script learns the radii on the ImageNet validation images whose accuracy it reports",
        "a radius at its tensor's norm, of 0.4 or more, gets no gradient in float32: only Adam's momentum moves it",
        "radii move by about `rate` a step in the units of the weights, whatever the size of a tensor's move",
        "the released code fails on a tensor that has not moved, as all do after a first step of rate 0",
    )
    reduces_to: ClassVar[Mapping[str, tuple[str, Any, str]]] = {"ft": ("iterations", 1, "ft")}

    when: Literal["after", "during"] = "after"  # radii are learnt after fine-tuning, or with every step
    norm: Norm = "l2"  # one norm for each tensor; 'mars': sums of absolute values, one for each row
    rate: float = 1e-2  # of Adam on gamma
    iterations: int = 200  # of 'after'; never more than fine-tuning took
    hold_head: bool = True  # project the head as well, as the authors do from a zero-shot head

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Clip | Candidates:
        self.start(clip, data)
        moving = {name: p.detach().clone() for name, p in clip.named_parameters() if p.requires_grad}
        held = {name: tensor for name, tensor in moving.items() if self.hold_head or name not in HEAD}
        radii = Radii(held, self.norm, self.rate)
        loss = self.objective(clip, data, run)
        if self.when == "during":
            return train(clip, data, loss, self.resolved, run, companions=[Projection(clip, data, radii, self, run)])
        tuned = train(clip, data, loss, self.resolved, run).snapshot()
        steps = min(self.iterations, self.resolved.total_steps(len(data.train)))
        self.learn(Projection(clip, data, radii, self, run), steps, run)
        projected = clip.snapshot()
        return Candidates(clip, {"ft": lambda: tuned, "projected": lambda: projected}, default="projected")

    def learn(self, projection: "Projection", steps: int, run: Run) -> None:
        """So many steps of Adam on the radii, and the projection."""
        about, began = {"stage": run.prefix + STAGE}, time.monotonic()
        run.log({"event": "start", **about, "step": 0, "of": steps, "parameters": len(projection.radii.start)})
        with run.progress.bar(about["stage"], steps, "steps") as advance:
            for step in range(steps):
                projection.improve(step)
                advance(1)
                if run.stopped():
                    raise InterruptedRun(f"stopped at step {step + 1} of {steps} on the radii")
        projection.apply()
        run.log({
            "event": "end", **about, "step": steps, "seconds": time.monotonic() - began, "images": projection.images,
            "selected_step": steps, "val_accuracy": -1.0, "diverged": False,
        })  # fmt: skip

    def problems(self) -> list[str]:
        rules = {"rate": self.rate > 0, "iterations": self.iterations >= 1}
        return [f"{name}={getattr(self, name)} is too small" for name, ok in rules.items() if not ok]


class Radii:
    """One radius for each tensor of `start`, and the Adam that learns them."""

    def __init__(self, start: State, norm: Norm, rate: float) -> None:
        self.start = start
        self.norm: Norm = norm
        device = next(iter(start.values())).device
        self.values = torch.zeros(len(start), device=device, requires_grad=True)  # gamma, in the order of `start`
        self.adam = torch.optim.Adam([self.values], lr=rate)
        self.begun = False

    def project(self, now: Mapping[str, Tensor]) -> State:
        """theta0 + min(1, gamma / |d|) d of each tensor, differentiable by gamma. `now` is left alone.

        A radius is first cut to between 1e-8 and the largest norm of its tensor. Before its first use it is half of
        the smallest.
        """
        with torch.no_grad():
            moved = [now[name].detach() - before for name, before in self.start.items()]
            norms = [norm_of(tensor, self.norm) for tensor in moved]
            begin = self.values if self.begun else torch.stack([some.min() for some in norms]) / 2
            self.values.copy_(begin.minimum(torch.stack([some.max() for some in norms])).clamp_min(TINY))
        self.begun = True
        # hardtanh, because its gradient is 0 where the ratio is 1, as in the released code; that of clamp is not
        ratios = [F.hardtanh(radius / (some + TINY), 0.0, 1.0) for radius, some in zip(self.values, norms, strict=True)]
        named = zip(self.start.items(), ratios, moved, strict=True)
        return {name: before + ratio * tensor for (name, before), ratio, tensor in named}

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values.detach().clone(), "adam": self.adam.state_dict(), "begun": self.begun}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.values.copy_(state["values"])
        self.adam.load_state_dict(state["adam"])
        self.begun = state["begun"]


def norm_of(tensor: Tensor, norm: Norm) -> Tensor:
    """The L2 norm, []; or for 'mars' the sum of absolute values of each row, [N, 1, ...], or of a vector, []."""
    if norm == "l2":
        return tensor.norm()
    return tensor.abs().sum(dim=tuple(range(1, tensor.dim())), keepdim=True) if tensor.dim() > 1 else tensor.abs().sum()


class Projection:
    """Learns radii on batches of ID validation and projects the model; as a companion, after every update."""

    def __init__(self, clip: Clip, data: TrainSet, radii: Radii, method: TPGM, run: Run) -> None:
        self.clip, self.radii, self.run, self.images = clip, radii, run, 0
        self.micro_batch = method.resolved.micro_batch
        recipe = replace(method.resolved, augment="none", steps=method.iterations, epochs=0)
        self.batches = Batches(clip, data.val, recipe, run.branch(STAGE))

    def after_step(self, step: int, of: int) -> None:
        self.improve(step)
        self.apply()

    def improve(self, step: int) -> None:
        """One step of Adam on the radii, by cross-entropy of the projected model in its evaluation mode."""
        batch, training, radii = self.batches(step), self.clip.training, self.radii
        now = {name: p.detach() for name, p in self.clip.named_parameters() if p.requires_grad}

        def loss(part: Batch) -> LossTerms:
            logits = functional_call(self.clip, now | radii.project(now), (part.images,))
            return {"nll": F.cross_entropy(logits, part.labels)}

        self.clip.eval()
        radii.values.grad = torch.zeros_like(radii.values)
        backward(loss, batch, self.micro_batch, self.run)
        self.run.sum_over_ranks([radii.values.grad])
        radii.adam.step()
        self.clip.train(training)
        self.images += len(batch.labels)

    def apply(self) -> None:
        """Put the projected weights in place."""
        with torch.no_grad():
            self.clip.restore(self.radii.project(dict(self.clip.named_parameters())))

    def state_dict(self) -> dict[str, Any]:
        return self.radii.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.radii.load_state_dict(state)
