"""DomainNet: learn on Real; be tested on Painting, Clipart, Infograph and Sketch."""

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustbench_ft.data import FileImages, Ints, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import folders
from robustbench_ft.images.roots import Roots
from robustbench_ft.prompts import openai_templates
from robustbench_ft.recipe import R_LIP
from robustbench_ft.suite import Card, Source, Suite

HELD_OUT = 0.1  # of each class, the share that FTP's lists hold out of real_train
HOME = "ai.bu.edu/M3SDA"
FOLDERS = ("domainnet", "DomainNet", "domainnet_v1.0", "domain_net")
LISTS = ("", "splits", "txt", "split_files")  # where people keep the split files, beside the domains' folders
GENERATIONS = {  # lines of <domain>_<part>.txt
    "cleaned": {
        "real_train": 120_906, "real_test": 52_041, "clipart_test": 14_604, "infograph_test": 15_582,
        "painting_test": 21_850, "sketch_test": 20_916, "quickdraw_test": 51_750,
    },
    "pre-cleaning": {
        "real_train": 122_563, "real_test": 52_764, "clipart_test": 14_814, "infograph_test": 16_114,
        "painting_test": 22_892, "sketch_test": 21_271, "quickdraw_test": 51_750,
    },
}  # fmt: skip


TRAIN_LISTS = (  # FTP and TPGM divide the train list in two
    ("real_train.txt",), ("real_train_split.txt", "real_val_split.txt"),
    ("real_train_100_percent_split.txt", "real_val_100_percent_split.txt"),
)  # fmt: skip
TRAINERS = ("train", "val", "train-all")


class Lines(NamedTuple):
    """What the split files of one domain and part say."""

    files: tuple[Path, ...]
    paths: tuple[str, ...]  # below the domain's folder
    labels: Ints

    @property
    def text(self) -> str:
        return " and ".join(map(str, self.files))


class DomainNet(Suite):
    """As in Lipsum-FT, Quickdraw is left out and prompts keep the raw class names, underscores included: that is what
    the published zero-shot numbers belong to. Labels are the split files', whose order no sorting gives."""

    recipe = R_LIP
    model, pretrained = "ViT-B-16", "openai"  # of the published numbers
    shifts = ("painting", "clipart", "infograph", "sketch")
    published_train = "train-all"
    published_selector = "test"  # Lipsum-FT selects on the real test images that it then reports
    options = {  # noqa: RUF012
        "quickdraw": "adds Quickdraw to the shifts",
        "clean-prompts": "writes class names with spaces for underscores; moves the zero-shot numbers",
    }
    places = {  # noqa: RUF012
        split: tuple(f"{folder}/{domain}" for folder in FOLDERS)
        for split, domain in {"train": "real", "test": "real", **{d: d for d in (*shifts, "quickdraw")}}.items()
    }
    card = Card(
        title="DomainNet",
        paper="Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019 (arXiv:1812.01754)",
        licence="fair use, non-commercial research and education",
        home=HOME,
        counts={},  # two generations of split files exist: `count_problems`
        note="two generations of split files exist, told apart by their counts and named in the record: numbers on the "
        "cleaned and on the pre-cleaning test sets are not the same measurement",
        sources=(
            Source(
                ("train", "test", *shifts, "quickdraw"), "DomainNet, one archive and two split files for each domain",
                "ai.bu.edu/M3SDA (cleaned version: clipart and painting are the ones under groundtruth/)",
                "about 16 GB without Quickdraw (0.5 GB)", "fair use, non-commercial research and education",
                unpack="domainnet/<domain>/<class>/*.jpg, with real_train.txt, real_test.txt, painting_test.txt ... in "
                "domainnet/ or domainnet/splits/",
            ),
        ),
    )  # fmt: skip

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        self._read: dict[tuple[str, str], tuple[Path, Lines]] = {}
        if "quickdraw" in self.chosen:
            self.shifts = (*self.shifts, "quickdraw")

    @property
    def classes(self) -> tuple[str, ...]:
        names = class_folders()
        return tuple(name.replace("_", " ") for name in names) if "clean-prompts" in self.chosen else names

    @property
    def templates(self) -> tuple[str, ...]:
        return openai_templates()

    def load(self, name: str) -> Split:
        domain, part = _domain(name)
        place, lines = self._lines(name)
        if name == "test":
            self._check_apart(lines)
        folders.check_files(place, lines.paths, lines.files[0])
        ids = [f"{domain}/{stem}" for stem in folders.stems(lines.paths)]
        keep = np.ones(len(ids), np.bool_)
        if part == "train" and name != "train-all":
            held = folders.held_out(ids, lines.labels, HELD_OUT)
            keep = held if name == "val" else ~held
        rows: list[int] = np.flatnonzero(keep).tolist()
        images = FileImages(place, tuple(lines.paths[k] for k in rows))
        layout = f"{self._generation() or 'unknown'} split files"
        return Split(name, images, lines.labels[rows], tuple(ids[k] for k in rows), place=place, layout=layout)

    def count_problems(self, split: Split) -> list[str]:
        """Of the split files as a whole, before any image is held out."""
        _, lines = self._lines(split.name)
        known = _known(split.name)
        found = [] if len(lines.paths) in known.values() else [
            f"split '{split.name}' has {len(lines.paths):,} images, "
            + ", ".join(f"the {generation} lists have {n:,}" for generation, n in known.items())
        ]  # fmt: skip
        absent = sorted({*range(len(class_folders()))} - {*lines.labels.tolist()})
        if absent:
            found.append(
                f"split '{split.name}' has no image of {len(absent)} classes ({class_folders()[absent[0]]}, ...)"
            )
        return found

    def _lines(self, name: str) -> tuple[Path, Lines]:
        """The domain's folder and its list, read once for all splits made of it."""
        domain, part = _domain(name)
        if (domain, part) not in self._read:
            place = self.place("train" if name in TRAINERS else name)
            self._read[domain, part] = place, _read(place, domain, part)
        return self._read[domain, part]

    def _generation(self) -> str:
        """Of all split files together; empty if some have counts of no generation. Two generations share test images
        with train images of the other, so they are not mixed."""
        found: dict[str, str] = {}
        possible = set(GENERATIONS)
        for name in ("train", "test", *self.shifts):
            try:
                _, lines = self._lines(name)
            except MissingDataError:
                continue  # whoever needs it will say so
            own = {generation for generation, n in _known(name).items() if n == len(lines.paths)}
            if not own:
                return ""
            if len(own) == 1:
                found.setdefault(min(own), lines.text)
            possible &= own
        if not possible:
            raise RbftError(
                "split files of two generations: "
                + ", ".join(f"{text} is {generation}" for generation, text in found.items())
                + "; take all from one, with its images"
            )
        return min(possible)

    def _check_apart(self, lines: Lines) -> None:
        try:
            _, train = self._lines("train")
        except MissingDataError:
            return
        both = set(lines.paths) & set(train.paths)
        if both:
            raise RbftError(
                f"{lines.text} names {len(both):,} images that {train.text} names as well, e.g. {min(both)}; get the "
                "official split files again"
            )


