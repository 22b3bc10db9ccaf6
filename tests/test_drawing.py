"""The procedural pictures: reproducible one by one, legible, and captioned in a closed vocabulary."""

import sys
from subprocess import run

import numpy as np
import pytest
from sklearn.datasets import load_digits

from robustbench_ft import drawing
from robustbench_ft.drawing.random_draws import Draws

VIEWS = [(domain, camera) for domain in drawing.DOMAINS for camera in drawing.CAMERAS]
EVERY_CLASS = np.arange(len(drawing.CLASSES))


@pytest.mark.parametrize(("domain", "camera"), VIEWS)
def test_an_image_is_the_same_whatever_its_batch(domain: str, camera: str) -> None:
    labels, indices = np.arange(60) % 42, np.arange(60) + 1000
    together = drawing.render(domain, labels, "key", indices, camera)
    backwards = drawing.render(domain, labels[::-1], "key", indices[::-1], camera)[::-1]
    alone = drawing.render(domain, labels[7:8], "key", indices[7:8], camera)
    assert (together == backwards).all()
    assert (together[7] == alone[0]).all()


@pytest.mark.parametrize(("domain", "camera"), VIEWS)
def test_keys_and_indices_give_other_images(domain: str, camera: str) -> None:
    image, other_key, other_index = (
        drawing.render(domain, 0, key, index, camera) for key, index in (("a", 0), ("b", 0), ("a", 1))
    )
    assert (image != other_key).any()
    assert (image != other_index).any()


@pytest.mark.parametrize(("domain", "camera"), VIEWS)
def test_every_class_shows_on_its_background(domain: str, camera: str) -> None:
    images = drawing.render(domain, np.repeat(EVERY_CLASS, 8), "show", np.arange(8 * 42), camera)
    spread = images.reshape(42, 8, -1).astype(float).std(axis=2).mean(axis=1)
    assert spread.min() > 12  # of 255; an empty page has 0, an empty photo only its noise and horizon


@pytest.mark.parametrize("domain", drawing.DOMAINS)
def test_what_is_shown_depends_on_the_class(domain: str) -> None:
    house, fish = (drawing.render(domain, [drawing.OBJECTS.index(n)] * 20, "k", range(20)) for n in ("house", "fish"))
    assert (np.abs(house.astype(int) - fish).mean(axis=(1, 2, 3)) > 2).all()


def test_captions_use_the_vocabulary_and_all_of_it() -> None:
    said: set[str] = set()
    for domain in drawing.DOMAINS:
        for text in drawing.captions(domain, np.arange(12000) % 42, "words", np.arange(12000)):
            said.update(text.split())
    assert said == set(drawing.vocabulary())


def test_captions_are_mostly_right_and_sometimes_wrong() -> None:
    texts = drawing.captions("sketch", np.full(4000, drawing.OBJECTS.index("umbrella")), "share", np.arange(4000))
    right = np.mean([any(word in text for word in ("umbrella", "parasol")) for text in texts])
    assert 0.67 < right < 0.73


def test_colours_in_captions_are_those_of_the_picture() -> None:
    label, index = np.full(300, drawing.OBJECTS.index("mug")), np.arange(300)
    texts = drawing.captions("clipart", label, "colour", index)
    tint = drawing.render("clipart", label, "colour", index)[:, 8:24, 8:24].mean(axis=(1, 2))  # [n, 3]
    red = [i for i, text in enumerate(texts) if "red" in text.split()]
    green = [i for i, text in enumerate(texts) if "green" in text.split()]
    assert (tint[red, 0] - tint[red, 1]).mean() > 40
    assert (tint[green, 1] - tint[green, 0]).mean() > 20


def test_templates_and_names_are_in_the_vocabulary() -> None:
    words = set(drawing.vocabulary())
    for text in (*drawing.TEMPLATES, *drawing.OBJECTS, *drawing.DIGIT_NAMES):
        assert set(text.replace("{}", "").split()) <= words
    assert len(drawing.TEMPLATES) == 11


def test_adding_a_name_moves_no_other_draw() -> None:
    one, two = Draws("k", np.arange(5)), Draws("k", np.arange(5))
    two.uniform("new")
    assert (one.uniform("old") == two.uniform("old")).all()


def test_draws_have_the_moments_they_claim() -> None:
    d = Draws("moments", np.arange(200))
    for sample in (d.normal("n", (500,)), d.noise("m", (25, 20))):
        assert abs(sample.mean()) < 0.01
        assert abs(sample.std() - 1) < 0.01
    assert abs(d.uniform("u", 2, 4, (500,)).mean() - 3) < 0.01
    assert np.bincount(d.choice("c", (1, 3), (500,)).ravel())[1] / 100_000 == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("style", drawing.STYLES)
def test_scans_are_placed_reproducibly(style: str) -> None:
    scans = load_digits(return_X_y=True)[0][:40].reshape(-1, 8, 8)
    images = drawing.scan_images(scans, "scans", np.arange(40), style)
    assert images.shape == (40, 32, 32, 3)
    assert (drawing.scan_images(scans[5:6], "scans", [5], style) == images[5:6]).all()
    plain = drawing.scan_images(scans, "scans", np.arange(40), "plain").astype(np.float64)
    ink, grey = (plain[..., 0] < 128), images.astype(np.float64).mean(axis=3)
    contrast = grey[~ink].mean() - grey[ink].mean()
    saturation, roughness = np.ptp(images, axis=3).mean(), np.abs(np.diff(grey, axis=2)).mean()
    told = {
        "plain": contrast > 100 and saturation == 0,
        "inverted": (images == 255 - plain).all(),
        "colour": abs(contrast) > 15 and saturation > 50,
        "corrupted": contrast > 30 and roughness > 2 * np.abs(np.diff(plain[..., 0], axis=1)).mean(),
    }
    assert told[style], (contrast, saturation, roughness)


def test_drawing_needs_no_torch() -> None:
    code = "import sys, robustbench_ft.drawing; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
