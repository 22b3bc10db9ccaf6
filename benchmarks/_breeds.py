"""What the BREEDS suites have in common: classes of several ImageNet classes, some learnt from and others tested on.

Maps: `breeds_splits.json`, as the official generator makes them for split "rand" (MadryLab/robustness@a954124,
tools/breeds_helpers.py, seed 2; hierarchy of MadryLab/BREEDS-Benchmarks@f83be50, `modified/`).
"""

import json
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robustbench_ft.data import Ints, Split
from robustbench_ft.prompts import simple_templates
from robustbench_ft.recipe import R_WISE
from robustbench_ft.suite import Card, Source

from .imagenet import HELD_OUT, ImageNet, indices

MAPS = Path(__file__).with_name("breeds_splits.json")
SHA = "7358ae3cffe7"  # of that file, its first 12 digits
TARGET = "target"
VAL, LEAST, MOST = 50, 732, 1300  # images of one ImageNet class: in validation, and least and most in train
PAPER = "Santurkar et al., BREEDS: Benchmarks for Subpopulation Shift, ICLR 2021 (arXiv:2008.04859)"


class Breeds(ImageNet):
    """An ordinary ImageNet tree in any layout that the suite `imagenet` reads."""

    recipe = replace(R_WISE, batch=128, select="best", validate_every=-1)
    shifts = (TARGET,)
    published_train = ""
    published_selector = None
    options: ClassVar[dict[str, str]] = {}
    places = {"train": ImageNet.places["train"], "test": ImageNet.places["test"], TARGET: ImageNet.places["test"]}  # noqa: RUF012
    key: ClassVar[str]  # in the maps

    @property
    def classes(self) -> tuple[str, ...]:
        """First synonym of each superclass."""
        return tuple(entry["name"].split(",")[0] for entry in _maps()[self.key])

    @property
    def templates(self) -> tuple[str, ...]:
        return simple_templates()

    def load(self, name: str) -> Split:
        split = self._train(name) if name in (self.train, self.val) else self._test(self.place(name))
        label = self._labels(TARGET if name == TARGET else "source")
        rows = np.flatnonzero(label[split.labels] >= 0)
        taken = split.take(rows)
        return replace(taken, name=name, labels=label[taken.labels], also={})

    def _labels(self, part: str) -> Ints:
        """[1000] superclass of each ImageNet class; -1: in none."""
        place = indices("wnids")
        found = np.full(len(place), -1, np.int64)
        for k, entry in enumerate(_maps()[self.key]):
            found[[place[wnid] for wnid in entry[part]]] = k
        return found


@lru_cache
def _maps() -> dict[str, list[dict[str, Any]]]:
    return json.loads(MAPS.read_text(encoding="utf-8"))


def card(title: str, classes: int, each: int) -> Card:
    """Counts follow from `each` source and target classes of every superclass."""
    sources: Collection[Source] = ImageNet.card.sources[:1]
    return Card(
        title, PAPER, ImageNet.card.licence, "image-net.org and the maps of BREEDS, which rbft brings",
        {"val": classes * each * HELD_OUT, "test": classes * each * VAL, TARGET: classes * each * VAL},
        note=f"maps: benchmarks/breeds_splits.json, sha256 {SHA}..., split 'rand'; ID is the source classes of the "
        "official validation images, target its other classes; no prompts are published: names (first synonym) and the "
        "7 templates are ours; LP-FT normalises its images with a standard deviation of .228 (sic), rbft as CLIP does",
        per_class={
            "train": (each * (LEAST - HELD_OUT), each * (MOST - HELD_OUT)), "val": (each * HELD_OUT, each * HELD_OUT),
            "test": (each * VAL, each * VAL), TARGET: (each * VAL, each * VAL),
        },
        sources=tuple(replace(source, splits=("train", "test", TARGET)) for source in sources),
    )  # fmt: skip
