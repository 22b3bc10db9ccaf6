"""Everything that is written, is written whole: records, caches, checkpoints and weights, each with its own advice."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_ft import atomic, cache
from robustbench_ft.clip import clip
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store
from robustbench_ft.train import checkpoint

WRITERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "record": (lambda path: store.write_bytes(path, b"new"), "choose another folder with --out"),
    "weights": (lambda path: clip._save_tensors(path, {"x": torch.ones(2)}), "choose another folder with --out"),  # pyright: ignore[reportPrivateUsage]
    "cache": (lambda path: cache.write_bytes(path, b"new"), "set RBFT_CACHE"),
    "checkpoint": (lambda path: checkpoint.save({"x": 1}, path), "then run the same command"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.part"
    path.write_bytes(b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    write, hint = WRITERS[name]
    with pytest.raises(RbftError, match=r"cannot write .*x\.part: No space left on device; .*" + hint):
        write(path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.part"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_on_the_disk_and_others_may_read_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", lambda fd: flushed.append(os.fstat(fd).st_ino))
    path = tmp_path / "new" / "x.safetensors"
    previous = os.umask(0o022)
    try:
        WRITERS[name][0](path)
    finally:
        os.umask(previous)
    assert flushed == [path.stat().st_ino]
    assert path.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in path.parent.iterdir()] == ["x.safetensors"]


def test_weights_on_a_full_disk_are_one_line(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RbftError, match=r"cannot write .*w\.safetensors: .*File too large.*--out") as caught:
            clip._save_tensors(tmp_path / "w.safetensors", {"x": torch.ones(10_000)})  # pyright: ignore[reportPrivateUsage]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_libraries_that_add_a_suffix_find_it_there(tmp_path: Path) -> None:
    atomic.write(tmp_path / "a.npy", lambda temporary: np.save(temporary, np.arange(3)), "")
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
