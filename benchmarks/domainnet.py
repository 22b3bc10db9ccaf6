"""DomainNet: learn on Real; be tested on Painting, Clipart, Infograph and Sketch."""

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustbench_ft import trees
from robustbench_ft.data import FileImages, Ints, Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.places import Roots
from robustbench_ft.prompts import openai_templates
from robustbench_ft.recipe import R_LIP
from robustbench_ft.suite import Card, Source, Suite

HELD_OUT = 0.1  # of each class, the share that FTP's lists hold out of real_train
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


class Lines(NamedTuple):
    """What split files say: paths below the domain's folder, labels, and what the files are called."""

    paths: tuple[str, ...]
    labels: Ints
    source: str


class DomainNet(Suite):
    """As in Lipsum-FT, Quickdraw is left out and prompts keep the raw class names, underscores included: that is what
    the published zero-shot numbers belong to. Labels are the split files', whose order no sorting gives."""

    recipe = R_LIP
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
        home="ai.bu.edu/M3SDA",
        counts={},  # two generations of split files exist: `count_problems`
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
        if "quickdraw" in self.chosen:
            self.shifts = (*self.shifts, "quickdraw")

    @property
    def classes(self) -> tuple[str, ...]:
        names = folders()
        return tuple(name.replace("_", " ") for name in names) if "clean-prompts" in self.chosen else names

    @property
    def templates(self) -> tuple[str, ...]:
        return openai_templates()

    def load(self, name: str) -> Split:
        domain, part = ("real", "test" if name == "test" else "train") if name not in self.shifts else (name, "test")
        place = self.place("train" if part == "train" else name)
        lines = _lines(place, domain, part)
        trees.check_files(place, lines.paths, Path(lines.source))
        ids = [f"{domain}/{path.rpartition('.')[0]}" for path in lines.paths]
        keep = np.ones(len(ids), np.bool_)
        if name in ("train", "val"):
            held = trees.held_out(ids, lines.labels, HELD_OUT)
            keep = held if name == "val" else ~held
        rows = np.flatnonzero(keep)
        images = FileImages(place, tuple(lines.paths[k] for k in rows))
        return Split(name, images, lines.labels[rows], tuple(ids[k] for k in rows), place=place, layout="split files")


@lru_cache
def folders() -> tuple[str, ...]:
    """The 345 names in label order, as the class folders are called."""
    return tuple(json.loads(Path(__file__).with_name("domainnet_classes.json").read_text(encoding="utf-8")))


def _lines(place: Path, domain: str, part: str) -> Lines:
    source = next((p for f in LISTS if (p := place.parent / f / f"{domain}_{part}.txt").exists()), None)
    if source is None:
        raise MissingDataError(f"{place.parent} has no {domain}_{part}.txt; get the official split files")
    paths, labels = trees.split_file(source, len(folders()))
    stray = next((path for path in paths if not path.startswith(f"{domain}/")), None)
    if stray:
        raise RbftError(f"{source} names '{stray}', which is not under {domain}/; get the official split file again")
    return Lines(tuple(path.partition("/")[2] for path in paths), labels, str(source))
