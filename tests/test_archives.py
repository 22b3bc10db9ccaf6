"""Archives are read at random, in place, as the libraries that write them would stream them."""

import gc
import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import coded
import forest
import numpy as np
import pyarrow as pa
import pytest

from robustbench_ft import cache
from robustbench_ft.data import FileImages
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import archives
from robustbench_ft.images.archives import Packed

webdataset: Any = import_module("webdataset")
VALIDATION = {"validation"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "forest"


def tars(base: Path) -> Packed:
    return archives.tars(archives.shards_of(forest.tars(base), "tar", VALIDATION))


def parquet(base: Path) -> Packed:
    return archives.parquet(archives.shards_of(forest.parquet(base), "parquet", VALIDATION))


READERS = pytest.mark.parametrize("read", [tars, parquet])
LEAVES = {one.stem: one for one in forest.val()}


@READERS
def test_a_row_is_read_alone_and_in_any_order(read: Callable[[Path], Packed], base: Path) -> None:
    found = read(base)
    assert len(found.images) == len(found.keys) == len(found.labels) == 1000
    for k in np.random.default_rng(0).permutation(1000)[:200].tolist():
        one = LEAVES[found.keys[k][:23]]
        assert found.images.raw(k) == one.content
        assert found.labels[k] == one.label == coded.label_of(found.images.read([k])[0])
        assert found.images.size(k) == len(one.content)
        assert found.images.part(k, 100, 50) == one.content[100:150]
        assert found.images.part(k, len(one.content) - 5, 50) == one.content[-5:]
        assert found.keys[k] in found.images.name(k)


@READERS
def test_rows_are_taken_in_any_order_and_again(read: Callable[[Path], Packed], base: Path) -> None:
    images = read(base).images
    some = images.take(np.array([7, 3, 999])).take(np.array([2, 0]))
    assert [some.raw(k) for k in range(2)] == [images.raw(999), images.raw(7)]
    assert [some.name(k) for k in range(2)] == [images.name(999), images.name(7)]
    assert some.digest() == images.take(np.array([999, 7])).digest()
    assert some.fingerprint() != images.fingerprint()


@READERS
def test_the_digest_is_that_of_the_same_files_in_folders(read: Callable[[Path], Packed], base: Path) -> None:
    found = read(base)
    leaves = [LEAVES[key[:23]] for key in found.keys]
    folders = FileImages(forest.imagenet(base) / "imagenet/val", tuple(one.path for one in leaves))
    assert found.images.digest() == folders.digest()
    assert found.images.fingerprint() != folders.fingerprint()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_streams_what_is_read_at_random(base: Path) -> None:
    place = forest.tars(base)
    streamed: Any = webdataset.WebDataset([str(p) for p in sorted(place.glob("*validation*"))], shardshuffle=False)
    ours, k = tars(base), -1
    for k, sample in enumerate(streamed):
        assert sample["__key__"] == ours.keys[k]
        assert sample["jpg"] == ours.images.raw(k)
        assert int(sample["cls"]) == ours.labels[k]
    assert k == 999
    del streamed
    gc.collect()  # it leaves its files open


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "JPEG"])
def test_shards_that_webdataset_wrote_are_read(suffix: str, tmp_path: Path) -> None:
    leaves = forest.val()[:20]
    writer: Any = webdataset.ShardWriter(str(tmp_path / "imagenet-val-%06d.tar"), maxcount=8, verbose=0)
    for one in leaves:
        sample: dict[str, Any] = {"__key__": f"{one.folder}/{one.stem}", suffix: one.content, "cls": one.label}
        writer.write({**sample, "json": {"a": 1}})
    writer.close()
    shards = archives.shards_of(tmp_path, "tar", {"validation", "val"})
    assert len(shards) == 3
    found = archives.tars(shards)
    assert found.keys == tuple(f"{one.folder}/{one.stem}" for one in leaves)
    assert found.labels.tolist() == list(range(20))
    assert [found.images.raw(k) for k in range(20)] == [one.content for one in leaves]


def test_tars_are_indexed_once_and_stay_where_they_are(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path))
    first = tars(base)
    assert "index tars: 3/3 files" in capsys.readouterr().err
    packed = sum(path.stat().st_size for path in forest.tars(base).glob("*validation*"))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npz")) < packed / 5
    monkeypatch.setattr(archives.tarfile, "open", lambda *args: pytest.fail("indexed again"))
    again = tars(base)
    assert not capsys.readouterr().err  # nothing to do, nothing said
    assert again.keys == first.keys
    assert again.images.fingerprint() == first.images.fingerprint()


def test_parquet_is_mapped_not_loaded(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path))
    parquet(base)
    copied = sum(path.stat().st_size for path in tmp_path.rglob("*.arrow"))
    before = pa.total_allocated_bytes()
    found = parquet(base)
    assert pa.total_allocated_bytes() - before < copied / 10
    assert found.images.raw(5) == LEAVES[found.keys[5][:23]].content


