"""Options that several commands share, and what they name. Nothing heavy is imported before a command needs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft import tabular, trackers
from robustbench_ft.errors import RbftError

from . import completion

if TYPE_CHECKING:
    from robustbench_ft.devices import Devices
    from robustbench_ft.earlier import Way
    from robustbench_ft.ranks import Ranks
    from robustbench_ft.record.store import Record

WIDE: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
FOLDER = click.Path(path_type=Path)
ROOT = click.option(
    "--root", "root", multiple=True, metavar="DIR",
    help="Folder of downloaded data; repeat for several, SUITE/SPLIT=DIR names one split's.  [env: RBFT_DATA]",
)  # fmt: skip
PARTIAL = click.option(
    "--allow-partial", is_flag=True, help="Run on data whose counts differ from the card; such runs make no claims."
)
WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), help="Threads that decode images.  [default: as many as there are cores]"
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
PRECISION = click.option(
    "--precision", default="auto", show_default=True, help="Of training: auto, fp32, tf32, bf16 or fp16 (image tower)."
)
COMPILE = click.option(
    "--compile", "compiled", is_flag=True, help="Train with compiled blocks of the image tower; it moves rounding."
)
CHANNELS_LAST = click.option(
    "--channels-last", is_flag=True, help="Store convolutions with channels last; it moves rounding."
)
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads; a rerun is bit-identical with the same number."
)


def DEVICES(command: Any) -> Any:  # noqa: N802
    """Add the options of how a cell is fitted on several devices, or on a small one."""
    for option in reversed((
        click.option(
            "--devices", type=click.IntRange(min=1), default=1, show_default=True,
            help="Processes that fit each cell together, one for each GPU; batches stay what they are.",
        ),
        click.option(
            "--micro-batch", metavar="N|auto",
            help="Examples in one pass; the batch of an update stays. auto: halved where memory runs out.",
        ),
        click.option("--grad-checkpointing", is_flag=True, help="Compute activations twice, to keep fewer of them."),
        click.option("--low-memory", is_flag=True, help="Optimiser state and best checkpoint in main memory."),
    )):  # fmt: skip
        command = option(command)
    return command


FORMAT = click.option(
    "--format", "style", type=click.Choice(tabular.STYLES), default="terminal", show_default=True,
    help="How tables are printed; csv, tsv and json hold all digits.",
)  # fmt: skip
METRIC = click.option(
    "--metric", type=click.Choice(["official", "accuracy", "macro_f1", "nll", "brier"]), default="official",
    show_default=True, help="official: the metric that each test set is known by.",
)  # fmt: skip
TRACK = click.option(
    "--track", multiple=True, type=click.Choice(list(trackers.KINDS)),
    help="Also send the numbers of the log to a tracker; repeat for several.",
)  # fmt: skip
HEADLINES = click.option(
    "--headlines", is_flag=True, help="One row for each method and setting: no companions, and no other alphas."
)
SUITES = click.option(
    "--suite", multiple=True, metavar="NAME", shell_complete=completion.suites,
    help="Suite, or the path of a suite.toml; repeat for several.",
)  # fmt: skip
SUITE = click.option("--suite", metavar="NAME", shell_complete=completion.suites, help="Only runs on this suite.")


def set_threads(n: int | None) -> None:
    """Let torch compute with `n` threads; None leaves its own choice."""
    if n:
        import torch

        torch.set_num_threads(n)


def devices_of(options: Mapping[str, Any], ranks: "Ranks") -> "Devices":
    """What `DEVICES` and the processes there are come to."""
    from robustbench_ft.devices import AUTO, Devices

    asked = options["micro_batch"] or "0"
    if asked != "auto" and not asked.isdigit():
        raise RbftError(f"--micro-batch {asked}: give a number of examples, or auto")
    size = AUTO if asked == "auto" else int(asked)
    return Devices(ranks, size, options["grad_checkpointing"], options["low_memory"])


def way_of(options: Mapping[str, Any]) -> "Way":
    """What --rerun and --keep ask to be done with finished cells whose method's source has changed."""
    if options["rerun"] and options["keep"]:
        raise RbftError("--rerun and --keep exclude each other: run changed cells again, or take their old numbers")
    return "rerun" if options["rerun"] else "keep" if options["keep"] else "refuse"


def find(runs: Sequence[Path], suite: str | None) -> "list[Record]":
    """Records and published runs under these folders, of one suite where it is named."""
    from robustbench_ft.notebook import load
    from robustbench_ft.record import store

    found = load(*runs)
    if note := store.unsealed(found):
        click.echo(f"note: {note}", err=True)
    chosen = [record for record in found if suite in (None, record.cell.get("suite"))]
    if not chosen:
        known = sorted({str(record.cell.get("suite")) for record in found})
        raise RbftError(f"no run on suite '{suite}' there; there are runs on {', '.join(known)}")
    return chosen
