"""`rbft diagnose`: how far tuned models moved from zero-shot, and whether that tells of their accuracy under shift."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_ft import atomic
from robustbench_ft.tabular import MACHINE

from .options import DEVICE, FOLDER, FORMAT, ROOT, THREADS, WIDE, WORKERS, set_threads
from .show import show, under

if TYPE_CHECKING:
    from robustbench_ft.diagnose.points import Diagnosis


@click.command(context_settings=WIDE)
@click.argument("runs", nargs=-1, type=FOLDER)
@click.option(
    "--images", type=click.IntRange(min=1), default=512, show_default=True, help="Fixed images of each test set."
)
@click.option("--texts", type=click.IntRange(min=1), default=1000, show_default=True, help="Fixed random texts.")
@click.option(
    "--forget", metavar="SUITE", help="Also measure zero-shot accuracy on this unrelated suite, before and after."
)
@click.option(
    "--suite", metavar="NAME|FILE", help="Only runs on this suite; the path of its suite.toml where one defines it."
)
@FORMAT
@click.option("--out", type=FOLDER, metavar="FILE", help="Write the tables into this file instead of printing them.")
@click.option("--figure", "picture", type=FOLDER, metavar="PNG", help="Also draw both measures against mean OOD.")
@ROOT
@DEVICE
@THREADS
@WORKERS
def diagnose(runs: tuple[Path, ...], **options: Any) -> None:
    """Feature distortion and energy gap of the models that RUNS kept, beside their accuracy under shift.

    RUNS are folders of records (default: runs). The default model of a record is measured, and every candidate that
    `rbft run --save-candidates` kept. Models that cannot be measured are named.
    """
    from robustbench_ft import notebook
    from robustbench_ft.compare.canvas import save
    from robustbench_ft.diagnose import figure

    set_threads(options["threads"])
    found = notebook.diagnose(
        notebook.load(*runs), images=options["images"], texts=options["texts"], forget=options["forget"],
        suite=options["suite"], root=options["root"], device=options["device"], workers=options["workers"] or 0,
    )  # fmt: skip
    if options["out"]:
        text = io.StringIO()
        with redirect_stdout(text):
            _print(found.found, options["style"])
        atomic.write_bytes(options["out"], text.getvalue().encode(), "choose another --out")
        click.echo(f"tables   {options['out']}", err=True)
    else:
        _print(found.found, options["style"])
    picture: Path | None = options["picture"]
    for k, one in enumerate(found if picture else ()):
        assert picture is not None
        path = picture if len(found) == 1 else picture.with_stem(f"{picture.stem}-{one.suite}-{k}")
        save(figure.draw(one), path)
        click.echo(f"figure   {path}", err=True)


def _print(found: "Sequence[Diagnosis]", style: str) -> None:
    from robustbench_ft.diagnose import report

    if style == "json":
        click.echo(report.as_json(found), nl=False)
        return
    made = [(one.title, report.sections(one)) for one in found]
    show([text for title, some in made for text in (under(title, some) if style in MACHINE else some)], style)