@READERS
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut", b"ARROW1\0\0 cut"])
def test_a_damaged_cache_entry_is_made_again(
    read: Callable[[Path], Packed], damage: bytes, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path))
    keys = read(base).keys
    entry = min(path for suffix in ("npz", "arrow") for path in tmp_path.rglob(f"*.{suffix}"))
    entry.write_bytes(damage)
    capsys.readouterr()
    assert read(base).keys == keys
    assert f"cache: {entry} was damaged, or of an earlier version: it is made again" in capsys.readouterr().err


@READERS
def test_a_flipped_bit_in_a_cache_entry_is_seen(
    read: Callable[[Path], Packed], base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Anywhere: every image and label is right, and where the bit counted it was said and the entry made again."""
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path))
    place = forest.tars(base) if read is tars else forest.parquet(base)
    shard, one = min(place.glob("*validation*")), archives.tars if read is tars else archives.parquet
    wanted = one([shard])
    files = [wanted.images.raw(k) for k in range(len(wanted.keys))]
    [entry] = [path for suffix in ("npz", "arrow") for path in tmp_path.rglob(f"*.{suffix}")]
    sound, said = entry.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(sound), 25).tolist():
        content = bytearray(sound)
        content[place] ^= 32
        entry.unlink()  # what is mapped stays as it was
        entry.write_bytes(content)
        found = one([shard])
        assert (found.keys, found.labels.tolist()) == (wanted.keys, wanted.labels.tolist()), place
        assert [found.images.raw(k) for k in range(len(files))] == files, place
        if "it is made again" in capsys.readouterr().err:
            said += 1
            assert entry.read_bytes() == sound
    assert said > 15  # the other places are padding


@READERS
def test_a_replaced_shard_is_read_anew(read: Callable[[Path], Packed], base: Path, tmp_path: Path) -> None:
    place = forest.tars(base) if read is tars else forest.parquet(base)
    suffix, one = (".tar", archives.tars) if read is tars else (".parquet", archives.parquet)
    shard = Path(shutil.copy(min(place.glob("*validation*")), tmp_path / f"validation{suffix}"))
    before = one([shard])
    (forest.write_tar if read is tars else forest.write_parquet)(shard, forest.val()[:4])
    os.utime(shard, ns=(0, 0))
    after = one([shard])
    assert len(after.keys) == 4
    assert [after.images.raw(k) for k in range(4)] == [leaf.content for leaf in forest.val()[:4]]
    assert before.images.fingerprint() != after.images.fingerprint()


def test_a_shard_that_is_gone_is_named(base: Path, tmp_path: Path) -> None:
    shard = Path(shutil.copy(min(forest.tars(base).glob("*validation*")), tmp_path / "validation.tar"))
    images = archives.tars([shard]).images
    shard.unlink()
    with pytest.raises(RbftError, match=rf"cannot read {shard}: No such file or directory; put the file back"):
        images.raw(0)
    with pytest.raises(MissingDataError, match=f"cannot read {shard}: No such file"):
        archives.tars([shard])


def test_a_full_disk_is_noticed_before_copying(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(RbftError, match=r"GB are to be copied into .*, which has 0\.0 GB left; set RBFT_CACHE"):
        parquet(base)
    assert not list(tmp_path.rglob("*.arrow"))
    assert not list(cache.root().rglob("*.arrow"))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-00000-of-00294.parquet", "train"), ("validation-00000-of-00014.parquet", "validation"),
        ("imagenet1k-train-0000.tar", "train"), ("imagenet1k-validation-63.tar", "validation"),
        ("imagenet-val-000006.tar", "val"), ("imagenet_train_0001.tar", "train"), ("train.tar", "train"),
        ("test-00000-of-00028.parquet", "test"),
    ],
)  # fmt: skip
def test_shards_are_told_apart_by_their_names(name: str, part: str, tmp_path: Path) -> None:
    path, suffix = tmp_path / name, name.rpartition(".")[2]
    path.touch()
    for wanted in ({"train"}, {"validation", "val"}, {"test"}):
        if part in wanted:
            assert archives.shards_of(tmp_path, suffix, wanted, partial=True) == [path]
        else:
            with pytest.raises(MissingDataError, match=rf"holds 1 \.{suffix} files .* none of part '.*'; get them too"):
                archives.shards_of(tmp_path, suffix, wanted)
    assert archives.shards_of(tmp_path, "zip", {"train"}) == []


def test_a_set_that_counts_its_shards_is_held_to_it(tmp_path: Path) -> None:
    for k in (0, 1, 3):
        (tmp_path / f"train-{k:05d}-of-00005.parquet").touch()
    with pytest.raises(
        MissingDataError, match=r"lacks 2 of 5 \.parquet files of part 'train', e\.g\. number 00002; get"
    ):
        archives.shards_of(tmp_path, "parquet", {"train"})
    assert len(archives.shards_of(tmp_path, "parquet", {"train"}, partial=True)) == 3
