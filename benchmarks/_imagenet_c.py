"""ImageNet-C: the validation images under 15 corruptions at 5 severities, and its mean corruption error (mCE).

Hendrycks and Dietterich, ICLR 2019 (arXiv:1903.12261). A corruption is one split of 250,000 images: all of them are
3.75 million, so no split holds more than can be loaded, predicted and stored at once.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustbench_ft.data import FileImages, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import folders
from robustbench_ft.suite import Source, Suite

PREFIX, SEVERITIES, IMAGES = "c-", 5, 50_000
ALEXNET = {  # corruption -> AlexNet's error, mean over severities (google-research/augmix@202cf4c, imagenet.py)
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
    "pixelate": 0.717840, "jpeg_compression": 0.606500,
}  # fmt: skip
TARS = {  # the archive in which a corruption comes, which is a folder once it is unpacked
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
ROOTS = ("ImageNet-C", "imagenet-c", "imagenet_c", "ImageNetC", "imagenet/imagenet-c")
NAME = re.compile(r"ILSVRC2012_val_(\d{8})$")
SPLITS = tuple(PREFIX + corruption for corruption in ALEXNET)
MCE: Mapping[str, float] = {PREFIX + corruption: error for corruption, error in ALEXNET.items()}
PLACES = {
    PREFIX + corruption: tuple(f"{root}/{inner}{corruption}" for root in ROOTS for inner in (f"{tar}/", ""))
    for tar, corruptions in TARS.items()
    for corruption in corruptions
}
COUNTS = dict.fromkeys(SPLITS, SEVERITIES * IMAGES)
PER_CLASS = dict.fromkeys(SPLITS, (SEVERITIES * IMAGES // 1000,) * 2)
SOURCE = Source(
    SPLITS, "ImageNet-C", "zenodo.org/records/2235448 (blur, digital, noise, weather .tar)", "see Zenodo",
    "as Zenodo states", unpack="ImageNet-C/<corruption>/<1 to 5>/<wnid>/*.JPEG, with or without the tar's own folder",
)  # fmt: skip


def add_corruptions(suite: Suite) -> None:
    """Let a suite predict all corruptions too, in no mean."""
    suite.extra = (*suite.extra, *SPLITS)
    suite.places = {**suite.places, **PLACES}
    suite.clusters = {**suite.clusters, **dict.fromkeys(SPLITS, "image")}
    suite.relative_errors = {"mCE": MCE}
    card = suite.card
    suite.card = replace(
        card, counts={**card.counts, **COUNTS}, per_class={**card.per_class, **PER_CLASS},
        sources=(*card.sources, SOURCE),
    )  # fmt: skip


def is_corrupted(split: str) -> bool:
    """Whether a split is one of ImageNet-C."""
    return split in SPLITS


def corrupted(place: Path, name: str, wnids: Mapping[str, int], partial: bool) -> Split:
    """One corruption at all severities: `place/<1 to 5>/<wnid>/<official name>.JPEG`. The label is the wnid's."""
    present = set(folders.names_in(place)) if place.is_dir() else set[str]()
    lacking = [str(s) for s in range(1, SEVERITIES + 1) if str(s) not in present]
    if lacking and (not partial or len(lacking) == SEVERITIES):
        raise MissingDataError(f"{place} lacks {folders.some(lacking, 'severity folder')} of 5; unpack the tar again")
    paths, labels, severities, images = list[str](), list[int](), list[int](), list[int]()
    for severity in (s for s in range(1, SEVERITIES + 1) if str(s) in present):
        found = folders.class_folders(place / str(severity), wnids, kind="wnid", partial=partial)
        paths += [f"{severity}/{path}" for path in found.paths]
        labels += found.labels.tolist()
        severities += [severity] * len(found.paths)
        images += [_number(place / str(severity), stem) for stem in folders.stems(found.paths)]
    keys = list(zip(severities, images, strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    ids = tuple(f"{name}/{severities[k]}/ILSVRC2012_val_{images[k]:08d}" for k in order)
    return Split(
        name, FileImages(place, tuple(paths[k] for k in order)), np.array(labels, np.int64)[order], ids,
        {"severity": np.array(severities, np.int64)[order], "image": np.array(images, np.int64)[order]},
        place=place, layout="severity and wnid folders", keep=False,
    )  # fmt: skip


def _number(place: Path, stem: str) -> int:
    """The number of a validation image."""
    found = NAME.match(stem, stem.rfind("/") + 1)
    if found is None:
        raise RbftError(f"{place}: '{stem}' is no file name of ImageNet's validation set; unpack the tar again")
    return int(found[1])
