"""Methods look the same in every figure, no two alike, and can be told apart by people who see fewer colours."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from robustbench_ft import palette, registry
from robustbench_ft.board import svg
from robustbench_ft.compare import canvas

REPO = Path(__file__).parent.parent
STYLE = REPO / "robustbench_ft" / "board" / "templates" / "style.css"
PAPERS = {"LIGHT": "#fdfdfb", "DARK": "#15171a"}
# what people without one kind of cone see of linear RGB: Machado, Oliveira and Fernandes, 2009, severity 1
SEEN = {
    "everybody": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    """Linear RGB of '#rrggbb'."""
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, white D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ rgb.clip(0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(colour: str, paper: str) -> float:
    """WCAG 2.2, contrast ratio."""
    one, other = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (colour, paper))
    return (other + 0.05) / (one + 0.05)


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize("scheme", PAPERS)
def test_colours_are_far_apart_for_everybody(scheme: str, kind: str) -> None:
    seen = [lab(np.array(SEEN[kind]) @ linear(colour)) for colour in getattr(palette, scheme)]
    least = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    assert least > 25  # matplotlib's own ten come to 5 here


def test_matplotlibs_own_colours_would_fail_here() -> None:
    own = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
    seen = [lab(np.array(SEEN["deuteranopia"]) @ linear(colour)) for colour in own]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) < 10


@pytest.mark.parametrize("scheme", PAPERS)
def test_colours_stand_out_from_the_page(scheme: str) -> None:
    assert min(contrast(colour, PAPERS[scheme]) for colour in getattr(palette, scheme)) >= 2.99  # WCAG 1.4.11: 3


def test_every_registered_method_has_a_look_of_its_own() -> None:
    built_in = {
        entry.name for entry in registry.entries("method").values() if entry.module.startswith("robustbench_ft.")
    }
    assert built_in <= set(palette.METHODS), "append new methods to palette.METHODS"
    assert len(set(palette.METHODS)) == len(palette.METHODS) <= len(palette.LIGHT) * len(palette.OWN)
    assert len({palette.look(name) for name in palette.METHODS}) == len(palette.METHODS)


def test_looks_never_change() -> None:
    """Readers learn them, and pictures of different days lie side by side."""
    looks = {name: palette.look(name) for name in ("zero-shot", "ft", "flyp", "lipsum", "wise-ft", "vrf", "my-method")}
    assert {name: (look.light, look.mark) for name, look in looks.items()} == {
        "zero-shot": ("#222222", "circle"),
        "ft": ("#2196ff", "square"),
        "flyp": ("#9c3003", "diamond"),
        "lipsum": ("#007151", "up"),
        "wise-ft": ("#bb8c01", "down"),
        "vrf": ("#232bce", "star"),
        "my-method": ("#9c3003", "triad"),
    }


def test_others_never_look_like_a_method_that_ships() -> None:
    found = {palette.look(f"method-{k}") for k in range(400)}
    assert len(found) == len(palette.LIGHT) * len(palette.OTHERS)
    assert not found & {palette.look(name) for name in palette.METHODS}


def test_a_chain_has_the_colour_of_its_first_link() -> None:
    assert palette.look("lipsum+wise-ft").colour == palette.look("lipsum").colour
    assert palette.look("lipsum+wise-ft") != palette.look("lipsum")
    assert palette.look("+").mark in palette.OTHERS


def test_boards_and_pictures_know_every_mark() -> None:
    assert set(svg.MARKERS) == set(canvas.MARKS) == {*palette.OWN, *palette.OTHERS}


def test_the_style_of_boards_has_these_colours() -> None:
    text = STYLE.read_text(encoding="utf-8")
    found = re.findall(r"--s(\d): (#\w{6});", text)
    assert [colour for _, colour in found] == [*palette.LIGHT, *palette.DARK]
    assert re.findall(r"\.c(\d) ", text) == [str(k) for k in range(len(palette.LIGHT))]
    assert re.findall(r"--paper: (#\w{6});", text) == [*PAPERS.values()]
