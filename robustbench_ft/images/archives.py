"""Images inside archives: WebDataset tars and Hugging Face Parquet shards, read at random, not unpacked. Torch-free.

Tars are indexed once (where each member lies); Parquet shards are copied once into Arrow files of the cache, which are
mapped into memory as the `datasets` library does, since a row of a compressed column cannot be reached alone.
"""

import hashlib
import re
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from robustbench_ft import cache, limits
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.progress import Advance, Progress, choose

from . import copied
from .copied import Mapped, stamp
from .files import Bytes, Ints, decode

PACKED = ("jpg", "jpeg", "png")
SEPARATORS, COUNTED = re.compile(r"[-_.]"), re.compile(r"-(\d+)-of-(\d+)\.")
SHOWN = 3


@dataclass(frozen=True)
class PackedImages:
    """Files inside archives: `load(k, start, n)` gives n bytes of the k-th."""

    names: tuple[str, ...]  # what errors call them
    sizes: Ints  # [N], bytes
    load: Callable[[int, int, int], bytes]
    fingerprints: tuple[str, ...]  # of the archives: path, size, time

    def __len__(self) -> int:
        return len(self.names)

    def raw(self, index: int) -> bytes:
        """The file as it was packed."""
        return self.load(index, 0, self.size(index))

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    def part(self, index: int, start: int, n: int) -> bytes:
        return self.load(index, start, n)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return [decode(self.raw(i), self.names[i]) for i in indices]

    def name(self, index: int) -> str:
        return self.names[index]

    def array(self) -> Bytes | None:
        return None

    def digest(self) -> str:
        """The digest of the same files in folders: packing changes nothing."""
        digest = hashlib.sha256(b"border 0\n")
        for size in self.sizes:
            digest.update(f"{size}\n".encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join((*self.fingerprints, *self.names)).encode()).hexdigest()

    def take(self, rows: Ints) -> "PackedImages":
        """Some of them, in another order."""
        own = rows.astype(np.int64)
        names = tuple(self.names[k] for k in own)
        return PackedImages(
            names, self.sizes[own], lambda k, start, n: self.load(int(own[k]), start, n), self.fingerprints
        )


@dataclass(frozen=True)
class Packed:
    """Contents of archives: images, the name each was packed under, and its label."""

    images: PackedImages
    keys: tuple[str, ...]
    labels: Ints


def tars(shards: Sequence[Path]) -> Packed:
    """Members `<key>.jpg|jpeg|png` with `<key>.cls` (a number) beside them, as WebDataset writes them."""
    found: list[Mapping[str, Any]] = []
    made = [cache.entry("tar-index", stamp(shard), ".npz") for shard in shards]
    with _bar("index tars", made) as advance:
        for shard, path in zip(shards, made, strict=True):
            known = path.exists()
            found.append(_index(shard, path))
            if not known:
                advance(1, shard.name)
    keys = tuple(key for index in found for key in index["key"].tolist())
    if not keys:
        raise MissingDataError(f"{shards[0].parent}: the tars hold no image with a .cls beside it; get them again")
    _check_once(keys, shards[0].parent)
    owners = np.repeat(np.arange(len(shards)), [len(index["key"]) for index in found])
    offsets, sizes, labels = (np.concatenate([index[name] for index in found]) for name in ("offset", "size", "label"))

    def load(k: int, start: int, n: int) -> bytes:
        shard = shards[owners[k]]
        try:
            with open(shard, "rb", buffering=0) as file:  # a handle for each call: many threads read
                file.seek(int(offsets[k]) + start)
                return file.read(max(0, min(n, int(sizes[k]) - start)))
        except OSError as error:
            raise RbftError(f"cannot read {shard}: {error.strerror}; put the file back") from error

    names = tuple(f"{shards[owner]}:{key}" for owner, key in zip(owners.tolist(), keys, strict=True))
    return Packed(PackedImages(names, sizes, load, tuple(stamp(shard) for shard in shards)), keys, labels)


def shards_of(place: Path, suffix: str, parts: Set[str], partial: bool = False) -> list[Path]:
    """The shards of one part, e.g. 'train-00000-of-00294.parquet' of 'train'; none if the folder holds no shard at all.

    Where names count (`-of-00294`), a missing shard is an error unless `partial`.
    """
    every = sorted(place.glob(f"*.{suffix}"))
    shards = [path for path in every if parts & set(SEPARATORS.split(path.name))]
    if every and not shards:
        known = ", ".join(path.name for path in every[:SHOWN])
        raise MissingDataError(
            f"{place} holds {len(every)} .{suffix} files ({known}{', ...' * (len(every) > SHOWN)}) and none of part "
            f"'{min(parts)}'; get them too"
        )
    counted = {int(found[2]): found for path in shards if (found := COUNTED.search(path.name))}
    for total, found in counted.items():
        present = {int(other[1]) for path in shards if (other := COUNTED.search(path.name)) and int(other[2]) == total}
        missing = sorted(set(range(total)) - present)
        if missing and not partial:
            raise MissingDataError(
                f"{place} lacks {len(missing)} of {total} .{suffix} files of part '{min(parts)}', e.g. number "
                f"{missing[0]:0{len(found[1])}d}; get them too, or pass --allow-partial"
            )
    return shards


