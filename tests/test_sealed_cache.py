"""Entries of the cache carry check sums: a flipped bit is seen when it is read, and the entry is made again."""

import zlib
from pathlib import Path

import forest
import numpy as np
import pytest
import torch

from robustbench_ft import cache, checksums, model_ref
from robustbench_ft import clip as clips
from robustbench_ft.clip import Clip
from robustbench_ft.errors import RbftError
from robustbench_ft.images import archives, copied
from robustbench_ft.prompts import Task

SAID = "was damaged, or of an earlier version: it is made again"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("pieces", [[0], [1], [checksums.BLOCK], [checksums.BLOCK + 5, 3, 2 * checksums.BLOCK, 7]])
def test_sums_of_pieces_are_those_of_the_whole(pieces: list[int], tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, sum(pieces), dtype=np.uint8).tobytes()
    found, start = checksums.Sums(), 0
    for n in pieces:
        found.add(content[start : start + n])
        start += n
    path = tmp_path / "x"
    path.write_bytes(content + found.tail())
    sealed = checksums.opened(path)
    assert sealed is not None
    assert sealed.content.tobytes() == content
    assert sealed.is_whole()
    blocks = [content[k : k + checksums.BLOCK] for k in range(0, len(content), checksums.BLOCK)]
    assert sealed.sums.tolist() == [zlib.crc32(block) for block in blocks]
    path.write_bytes(content)
    checksums.append(path)
    assert path.read_bytes() == content + found.tail()


def test_only_the_blocks_that_are_read_are_checked(tmp_path: Path) -> None:
    path, block = tmp_path / "x", checksums.BLOCK
    path.write_bytes(bytes(4 * block))
    checksums.append(path)
    flipped(path, 2 * block + 9)
    sealed = checksums.opened(path)
    assert sealed is not None
    assert sealed.is_whole(0, 2 * block)
    assert sealed.is_whole(3 * block)
    assert not sealed.is_whole(2 * block - 1, 2 * block + 1)
    assert not sealed.is_whole(3 * block - 1, 3 * block)


@pytest.mark.parametrize("content", [b"", b"short", bytes(100)])
def test_files_without_sums_have_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert checksums.opened(tmp_path / "x") is None


def test_a_drawn_array_with_a_flipped_bit_is_drawn_again(capsys: pytest.CaptureFixture[str]) -> None:
    drawn: list[int] = []

    def draw() -> np.ndarray:
        drawn.append(1)
        return np.arange(200, dtype=np.uint8).reshape(2, 100)

    wanted, path = cache.array("drawn", "d", draw), cache.entry("drawn", "d", ".npy")
    size = path.stat().st_size
    assert len(drawn) == 1
    for place in range(0, size, 7):
        flipped(path, place)
        assert np.array_equal(cache.array("drawn", "d", draw), wanted), place
        assert SAID in capsys.readouterr().err, place
    assert np.array_equal(cache.array("drawn", "d", draw), wanted)
    assert len(drawn) == 1 + len(range(0, size, 7))
    assert not capsys.readouterr().err


def test_a_copy_whose_list_of_batches_is_damaged_is_made_again(tmp_path: Path) -> None:
    """The end of an Arrow file says where its batches lie and what its columns are; found by fuzzing."""
    leaves = [forest.leaf("n01440764", f"{k:03d}", "png", k) for k in range(3)]
    shard = forest.write_parquet(tmp_path / "train.parquet", leaves)

    def read() -> tuple[tuple[str, ...], list[int], list[bytes]]:
        found = archives.parquet([shard])
        return found.keys, found.labels.tolist(), [found.images.raw(k) for k in range(len(found.keys))]

    wanted, entry = read(), copied.entry(shard)
    sound = entry.read_bytes()
    for place in range(len(sound) - 900, len(sound), 5):
        entry.unlink(missing_ok=True)  # what is mapped stays as it was
        entry.write_bytes(sound[:place] + bytes([sound[place] ^ (1, 2, 16)[place % 3]]) + sound[place + 1 :])
        assert read() == wanted, place


def test_a_shard_without_rows_is_named(tmp_path: Path) -> None:
    shard = forest.write_parquet(tmp_path / "train.parquet", [])
    with pytest.raises(
        RbftError, match=r"train\.parquet cannot be read as Parquet images: it has no row; get it again"
    ):
        archives.parquet([shard])


@pytest.fixture
def clip() -> Clip:
    loaded = clips.load(model_ref.resolve("embedded", None))
    return loaded.requires_grad_(False)


def test_a_head_with_a_flipped_bit_is_made_again(clip: Clip, capsys: pytest.CaptureFixture[str]) -> None:
    task = Task(("cup", "house"), ("a photo of a {}", "a sketch of a {}"))
    wanted = clip.zero_shot_head(task)
    [path] = cache.root().glob("heads/*.safetensors")
    assert torch.equal(clip.zero_shot_head(task), wanted)
    assert not capsys.readouterr().err
    for place in (0, 12, 60, *range(path.stat().st_size - 40, path.stat().st_size, 5)):
        flipped(path, place)
        assert torch.equal(clip.zero_shot_head(task), wanted), place
        assert SAID in capsys.readouterr().err, place
