"""ImageNet: learn on ImageNet-1k; be tested on V2, R, A and Sketch, and with '+objectnet' on ObjectNet."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from robustbench_ft.data import FileImages, Ints, LabelSpace, Split
from robustbench_ft.errors import MissingDataError, RbftError, SubsetError
from robustbench_ft.images import archives, folders
from robustbench_ft.images.roots import Roots
from robustbench_ft.prompts import imagenet_classes, openai_templates
from robustbench_ft.recipe import R_WISE
from robustbench_ft.suite import Card, Source, Suite

from ._imagenet_c import add_corruptions, corrupted, is_corrupted
from ._imagenet_w import add_watermark, watermarked, with_carton

HELD_OUT = 26  # images per class, 26,000 in all: as many as model soups hold out of train (Wortsman et al., 2022)
TRAIN = 1_281_167
BORDER, RED = 2, 40  # pixels of ObjectNet's frame; levels by which its red exceeds the other channels on average
SUBSET = 500  # classes at most of a tree that is taken for a subset, and not for one that lacks some
NAMES = {  # Hugging Face appends the class
    "train": re.compile(r"((n\d{8})_\d+)(?:_\2)?(?:\.[^.]+)?$"),
    "test": re.compile(r"(ILSVRC2012_val_\d{8})(?:_(n\d{8}))?(?:\.[^.]+)?$"),
}
PARTS = {"train": {"train"}, "test": {"validation", "val"}}  # words in the names of shards
CSV = "LOC_val_solution.csv"
DEVKITS = tuple(
    f"{folder}ILSVRC2012_validation_ground_truth.txt"
    for folder in ("", "data/", "ILSVRC2012_devkit_t12/data/", "devkit/data/")
)
FIVE = ("v2", "r", "sketch", "objectnet", "a")  # mlfoundations/wise-ft@09aa691, README.md
OTHER_V2 = ("threshold", "top-images", "topimages")  # of the same size and class counts as matched-frequency
Files: TypeAlias = Sequence[str] | archives.PackedImages
Found: TypeAlias = tuple[Sequence[str], Ints, Files, str]  # ids, labels, files, layout


class ImageNet(Suite):
    """V2 is the matched-frequency set. R and A are scored among their own 200 classes, as their authors do, and among
    all 1000 under names of their own. ID accuracy is stored on the classes of R, A and ObjectNet as well, which
    effective robustness needs."""

    recipe = R_WISE
    model, pretrained = "ViT-B-16", "openai"  # of the published numbers
    shifts = ("v2", "r", "a", "sketch")
    published_train = "train-all"
    published_selector = "test"  # Lipsum-FT selects its checkpoint on the official validation images it then reports
    options = {  # noqa: RUF012
        "objectnet": "adds ObjectNet (113 classes, test use only) to the shifts",
        "c": "predicts ImageNet-C too (3.75 million images), which is in no mean: tables show its mCE",
        "w": "predicts ImageNet-W too, in no mean: the validation images with a watermark; tables show its gaps",
    }
    places = {  # noqa: RUF012
        "train": (
            "imagenet/train", "imagenet/images/train", "ILSVRC2012/train", "imagenet/ILSVRC2012/train",
            "ILSVRC/Data/CLS-LOC/train", "imagenet/ILSVRC/Data/CLS-LOC/train", "ImageNet/train", "imagenet-1k/train",
            "imagenet-1k/data", "imagenet-1k-wds", "ILSVRC2012_img_train",
        ),
        "test": (  # a sorted folder before the flat one it was made from
            "imagenet/val_in_folder", "imagenet/val", "imagenet/images/val", "ILSVRC2012/val_dirs", "ILSVRC2012/val",
            "imagenet/ILSVRC2012/val", "ILSVRC/Data/CLS-LOC/val", "imagenet/ILSVRC/Data/CLS-LOC/val", "ImageNet/val",
            "imagenet-1k/val", "imagenet-1k/data", "imagenet-1k-wds", "ILSVRC2012_img_val",
        ),
        "v2": (
            "ImageNetV2-matched-frequency", "imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency",
            "imagenetv2/imagenetv2-matched-frequency-format-val", "imagenetv2", "imagenet-v2",
        ),
        "r": ("imagenet-r", "imagenet-rendition/imagenet-r", "imagenet-rendition"),
        "a": ("imagenet-a", "imagenet-adversarial/imagenet-a", "imagenet-adversarial"),
        "sketch": ("sketch", "imagenet-sketch/images", "imagenet-sketch", "ImageNet-Sketch/sketch", "ImageNet-Sketch"),
        "objectnet": (
            "objectnet-1.0/images", "objectnet/images", "ObjectNet/images", "objectnet-1.0", "objectnet",
        ),
    }  # fmt: skip
    card = Card(
        title="ImageNet and its shifts",
        paper="Russakovsky et al. 2015; Recht et al. 2019 (V2); Hendrycks et al. 2021 (R, A); Wang et al. 2019 "
        "(Sketch); Barbu et al. 2019 (ObjectNet)",
        licence="ImageNet terms of access, non-commercial research; the shifts have licences of their own",
        home="image-net.org and the homes of the shifts",
        counts={
            "train": TRAIN - 1000 * HELD_OUT, "val": 1000 * HELD_OUT, "train-all": TRAIN, "test": 50_000,
            "v2": 10_000, "r": 30_000, "a": 7_500, "sketch": 50_889, "objectnet": 18_574,
        },
        per_class={
            "train-all": (732, 1300), "train": (732 - HELD_OUT, 1300 - HELD_OUT), "val": (HELD_OUT, HELD_OUT),
            "test": (50, 50), "v2": (10, 10), "r": (1, 1_000), "a": (1, 1_000), "sketch": (1, 1_000),
            "objectnet": (1, 1_000),
        },
        note="preprocessing alone moves zero-shot accuracy by 1 to 2 points: compare under one transform only",
        sources=(
            Source(
                ("train", "test"), "ILSVRC 2012 classification, train and validation",
                "image-net.org (ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar)", "about 138 GB and 6.3 GB",
                "ImageNet terms of access", "an account and agreement to non-commercial research use",
                ("Kaggle: imagenet-object-localization-challenge", "Hugging Face: ILSVRC/imagenet-1k (Parquet)",
                 "Hugging Face: timm/imagenet-1k-wds (WebDataset tars)"),
                f"wnid folders, or Kaggle's flat val with {CSV}, or Parquet or tar shards as they are",
            ),
            Source(
                ("v2",), "ImageNetV2 matched-frequency", "Hugging Face: vaishaal/ImageNetV2 (modestyachts/ImageNetV2)",
                "1.26 GB", "MIT", unpack="imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg as it unpacks",
            ),
            Source(("r",), "ImageNet-R", "github hendrycks/imagenet-r (imagenet-r.tar)", "about 2 GB", "MIT",
                   unpack="imagenet-r/<wnid>/*.jpg"),
            Source(("a",), "ImageNet-A", "github hendrycks/natural-adv-examples (imagenet-a.tar)", "about 0.7 GB",
                   "MIT", unpack="imagenet-a/<wnid>/*.jpg"),
            Source(("sketch",), "ImageNet-Sketch", "github HaohanWang/ImageNet-Sketch (links to Drive and Kaggle)",
                   "7.8 GB", "MIT", mirrors=("Hugging Face: songweig/imagenet_sketch",),
                   unpack="sketch/<wnid>/*.JPEG"),
            Source(("objectnet",), "ObjectNet 1.0", "objectnet.dev (password-protected zip)", "see objectnet.dev",
                   "ObjectNet licence", "it may never be used for training",
                   unpack="objectnet-1.0/images/<folder>/*.png with the red frame left on"),
        ),
    )  # fmt: skip

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        self._trained: Rows | None = None
        if "objectnet" in self.chosen:
            self.shifts = (*self.shifts, "objectnet")
            self.shift_groups = {"of WiSE-FT's five shifts": FIVE}
        if "c" in self.chosen:
            add_corruptions(self)
        if "w" in self.chosen:
            add_watermark(self)

    @property
    def classes(self) -> tuple[str, ...]:
        return imagenet_classes()

    @property
    def templates(self) -> tuple[str, ...]:
        return openai_templates()

    def load(self, name: str) -> Split:
        if name in ("train", "val", "train-all"):
            return self._train(name)
        place = self.place(name)
        if name == "test":
            return with_carton(self._test(place)) if "w" in self.chosen else self._test(place)
        if name == "w":
            return watermarked(self._test(self.place("test")), place)
        if name == "objectnet":
            return self._objectnet(place)
        if is_corrupted(name):
            return corrupted(place, name, indices("wnids"), self.partial)
        subset, every = indices(f"imagenet_{name}" if name in ("r", "a") else "wnids"), indices("wnids")
        if name == "v2":
            subset = _numbered(place)
        elif name in ("r", "a"):
            _check_wnids(name, place)
        kind, layout = ("number", "numbered folders") if name == "v2" else ("wnid", "wnid folders")
        found = folders.class_folders(place, subset, kind=kind, partial=self.partial)
        labels = found.labels.tolist()
        stems = [stem.partition("/") for stem in folders.stems(found.paths)]
        # V2's folders may be written 7 or 007; Sketch and R both hold n01443537/sketch_0
        named = map(str, labels) if name == "v2" else [folder for folder, _, _ in stems]
        ids = [f"{name}/{folder}/{stem}" for folder, (_, _, stem) in zip(named, stems, strict=True)]
        split = _ordered(place, layout, ids, found.labels, found.paths).split(name)
        if name not in ("r", "a"):
            return split
        members = tuple((every[wnid],) for wnid in subset)
        whole = np.array([member for (member,) in members], np.int64)[split.labels]
        return replace(split, members=members, also={"1000-way": LabelSpace(None, whole)})

    def _train(self, name: str) -> Split:
        if self._trained is None:  # listed once for all three splits
            place = self.place("train")
            ids, labels, files, layout = self._packed(place, "train") or self._sorted(place, "train")
            ids = [f"{example.partition('_')[0]}/{example}" for example in ids]
            self._trained = _ordered(place, layout, ids, labels, files)
        if name == "train-all":
            return self._trained.split(name)
        held = folders.held_out(self._trained.ids, self._trained.labels, HELD_OUT)
        return self._trained.split(name, np.flatnonzero(held if name == "val" else ~held))

    def _test(self, place: Path) -> Split:
        found = self._packed(place, "test") or (self._flat(place) if _is_flat(place) else self._sorted(place, "test"))
        ids, labels, files, layout = found
        split = _ordered(place, layout, ids, labels, files).split("test")
        every = indices("wnids")
        spaces: dict[str, Sequence[tuple[int, ...]]] = {
            f"{key}-classes": [(every[wnid],) for wnid in indices(f"imagenet_{key}")] for key in ("r", "a")
        }
        spaces["objectnet-classes"] = tuple(_objectnet_members().values())
        return replace(split, also={key: _space(members, split.labels) for key, members in spaces.items()})

    def _sorted(self, place: Path, part: str) -> Found:
        present = {name for name in folders.names_in(place) if name in indices("wnids")} if place.is_dir() else set()
        if 1 < len(present) <= SUBSET and not self.partial:
            raise SubsetError(
                f"{place} holds {len(present)} of the 1,000 wnid folders: a subset such as ImageNet-100 is a suite of "
                "its own, with a name for each wnid under [classes] and own_classes for its shifts (rbft new suite "
                "FOLDER); or get the others too"
            )
        found = folders.class_folders(place, indices("wnids"), kind="wnid", partial=self.partial)
        return _names(found.paths, found.labels, place, part), found.labels, found.paths, "wnid folders"

    def _flat(self, place: Path) -> Found:
        """Kaggle's flat folder: labels are in a table beside it or above it."""
        near = (place, *place.parents[:4])
        table = next((path for folder in near if (path := folder / CSV).exists()), None)
        if table is None:
            devkit = next((path for folder in near for name in DEVKITS if (path := folder / name).exists()), None)
            why = f"; {devkit} counts classes in the devkit's own order, which is not that of wnids" if devkit else ""
            raise MissingDataError(
                f"{place} is flat and has no labels: sort it into wnid folders, or put {CSV} beside it{why}"
            )
        columns = folders.read_table(table, ("ImageId", "PredictionString"))
        every = indices("wnids")
        wnids = [text.split(" ", 1)[0] for text in columns["PredictionString"].tolist()]
        unknown = next((wnid for wnid in wnids if wnid not in every), None)
        if unknown is not None:
            raise RbftError(f"{table} names '{unknown}', which is no class of ImageNet-1k; get the official file again")
        names = columns["ImageId"].tolist()
        label = dict(zip(names, (every[wnid] for wnid in wnids), strict=True))
        if len(label) != len(names):
            raise RbftError(f"{table} names {len(names) - len(label):,} images twice; get the official file again")
        files = folders.image_files(place)
        stems = folders.stems(files)
        stray = [file for file, stem in zip(files, stems, strict=True) if stem not in label]
        if stray:
            raise MissingDataError(
                f"{table} has no label for {len(stray):,} images of {place}, e.g. {stray[0]}; get the whole file again"
            )
        absent = len(label) - len(files)
        if absent and not self.partial:
            raise MissingDataError(
                f"{table} names {absent:,} images that are not in {place}; unpack the archive again, or pass "
                "--allow-partial"
            )
        labels = np.array([label[stem] for stem in stems], np.int64)
        return _names(files, labels, place, "test"), labels, files, f"flat folder with {CSV}"

    def _packed(self, place: Path, part: str) -> Found | None:
        """Names, labels and images of Parquet or tar shards of one part, if the place holds shards."""
        if not place.is_dir():
            return None
        for suffix, read, layout in (("parquet", archives.parquet, "Hugging Face Parquet"),
                                     ("tar", archives.tars, "WebDataset tars")):  # fmt: skip
            shards = archives.shards_of(place, suffix, PARTS[part], self.partial)
            if not shards:
                continue
            found = read(shards)
            if found.labels.min() < 0 or found.labels.max() >= 1000:
                raise RbftError(f"{place}: labels of the {layout} shards are not 0..999; are they the test part?")
            ids = _names(found.keys, found.labels, place, part)
            return ids, found.labels, found.images, f"{layout}, {len(shards)} shard{'s' * (len(shards) != 1)}"
        return None

    def _objectnet(self, place: Path) -> Split:
        mapped = _objectnet_members()
        labels = {folder: k for k, folder in enumerate(mapped)}
        found = folders.class_folders(place, labels, kind="ObjectNet", others=True, partial=self.partial)
        others = len(set(folders.names_in(place)) - set(mapped))
        layout = f"ObjectNet folders, {others} without an ImageNet class left out, {BORDER} pixels cut off each side"
        _check_frame(FileImages(place, found.paths))
        ids = [f"objectnet/{stem}" for stem in folders.stems(found.paths)]
        split = _ordered(place, layout, ids, found.labels, found.paths).split("objectnet", border=BORDER)
        return replace(split, members=tuple(mapped.values()))


