"""Shapes: 32 drawn objects; learn on photos by a poor camera, be tested on five other styles (embedded, synthetic)."""

import numpy as np

from robustbench_ft import cache, drawing
from robustbench_ft.data import ArrayImages, Split
from robustbench_ft.recipe import EMBEDDED
from robustbench_ft.suite import Card, Suite

TRAIN, VAL, TEST, SHIFT = 3_000, 3_000, 2_000, 1_500


class Shapes(Suite):
    """The domains mirror DomainNet's, each in a harder view than the one the embedded model was pre-trained with."""

    version = 2
    older = {1: "one image of sketch and three of quickdraw show nothing"}  # noqa: RUF012
    recipe = EMBEDDED
    model = "embedded"
    shifts = ("painting", "clipart", "infograph", "sketch", "quickdraw")
    card: Card = Card(
        title="Shapes",
        paper="this repository, robustbench_ft/drawing",
        licence="MIT",
        home="drawn on your machine",
        counts={"train": TRAIN, "val": VAL, "test": TEST, **dict.fromkeys(shifts, SHIFT)},
        note="embedded, small and synthetic: it shows the phenomenon, it is no evidence about photographs",
    )

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(drawing.OBJECTS)

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(drawing.TEMPLATES)

    def load(self, name: str) -> Split:
        n = self.card.counts[name]
        domain = name if name in self.shifts else "real"
        labels, indices = np.arange(n) % len(self.classes), np.arange(n)
        key = f"shapes-v{self.version}/{name}"
        stream = f"shapes-v1/{name}"  # splits are disjoint by construction; versions draw all other images alike
        least_parts = 0 if self.version == 1 else 1
        pixels = cache.array(
            "drawn",
            f"{key}/drawing-v{drawing.VERSION}/{n}",
            lambda: drawing.render(domain, labels, stream, indices, "hard", least_parts),
        )
        return Split(name, ArrayImages(pixels), labels, tuple(f"{key}/{i:05d}" for i in range(n)))
