"""PACS, VLCS, OfficeHome, TerraIncognita: DomainBed's splits, labels that are in the pixels, one line for faults."""

import hashlib
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import suite_ref
from robustbench_ft.cli import main
from robustbench_ft.errors import MissingDataError, RbftError

ROOTS = {"pacs": "PACS", "vlcs": "VLCS", "officehome": "office_home", "terra": "terra_incognita"}
HELD = {"pacs": "sketch", "vlcs": "sun09", "officehome": "real_world", "terra": "location_38"}
EACH = 5  # images of a class in one domain, and as many more as the domain's place in order


@cache
def tree(base: Path, name: str) -> Path:
    """The layout that DomainBed's download script leaves."""
    suite: Any = suite_ref.load(name)
    for more, folder in enumerate(suite.folders_of.values()):
        for label, class_name in enumerate(suite.names):
            for k in range(EACH + more):
                coded.write(base / name / ROOTS[name] / folder / class_name / f"pic_{k * 37 % 101:03d}.jpg", label)
    return base / name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("domainbed")


def public_parts(n: int, trial: int, env: int) -> tuple[list[int], list[int]]:
    """Out-split and in-split as scripts/train.py and lib/misc.py of DomainBed define them, the hash spelled out."""
    seed = int(hashlib.md5(f"({trial}, {env})".encode()).hexdigest(), 16) % (2**31)
    keys = list(range(n))
    np.random.RandomState(seed).shuffle(keys)
    return keys[: int(n * 0.2)], keys[int(n * 0.2) :]


