"""CIFAR-10: learn on CIFAR-10; be tested on CIFAR-10.1, CIFAR-10.2, CIFAR-10-C and STL-10."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from robustbench_ft import cache
from robustbench_ft.data import Bytes, Ints, LabelSpace, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import arrays, folders, hub
from robustbench_ft.images.roots import Roots
from robustbench_ft.recipe import R_WISE
from robustbench_ft.suite import Card, Source, Suite

NAMES = (  # openai/CLIP@04f4dc2, data/prompts.md
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIDE, STL_SIDE, CLASSES = 32, 96, len(NAMES)
HELD_OUT = 500  # images per class held out of train
SEVERITIES = 5
CORRUPTIONS = (  # the 15 of the benchmark, in the order of LP-FT's cifar10c.py, then the 4 for validation
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    "gaussian_blur", "saturate", "spatter", "speckle_noise",
)  # fmt: skip
COUNTED = 15
BINS = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
STL_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
OF_STL = (0, 2, 1, 3, 4, 5, 7, -1, 8, 9)  # STL-10's label -> CIFAR-10's; monkey has none, and frog is none of STL's
SHARED = tuple(k for k in range(CLASSES) if k in OF_STL)
AMONG = tuple((k,) for k in SHARED)  # STL-10's own label space: nine classes
AMONG_PLACE = tuple(SHARED.index(k) if k in SHARED else -1 for k in range(CLASSES))
CIFAR = ("cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar10/plain_text", "cifar10", "CIFAR-10")
PICKLED = ("cifar-10-batches-py", "cifar10/cifar-10-batches-py")  # found only to say what to take instead
C_PLACES = ("CIFAR-10-C", "cifar10/CIFAR-10-C", "cifar10c")


class Cifar10(Suite):
    """CIFAR-10-C counts its 15 corruptions, whose sets are of one size: accuracy over all of them is the mean over
    corruptions and severities that papers report. STL-10 is scored among the nine classes it shares, and among all
    ten, as LP-FT does, under `stl10@10-way`. No paper's recipe is followed: WiSE-FT's for ImageNet is used."""

    recipe = R_WISE
    model, pretrained = "ViT-B-16", "openai"
    shifts = ("cifar10.1", "cifar10.2", "cifar10-c", "stl10")
    clusters: Mapping[str, str] = {"cifar10-c": "image", "cifar10-c-extra": "image"}  # one image, corrupted often
    group_names: Mapping[str, tuple[str, ...]] = {"corruption": CORRUPTIONS}
    options = {"c-extra": "stores the four further corruptions of CIFAR-10-C, which are in no mean"}  # noqa: RUF012
    places = {  # noqa: RUF012
        "train": (*CIFAR, *PICKLED),
        "test": (*CIFAR, *PICKLED),
        "cifar10.1": ("CIFAR-10.1/datasets", "CIFAR-10.1", "cifar10/CIFAR-10.1", "cifar10.1"),
        "cifar10.2": ("CIFAR-10.2", "cifar10/CIFAR-10.2", "cifar-10.2", "cifar10.2"),
        "cifar10-c": C_PLACES,
        "cifar10-c-extra": C_PLACES,
        "stl10": ("stl10_binary", "stl10/stl10_binary", "STL-10/stl10_binary"),
    }
    card = Card(
        title="CIFAR-10 and its shifts",
        paper="Krizhevsky 2009; Recht et al. 2018 (10.1); Lu et al. 2020 (10.2); Hendrycks and Dietterich 2019 (C); "
        "Coates et al. 2011 (STL-10)",
        licence="none stated for CIFAR-10, 10.2 and STL-10; 10.1 MIT; C as Zenodo 2535967 states",
        home="www.cs.toronto.edu/~kriz/cifar.html",
        counts={
            "train": 50_000 - CLASSES * HELD_OUT, "val": CLASSES * HELD_OUT, "test": 10_000, "cifar10.1": 2_000,
            "cifar10.2": 2_000, "cifar10-c": 750_000, "cifar10-c-extra": 200_000, "stl10": 7_200,
        },
        per_class={
            "train": (5_000 - HELD_OUT, 5_000 - HELD_OUT), "val": (HELD_OUT, HELD_OUT), "test": (1_000, 1_000),
            "cifar10.1": (200, 200), "cifar10-c": (75_000, 75_000), "cifar10-c-extra": (20_000, 20_000),
            "stl10": (800, 800),
        },
        note="CIFAR-10, 10.1 and 10.2 come from Tiny Images, which its authors withdrew in 2020 for offensive content; "
        "CIFAR-10-C shows the test images again, 75 times",
        sources=(
            Source(("train", "test"), "CIFAR-10, binary version",
                   "www.cs.toronto.edu/~kriz/cifar.html (cifar-10-binary.tar.gz)", "162 MB", "none stated",
                   mirrors=("Hugging Face: uoft-cs/cifar10 (Parquet), or what save_to_disk writes of it",),
                   unpack="cifar-10-batches-bin/*.bin, or cifar10/plain_text/*.parquet, or cifar10/{train,test} as "
                   "save_to_disk writes them; never the -py archive, a pickle"),
            Source(("cifar10.1",), "CIFAR-10.1 v6", "github modestyachts/CIFAR-10.1, datasets/", "6 MB", "MIT",
                   unpack="CIFAR-10.1/cifar10.1_v6_{data,labels}.npy"),
            Source(("cifar10.2",), "CIFAR-10.2 test", "github modestyachts/cifar-10.2", "see the repository",
                   "none stated", unpack="CIFAR-10.2/cifar102_test.npz; never cifar102_test.npy, a pickle"),
            Source(("cifar10-c", "cifar10-c-extra"), "CIFAR-10-C", "zenodo.org/records/2535967 (CIFAR-10-C.tar)",
                   "2.9 GB", "as Zenodo states", unpack="CIFAR-10-C/<corruption>.npy and labels.npy"),
            Source(("stl10",), "STL-10 test", "ai.stanford.edu/~acoates/stl10 (stl10_binary.tar.gz)", "2.6 GB",
                   "none stated", unpack="stl10_binary/test_X.bin and test_y.bin"),
        ),
    )  # fmt: skip

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        self._trained: Split | None = None
        if "c-extra" in self.chosen:
            self.extra = ("cifar10-c-extra",)

    @property
    def classes(self) -> tuple[str, ...]:
        return NAMES

    @property
    def templates(self) -> tuple[str, ...]:
        """The 18 of CLIP for CIFAR-10 (openai/CLIP@04f4dc2, data/prompts.md)."""
        kinds = ("photo", "blurry photo", "black and white photo", "low contrast photo", "high contrast photo",
                 "bad photo", "good photo")  # fmt: skip
        return (
            *(f"a {kind} of a {{}}." for kind in kinds), "a photo of a small {}.", "a photo of a big {}.",
            *(f"a {kind} of the {{}}." for kind in kinds), "a photo of the small {}.", "a photo of the big {}.",
        )  # fmt: skip

    def load(self, name: str) -> Split:
        if name in ("train", "val"):
            if self._trained is None:
                self._trained = _cifar(self.place("train"), "train")
            held = folders.held_out(self._trained.ids, self._trained.labels, HELD_OUT)
            rows = np.flatnonzero(held if name == "val" else ~held)
            return replace(self._trained.take(rows), name=name)
        place = self.place(name)
        if name == "test":
            split = _cifar(place, "test")
            return replace(split, also={"stl10-classes": LabelSpace(AMONG, np.array(AMONG_PLACE)[split.labels])})
        if name == "stl10":
            return _stl(place)
        if name.startswith("cifar10-c"):
            return _corrupted(place, name, CORRUPTIONS[:COUNTED] if name == "cifar10-c" else CORRUPTIONS[COUNTED:])
        return _again(place, name)


def _cifar(place: Path, part: str) -> Split:
    """One part of CIFAR-10 in order of label and content, which is the same for both layouts."""
    if (place / "plain_text").is_dir():
        place = place / "plain_text"
    pixels, labels, files, layout = _hub(place, part) if hub.is_one(place) else _binary(place, part)
    images = arrays.stacked(pixels, files)
    sums = [hashlib.sha256(image).hexdigest()[:20] for some in pixels for image in np.ascontiguousarray(some)]
    order = np.lexsort((np.array(sums), labels))
    seen: dict[str, int] = {}
    ids: list[str] = []
    for name in (sums[k] for k in order.tolist()):  # an image that is there twice keeps both places
        seen[name] = seen.get(name, 0) + 1
        ids.append(f"{part}/{name}" + (f"-{seen[name]}" if seen[name] > 1 else ""))
    return Split(part, images.take(order), labels[order], tuple(ids), place=place, layout=layout)


Found: TypeAlias = tuple[list[Bytes], Ints, list[Path], str]  # pixels [n, 32, 32, 3], labels, files, layout


def _binary(place: Path, part: str) -> Found:
    """Records of a label and 3 x 32 x 32 bytes, one channel at a time, row by row."""
    files = [place / file for file in BINS[part]]
    if not files[0].exists() and ((place / "data_batch_1").exists() or (place / "cifar-10-batches-py").exists()):
        raise RbftError(
            f"{place} is CIFAR-10's Python version, a pickle, which is never read; take cifar-10-binary.tar.gz or "
            "Hugging Face's Parquet (uoft-cs/cifar10)"
        )
    records = [arrays.binary(file, 1 + 3 * SIDE * SIDE) for file in files]
    pixels = [some[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1) for some in records]
    labels = [arrays.labels(f, some[:, 0], len(some), CLASSES) for f, some in zip(files, records, strict=True)]
    return pixels, np.concatenate(labels), files, "binary version"


def _hub(place: Path, part: str) -> Found:
    """Rows of Hugging Face's copy, decoded once into the cache; labels by the names of the classes."""
    rows = hub.read_part(place, part, "img", "label")
    label = {text: k for k, name in enumerate(NAMES) for text in (name, str(k))}
    if odd := sorted(set(rows.labels) - set(label)):
        raise RbftError(f"{place} has {folders.some(odd, 'label')} that name no class of CIFAR-10; get it again")

    def decoded() -> Bytes:
        found = np.empty((len(rows.names), SIDE, SIDE, 3), np.uint8)
        for k in range(len(found)):
            [image] = rows.images.read([k])
            if image.size != (SIDE, SIDE):
                raise RbftError(f"{rows.images.name(k)} is not {SIDE} x {SIDE} pixels; get the official file again")
            found[k] = np.asarray(image.convert("RGB"))
        return found

    key = rows.images.fingerprint()
    pixels = cache.array("cifar10", key, decoded)
    labels = np.array([label[name] for name in rows.labels], np.int64)
    return [pixels], labels, [cache.entry("cifar10", key, ".npy")], rows.layout