@lru_cache
def indices(key: str) -> dict[str, int]:
    """wnid -> its place in one of the official sorted lists: 'wnids' (1000), 'imagenet_r', 'imagenet_a' (200)."""
    lists = json.loads(Path(__file__).with_name("imagenet_wnids.json").read_text(encoding="utf-8"))
    return {wnid: place for place, wnid in enumerate(lists[key])}


@lru_cache
def _objectnet_members() -> dict[str, tuple[int, ...]]:
    """ObjectNet folder -> the ImageNet classes it maps to, in order of folder name, which is the label."""
    table = json.loads(Path(__file__).with_name("objectnet_classes.json").read_text(encoding="utf-8"))
    return {folder: tuple(table[folder]) for folder in sorted(table)}


def _space(members: Sequence[tuple[int, ...]], labels: Ints) -> LabelSpace:
    """ID images whose class is in a shift's classes, scored among these."""
    place = np.full(1000, -1)
    for own, some in enumerate(members):
        place[list(some)] = own
    return LabelSpace(tuple(members), place[labels])


def _numbered(place: Path) -> dict[str, int]:
    """V2's folders are integers, zero-padded or not; a sorted listing of them is not the label order."""
    variant = next((name for name in OTHER_V2 if name in place.name.lower()), None)
    if variant:
        raise MissingDataError(f"{place} is V2's {variant} set; the suite takes the matched-frequency one, get that")
    names = folders.names_in(place) if place.is_dir() else []
    wnids = [name for name in names if name in indices("wnids")]
    if wnids:
        raise MissingDataError(
            f"{place} is sorted into wnid folders (e.g. {wnids[0]}) by another tool, and such tools have sorted '10' "
            "before '2': unpack the official archive, whose folders are 0 to 999"
        )
    classes: dict[int, str] = {}
    for name in names:
        if name.isdecimal() and int(name) < 1000:
            if int(name) in classes:
                raise MissingDataError(f"{place} holds '{classes[int(name)]}' and '{name}'; unpack the archive again")
            classes[int(name)] = name
    return {classes.get(k, str(k)): k for k in range(1000)}


