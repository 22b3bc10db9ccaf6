"""What `rbft canary` says of each fault that `test_setup.py` plants: `python tests/show_setup.py` writes
docs/results/setup_check.md. Two minutes on two cores."""

import tempfile
from pathlib import Path

import click
import known
from test_setup import FAULTS, Known

from robustbench_ft.reference import report
from robustbench_ft.reference.causes import ordered

HEAD = ("fault", "split", "measured", "published", "verdict", "first cause", "what is said")
WHOLE = ("QuickGELU lost", "other prompts")  # shown as they are printed


def measure(folder: Path) -> str:
    """The page."""
    root = known.write_images(folder / "tree")
    model = known.write_model(folder / "model", root)
    at_hand = Known(root, model, known.published(model, root))
    rows, shown = [HEAD, ("---",) * len(HEAD)], list[str]()
    faults = {"none": (known.Fault(), "test"), **{name: (fault, split) for name, (fault, split, *_) in FAULTS.items()}}
    for name, (fault, split) in faults.items():
        answer = at_hand.check(fault, folder / "faults" / name.replace(" ", "-"), split)
        [verdict] = answer.verdicts
        first = next(iter(ordered(answer.findings.get(split, ()))), None)
        said = (f"{first.cause} ({first.state})", first.text) if first else ("", "")
        numbers = (
            f"{100 * verdict.measured:.1f}",
            f"{100 * verdict.reference.value:.1f} ± {100 * verdict.tolerance:.1f}",
        )
        rows.append((name, split, *numbers, "inside" if verdict.inside else "outside", *said))
        if name in WHOLE:
            lines = report.lines("the model on known", answer.verdicts, answer.findings, answer.notes)
            shown += [f"\n{name}, as it is printed:\n", *(f"    {line}" for line in lines)]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), *shown]).replace(str(root), "data")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results/setup_check.md"), show_default=True)
def main(out: Path) -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder))
    out.write_text(f"# What `rbft canary` says of planted faults\n\n{__doc__}\n\n{text}\n", encoding="utf-8")
    click.echo(f"written {out}")


if __name__ == "__main__":
    main()
