"""Where the time of a step on a GPU goes: `python -m robustbench_ft.bench.profile`.

The kernels of a few steps of a method's own `fit` are summed by what they do, beside the time in which the GPU waited.
"""

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click
import torch
from torch.profiler import ProfilerActivity, profile

from robustbench_ft import environment, model_ref, suite_ref
from robustbench_ft.errors import RbftError

from .contestant import WARMUP, EnoughError, Setting, Steps
from .step import parsed

KINDS = {  # what a kernel does, by its name; the first that is found counts
    "attention": r"flash|fmha|attention|softmax",
    "matrix products and convolutions": r"gemm|cutlass|nvjet|wgmma|conv|splitk|cudnn",
    "normalisation": r"layer_?norm|batch_?norm",
    "optimiser, norms, averages": r"multi_tensor|adam|foreach|norm",
    "copies": r"memcpy|memset",
    "activations, sums and casts": r"elementwise|vectorized|reduce|cat|index|copy|gelu|sigmoid",
}
OTHER, IDLE = "other", "no kernel at work"


class _Watch:
    """Opens the profiler after the warm-up and closes it after the last counted step."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.taken, self.seconds = setting, 0, 0.0
        self.profiler: Any = profile(activities=[ProfilerActivity.CUDA])

    def hear(self, line: Mapping[str, Any]) -> None: ...

    def step(self) -> None:
        self.taken += 1
        if self.taken == WARMUP:
            torch.cuda.synchronize()
            self.profiler.start()
            self.seconds = time.perf_counter()
        if self.taken == WARMUP + self.setting.steps:
            torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.seconds
            self.profiler.stop()
            raise EnoughError


def kind_of(kernel: str) -> str:
    """What a kernel of this name does."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), OTHER)


def measure(setting: Setting, method: str) -> dict[str, float]:
    """Milliseconds of a step, by what kernels do, and those in which none was at work."""
    environment.use(setting.precision, setting.device)
    contestant, watch = Steps(setting, setting.data(), method, *parsed(method)), _Watch(setting)
    with suppress(EnoughError):
        contestant.fit(watch.hear, watch.step, WARMUP + setting.steps + 1)
    found: defaultdict[str, float] = defaultdict(float)
    spans: list[tuple[float, float]] = []
    for event in watch.profiler.events():
        if event.device_type.name == "CUDA":
            found[kind_of(event.name)] += event.time_range.elapsed_us()
            spans.append((event.time_range.start, event.time_range.end))
    found[IDLE] = 1e6 * watch.seconds - covered(spans)
    return {kind: us / setting.steps / 1000 for kind, us in found.items()}


def covered(spans: "list[tuple[float, float]]") -> float:
    """The length of a union of intervals: kernels of two streams overlap."""
    length, reached = 0.0, -float("inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def table(setting: Setting, found: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each kind of kernel, a column for each method."""
    kinds = dict.fromkeys(kind for times in found.values() for kind in times)
    lines = [
        f"{setting.model.label}, batch {setting.batch}, {setting.precision}: milliseconds of a step, over "
        f"{setting.steps} steps",
        "", "| kernels | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found),
    ]  # fmt: skip
    for kind in sorted(kinds, key=lambda kind: -max(times.get(kind, 0.0) for times in found.values())):
        lines.append(f"| {kind} | " + " | ".join(f"{times.get(kind, 0.0):.2f}" for times in found.values()) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--model", default="ViT-B-16", show_default=True)
@click.option("--pretrained", metavar="TAG", default=model_ref.RANDOM, show_default=True)
@click.option("--suite", default="shapes", show_default=True)
@click.option("--method", "methods", multiple=True, default=("ft", "lipsum"), show_default=True)
@click.option("--precision", default="bf16", show_default=True)
@click.option("--batch", type=click.IntRange(min=2), default=128, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True)
def main(model: str, pretrained: str, suite: str, methods: tuple[str, ...], **options: Any) -> None:
    """Print what the kernels of a step do."""
    if not torch.cuda.is_available():
        raise RbftError("this looks at the kernels of a GPU, and there is none")
    setting = Setting(
        suite_ref.load(suite), model_ref.resolve(model, pretrained), torch.device("cuda"), options["precision"],
        options["batch"], options["steps"],
    )  # fmt: skip
    click.echo(table(setting, {method: measure(setting, method) for method in methods}))


if __name__ == "__main__":
    main()