def _bar(label: str, made: Sequence[Path]) -> AbstractContextManager[Advance]:
    """Progress over what is not in the cache yet; silent where all of it is."""
    missing = sum(not path.exists() for path in made)
    progress = choose() if missing else Progress()
    return progress.bar(label, len(made), "files", done=len(made) - missing)


def _check_once(keys: Sequence[str], place: Path) -> None:
    if len(set(keys)) != len(keys):
        twice = next(key for key, n in Counter(keys).items() if n > 1)
        raise RbftError(f"{place} holds '{twice}' twice; move the shards away that are there in two versions")


def _index(shard: Path, path: Path) -> Mapping[str, Any]:
    """Key, label, offset and size of each image of one tar; from the cache when it was indexed before."""
    if path.exists():
        try:
            with path.open("rb") as file:
                stored = np.load(file, allow_pickle=False)
                return {name: stored[name] for name in ("key", "label", "offset", "size")}
        except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile, zlib.error, NotImplementedError):
            cache.discard(path)
    found = _members(shard)
    cache.write(path, lambda temporary: np.savez(temporary, **found))
    return found


def _members(shard: Path) -> dict[str, Any]:
    """Where the images of a tar lie. Raises `RbftError` where a member is no plain file that lies in it whole."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key, _, suffix = member.name.rpartition(".")
                if member.isdir():
                    continue
                if suffix.lower() in PACKED or suffix == "cls":
                    _check_member(shard, member)
                if suffix.lower() in PACKED:
                    if key in images or not member.isfile():
                        raise RbftError(f"{shard}: '{key}' is there twice or is a link; get WebDataset shards again")
                    images[key] = (member.offset_data, member.size)
                elif suffix == "cls":
                    file = archive.extractfile(member)
                    labels[key] = file.read().decode("ascii", "replace").strip() if file else ""
            end = archive.offset + tarfile.BLOCKSIZE  # the empty block that closes a tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RbftError(f"{shard} is not a whole tar file: {error}; get it again") from error
    if end > shard.stat().st_size:
        raise RbftError(f"{shard} is not a whole tar file: it ends before its last block; get it again")
    for key in images:
        if not labels.get(key, "").isdecimal():
            raise RbftError(f"{shard}: '{key}' has no .cls with a number beside it; get WebDataset shards with labels")
    return {
        "key": np.array(list(images), np.str_), "label": np.array([int(labels[key]) for key in images], np.int64),
        "offset": np.array([place[0] for place in images.values()], np.int64),
        "size": np.array([place[1] for place in images.values()], np.int64),
    }  # fmt: skip


def _check_member(shard: Path, member: tarfile.TarInfo) -> None:
    """A sparse member unfolds to any size; a label is a number."""
    most = limits.LABEL if member.name.endswith(".cls") else limits.MOST_BYTES
    big = f"says it has {member.size:,} bytes" if member.size > most else ""
    reason = "is stored sparse" if member.issparse() else big
    if reason:
        raise RbftError(f"{shard}: '{member.name}' {reason}; get WebDataset shards again")


def parquet(shards: Sequence[Path]) -> Packed:
    """Rows with `image` {bytes, path} and `label`, as Hugging Face stores image folders."""
    tables = mapped(shards)
    keys = tuple(key for table in tables for key in table.keys)
    labels = np.concatenate([table.labels for table in tables])
    if "" in keys:
        raise RbftError(
            f"{shards[0].parent}: some rows have no file name in image.path, hence no stable id; get other shards"
        )
    _check_once(keys, shards[0].parent)
    starts = np.cumsum([0, *(len(table.labels) for table in tables)])

    def load(k: int, start: int, n: int) -> bytes:
        number = int(np.searchsorted(starts, k, side="right")) - 1
        return tables[number].bytes(k - int(starts[number]), start, n)

    sizes = np.concatenate([table.sizes for table in tables])
    names = tuple(f"{shard}:{key}" for shard, table in zip(shards, tables, strict=True) for key in table.keys)
    return Packed(PackedImages(names, sizes, load, tuple(stamp(shard) for shard in shards)), keys, labels)


def mapped(shards: Sequence[Path], image: str = "image", label: str = "label") -> list[Mapped]:
    """Copies of Parquet shards in the cache, mapped; made where they are not there yet."""
    made = [copied.entry(shard, image, label) for shard in shards]
    _check_room(shards, made)
    tables: list[Mapped] = []
    with _bar("copy Parquet into the cache", made) as advance:
        for shard, path in zip(shards, made, strict=True):
            known = path.exists()
            tables.append(Mapped(shard, image, label))
            if not known:
                advance(1, shard.name)
    return tables


def _check_room(shards: Sequence[Path], made: Sequence[Path]) -> None:
    """The copies are as large as the shards, for images do not compress further."""
    needed = sum(shard.stat().st_size for shard, path in zip(shards, made, strict=True) if not path.exists())
    free = shutil.disk_usage(made[0].parent).free
    if needed > free:
        raise RbftError(
            f"{shards[0].parent}: {needed / 1e9:.1f} GB are to be copied into {made[0].parent}, which has "
            f"{free / 1e9:.1f} GB left; set RBFT_CACHE to a larger disk, or use tars or folders: they are read in place"
        )
