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


def test_some_rows_of_a_split_are_a_split() -> None:
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    whole = Split(
        "train", ArrayImages(pixels), np.array([0, 1, 2, 0]), tuple("abcd"), {"camera": np.array([5, 6, 7, 8])},
        also={"half": LabelSpace(None, np.array([0, -1, 1, 0]))},
    )  # fmt: skip
    some = whole.take(np.array([3, 1]))
    assert (some.name, some.ids, some.labels.tolist()) == ("train", ("d", "b"), [0, 1])
    assert some.groups["camera"].tolist() == [8, 6]
    assert some.also["half"].labels.tolist() == [0, -1]
    assert [np.asarray(image)[0, 0, 0] for image in some.images.read([0, 1])] == [3, 1]
    shown = some.images.array()
    assert shown is not None
    assert shown[:, 0, 0, 0].tolist() == [3, 1]
    assert some.digest != whole.digest != whole.take(np.arange(4)).take(np.array([1])).digest