def _again(place: Path, name: str) -> Split:
    """CIFAR-10.1 v6, two `.npy` files, or CIFAR-10.2, one `.npz`."""
    if name == "cifar10.1":
        file, other = place / "cifar10.1_v6_data.npy", place / "cifar10.1_v6_labels.npy"
        if not file.exists() and (place / "cifar10.1_v4_data.npy").exists():
            raise MissingDataError(f"{place} holds version 4, which is not balanced; get {file.name} and {other.name}")
        pixels, labels = arrays.npy(file), arrays.npy(other)
    else:
        file = other = place / "cifar102_test.npz"
        if not file.exists() and (place / "cifar102_test.npy").exists():
            raise RbftError(f"{place / 'cifar102_test.npy'} is a pickle, which is never read; take {file.name} instead")
        pixels, labels = arrays.npz(file, ("images", "labels"))
    images = arrays.stacked([arrays.images(file, pixels, SIDE)], [file])
    own = arrays.labels(other, labels, len(images), CLASSES)
    return Split(name, images, own, tuple(f"{name}/{k:04d}" for k in range(len(images))), place=place, layout=file.name)


def _corrupted(place: Path, name: str, corruptions: tuple[str, ...]) -> Split:
    """Each file holds the test images at severity 1, then at 2, ... 5; all files share their labels."""
    files = [place / f"{corruption}.npy" for corruption in corruptions]
    pixels = [arrays.images(file, arrays.npy(file), SIDE) for file in files]
    every = arrays.npy(place / "labels.npy")
    for file, some in zip(files, pixels, strict=True):
        arrays.labels(file, every, len(some), CLASSES)
    n = len(every) // SEVERITIES
    if len(every) % SEVERITIES or (every.reshape(SEVERITIES, n) != every[:n]).any():
        raise RbftError(f"{place / 'labels.npy'} is not the same labels at each of 5 severities; get it again")
    image = np.tile(np.arange(n), SEVERITIES * len(files))
    severity = np.tile(np.repeat(np.arange(1, SEVERITIES + 1), n), len(files))
    code = np.repeat([CORRUPTIONS.index(corruption) for corruption in corruptions], len(every))
    ids = tuple(f"{name}/{c}/{s}/{k:05d}" for c in corruptions for s in range(1, SEVERITIES + 1) for k in range(n))
    return Split(
        name, arrays.stacked(pixels, files), np.tile(every.astype(np.int64), len(files)), ids,
        {"corruption": code.astype(np.int64), "severity": severity, "image": image}, place=place,
        layout=f"{len(files)} .npy files", keep=False,
    )  # fmt: skip


def _stl(place: Path) -> Split:
    """The official test set without its monkeys. Its pixels are stored column by column, its labels from 1."""
    file, table = place / "test_X.bin", place / "test_y.bin"
    pixels = arrays.binary(file, 3 * STL_SIDE**2).reshape(-1, 3, STL_SIDE, STL_SIDE).transpose(0, 3, 2, 1)
    theirs = arrays.labels(table, arrays.binary(table, 1)[:, 0], len(pixels), len(STL_CLASSES), first=1)
    names = place / "class_names.txt"
    if names.exists() and tuple(folders.read_text(names).split()) != STL_CLASSES:
        raise RbftError(f"{names} does not list STL-10's classes in their order; get the official archive again")
    labels = np.array(OF_STL)[theirs]
    rows = np.flatnonzero(labels >= 0)
    return Split(
        "stl10", arrays.stacked([pixels], [file]).take(rows), np.array(AMONG_PLACE)[labels[rows]],
        tuple(f"stl10/{k:04d}" for k in rows.tolist()), members=AMONG,
        also={"10-way": LabelSpace(None, labels[rows])}, place=place, layout="binary files",
    )  # fmt: skip
