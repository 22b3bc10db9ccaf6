"""Small files that say they unfold to very much are refused in one line, before they do."""

import io
import tarfile
from pathlib import Path
from typing import Any

import made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustbench_ft import limits
from robustbench_ft.claims import bundle, claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.errors import RbftError
from robustbench_ft.images import archives
from robustbench_ft.record import store


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "cache"))


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    return path


def repeated(text: Any, n: int) -> Any:
    """[n] the same, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), [text])


def shard(path: Path, files: Any) -> Path:
    image = pa.StructArray.from_arrays([files, pa.array([str(k) for k in range(len(files))])], ["bytes", "path"])
    return write(path, {"image": image, "label": pa.array(np.zeros(len(files), np.int64))})


def test_a_text_that_all_rows_share_is_refused_by_what_it_takes(tmp_path: Path) -> None:
    """A few hundred bytes that would take 100 GB."""
    path = write(tmp_path / "p.parquet", {"id": repeated("x" * 1_000_000, 100_000)})
    assert path.stat().st_size < 1000
    with pytest.raises(RbftError, match=r"cannot read predictions .*p\.parquet: the texts of column 'id' take more"):
        store.read_columns(path, ["id"])


def test_long_texts_of_their_own_are_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_TEXTS", 10_000)
    texts = [f"{k:090d}" for k in range(100)]
    path = write(tmp_path / "p.parquet", {"id": pa.array(texts)})
    assert store.read_columns(path, ["id"])["id"].to_pylist() == texts
    monkeypatch.setattr(limits, "MOST_TEXTS", 8_999)
    with pytest.raises(RbftError, match="the texts of column 'id' take more than 8,999 bytes"):
        store.read_columns(path, ["id"])


def test_pages_that_unfold_too_far_are_refused(tmp_path: Path) -> None:
    values = np.zeros(40_000_000, np.int64)
    values[::1000] = 1  # else it would not be stored plainly
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"x": values[:12_000_000]}), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 300_000
    with pytest.raises(RbftError, match=r"it says it unfolds from [0-9,]+ to 9[0-9],[0-9,]+ bytes"):
        store.read_columns(path, ["x"])


def test_too_many_rows_and_too_long_lists_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.parquet", {"x": pa.array([[0] * 1001])})
    with pytest.raises(RbftError, match=r"column 'x\..*' says it has 1,001 values"):
        store.read_columns(path, ["x"])
    monkeypatch.setattr(limits, "MOST_ROWS", 9)
    path = write(tmp_path / "p.parquet", {"x": pa.array(range(10))})
    with pytest.raises(RbftError, match="it says it has 10 rows, and at most 9 are read"):
        store.read_columns(path, ["x"])


def test_a_claim_is_held_to_the_same(tmp_path: Path) -> None:
    runs = made.write(tmp_path / "runs", made.World(skills={"ft": (1.0, 0.1)}, n=12, seeds=(0,)))
    [stored] = claim_store.add([runs], tmp_path / "boards", Trust("rerun"))
    folder = tmp_path / "boards" / stored.place.run(0)
    write(folder / bundle.PREDICTIONS, {"split": repeated("x" * 1_000_000, 100_000)})
    with pytest.raises(RbftError, match=r"cannot read .*: the texts of column 'split' take .*; restore the file"):
        bundle.read(folder)


def test_an_image_that_all_rows_of_a_shard_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noticed while the copy is made, and nothing of the copy stays."""
    monkeypatch.setattr(limits, "SLACK", 1 << 20)
    image = pa.array([b"\0" * 100_000] * 1000, pa.binary())
    path = shard(tmp_path / "train.parquet", image)
    assert path.stat().st_size < 10_000
    with pytest.raises(RbftError, match=r"train\.parquet cannot be read as Parquet images: it unfolds from [0-9,]+ to"):
        archives.parquet([path])
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_shard_that_says_so_itself_is_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "train.parquet", pa.array([b"\0" * 200_000_000], pa.binary()))
    with pytest.raises(RbftError, match=r"cannot be read as Parquet images: it says it unfolds from [0-9,]+ to 20"):
        archives.parquet([path])


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            one = tarfile.TarInfo(name)
            one.size = len(content)
            archive.addfile(one, io.BytesIO(content))
    return path


def test_labels_in_a_tar_are_numbers_not_files(tmp_path: Path) -> None:
    path = tar(tmp_path / "train.tar", {"a.jpg": b"x", "a.cls": b"1" * 65})
    with pytest.raises(RbftError, match=r"'a\.cls' says it has 65 bytes; get WebDataset shards again"):
        archives.tars([path])


def test_images_in_a_tar_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BYTES", 10)
    assert len(archives.tars([tar(tmp_path / "fine.tar", {"a.jpg": b"x" * 10, "a.cls": b"1"})]).images) == 1
    with pytest.raises(RbftError, match=r"'a\.jpg' says it has 11 bytes"):
        archives.tars([tar(tmp_path / "train.tar", {"a.jpg": b"x" * 11, "a.cls": b"1"})])


def test_a_sparse_member_of_a_tar_is_refused(tmp_path: Path) -> None:
    """GNU tar stores holes as a map: a kilobyte that reads as a terabyte."""
    one = tarfile.TarInfo("a.jpg")
    one.type, one.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(one.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % (1 << 32)  # its real size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "train.tar"
    path.write_bytes(bytes(block) + bytes(1024))
    with pytest.raises(RbftError, match=r"train\.tar: 'a\.jpg' is stored sparse; get WebDataset shards again"):
        archives.tars([path])
