"""What `rbft data check` says of a good and of a broken tree of each suite.

    python tests/show_checks.py [--out docs/results/data_check.md]

Trees are the small ones of the tests, in the exact layouts, so for this page alone the cards count what these hold.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import forest
import forest_wilds
import pytest
from click.testing import CliRunner

from robustbench_ft import registry, suite_ref
from robustbench_ft.cli.main import main
from robustbench_ft.images import roots
from robustbench_ft.images.folders import SUFFIXES

HEAD = """# What `rbft data check` says

Made by `python tests/show_checks.py`: small trees in the exact layouts of the real data, each whole and then with
faults planted in a copy. For this page the cards count what the small trees hold; with the real cards every one of
them would be refused for its counts.
"""
PROGRESS = re.compile(r"  [a-z ]+: \d+/\d+ ")
Break = Callable[[Path], object]


def cut(path: Path, n: int = 400) -> None:
    """Replace a file by its beginning; trees share their files' bytes."""
    content = path.read_bytes()[:n]
    path.unlink()
    path.write_bytes(content)


def images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def break_imagenet(root: Path) -> None:
    """A class gone from Sketch, a truncated image of R, an empty one of A, and V2 sorted by another tool."""
    shutil.rmtree(root / "sketch" / forest.wnids()[7])
    cut(images(root / "imagenet-r")[0])
    cut(images(root / "imagenet-a")[0], 0)
    v2 = next(path for path in root.iterdir() if path.name.lower().startswith("imagenetv2"))
    for k, wnid in enumerate(forest.wnids()):
        (v2 / str(k)).rename(v2 / wnid)


def break_domainnet(root: Path) -> None:
    """An image that a split file names is not there, and a truncated one."""
    images(root / "domainnet" / "sketch")[0].unlink()
    cut(images(root / "domainnet" / "clipart")[0])


def break_table(name: str, column: str) -> Break:
    def act(root: Path) -> None:
        table = next(path for path in root.rglob(name))
        rows = forest_wilds.read_table(table)
        table.unlink()
        forest_wilds.write_table(table, [{key: text for key, text in row.items() if key != column} for row in rows])

    act.__doc__ = f"The metadata table without its column {column}."
    return act


def break_images(root: Path) -> None:
    """A truncated image and one that is gone."""
    found = images(root)
    cut(found[3])
    found[-3].unlink()


@contextmanager
def counted(name: str, root: Path) -> Generator[None, None, None]:
    """The card counts what lies here."""
    suite = suite_ref.load(name, roots.Roots((root,)), True)
    with pytest.MonkeyPatch.context() as patch:
        if name == "domainnet":
            patch.setattr(f"{type(suite).__module__}.GENERATIONS", forest.LINES)
        else:
            sizes = {split: len(suite.split(split)) for split in suite.known}
            patch.setattr(type(suite), "card", replace(suite.card, counts=sizes, per_class={}))
        yield


def check(name: str, root: Path) -> str:
    """The command and what it prints, with the root under a short name."""
    Path("data").unlink(missing_ok=True)
    Path("data").symlink_to(root)
    done = CliRunner().invoke(main, ["data", "check", name, "--root", "data"])
    lines = [f"$ rbft data check {name} --root data", *done.output.splitlines(), f"(exit code {done.exit_code})"]
    return "".join(f"    {line}".rstrip() + "\n" for line in lines if not PROGRESS.match(line))


def trees(base: Path) -> Iterator[tuple[str, Path, list[Break]]]:
    yield "imagenet+objectnet", forest.imagenet(base), [break_imagenet]
    yield "domainnet", forest.domainnet(base), [break_domainnet]
    tables = {
        "wilds-iwildcam": ("metadata.csv", "location_remapped"), "wilds-fmow": ("rgb_metadata.csv", "country_code"),
        "wilds-camelyon17": ("metadata.csv", "center"),
    }  # fmt: skip
    for suite, table in tables.items():
        root = base / suite
        forest_wilds.plant(root, suite)
        yield suite, root, [break_images, break_table(*table)]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results/data_check.md"), show_default=True)
def show(out: Path) -> None:
    """Write the page."""
    parts = [HEAD]
    out = out.absolute()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        os.chdir(base)
        os.environ["RBFT_CACHE"] = str(base / "cache")
        registry.entries("suite")
        for name, root, breaks in trees(base / "trees"):
            with counted(name, root):
                parts.append(f"## {name}\n\n{check(name, root)}")
                for k, act in enumerate(breaks):
                    broken = forest.copy(root, base / f"broken-{name}-{k}")
                    act(broken)
                    parts.append(f"{act.__doc__}\n\n{check(name, broken)}")
    out.write_text("\n".join(parts), encoding="utf-8")
    click.echo(f"written {out}")


if __name__ == "__main__":
    show()
