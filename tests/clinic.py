"""Clinic: a suite of files in folders, tars or Parquet, into which tests plant faults; a few images of four classes."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiny
from PIL import Image
from tiny import Tiny

from robustbench_ft.data import FileImages, Images, Ints, Split
from robustbench_ft.images import archives, folders
from robustbench_ft.images.files import MOST_LONG
from robustbench_ft.suite import Card, Source, Suite

CLASSES = ("cup", "dog", "fern", "kite")  # folders
N = {"train": 12, "test": 6, "cartoon": 4}  # images per class in the tree
HELD_OUT = 2


class Clinic(Suite):
    """ID validation is held out of train, and papers train on both."""

    recipe = Tiny.recipe
    shifts = ("cartoon",)
    published_train, published_selector = "train-all", "test"
    places = {name: (f"clinic/{name}", f"{name}-of-clinic") for name in N}  # noqa: RUF012
    card = Card(
        "Clinic", "tests", "MIT", "the test that writes it",
        counts={"train": 40, "val": 8, "train-all": 48, "test": 24, "cartoon": 16},
        per_class={"test": (6, 6), "cartoon": (1, 4)},
        sources=(
            Source(("train", "test"), "Clinic's photographs", "clinic.example (photos.zip)", "1 MB", "MIT",
                   "a form to sign", ("Mirror: clinic/photos",), "clinic/<split>/<class>/*"),
            Source(("cartoon",), "Clinic's cartoons", "clinic.example (cartoons.zip)", "2 MB", "CC0"),
        ),
    )  # fmt: skip

    @property
    def classes(self) -> tuple[str, ...]:
        return ("red page", "green page", "blue page", "red drawing")  # words that the tiny model knows

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a photo of a {}",)

    def load(self, name: str) -> Split:
        place = self.place(name if name in N else "train")
        images, keys, labels, layout = _found(place, self.partial)
        part = name if name in N else "train"
        ids = tuple(f"{part}/{key}" for key in keys)
        held = folders.held_out(ids, labels, HELD_OUT)
        keep = {"train": ~held, "val": held}.get(name, np.ones(len(ids), np.bool_))
        rows = np.flatnonzero(keep)
        return Split(name, images(rows), labels[rows], tuple(ids[k] for k in rows), place=place, layout=layout)


def _found(place: Path, partial: bool) -> tuple[Callable[[Ints], Images], list[str], Ints, str]:
    for suffix, read in (("tar", archives.tars), ("parquet", archives.parquet)):
        shards = sorted(place.glob(f"*.{suffix}"))
        if shards:
            packed = read(shards)
            return packed.images.take, [key.partition(".")[0] for key in packed.keys], packed.labels, suffix
    found = folders.class_folders(place, {word: k for k, word in enumerate(CLASSES)}, partial=partial)
    keys = [path.rpartition(".")[0] for path in found.paths]
    return (lambda rows: FileImages(place, tuple(found.paths[k] for k in rows))), keys, found.labels, "class folders"


def write_tree(root: Path) -> Path:
    """A whole and healthy tree under `root`."""
    for split, n in N.items():
        for label, word in enumerate(CLASSES):
            for k in range(n):
                coded.write(root / "clinic" / split / word / f"{split}-{k:02d}.jpg", label)
    return root


def write_shelf(folder: Path) -> Path:
    """Write the metadata of an installed package that offers this suite."""
    return tiny.write_shelves(folder, "[robustbench_ft.benchmarks]\nclinic = clinic\n", "rbft_clinic")


def pack(folder: Path, kind: str) -> None:
    """Put the class folders of one split into a tar or a Parquet shard and take them away."""
    files = [(word, path) for word in CLASSES for path in sorted((folder / word).iterdir())]
    if kind == "tar":
        with tarfile.open(folder / "shard-0.tar", "w") as archive:
            for word, path in files:
                for name, content in ((f"{word}/{path.stem}.jpg", path.read_bytes()),
                                      (f"{word}/{path.stem}.cls", str(CLASSES.index(word)).encode())):  # fmt: skip
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    else:
        images = [{"bytes": path.read_bytes(), "path": f"{word}/{path.name}"} for word, path in files]
        labels = [CLASSES.index(word) for word, _ in files]
        pq.write_table(pa.table({"image": images, "label": labels}), folder / "shard-0.parquet")
    for word in CLASSES:
        for path in (folder / word).iterdir():
            path.unlink()
        (folder / word).rmdir()


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(coded.picture(1), "JPEG", exif=exif)


def _damaged() -> bytes:
    whole = bytearray(_saved(coded.picture(1), "PNG"))
    start = whole.index(b"IDAT")
    whole[start + 20 : start + 60] = bytes(40)
    return bytes(whole)


def _frames(form: str) -> bytes:
    return _saved(coded.picture(1), form, save_all=True, append_images=[coded.picture(2)])


WIDE = Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 60)
FAULTS: dict[str, Callable[[], bytes]] = {  # what is found -> bytes of a file called .jpg
    "empty": lambda: b"",
    "no image": lambda: b"<!DOCTYPE html><html>404 Not Found</html>",
    "truncated": lambda: _saved(coded.picture(1), "JPEG")[:400],
    "damaged": _damaged,
    "16-bit": lambda: _saved(WIDE, "PNG"),
    "greyscale": lambda: _saved(coded.picture(1).convert("L"), "JPEG"),
    "CMYK": lambda: _saved(coded.picture(1).convert("CMYK"), "JPEG"),
    "transparent": lambda: _saved(coded.picture(1).convert("RGBA"), "PNG"),
    "animated": lambda: _frames("GIF"),
    "wrong suffix": lambda: _saved(coded.picture(1), "PNG"),
    "turned": _turned,
    "strip": lambda: _saved(Image.new("RGB", (MOST_LONG * 4 + 8, 4)), "PNG"),
}
