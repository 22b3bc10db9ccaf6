"""Colours and marks of methods, the same in every figure. Only the standard library.

A method is told by a colour and a mark together. Colours were chosen so that people with any of the three kinds of
colour blindness can tell them apart, and so that each stands out from the page: tests/test_palette.py measures both.
"""

import hashlib
from dataclasses import dataclass

# one colour for light pages and one for dark ones, in the same order
LIGHT = ("#222222", "#2196ff", "#9c3003", "#007151", "#bb8c01", "#232bce", "#9c8cab")
DARK = ("#e7e5df", "#2cceff", "#db5d14", "#13965d", "#ffc500", "#6a61ff", "#b35a9a")
# marks of the methods below, then those of all others
OWN = ("circle", "square", "diamond", "up", "down", "plus", "cross", "star", "left", "right")
OTHERS = ("pentagon", "hexagon", "lozenge", "triad")
# A place in this list is a look: append, and never reorder. Seven colours and ten marks have 70 pairs.
METHODS = (
    "zero-shot", "ft", "flyp", "lipsum", "wise-ft", "lp-ft", "ema", "l2-sp", "kd", "car-ft", "uniform-soup",
    "greedy-soup", "model-stock", "swad", "diwa", "lora", "lp", "clap", "coop", "kgcoop", "promptsrc", "prolip",
    "adam-spd", "carot", "clipood", "dare", "dawin", "ewc", "feature-distill", "ft-strong", "ftp", "ldifs",
    "lines", "lwf", "miro", "mixout", "olor", "output-ensemble", "paint", "partial-ft", "path", "saft",
    "starft", "task-arithmetic", "ties", "tpgm", "tsv-m", "vrf",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: int  # into LIGHT and DARK
    mark: str  # of OWN or OTHERS

    @property
    def light(self) -> str:
        """The colour on a light page, as '#rrggbb'."""
        return LIGHT[self.colour]


def look(method: str) -> Look:
    """The look of a method, which its name alone decides.

    Two methods of METHODS never look the same, nor like any other method. Others have one of 28 looks by their name, so
    two of them may meet. A chain such as 'lipsum+wise-ft' has the colour of its first link.
    """
    if method in METHODS:
        k = METHODS.index(method)
        return Look(k % len(LIGHT), OWN[k % len(OWN)])
    number = int.from_bytes(hashlib.sha256(method.encode()).digest()[:8], "big")
    first, plus, _ = method.partition("+")
    colour = look(first).colour if plus and first else number // len(OTHERS) % len(LIGHT)
    return Look(colour, OTHERS[number % len(OTHERS)])
