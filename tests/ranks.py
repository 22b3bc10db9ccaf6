"""How equal a fit is on several processes and in parts to that of one process: every built-in method, a small model.

    python tests/ranks.py [--out docs/results/ranks.md] [--method NAME ...]

Each method is fitted as `rbft check method` fits it: the embedded model, random images, six steps of batch 8, without
dropout. It is fitted by 1, 2 and 3 gloo processes, all at once and in micro-batches of 2, twice: once left alone, for
the final weights; and once with the gradients of one process put in the place of its own before each update: so
every gradient is compared at equal weights.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, distributed
from torch.optim.optimizer import register_optimizer_step_pre_hook

from robustbench_ft import checks, registry, watch
from robustbench_ft.method import Method
from robustbench_ft.ranks import Group, Ranks
from robustbench_ft.watch import without_dropout

WORLDS, SIZES = (1, 2, 3), (0, 2)  # the smallest share has 2 rows, the largest 8
CELLS = [(world, size) for world in WORLDS for size in SIZES if (world, size) != (1, 0)]
State = dict[str, Tensor]


class Held:
    """Hears of every update of every optimiser: keeps gradients, or compares them with those kept and takes these."""

    def __init__(self, kept: list[list[Tensor]] | None) -> None:
        self.kept, self.seen, self.worst = kept, list[list[Tensor]](), 0.0

    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        now = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.kept is None:
            self.seen.append([gradient.clone() for gradient in now])
            return
        then = self.kept[len(self.seen)]
        self.seen.append([])
        pairs = list(zip(now, then, strict=True))
        off = sum(float((a.double() - b).square().sum()) for a, b in pairs)
        whole = sum(float(b.double().square().sum()) for b in then)
        self.worst = max(self.worst, (off / whole) ** 0.5 if whole else off)
        for a, b in pairs:
            a.copy_(b)


def worker(folder: Path, names: Sequence[str], rank: int, world: int, port: int) -> None:
    """Fit each method whole and in parts; the first rank writes what came of it."""
    ranks: Ranks = Ranks()
    if world > 1:
        distributed.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=world)
        ranks = Group(torch.device("cpu"))
    for name in names:
        for size in SIZES:
            kind, kept = registry.load("method", name, Method), folder / f"{name}-gradients.pt"
            state = fitted(kind, size, ranks)
            held = Held(torch.load(kept, weights_only=True) if kept.exists() else None)
            handle = register_optimizer_step_pre_hook(held)
            fitted(kind, size, ranks)
            handle.remove()
            if held.kept is None:
                torch.save(held.seen, kept)
            if rank == 0:
                torch.save({"state": state, "gradients": held.worst}, folder / f"{name}-{world}-{size}.pt")
    ranks.wait()


def fitted(kind: type[Method], size: int, ranks: Ranks) -> State:
    """All tensors of all candidates."""
    trial = checks._Trial(kind, "embedded", checks.TASK)  # pyright: ignore
    recipe = replace(checks.RECIPE, micro_batch=size)
    gradients: Any = ranks
    return watch.tensors(trial.fitted(0, gradients=gradients, recipe=recipe, under=without_dropout()))


def distance(whole: State, other: State) -> float:
    """|a - b| / |a|, of all tensors of all candidates together."""
    pairs = [(tensor.double(), other[name].double()) for name, tensor in whole.items() if tensor.is_floating_point()]
    apart, size = (
        sum(float(t.square().sum()) for t in ts) for ts in ([a - b for a, b in pairs], [a for a, _ in pairs])
    )
    return (apart / size) ** 0.5


def run(names: Sequence[str], folder: Path) -> None:
    """All worlds, one after the other."""
    for world in WORLDS:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        words = [sys.executable, __file__, "--folder", str(folder), *(w for name in names for w in ("--method", name))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([*words, "--worker", json.dumps([rank, world, port])], env=environment)
            for rank in range(world)
        ]
        if any(process.wait() for process in processes):
            raise SystemExit(f"{world} processes: one of them failed")


def rows(names: Sequence[str], folder: Path) -> Iterator[Mapping[Any, Any]]:
    """A row for each method: (error of gradients, distance of weights) in each cell."""
    for name in names:
        found = {
            (w, size): torch.load(folder / f"{name}-{w}-{size}.pt", weights_only=True) for w in WORLDS for size in SIZES
        }
        whole = found[1, 0]["state"]
        yield {"name": name, **{c: (found[c]["gradients"], distance(whole, found[c]["state"])) for c in CELLS}}


def table(found: Sequence[Mapping[Any, Any]]) -> str:
    heads = [f"{world} process{'es' * (world > 1)}, {f'parts of {size}' if size else 'whole'}" for world, size in CELLS]
    lines = [
        "`python tests/ranks.py`", "",
        "Relative difference |a - b| / |a| to one process with the whole batch: of the gradients, the largest of all "
        "updates, each at equal weights; and behind it, of the final weights of all candidates of a fit left alone. "
        "Adam divides a gradient by its own size, so weights whose gradient is rounding alone move like others, and "
        "these differ more. Six steps of batch 8, embedded model, float32, CPU, gloo, one thread, "
        f"torch {torch.__version__}.", "",
        f"| method | {' | '.join(heads)} |", f"|---|{'---:|' * len(CELLS)}",
    ]  # fmt: skip
    for row in found:
        lines.append(f"| {row['name']} | {' | '.join(f'{row[c][0]:.0e} ({row[c][1]:.0e})' for c in CELLS)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--method", multiple=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--worker", "place", hidden=True)
def main(out: Path | None, method: tuple[str, ...], folder: Path | None, place: str | None) -> None:
    """Fit, compare, print."""
    if place and folder:
        rank, world, port = json.loads(place)
        worker(folder, method, rank, world, port)
        return
    names = method or tuple(n for n in registry.entries("method") if registry.load("method", n, Method).trains)
    with tempfile.TemporaryDirectory() as temporary:
        run(names, Path(temporary))
        text = table(list(rows(names, Path(temporary))))
    click.echo(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
