"""Spaced: the tiny suite with classes of their own on its shifts, official metrics, groups and an option."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny
from tiny import Tiny

from robustbench_ft.data import LabelSpace, Split
from robustbench_ft.images.roots import Roots
from robustbench_ft.suite import Card

WARM = ((0,), (1, 2))  # red, and what is not red


class Spaced(Tiny):
    """ID is scored on red and green alone as well; `dim` has two classes of its own; `noisy` is in no mean."""

    card: Card = replace(Tiny.card, title="Spaced")
    shifts = ("dim",)
    extra = ("noisy",)
    metrics = {"test": "macro_f1", "dim": "worst_group:side"}  # noqa: RUF012
    options = {"loud": "moves noisy into the shifts"}  # noqa: RUF012
    published_train, published_selector = "train-all", "test"

    def __init__(
        self, name: str, root: Roots | Path | None = None, chosen: Collection[str] = (), partial: bool = False
    ) -> None:
        super().__init__(name, root, chosen, partial)
        if "loud" in self.chosen:
            self.shifts, self.extra = ("dim", "noisy"), ()

    def load(self, name: str) -> Split:
        if name == self.published_train:
            parts = [super(Spaced, self).load(part) for part in ("train", "val")]
            pixels = np.concatenate([tiny.pixels(part.name, part.labels) for part in parts])
            labels = np.concatenate([part.labels for part in parts])
            return Split(name, tiny.ArrayImages(pixels), labels, tuple(i for part in parts for i in part.ids))
        split = super().load(name)
        if name == "test":
            pair = LabelSpace(((0,), (1,)), np.where(split.labels < 2, split.labels, -1))
            return replace(split, also={"red-green": pair})
        if name == "dim":
            side = np.where(np.arange(len(split)) % 5 == 4, -1, np.arange(len(split)) % 2)
            return replace(
                split, labels=(split.labels > 0).astype(np.int64), members=WARM, groups={"side": side},
                also={"3-way": LabelSpace(None, split.labels)}, layout="two classes",
            )  # fmt: skip
        return split
