"""`rbft run --method lipsum --suite imagenet` with a full-size model: does the whole path hold, and what does it take?

    python tests/full_size.py [--out docs/results/full_size.md]

ViT-B-32 has random weights and the tree is the small one of the tests, in the layout of the real data, so accuracies
are those of chance. Ten minutes on two cores, most of it for the zero-shot head: 80,000 prompts through the text tower.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import forest

from robustbench_ft.compare import report
from robustbench_ft.record import store

WORDS = (
    "run --method lipsum --suite imagenet --root data --allow-partial --model ViT-B-32 --pretrained random "
    "--set steps=2 --set batch=8 --out runs"
)


def measure(folder: Path) -> str:
    """Run it in `folder`, and say what came of it."""
    (folder / "data").symlink_to(forest.imagenet(folder / "trees"))
    environment = {"RBFT_CACHE": str(folder / "cache"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    code = "from robustbench_ft.cli import main; main()"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *WORDS.split()], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    seconds = time.monotonic() - began
    if done.returncode:
        raise click.ClickException(done.stderr)
    [record] = store.find_records([folder / "runs"])
    cost = record.env["cost"]
    ends = [line.strip() for line in done.stderr.splitlines() if re.search(r"\d+/\d+ \w+ in ", line)]
    kept = {name: record.env[name] for name in ("cpu", "cores", "threads", "packages")}
    kept["packages"] = {name: kept["packages"][name] for name in ("torch", "open_clip_torch")}
    return "\n".join([
        __doc__ or "", "", f"    rbft {WORDS}", "", *(f"    {line}" for line in ends), "",
        report.markdown(report.tables([record])[0]),
        f"In all {seconds:.0f} s; {cost['trained_parameters']:,} parameters trained, {cost['peak_memory_mib']:,.0f} "
        f"MiB at most, {cost['evaluate_images_per_second']:.1f} images/s in evaluation.", "",
        json.dumps(kept),
    ])  # fmt: skip


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results/full_size.md"), show_default=True)
def main(out: Path) -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder))
    out.write_text(f"# A full-size model on the small tree\n\n{text}\n", encoding="utf-8")
    click.echo(f"written {out}")


if __name__ == "__main__":
    main()
