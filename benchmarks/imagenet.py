"""ImageNet: learn on ImageNet-1k; be tested on V2, R, A and Sketch, and with '+objectnet' on ObjectNet."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from robustbench_ft import archives, trees
from robustbench_ft.data import FileImages, Images, Ints, LabelSpace, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.places import Roots
from robustbench_ft.prompts import imagenet_classes, openai_templates
from robustbench_ft.recipe import R_WISE
from robustbench_ft.suite import Card, Source, Suite

HELD_OUT = 26  # images per class, 26,000 in all: as many as model soups hold out of train (Wortsman et al., 2022)
TRAIN = 1_281_167
BORDER = 2  # pixels of ObjectNet's red frame
NAME = re.compile(r"(n\d{8}_\d+|ILSVRC2012_val_\d{8})(?:_(n\d{8}))?$")  # Hugging Face appends the class
CSV, DEVKIT = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt"


class ImageNet(Suite):
    """V2 is the matched-frequency set. R and A are scored among their own 200 classes, as their authors do, and among
    all 1000 under names of their own. ID accuracy is stored on the classes of R, A and ObjectNet as well, which
    effective robustness needs."""

    recipe = R_WISE
    shifts = ("v2", "r", "a", "sketch")
    published_train = "train-all"
    published_selector = "test"  # Lipsum-FT selects its checkpoint on the official validation images it then reports
    options = {"objectnet": "adds ObjectNet (113 classes, test use only) to the shifts"}  # noqa: RUF012
    places = {  # noqa: RUF012
        "train": (
            "imagenet/train", "ILSVRC2012/train", "imagenet/ILSVRC2012/train", "ILSVRC/Data/CLS-LOC/train",
            "imagenet/ILSVRC/Data/CLS-LOC/train", "ImageNet/train", "imagenet-1k/train", "imagenet-1k/data",
            "imagenet-1k-wds", "ILSVRC2012_img_train",
        ),
        "test": (
            "imagenet/val", "imagenet/val_in_folder", "ILSVRC2012/val_dirs", "ILSVRC2012/val",
            "imagenet/ILSVRC2012/val", "ILSVRC/Data/CLS-LOC/val", "imagenet/ILSVRC/Data/CLS-LOC/val", "ImageNet/val",
            "imagenet-1k/val", "imagenet-1k/data", "imagenet-1k-wds", "ILSVRC2012_img_val",
        ),
        "v2": (
            "ImageNetV2-matched-frequency", "imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency",
            "imagenetv2", "imagenet-v2",
        ),
        "r": ("imagenet-r", "imagenet-rendition"),
        "a": ("imagenet-a", "imagenet-adversarial"),
        "sketch": ("sketch", "imagenet-sketch", "ImageNet-Sketch/sketch", "ImageNet-Sketch"),
        "objectnet": ("objectnet-1.0/images", "objectnet/images", "ObjectNet/images", "objectnet-1.0"),
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
                "about 1.2 GB", "MIT", unpack="imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg as it unpacks",
            ),
            Source(("r",), "ImageNet-R", "github hendrycks/imagenet-r (imagenet-r.tar)", "about 2 GB", "MIT",
                   unpack="imagenet-r/<wnid>/*.jpg"),
            Source(("a",), "ImageNet-A", "github hendrycks/natural-adv-examples (imagenet-a.tar)", "about 0.7 GB",
                   "MIT", unpack="imagenet-a/<wnid>/*.jpg"),
            Source(("sketch",), "ImageNet-Sketch", "github HaohanWang/ImageNet-Sketch (links to Drive and Kaggle)",
                   "7.8 GB", "MIT", mirrors=("Hugging Face: songweig/imagenet_sketch",),
                   unpack="sketch/<wnid>/*.JPEG"),
            Source(("objectnet",), "ObjectNet 1.0", "objectnet.dev (password-protected zip)", "about 200 GB",
                   "ObjectNet licence", "it may never be used for training",
                   unpack="objectnet-1.0/images/<folder>/*.png with the red frame left on"),
        ),
    )  # fmt: skip

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        if "objectnet" in self.chosen:
            self.shifts = (*self.shifts, "objectnet")

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
            return self._test(place)
        if name == "v2":
            return self._folders(name, place, {str(k): k for k in range(1000)}, "numbered folders", "numbered")
        if name == "objectnet":
            return self._objectnet(place)
        if name == "sketch":
            return self._folders(name, place, _indices("wnids"), "wnid folders")
        subset, every = _indices(f"imagenet_{name}"), _indices("wnids")
        split = self._folders(name, place, subset, "wnid folders", ignore=("README.txt",))
        members = tuple((every[wnid],) for wnid in subset)
        whole = np.array([members[label][0] for label in split.labels], np.int64)
        return _with(split, members, {"1000-way": LabelSpace(None, whole)})

    def _train(self, name: str) -> Split:
        place = self.place("train")
        packed = _packed(place, "train")
        if packed:
            keys, labels, images, layout = packed
            ids = tuple(f"{key.partition('_')[0]}/{key}" for key in keys)
        else:
            found = trees.class_folders(place, _indices("wnids"), kind="wnid", partial=self.partial)
            ids, labels = tuple(path.rpartition(".")[0] for path in found.paths), found.labels
            images, layout = found.paths, "wnid folders"
        keep = np.ones(len(ids), np.bool_)
        if name != "train-all":
            held = trees.held_out(ids, labels, HELD_OUT)
            keep = held if name == "val" else ~held
        return _split(name, place, layout, ids, labels, images, np.flatnonzero(keep))

    def _test(self, place: Path) -> Split:
        packed = _packed(place, "validation")
        if packed:
            ids, labels, images, layout = packed
        elif _is_flat(place):
            paths, labels, layout = self._flat(place)
            ids, images = tuple(Path(path).stem for path in paths), paths
        else:
            found = trees.class_folders(place, _indices("wnids"), kind="wnid", partial=self.partial)
            ids, labels = tuple(Path(path).stem for path in found.paths), found.labels
            images, layout = found.paths, "wnid folders"
        split = _split("test", place, layout, ids, labels, images, np.arange(len(ids)))
        every = _indices("wnids")
        spaces = {f"{key}-classes": [(every[wnid],) for wnid in _indices(f"imagenet_{key}")] for key in ("r", "a")}
        spaces["objectnet-classes"] = list(_objectnet_members().values())
        return _with(split, None, {key: _space(members, split.labels) for key, members in spaces.items()})

    def _flat(self, place: Path) -> tuple[tuple[str, ...], Ints, str]:
        """Kaggle's flat folder: labels are in a table beside it or above it."""
        tables = [folder / CSV for folder in (place, *place.parents[:4])]
        table = next((path for path in tables if path.exists()), None)
        if table is None:
            devkit = next((p for folder in (place, *place.parents[:2]) for p in folder.glob(f"**/{DEVKIT}")), None)
            why = f"; {devkit} counts classes in the devkit's own order, which is not that of wnids" if devkit else ""
            raise MissingDataError(
                f"{place} is flat and has no labels: sort it into wnid folders, or put {CSV} beside it{why}"
            )
        columns = trees.read_table(table, ("ImageId", "PredictionString"))
        every = _indices("wnids")
        wnids = [text.split(" ", 1)[0] for text in columns["PredictionString"].tolist()]
        unknown = next((wnid for wnid in wnids if wnid not in every), None)
        if unknown is not None:
            raise RbftError(f"{table} names '{unknown}', which is no class of ImageNet-1k; get the official file again")
        label = dict(zip(columns["ImageId"].tolist(), (every[wnid] for wnid in wnids), strict=True))
        files = trees.image_files(place)
        stray = [file for file in files if Path(file).stem not in label]
        if stray:
            raise MissingDataError(f"{table} has no label for {len(stray):,} images of {place}, e.g. {stray[0]}")
        absent = len(label) - len(files)
        if absent and not self.partial:
            raise MissingDataError(
                f"{table} names {absent:,} images that are not in {place}; unpack the archive again, or pass "
                "--allow-partial"
            )
        return tuple(files), np.array([label[Path(file).stem] for file in files], np.int64), f"flat folder with {CSV}"

    def _folders(
        self, name: str, place: Path, classes: Mapping[str, int], layout: str, kind: str = "wnid",
        ignore: Collection[str] = (),
    ) -> Split:  # fmt: skip
        if kind == "numbered":
            classes = _numbered(place, classes)
        found = trees.class_folders(place, classes, kind=kind, ignore=ignore, partial=self.partial)
        names = {label: folder for folder, label in classes.items()}
        if kind == "numbered":
            names = {label: str(label) for label in names}
        ids = tuple(f"{names[k]}/{Path(p).stem}" for p, k in zip(found.paths, found.labels.tolist(), strict=True))
        return _split(name, place, layout, ids, found.labels, found.paths, np.arange(len(ids)))

    def _objectnet(self, place: Path) -> Split:
        mapped = _objectnet_members()
        others = [entry.name for entry in place.iterdir() if entry.name not in mapped] if place.is_dir() else []
        found = trees.class_folders(
            place, {folder: k for k, folder in enumerate(mapped)}, kind="ObjectNet", ignore=others, partial=self.partial
        )
        ids = tuple(path.rpartition(".")[0] for path in found.paths)
        layout = f"ObjectNet folders, {len(others)} without an ImageNet class left out, {BORDER} pixels cut off each side"
        split = _split("objectnet", place, layout, ids, found.labels, found.paths, np.arange(len(ids)), BORDER)
        return _with(split, tuple(mapped.values()), {})


