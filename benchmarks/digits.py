"""Digits: learn on real scans of handwriting; be tested on drawn digits and on altered scans (embedded, small)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from robustbench_ft import cache, drawing
from robustbench_ft.data import ArrayImages, Bytes, Ints, Split
from robustbench_ft.recipe import EMBEDDED
from robustbench_ft.suite import Card, Suite

TRAIN, VAL, TEST, DRAWN = 900, 350, 547, 1_500
SCANS = ("inverted", "colour", "corrupted")


class Digits(Suite):
    """1,797 scans that come with scikit-learn, which the embedded model never saw, against two kinds of shift.

    Fine-tuning hurts the drawn domains and helps the altered scans, so the two groups are shown apart: their joint mean
    hides both.
    """

    version = 1
    recipe = replace(EMBEDDED, steps=80, validate_every=20)
    model = "embedded"
    shifts = (*drawing.DOMAINS, *SCANS)
    shift_groups: Mapping[str, tuple[str, ...]] = {"drawn": tuple(drawing.DOMAINS), "scans": SCANS}
    card: Card = Card(
        title="Digits",
        paper="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998",
        licence="CC BY 4.0",
        home="part of scikit-learn (load_digits); drawn domains are made on your machine",
        counts={
            "train": TRAIN, "val": VAL, "test": TEST,
            **dict.fromkeys(drawing.DOMAINS, DRAWN), **dict.fromkeys(SCANS, TEST),
        },
        note="embedded and small: 547 test scans, shown again by the three altered sets, so the interval of the mean "
        "of these (which takes sets as independent) is too narrow",
    )  # fmt: skip

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(drawing.DIGIT_NAMES)

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(drawing.TEMPLATES)

    def load(self, name: str) -> Split:
        key = f"digits-v{self.version}/{name}"
        if name in drawing.DOMAINS:
            labels, indices = np.arange(DRAWN) % 10, np.arange(DRAWN)
            pixels = cache.array(
                "drawn", f"{key}/drawing-v{drawing.VERSION}",
                lambda: drawing.render(name, labels + len(drawing.OBJECTS), key, indices, "hard"),
            )  # fmt: skip
            return Split(name, ArrayImages(pixels), labels, tuple(f"{key}/{i:05d}" for i in range(DRAWN)))
        scans, labels, order = _scans()
        part = {"train": slice(0, TRAIN), "val": slice(TRAIN, TRAIN + VAL)}.get(name, slice(TRAIN + VAL, None))
        rows = order[part]  # the three altered sets show the test scans again
        style = name if name in SCANS else "plain"
        pixels = drawing.scan_images(scans[rows], f"digits-v{self.version}/scans", rows, style)
        return Split(name, ArrayImages(pixels), labels[rows], tuple(f"{key}/scan-{i:04d}" for i in rows))


def _scans() -> tuple[Bytes, Ints, Ints]:
    """[1797, 8, 8] scans with values 0..16, their labels, and the fixed order from which splits are cut."""
    from sklearn.datasets import load_digits  # a second to import, and only this suite needs it

    bunch: Any = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))  # the legacy generator never changes
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64), order.astype(np.int64)
