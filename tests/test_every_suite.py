"""Every registered suite keeps the contract; the embedded ones share no image between splits."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
import pytest
from tiny import Tiny

from robustbench_ft import plan, registry
from robustbench_ft.checks import Check, check_suite
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.suite import Card, CardOnly, Suite

SUITES = {name: suite_ref.load(name) for name in sorted(registry.entries("suite"))}
EMBEDDED = ("digits", "shapes")


def checks(suites: dict[str, Suite]) -> Iterator[tuple[str, Check]]:
    for name, suite in suites.items():
        for check in check_suite(suite):
            yield name, check


@pytest.mark.parametrize(("name", "check"), [pytest.param(n, c, id=f"{n}-{c.name}") for n, c in checks(SUITES)])
def test_suite_keeps_the_contract(name: str, check: Check) -> None:
    check.run()


def test_embedded_suites_need_no_download_and_say_what_they_are() -> None:
    for name in EMBEDDED:
        assert not SUITES[name].card.layout
        assert "embedded" in SUITES[name].card.note


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_image_is_in_two_splits(name: str) -> None:
    suite, owner = SUITES[name], dict[bytes, str]()
    for split in (suite.train, *suite.splits):
        pixels = suite.split(split).images.array()
        assert pixels is not None
        found = {hashlib.sha256(image.tobytes()).digest() for image in pixels}
        assert not {owner[image] for image in found & owner.keys()}
        owner |= dict.fromkeys(found, split)


def test_altered_scans_show_the_test_scans_and_no_others() -> None:
    suite = SUITES["digits"]
    scans = {name: [i.rpartition("/")[2] for i in suite.split(name).ids] for name in ("train", "val", *suite.splits)}
    for style in suite.shift_groups["scans"]:
        assert scans[style] == scans["test"]
        assert (suite.split(style).labels == suite.split("test").labels).all()
    assert not set(scans["test"]) & (set(scans["train"]) | set(scans["val"]))
    assert sum(len(scans[name]) for name in ("train", "val", "test")) == 1797


def test_every_class_is_in_every_split() -> None:
    for name in EMBEDDED:
        for split in (SUITES[name].train, *SUITES[name].splits):
            assert set(SUITES[name].split(split).labels) == set(range(len(SUITES[name].classes)))


@pytest.mark.parametrize("name", sorted(set(SUITES) - set(EMBEDDED)))
def test_card_only_suite_says_that_it_cannot_be_read(name: str) -> None:
    suite = SUITES[name]
    assert isinstance(suite, CardOnly)
    for ask in (suite.check_ready, lambda: suite.split(suite.test), lambda: suite.classes):
        with pytest.raises(MissingDataError, match="pass --root DIR") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_unknown_split_is_named_with_those_that_exist() -> None:
    with pytest.raises(RbftError, match=r"unknown split of suite 'tiny' 'dimm': did you mean dim\?.*known: dim, noisy"):
        Tiny("tiny").split("dimm")


class Broken(Tiny):
    """Breaks the contract in two ways."""

    card: Card = replace(Tiny.card, counts={**Tiny.card.counts, "dim": 31}, licence=" ")


class Swapped(Tiny):
    """Evaluates on what it learns from."""

    shifts = ("train", "noisy")


def test_checks_find_what_is_wrong() -> None:
    found: dict[str, str] = {}
    for name, check in checks({"broken": Broken("broken"), "swapped": Swapped("swapped")}):
        try:
            check.run()
        except (AssertionError, RbftError) as error:
            found[f"{name} {check.name}"] = str(error)
    assert found["broken card-is-complete"] == "the card lacks: licence"
    assert "has 30 images, its card says 31" in found["broken dim-is-what-the-card-says"]
    assert found["swapped names-are-consistent"] == "a shift is also an ID split"
