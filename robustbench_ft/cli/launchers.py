"""`--launcher` and its options: where the cells of `rbft run` and `rbft tune` are run."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft.errors import PlanError, RbftError, unknown

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from robustbench_ft.launch import MakeLauncher
    from robustbench_ft.plan import Plan
    from robustbench_ft.runner import RunOptions

# launcher -> the package it needs, and what it is called
PACKAGES = {"ray": ("ray", "Ray"), "slurm": ("submitit", "submitit")}
OWN = {"ray": ("ray_address", "ray_memory"), "slurm": ("slurm",)}  # options of one launcher alone
SBATCH = (  # long options of sbatch that make sense for a cell
    "account", "begin", "comment", "constraint", "cpus_per_gpu", "dependency", "exclude", "exclusive", "gpus",
    "gpus_per_node", "gpus_per_task", "gres", "licenses", "mail_type", "mail_user", "mem", "mem_per_cpu",
    "mem_per_gpu", "nice", "nodelist", "nodes", "partition", "priority", "qos", "reservation", "signal", "switches",
    "time", "tmp", "wckey",
)  # fmt: skip


def LAUNCHER(command: Any) -> Any:  # noqa: N802
    """Add the options of where cells are run."""
    for option in reversed((
        click.option(
            "--jobs", type=click.IntRange(min=1),
            help="Cells at a time, each in a process of its own, on a GPU of its own where there are GPUs.  "
            "[default: 1; on a cluster, all that fit]",
        ),
        click.option(
            "--max-failures", type=click.IntRange(min=1), metavar="K", help="Stop at K failed cells.  [default: never]"
        ),
        click.option(
            "--retry", type=click.IntRange(min=0), default=0, metavar="K", show_default=True,
            help="Try a failed cell K times more, from its last checkpoint.",
        ),
        click.option(
            "--launcher", type=click.Choice(["local", "ray", "slurm"]), default="local", show_default=True,
            help="Where cells are run: on this machine, as tasks of a Ray cluster, or as Slurm jobs.",
        ),
        click.option(
            "--ray-address", metavar="HOST:PORT", help="Ray cluster, or 'auto'.  [env: RAY_ADDRESS; default: one here]"
        ),
        click.option(
            "--ray-memory", type=click.FloatRange(0, min_open=True), metavar="GIB", help="Memory of a cell, for Ray."
        ),
        click.option(
            "--slurm", multiple=True, metavar="KEY=VALUE",
            help="Option of sbatch, e.g. partition=gpu, time=2:00:00 or mem=32G; repeat for several.",
        ),
    )):  # fmt: skip
        command = option(command)
    return command


def check(options: Mapping[str, Any]) -> None:
    """Refuse what does not go together, before anything is loaded."""
    launcher, devices = options["launcher"], options.get("devices", 1)
    if (options["jobs"] or 1) > 1 and devices > 1 and launcher == "local":
        raise RbftError("--jobs and --devices exclude each other: many cells at a time, or many processes for each")
    for other, names in OWN.items():
        given = [name for name in names if options[name]]
        if given and launcher != other:
            raise RbftError(f"--{given[0].replace('_', '-')} is for --launcher {other}; give that too, or leave it out")
    if launcher == "local":
        return
    package, title = PACKAGES[launcher]
    if find_spec(package) is None:
        raise RbftError(f"--launcher {launcher} needs {title}: pip install 'robustbench_ft[{launcher}]'")
    if options["device"].startswith("cuda:"):
        raise RbftError(f"--launcher {launcher} gives each cell a GPU of its own; write --device cuda")
    if launcher == "slurm":
        slurm_words(options["slurm"])
        if which("sbatch") is None:
            raise RbftError("--launcher slurm needs Slurm's sbatch on this machine; start it where jobs are submitted")
    if launcher == "ray" and devices > 1:
        raise RbftError("--launcher ray gives each cell one process; --devices is for one machine and for Slurm")


def slurm_words(texts: Sequence[str]) -> dict[str, str]:
    """--slurm KEY=VALUE as options of sbatch. Raises `PlanError` for those that are not known."""
    pairs = [text.partition("=") for text in texts]
    words = {key.strip().removeprefix("--").replace("-", "_"): value.strip() for key, _, value in pairs}
    problems = [f"--slurm {key}: write KEY=VALUE, e.g. partition=gpu" for key, equals, _ in pairs if not equals]
    problems += [f"--slurm: {unknown('option', key, SBATCH)}" for key in words if key not in SBATCH]
    if problems:
        raise PlanError(problems)
    return words


def device_there(options: Mapping[str, Any]) -> "torch.device | None":
    """The device of workers elsewhere, which this machine need not have; None where cells are run here."""
    import torch

    from robustbench_ft import environment

    if options["launcher"] == "local":
        return None
    return torch.device("cuda") if options["device"] == "cuda" else environment.choose_device(options["device"])


def device_here(options: Mapping[str, Any], device: "torch.device") -> "torch.device":
    """What this process computes on itself, after cells that are fitted on `device`."""
    from robustbench_ft import environment

    return device if options["launcher"] == "local" else environment.choose_device("auto")


def sweeper(options: Mapping[str, Any], how: "RunOptions") -> "Callable[[Plan, RunOptions], list[Path]]":
    """What runs the cells of a plan, by the options of `LAUNCHER` and --threads."""
    from robustbench_ft import launch

    policy = launch.Policy(options["max_failures"], options["retry"])
    make = None if options["launcher"] == "local" else _elsewhere(options, how.device)
    return launch.choose(options["jobs"] or 1, options["threads"], policy, how.progress, make)


def _elsewhere(options: Mapping[str, Any], device: "torch.device") -> "MakeLauncher":
    from robustbench_ft.launch import on_ray, on_slurm

    gpus, threads = int(device.type == "cuda"), options["threads"] or 1
    if options["launcher"] == "slurm":
        words, devices = slurm_words(options["slurm"]), options.get("devices", 1)
        return on_slurm.cluster(on_slurm.Asked(words, options["jobs"] or 0, threads, gpus, devices))
    address, memory = options["ray_address"] or "", options["ray_memory"] or 0.0
    return on_ray.cluster(on_ray.Asked(address, options["jobs"] or 0, threads, memory, gpus))
