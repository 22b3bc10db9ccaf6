"""The commands that measure speed: parsing and printing. Nothing heavy is imported before a command needs it."""

from pathlib import Path
from typing import Any

import click

from robustbench_ft.errors import RbftError
from robustbench_ft.tabular import MACHINE

from . import completion
from .options import CHANNELS_LAST, COMPILE, DEVICE, FOLDER, FORMAT, PRECISION, THREADS, WIDE, WORKERS, set_threads
from .show import show


@click.command(context_settings=WIDE)
@click.option(
    "--method", "methods", multiple=True, shell_complete=completion.methods, default=("ft", "lipsum", "flyp"),
    show_default=True,
    help="A name, a name with settings ('lipsum mode=expected'), or 'all'; repeat for several.",
)  # fmt: skip
@click.option("--suite", default="shapes", show_default=True, shell_complete=completion.suites)
@click.option("--model", default="embedded", show_default=True)
@click.option("--pretrained", metavar="TAG")
@DEVICE
@PRECISION
@click.option("--batch", type=click.IntRange(min=2), help="[default: 128 for the embedded model, 16 for others]")
@click.option("--steps", type=click.IntRange(min=1), help="Per turn.  [default: 4 for the embedded model, else 1]")
@click.option("--rounds", type=click.IntRange(min=1), help="[default: as many as fit into 75 s, 3 to 15]")
@click.option("--json", "file", type=FOLDER, metavar="FILE", help="Write every number there, too.")
@click.option("--cpu-time", is_flag=True, help="Count CPU seconds: for one thread on a CPU with other jobs on it.")
@COMPILE
@CHANNELS_LAST
@THREADS
@FORMAT
def bench(methods: tuple[str, ...], suite: str, model: str, pretrained: str | None, **options: Any) -> None:
    """Time a step of each method beside a bare loop, in turns in one process, and count its operations."""
    from robustbench_ft import atomic, environment, model_ref, suite_ref
    from robustbench_ft.bench import step as benchmark
    from robustbench_ft.bench.contestant import Setting
    from robustbench_ft.progress import choose
    from robustbench_ft.recipe import precision_of

    set_threads(options["threads"])
    device, loaded = environment.choose_device(options["device"]), suite_ref.load(suite)
    if options["cpu_time"] and device.type != "cpu":
        raise RbftError("--cpu-time counts what a CPU does, and the device is a GPU; leave it out")
    ref = model_ref.resolve(model, pretrained)
    precision = precision_of(environment.choose_precision(options["precision"], device), loaded.recipe)
    small = model == model_ref.EMBEDDED
    setting = Setting(
        loaded, ref, device, precision, options["batch"] or (128 if small else 16),
        options["steps"] or (4 if small else 1), options["rounds"] or 0, options["compiled"], options["channels_last"],
        options["cpu_time"],
    )  # fmt: skip
    found = benchmark.measure(setting, methods, choose())
    if options["file"]:
        atomic.write_bytes(options["file"], benchmark.as_json(found).encode(), "choose another file with --json")
    if options["style"] == "json":
        click.echo(benchmark.as_json(found), nl=False)
    elif options["style"] in MACHINE:
        show([benchmark.table(found)], options["style"])
    else:
        click.echo(benchmark.as_markdown(found))


@click.command("bench-loader", context_settings=WIDE)
@click.option("--model", metavar="NAME", help="Whose size and transform.  [default: ViT-B-32, random weights]")
@click.option("--pretrained", metavar="TAG")
@DEVICE
@click.option("--images", type=click.IntRange(min=20), default=1000, show_default=True, help="Files to make.")
@click.option("--tree", type=FOLDER, metavar="DIR", help="Class folders of your own instead.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@WORKERS
@FORMAT
def bench_loader(
    model: str | None, pretrained: str | None, device: str, images: int, tree: Path | None, batch: int, rounds: int,
    workers: int | None, style: str,
) -> None:  # fmt: skip
    """Time our loaders beside torchvision's ImageFolder and DataLoader, in turns in one process."""
    from robustbench_ft import environment, model_ref
    from robustbench_ft.bench import loader as benchmark
    from robustbench_ft.pixels.loader import available_workers
    from robustbench_ft.progress import choose

    setting = benchmark.Setting(
        model_ref.resolve(model or "ViT-B-32", pretrained if model else pretrained or model_ref.RANDOM),
        environment.choose_device(device), images, batch,
        workers or available_workers(), rounds, tree,
    )  # fmt: skip
    found = benchmark.measure(setting, choose())
    if style == "json":
        click.echo(benchmark.as_json(found), nl=False)
    elif style in MACHINE:
        show([benchmark.table(found)], style)
    else:
        click.echo(benchmark.as_markdown(found))