@lru_cache
def _indices(key: str) -> dict[str, int]:
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


def _numbered(place: Path, classes: Mapping[str, int]) -> dict[str, int]:
    """V2's folders are integers, zero-padded or not; a sorted listing of them is not the label order."""
    if not place.is_dir():
        return dict(classes)
    names = [entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    wnids = [name for name in names if name in _indices("wnids")]
    if wnids:
        raise MissingDataError(
            f"{place} is sorted into wnid folders (e.g. {wnids[0]}) by another tool, and such tools have sorted '10' before "
            "'2': unpack the official archive, whose folders are 0 to 999"
        )
    return {name: int(name) for name in names if name.isdecimal() and int(name) < 1000} | {
        text: k for text, k in classes.items() if not any(n.isdecimal() and int(n) == k for n in names)
    }


def _is_flat(place: Path) -> bool:
    """Images and no folder of a class."""
    if not place.is_dir():
        return False
    entries = list(place.iterdir())
    return not any(e.is_dir() and e.name in _indices("wnids") for e in entries) and any(
        e.suffix.lower() in trees.SUFFIXES for e in entries
    )


def _packed(place: Path, part: str) -> tuple[tuple[str, ...], Ints, archives.PackedImages, str] | None:
    """Names, labels and images of Parquet or tar shards of one part, if the place holds shards."""
    if not place.is_dir():
        return None
    for suffix, read, layout in (("parquet", archives.parquet, "Hugging Face Parquet"),
                                 ("tar", archives.tars, "WebDataset tars")):  # fmt: skip
        every = sorted(place.glob(f"*.{suffix}"))
        shards = [path for path in every if part in path.name.split(".")[0].split("-")]
        if every and not shards:
            raise MissingDataError(f"{place} holds {len(every)} .{suffix} files, none of part '{part}'; get them too")
        if not shards:
            continue
        found = read(shards)
        if found.labels.min() < 0 or found.labels.max() >= 1000:
            raise RbftError(f"{place}: labels of the {layout} shards are not 0..999; are they the test part?")
        return tuple(_name(key, label, place) for key, label in zip(found.keys, found.labels.tolist(), strict=True)), \
            found.labels, found.images, f"{layout}, {len(shards)} shards"  # fmt: skip
    return None


def _name(key: str, label: int, place: Path) -> str:
    """The official file name, without what packers add; the class it carries must be its label."""
    found = NAME.search(key.rpartition("/")[2].partition(".")[0])
    if found is None:
        raise RbftError(f"{place}: '{key}' is no ImageNet file name, so the image has no stable id; get other shards")
    name, wnid = found.group(1), found.group(2)
    wnid = name.partition("_")[0] if name.startswith("n") else wnid
    if wnid is not None and _indices("wnids").get(wnid) != label:
        raise RbftError(f"{place}: '{key}' has label {label}, and its class {wnid} is another; get other shards")
    return name


def _split(
    name: str, place: Path, layout: str, ids: Sequence[str], labels: Ints, files: Sequence[str] | archives.PackedImages,
    rows: Ints, border: int = 0,
) -> Split:  # fmt: skip
    """In order of label and id, whatever the layout."""
    chosen = np.array(sorted(rows.tolist(), key=lambda k: (labels[k], ids[k])), np.int64)
    images: Images
    if isinstance(files, archives.PackedImages):
        images = files.take(chosen)
    else:
        images = FileImages(place, tuple(files[k] for k in chosen), border)
    return Split(name, images, labels[chosen], tuple(ids[k] for k in chosen), place=place, layout=layout)


def _with(split: Split, members: tuple[tuple[int, ...], ...] | None, also: Mapping[str, LabelSpace]) -> Split:
    return Split(
        split.name, split.images, split.labels, split.ids, split.groups, members, also, split.place, split.layout
    )