def image_folder(place: Path) -> list[str]:
    """Files in torchvision's order: class folders sorted, files sorted within."""
    return [
        f"{place.name}/{folder.name}/{file.name}" for folder in sorted(place.iterdir(), key=lambda p: p.name)
        for file in sorted(folder.iterdir(), key=lambda p: p.name)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.parametrize("trial", [0, 2])
def test_splits_are_domainbeds(name: str, trial: int, base: Path) -> None:
    root, held = tree(base, name), HELD[name]
    suite: Any = suite_ref.load(f"{name}+{held}" + (f"+trial={trial}" if trial else ""), root, True)
    domains = list(suite.folders_of)
    expected: dict[str, set[str]] = {"train": set(), "val": set(), held: set()}
    for env, (domain, folder) in enumerate(suite.folders_of.items()):
        files = image_folder(root / ROOTS[name] / folder)
        out, rest = public_parts(len(files), trial, env)
        if domain == held:
            expected[held] = {files[k] for k in rest}
        else:
            expected["train"] |= {files[k] for k in rest}
            expected["val"] |= {files[k] for k in out}
    assert {split: set(suite.split(split).ids) for split in expected} == expected
    train = suite.split("train")
    assert [domains[k] for k in train.groups["domain"]] == [
        {folder: d for d, folder in suite.folders_of.items()}[id_.split("/")[0]] for id_ in train.ids
    ]


@pytest.mark.parametrize("name", ROOTS)
def test_labels_are_in_the_pixels(name: str, base: Path) -> None:
    suite = suite_ref.load(f"{name}+{HELD[name]}", tree(base, name), True)
    for split in ("train", "val", HELD[name]):
        read = suite.split(split)
        images = read.images.read(list(range(len(read))))
        assert [coded.label_of(image) for image in images] == read.labels.tolist()
    parts = [set(suite.split(split).ids) for split in ("train", "val", HELD[name])]
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_whole_takes_all_images_of_the_held_out_domain(base: Path) -> None:
    root = tree(base, "pacs")
    files = image_folder(root / "PACS/sketch")
    assert list(suite_ref.load("pacs+sketch+whole", root, True).split("sketch").ids) == files


@pytest.mark.parametrize(("name", "total"), [("pacs", 9_991), ("vlcs", 10_729)])
def test_counts_of_the_card_follow_from_the_domains(name: str, total: int) -> None:
    suite: Any = suite_ref.load(f"{name}+{HELD[name]}")
    whole: Any = suite_ref.load(f"{name}+{HELD[name]}+whole")
    assert sum(suite.found.values()) == total
    assert sum(whole.card.counts.values()) == total
    parts = {d: public_parts(n, 0, env) for env, (d, n) in enumerate(suite.found.items())}
    held = HELD[name]
    assert dict(suite.card.counts) == {
        "train": sum(len(rest) for d, (_, rest) in parts.items() if d != held),
        "val": sum(len(out) for d, (out, _) in parts.items() if d != held),
        held: len(parts[held][1]),
    }


def test_a_name_without_a_domain_says_which_there_are(base: Path) -> None:
    done = CliRunner().invoke(main, f"run --method ft --suite pacs --root {tree(base, 'pacs')}".split())
    assert done.exit_code == 2
    line = done.stderr.splitlines()[-1]  # after the line that names the model
    assert (
        "suite 'pacs' has no domain held out; write one of pacs+art_painting, pacs+cartoon, pacs+photo, pacs+sk" in line
    )


def test_two_domains_are_refused() -> None:
    with pytest.raises(RbftError, match=r"holds out photo and sketch; write one of pacs\+art_painting, "):
        suite_ref.load("pacs+sketch+photo")
    with pytest.raises(RbftError, match="names two trials; write one"):
        suite_ref.load("pacs+sketch+trial=1+trial=2")
    with pytest.raises(RbftError, match=r"unknown option of suite 'pacs' 'skech': did you mean sketch"):
        suite_ref.load("pacs+skech")


def test_terra_tells_its_copies_apart(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite: Any = suite_ref.load("terra+location_38", tree(base, "terra"))
    n = sum(EACH + more for more in range(4)) * 10
    with pytest.raises(
        MissingDataError, match=f"is of {n} images of four locations, the known copies have 24,788 and 24"
    ):
        suite.split("train")
    for total, text in ((24_788, "the earlier copy"), (24_330, "the copy of today's script")):
        monkeypatch.setattr(type(suite), "_total", lambda self, total=total: total)
        suite.forget()
        assert suite.split("train").layout.endswith(text)


def lost(place: Path) -> None:
    shutil.rmtree(place / "PACS/photo/dog")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no domain": (lambda p: shutil.rmtree(p / "PACS/photo"), "PACS has no folder 'photo'; unpack the archive again"),
    "no class": (lost, "PACS/photo lacks 1 class folder (dog) of 7; unpack the archive again"),
    "another class": (lambda p: (p / "PACS/photo/cat").mkdir(), "holds 1 folder (cat) that name no class of this set"),
    "empty class": (lambda p: (lost(p), (p / "PACS/photo/dog").mkdir()), "PACS/photo/dog holds no image; unpack"),
    "loose image": (lambda p: coded.write(p / "PACS/photo/x.jpg", 0), "holds 1 image (x.jpg) outside the class"),
    "a count": (lambda p: (p / "PACS/photo/dog/pic_000.jpg").unlink(), "images, its card says 4,851"),
    "a level": (lambda p: shutil.move(p / "PACS", p / "deep/down/PACS"), "has no PACS or pacs or PACS/kfold"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault: str, base: Path, tmp_path: Path) -> None:
    shutil.copytree(tree(base, "pacs"), tmp_path / "data")
    (tmp_path / "data/deep/down").mkdir(parents=True)
    damage, text = FAULTS[fault]
    damage(tmp_path / "data")
    done = CliRunner().invoke(
        main, f"run --method zero-shot --suite pacs+sketch --root {tmp_path / 'data'} --out {tmp_path / 'out'}".split()
    )
    assert done.exit_code == 2, done.output
    assert text in done.stderr
    assert "Traceback" not in done.output


def test_domainnet_of_domainbed_numbers_classes_as_image_folder_does(tmp_path: Path) -> None:
    suite: Any = suite_ref.load("domainnet-lodo+sketch", tmp_path, True)
    assert list(suite.names) == sorted(suite_ref.load("domainnet").classes)
    for folder in suite.folders_of:
        for name in ("zebra", "The_Eiffel_Tower"):
            for k in range(10):
                coded.write(tmp_path / "domain_net" / folder / name / f"{k}.jpg", suite.names.index(name))
    sizes = {"train": 5 * 16, "val": 5 * 4, "sketch": 16}
    for split, size in sizes.items():
        read = suite.split(split)
        assert [coded.label_of(image) for image in read.images.read(list(range(len(read))))] == read.labels.tolist()
        assert len(read) == size
