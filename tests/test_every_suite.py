"""Every registered suite keeps the contract; the embedded ones share no image between splits."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Tiny

from robustbench_ft import registry, suite_ref
from robustbench_ft.checks import Check, check_suite
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.suite import Card, Suite

SUITES = {name: suite_ref.load(name) for name in sorted(registry.entries("suite"))}
EMBEDDED = ("digits", "shapes")


def checks(suites: dict[str, Suite]) -> Iterator[tuple[str, Check]]:
    """Check what needs no data of suites whose data is elsewhere: their own tests read trees in their layouts."""
    for name, suite in suites.items():
        for check in check_suite(suite):
            if not suite.places or check.name in ("card-is-complete", "names-are-consistent", "missing-data-is-named"):
                yield name, check


@pytest.mark.parametrize(("name", "check"), [pytest.param(n, c, id=f"{n}-{c.name}") for n, c in checks(SUITES)])
def test_suite_keeps_the_contract(name: str, check: Check) -> None:
    check.run()


def test_embedded_suites_need_no_download_and_say_what_they_are() -> None:
    for name in EMBEDDED:
        assert not SUITES[name].places
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
def test_suite_without_its_data_says_what_it_needs(name: str, tmp_path: Path) -> None:
    home = SUITES[name].card.home
    with pytest.raises(
        MissingDataError, match=f"needs data from {home}: pass --root DIR.* see `rbft data where {name}"
    ):
        suite_ref.load(name).check_ready()
    with pytest.raises(MissingDataError, match=f"{tmp_path} has no .*; get it from {home}, or pass --root {name}/"):
        suite_ref.load(name, tmp_path).check_ready()


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
