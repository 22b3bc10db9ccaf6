"""`rbft cache`: what is there is shown, and what is asked for goes."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import cache
from robustbench_ft.cli.main import main
from robustbench_ft.pixels import kept


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three splits of 30 kB, used one, two and three days ago, and a drawn array."""
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "cache"))
    for days, name in enumerate(("a", "b", "c"), start=1):
        with kept.filling(name, (10, 3, 32, 32), {"what": f"split {name}", "place": f"/data/{name}"}) as add:
            add(np.zeros((10, 3, 32, 32), np.uint8))
        os.utime(kept.path(name), (0, time.time() - days * 86_400))
    cache.array("drawn", "d", lambda: np.zeros(100, np.uint8))
    return tmp_path / "cache"


def rbft(words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["cache", *words.split()])
    assert done.exit_code == code, done.output
    return done.output


def left() -> set[str]:
    return {entry.text for entry in cache.entries() if entry.kind == "pixels"}


def test_ls_sums_by_kind(own_cache: Path) -> None:
    lines = rbft("ls").splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["drawn", "1"], ["pixels", "3"]]
    assert lines[-1].startswith(f"{own_cache}: 90.7 KiB in 4 entries; pixels 90.4 KiB of at most 64.0 GiB")


def test_ls_shows_what_each_entry_is(own_cache: Path) -> None:
    text = rbft("ls --all")
    assert "split b" in text
    assert "/data/c" in text
    assert "3 days ago" in text


def test_an_empty_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "none"))
    assert "0 B in 0 entries" in rbft("ls")
    assert "0 B in 0 entries" in rbft("ls --all")
    assert "removed 0 entries, 0 B" in rbft("prune --all")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "remain"),
    [
        ("prune", {"split a", "split b", "split c"}), ("prune --unused-days 2.5", {"split a", "split b"}),
        ("prune --until-size 70KiB --kind pixels", {"split a", "split b"}), ("prune --to 0", set[str]()),
        ("prune --all", set[str]()), ("prune --kind pixels", set[str]()),
        ("prune --kind drawn", {"split a", "split b", "split c"}),
    ],
)  # fmt: skip
def test_prune_removes_what_is_asked_for(words: str, remain: set[str]) -> None:
    shown = rbft(f"{words} --dry-run")
    assert left() == {"split a", "split b", "split c"}
    assert rbft(words).replace("removed", "would remove") == shown
    assert left() == remain


def test_prune_keeps_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBFT_CACHE_LIMIT", "40KiB")
    assert "removed 2 entries" in rbft("prune")
    assert left() == {"split a"}


def test_prune_leaves_no_file_behind(own_cache: Path) -> None:
    (own_cache / "pixels" / "x.partial").write_bytes(b"1" * 2048)
    assert "removed 4 entries, 92.7 KiB" in rbft("prune --all")
    assert not [path for path in own_cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("prune --all --older 3", "--all, --unused-days and --until-size exclude each other; give one"),
        ("prune --to lots", "--until-size: 'lots' is no size; write e.g. 500MiB or 20GiB"),
        ("prune --kind pixel", "unknown kind of cache entry 'pixel': did you mean pixels? known: drawn, pixels"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_and_removes_nothing(words: str, says: str) -> None:
    assert rbft(words, code=2) == f"rbft: {says}\n"
    assert len(cache.entries()) == 4


def test_loaders_are_measured_beside_torchvision(tiny_model: str, tmp_path: Path, own_cache: Path) -> None:
    words = f"bench-loader --model {tiny_model} --images 20 --rounds 1 --workers 1 --batch 8 --device cpu"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 0, done.output
    rows = [line.split("|")[1:4] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [name.strip() for name, _, _ in rows] == [
        "evaluation: torchvision", "evaluation: rbft, decoding", "evaluation: rbft, from the cache",
        "training 'crop': torchvision", "training 'crop': rbft",
        "training 'crop-flip': torchvision", "training 'crop-flip': rbft",
    ]  # fmt: skip
    assert all(float(rate.replace(",", "")) > 0 for _, rate, _ in rows)
    assert json.loads(done.stdout.splitlines()[-1])["gpu"] is None
    assert left() == {"split a", "split b", "split c"}  # nothing of it stays


def test_a_tree_without_images_is_named(tiny_model: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["bench-loader", "--model", tiny_model, "--tree", str(tmp_path)])
    assert done.exit_code == 2
    assert f"{tmp_path} has no <class>/<image> files; name a folder of class folders" in done.output