@lru_cache
def class_folders() -> tuple[str, ...]:
    """The 345 names in label order, as the class folders are called."""
    return tuple(json.loads(Path(__file__).with_name("domainnet_classes.json").read_text(encoding="utf-8")))


def _domain(name: str) -> tuple[str, str]:
    """Domain and part of a split."""
    return ("real", "test" if name == "test" else "train") if name in ("test", *TRAINERS) else (name, "test")


def _known(name: str) -> dict[str, int]:
    """Generation -> lines of the list that a split is made of."""
    return {generation: counts["_".join(_domain(name))] for generation, counts in GENERATIONS.items()}


def _files(place: Path, domain: str, part: str) -> tuple[Path, ...]:
    """The list, or the two halves of it, beside the domain's folder."""
    wanted = TRAIN_LISTS if part == "train" else ((f"{domain}_{part}.txt",),)
    groups = [tuple(place.parent / folder / name for name in names) for names in wanted for folder in LISTS]
    found = [group for group in groups if all(file.is_file() for file in group)]
    if not found:
        raise MissingDataError(
            f"{place.parent} has no {wanted[0][0]}, nor have its {', '.join(filter(None, LISTS))}: labels come from "
            f"the official split files, which DomainBed's tree lacks; get them from {HOME}"
        )
    for other in found[1:]:
        for first, file in zip(found[0], other, strict=False):
            if first.name == file.name and folders.read_text(first) != folders.read_text(file):
                raise RbftError(f"{first} and {file} differ; move one of them away")
    return found[0]


def _read(place: Path, domain: str, part: str) -> Lines:
    if (place / domain).is_dir():
        raise MissingDataError(
            f"{place} is one level too high: its folder '{domain}' holds the class folders; move it up"
        )
    files = _files(place, domain, part)
    paths: list[str] = []
    labels: list[int] = []
    for file in files:
        some, own = folders.split_file(file, len(class_folders()))
        for path, label in zip(some, own.tolist(), strict=True):
            name = class_folders()[label]
            if not path.startswith(f"{domain}/"):
                raise RbftError(f"{file} names '{path}', which is not under {domain}/; is it another domain's list?")
            if path.split("/")[1] != name:
                raise RbftError(
                    f"{file} gives '{path}' label {label}, which is '{name}' in the official order; get the official "
                    "split files, whose order no sorting gives"
                )
        paths += [path[len(domain) + 1 :] for path in some]
        labels += own.tolist()
    order: list[int] = np.lexsort((np.array(paths), np.array(labels))).tolist()  # however the list was shuffled
    return Lines(files, tuple(paths[k] for k in order), np.array(labels, np.int64)[order])
