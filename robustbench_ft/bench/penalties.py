"""What 16 bits do to the penalties of methods: `python -m robustbench_ft.bench.penalties`.

A penalty is a difference of two towers' nearly equal answers. The same weights, images and draws are asked twice: in
float32, and with the image tower in a short format. Compared are the value of each loss term and its gradient in the
image tower. 'blocks' is what training does (`Clip.precision`); 'everywhere' is plain autocast around the objective.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import click
import torch
from torch import Tensor

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry, suite_ref
from robustbench_ft.clip import Clip, State
from robustbench_ft.clip.autocast import SHORT
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.progress import Progress, choose
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import Suite
from robustbench_ft.train import Batch, ImageBatches, LossTerms, Objective, indices_at

METHODS = ("lipsum", "kd", "car-ft", "lwf", "feature-distill", "ldifs", "miro", "carot", "flyp")
WAYS = ("blocks", "everywhere")
NOTHING = 1e-3  # of the gradient of a method's first term: what is less does not count as a gradient
FIRST = 1  # the step whose batch is looked at: some objectives do less at step 0


@dataclass(frozen=True)
class Setting:
    """What is measured, on what."""

    suite: Suite
    model: model_ref.ModelRef
    device: torch.device
    precision: str
    batch: int
    lr: float
    steps: tuple[int, ...]  # after how many updates of FT the terms are looked at

    @property
    def recipe(self) -> Recipe:
        longest = max(*self.steps, FIRST + 1)
        return replace(
            self.suite.recipe, batch=self.batch, steps=longest, epochs=0, lr=self.lr, warmup_fraction=0.0,
            schedule="wise-ft", validate_every=0, select="last",
        )  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """A loss term in a short format beside itself in float32."""

    method: str
    term: str
    steps: int
    way: str
    value: float  # in float32
    error: float  # of the value, relative; infinite where it is 0 in float32 and not in the short format
    gradient_error: float  # |g - g32| / max(|g32|, NOTHING * |that of the method's first term|)
    cosine: float  # of the two gradients


def measure(setting: Setting, methods: Sequence[str], progress: Progress) -> list[Gap]:
    """Every term of every method, after each number of steps, both ways."""
    data = TrainSet(
        setting.suite.split(setting.suite.train), setting.suite.split(setting.suite.val),
        Task(setting.suite.classes, setting.suite.templates), suite=setting.suite.name,
    )  # fmt: skip
    start = clips.load(setting.model).to(setting.device)
    start.start_from_zero_shot(data.task)
    start.train_only("image", "head")
    states, found = _path(start, data, setting, progress), list[Gap]()
    with progress.bar("penalties", len(methods), "methods") as advance:
        for name in methods:
            found += _of(registry.load("method", name, Method), name, start, states, data, setting)
            advance(1, name)
    return found


def _path(clip: Clip, data: TrainSet, setting: Setting, progress: Progress) -> dict[int, State]:
    """Weights at the start and after each number of steps of FT in float32; `clip` ends where it began."""
    states = {0: clip.snapshot()}

    class Keep:
        def after_step(self, step: int, of: int) -> None:
            if step + 1 in setting.steps:
                states[step + 1] = clip.snapshot()

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any], /) -> None: ...

    if max(setting.steps):
        kind, recipe = registry.load("method", "ft", Method), replace(setting.recipe, steps=max(setting.steps))
        small = replace(data, val=data.val.take(range_of(setting.batch)))
        kind(recipe=recipe).fit(clip, small, Run(0, setting.device, progress=progress, companions=(lambda _: Keep(),)))
    clip.restore(states[0])
    return states


def range_of(n: int) -> Any:
    return torch.arange(n).numpy()


def _of(
    kind: type[Method], name: str, clip: Clip, states: dict[int, State], data: TrainSet, setting: Setting
) -> list[Gap]:  # fmt: skip
    """The objectives are made at the start, where a method copies its teacher; then the weights are moved."""
    method: Any = kind(recipe=setting.recipe)
    run, source, found = Run(0, setting.device), ImageBatches(clip, data), list[Gap]()
    if reason := method.skip(clip, data):
        raise RbftError(f"{name} cannot be measured with model '{setting.model.name}': {reason}")
    clip.restore(states[0])
    if hasattr(method, "start"):
        method.start(clip, data)
    made: dict[str, Objective] = {}
    for precision in ("fp32", setting.precision):
        clip.precision = precision
        made[precision] = method.objective(clip, data, run)
    batch = source.batch(clip, indices_at(FIRST, len(source), setting.recipe, run), FIRST, setting.recipe, run)
    for steps in setting.steps:
        clip.restore(states[steps])

        def ask(objective: Objective, precision: str, around: AbstractContextManager[Any]) -> _Answer:
            clip.precision = precision
            with around:
                return _Answer.of(objective(_fresh(batch)), clip)

        exact = ask(made["fp32"], "fp32", nullcontext())
        plain = torch.autocast(setting.device.type, SHORT[setting.precision])
        answers = {
            "blocks": ask(made[setting.precision], setting.precision, nullcontext()),
            "everywhere": ask(made["fp32"], "fp32", plain),
        }
        found += [gap(name, term, steps, way, exact, answers[way]) for term in exact.values for way in WAYS]
    clip.precision = "fp32"
    clip.restore(states[0])
    return found


def _fresh(batch: Batch) -> Batch:
    """The same batch, its features not computed yet."""
    return replace(batch)


@dataclass(frozen=True)
class _Answer:
    values: dict[str, float]
    gradients: dict[str, Tensor]  # of the image tower, in one vector, float64

    @classmethod
    def of(cls, terms: LossTerms, clip: Clip) -> "_Answer":
        moving = [p for p in clip.model.visual.parameters() if p.requires_grad]
        gradients: dict[str, Tensor] = {}
        for name, term in terms.items():
            found = (
                torch.autograd.grad(term, moving, retain_graph=True, allow_unused=True)
                if term.requires_grad
                else [None] * len(moving)
            )
            parts = [torch.zeros_like(p) if g is None else g for p, g in zip(moving, found, strict=True)]
            gradients[name] = torch.cat([g.flatten().double() for g in parts])
        return cls({name: term.item() for name, term in terms.items()}, gradients)


def gap(method: str, term: str, steps: int, way: str, exact: _Answer, short: _Answer) -> Gap:
    """Compare one term."""
    a, b = exact.gradients[term], short.gradients[term]
    value, other = exact.values[term], short.values[term]
    floor = NOTHING * float(next(iter(exact.gradients.values())).norm())
    size = float(a.norm())
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm())) if size > floor else math.nan
    error = 0.0 if other == value else abs(other - value) / abs(value) if value else math.inf
    return Gap(method, term, steps, way, value, error, float((a - b).norm()) / max(size, floor), cosine)


def table(setting: Setting, gaps: Sequence[Gap]) -> str:
    """As Markdown."""
    lines = [
        f"{setting.model.label} on {setting.suite.name}, batch {setting.batch}, {setting.precision} against float32 on "
        f"the same weights, after steps of FT at learning rate {setting.lr:g}, on {setting.device.type}. Errors are "
        "relative; of gradients, the norm of the difference over that of the float32 gradient, or over a thousandth "
        "of the first term's where that is more. 'blocks' is what training computes; 'everywhere' is autocast around "
        "the whole objective.",
        "",
        "| method | term | steps | value, float32 | error: blocks | everywhere | gradient error: blocks | everywhere "
        "| cosine: blocks | everywhere |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    by: Callable[[Gap], tuple[str, str, int]] = lambda g: (g.method, g.term, g.steps)  # noqa: E731
    for key in dict.fromkeys(map(by, gaps)):
        ours, plain = (next(g for g in gaps if by(g) == key and g.way == way) for way in WAYS)
        pairs = ((g.error, g.gradient_error) for g in (ours, plain))
        (a, ga), (b, gb) = pairs
        cells = [key[0], key[1], str(key[2]), f"{ours.value:.3g}", _share(a), _share(b), _share(ga), _share(gb)]
        cells += ["—" if math.isnan(g.cosine) else f"{g.cosine:.4f}" for g in (ours, plain)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(value: float) -> str:
    return "—" if value == math.inf else f"{100 * value:.2g} %"


@click.command()
@click.option("--model", default=model_ref.EMBEDDED, show_default=True)
@click.option("--pretrained", metavar="TAG")
@click.option("--suite", default="shapes", show_default=True)
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True)
@click.option("--precision", type=click.Choice([*SHORT]), default="bf16", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--batch", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--lr", type=float, default=1e-5, show_default=True)
@click.option("--steps", type=click.IntRange(min=0), multiple=True, default=(0, 10, 100), show_default=True)
def main(model: str, pretrained: str | None, suite: str, methods: tuple[str, ...], device: str, **options: Any) -> None:
    """Print what a short format does to the penalties of methods."""
    ref = model_ref.resolve(model, pretrained)
    steps = tuple(sorted(options["steps"]))
    setting = Setting(
        suite_ref.load(suite), ref, torch.device(device), options["precision"], options["batch"], options["lr"], steps
    )
    print(table(setting, measure(setting, methods, choose())))


if __name__ == "__main__":
    main()
