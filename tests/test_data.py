"""Splits are shared by all cells of a process: nobody can write into them."""

from dataclasses import replace

import numpy as np
import pytest

from robustbench_ft import registry
from robustbench_ft.data import ArrayImages, Ints, LabelSpace, Split
from robustbench_ft.suite import Suite


def arrays(split: Split) -> dict[str, Ints]:
    """Every array of numbers that a split holds."""
    found = {"labels": split.labels} | {f"group {name}": values for name, values in split.groups.items()}
    return found | {f"space {name}": space.labels for name, space in split.also.items()}


def made() -> tuple[Split, Ints]:
    """A split with arrays of every kind, and the array that all of them were made of."""
    numbers = np.arange(4)
    pixels = np.zeros((4, 2, 2, 3), np.uint8)
    ids = tuple("abcd")
    also = {"half": LabelSpace(None, numbers)}
    return Split("train", ArrayImages(pixels), numbers, ids, {"camera": numbers}, also=also), numbers


@pytest.mark.parametrize("copied", [False, True])
def test_what_a_split_holds_cannot_be_written(copied: bool) -> None:
    split, numbers = made()
    split = replace(split, name="other") if copied else split
    assert set(arrays(split)) == {"labels", "group camera", "space half"}
    for values in (*arrays(split).values(), split.images.array()):
        assert values is not None
        with pytest.raises(ValueError, match="read-only"):
            values[:] = 1
        with pytest.raises(ValueError, match="read-only"):
            values.sort()
    numbers[:] = 0  # whoever made the arrays may still use them


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_no_method_can_change_what_the_next_one_sees(name: str) -> None:
    suite = registry.load("suite", name, Suite)(name)
    for split in ("train", "val", *suite.shifts):
        pixels = suite.split(split).images.array()
        assert pixels is not None
        assert not pixels.flags.writeable
        assert not any(values.flags.writeable for values in arrays(suite.split(split)).values())
