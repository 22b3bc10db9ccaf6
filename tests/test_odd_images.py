"""Images and names that no data set should hold: each is named with its file, and nothing ends in a traceback."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from robustbench_ft.cli.main import main
from robustbench_ft.doctor.look import BIT, look
from robustbench_ft.errors import RbftError
from robustbench_ft.images.files import decode


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split, n in (("train", 12), ("night", 3)):
        for c, level in (("cat", 30), ("dog", 200)):
            (tmp_path / split / c).mkdir(parents=True)
            for k in range(n):
                colour = (k * 9, level, 7 if split == "train" else 99)
                Image.new("RGB", (40, 40), colour).save(tmp_path / split / c / f"{k}.jpg")
    shift = '[shifts]\nnight = "night"\n'
    (tmp_path / "suite.toml").write_text(f'name = "pets"\ntrain = "train"\nval = 2\ntest = 2\n{shift}')
    return tmp_path


def sized(*size: int) -> Callable[[Path], object]:
    return lambda pets: Image.new("RGB", (size[0], size[1])).save(pets / "night" / "cat" / "0.jpg")


def odd_name(pets: Path) -> None:
    path = os.fsencode(pets / "night" / "cat")
    os.rename(path + b"/0.jpg", path + b"/\xff\xfe.jpg")


ODD: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "one pixel": (sized(1, 1), 0, "ready: "),
    "a strip": (sized(1, 8000), 1, "night/cat/0.jpg"),
    "a strip the other way": (sized(20_000, 1), 1, "night/cat/0.jpg"),
    "a name that is not UTF-8": (odd_name, 2, "night/cat holds a name that is not UTF-8 ('??.jpg')"),
    "a loop of links": (
        lambda pets: (pets / "night" / "cat" / "9.jpg").symlink_to("9.jpg"), 2, "night/cat/9.jpg is a broken link or a",
    ),
    "a bomb": (
        lambda pets: Image.new("1", (30_000, 30_000)).save(pets / "night" / "cat" / "b.png"), 1, "night/cat/b.png",
    ),
    "an empty class": (
        lambda pets: [path.unlink() for path in (pets / "night" / "dog").iterdir()], 2, "night/dog holds no image",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_data_check_names_the_file(kind: str, pets: Path) -> None:
    hurt, code, says = ODD[kind]
    hurt(pets)
    done = CliRunner().invoke(main, ["data", "check", str(pets / "suite.toml")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    assert says in done.output.replace("\n", "")


@pytest.mark.parametrize("place", ["train", "night/cat"])
def test_a_folder_that_may_not_be_read_is_named(place: str, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by hand: whoever tests as root may read everything."""
    listed = os.scandir

    def refuse(path: str) -> object:
        if str(path) == str(pets / place):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for words in (["data", "check"], ["run", "--method", "ft", "--out", str(pets / "runs"), "--suite"]):
        done = CliRunner().invoke(main, [*words, str(pets / "suite.toml")])
        assert isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == 2
        assert f"cannot list {pets / place}: Permission denied; correct its permissions" in done.output


def test_a_strip_is_named_before_it_takes_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (1, 8000)).save(path)
    assert look(path.read_bytes(), "x.png") == (BIT["strip"], "1 x 8000 pixels")
    with pytest.raises(RbftError, match=r"cannot decode x\.png: it is a strip of 1 x 8000 pixels"):
        decode(path.read_bytes(), "x.png")


def test_a_nul_in_a_manifest_is_one_line(pets: Path) -> None:
    rows = "".join(f"train/{c}/{k}.jpg,{c}\n" for c in ("cat", "dog") for k in range(12))
    (pets / "all.csv").write_text(f"path,label\n{rows}train/cat/\0.jpg,cat\n")
    text = (pets / "suite.toml").read_text().replace('train = "train"', 'train = "all.csv"')
    (pets / "suite.toml").write_text(text)
    done = CliRunner().invoke(main, ["data", "check", str(pets / "suite.toml")])
    assert done.exit_code == 2
    assert len([line for line in done.output.splitlines() if line.startswith("rbft: ")]) == 1