def _check_wnids(name: str, place: Path) -> None:
    """R's and A's 200 classes differ; one set in the other's place is told apart from a few stray folders."""
    found = set(folders.names_in(place)) & set(indices("wnids")) if place.is_dir() else set[str]()
    own, other = set(indices(f"imagenet_{name}")), {"r": "a", "a": "r"}[name]
    if found - own and found <= set(indices(f"imagenet_{other}")):
        raise MissingDataError(
            f"{place} holds the classes of imagenet-{other}, not those of imagenet-{name}; correct --root or config"
        )


def _check_frame(images: FileImages) -> None:
    """Pixels are cut off each side, so the red frame must be there: looks at the outermost of three images."""
    for k in {0, len(images) // 2, len(images) - 1}:
        pixels = np.asarray(images.read([k])[0].convert("RGB"), np.int64)
        red, green, blue = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean(axis=0)
        if red - max(green, blue) < RED:
            raise RbftError(
                f"{images.name(k)} has no red frame: it was cropped before, and {BORDER} pixels would be cut off each "
                "side again; unpack the official archive"
            )


def _is_flat(place: Path) -> bool:
    """Images and no folder of a class."""
    names = folders.names_in(place) if place.is_dir() else []
    return not set(names) & set(indices("wnids")) and any(map(folders.is_image, names))


def _names(keys: Sequence[str], labels: Ints, place: Path, part: str) -> list[str]:
    """Official names, without folders, suffixes and what packers add; the class that one carries must be its label."""
    every, names = indices("wnids"), list[str]()
    for key, label in zip(keys, labels.tolist(), strict=True):
        found = NAMES[part].match(key, key.rfind("/") + 1)
        if found is None:
            raise RbftError(
                f"{place}: '{key}' is no file name of ImageNet's {'train' if part == 'train' else 'validation'} set, "
                "so it has no stable id; use data that keeps the official names"
            )
        name, wnid = found[1], found[2]
        if wnid is not None and every.get(wnid) != label:
            where = "lies in another class's folder" if "/" in key else f"has label {label}"
            raise RbftError(f"{place}: '{key}' {where}, which is not that of {wnid}; get the data again")
        names.append(name)
    return names


class Rows(NamedTuple):
    """Images of one place in order of label and id, whatever the layout."""

    place: Path
    layout: str
    ids: list[str]
    labels: Ints
    files: Files

    def split(self, name: str, rows: Ints | None = None, border: int = 0) -> Split:
        """These rows, or all."""
        ids, labels, files = self.ids, self.labels, self.files
        if rows is not None:
            ids, labels, files = _at(ids, rows), labels[rows], _take(files, rows)
        images = files if isinstance(files, archives.PackedImages) else FileImages(self.place, tuple(files), border)
        return Split(name, images, labels, tuple(ids), place=self.place, layout=self.layout)


def _ordered(place: Path, layout: str, ids: Sequence[str], labels: Ints, files: Files) -> Rows:
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)  # quick where it is in order already
    order = by_id[np.argsort(labels[by_id], kind="stable")]
    return Rows(place, layout, _at(ids, order), labels[order], _take(files, order))


def _take(files: Files, rows: Ints) -> Files:
    return files.take(rows) if isinstance(files, archives.PackedImages) else _at(files, rows)


def _at(texts: Sequence[str], rows: Ints) -> list[str]:
    places: list[int] = rows.tolist()
    return [texts[k] for k in places]
