"""`rbft predict`: what a kept model says of your own images. Parsing and printing only."""

import sys
from pathlib import Path

import click

from robustbench_ft.tabular import Text, number

from .options import DEVICE, FOLDER, FORMAT, THREADS, WIDE, WORKERS, set_threads
from .show import beside, show


@click.command(context_settings=WIDE)
@click.argument("run", type=FOLDER)
@click.argument("images", nargs=-1, type=FOLDER, required=True)
@click.option("--top", type=click.IntRange(1, 5), default=2, show_default=True, help="Classes to show of each image.")
@DEVICE
@THREADS
@WORKERS
@FORMAT
def predict(
    run: Path, images: tuple[Path, ...], top: int, device: str, threads: int | None, workers: int | None, style: str
) -> None:
    """Show what the model of RUN says of IMAGES: files, or folders with images anywhere in them.

    RUN is the folder of a finished cell, its `model/`, or a folder that `rbft export` wrote. Pixels are prepared as in
    every evaluation. The model names one of its classes for every image, also where none of them is in it.
    """
    from robustbench_ft import notebook
    from robustbench_ft.answers import answers, images_of
    from robustbench_ft.progress import choose

    set_threads(threads)
    files = images_of(images)
    if sys.stderr.isatty():  # somebody waits
        click.echo("[...] loading the model", err=True)
    found = answers(notebook.load_model(run, device), files, choose(), workers or 0)
    most = min(top, len(found[0].classes))
    head = ["image"]
    for k in range(1, most + 1):
        head += [f"class {k}", f"% {k}"] if k > 1 else ["class", "%"]
    rows = tuple(
        (
            one.image,
            *(cell for k in range(most) for cell in (one.classes[k], number(100 * one.probabilities[k], ".1f"))),
        )
        for one in found
    )
    show([Text("", tuple(head), rows, words=(0, *range(1, len(head), 2)))], style)
    n = f"{len(found)} image{'s' * (len(found) != 1)}"
    beside(f"{n}; % is the model's own confidence, which nothing has calibrated", style)
