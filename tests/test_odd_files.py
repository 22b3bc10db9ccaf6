"""Odd image files of real trees: evaluation pixels are those of open_clip's own transform, to the last bit."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from robustbench_ft import clip as clips
from robustbench_ft import model_ref
from robustbench_ft.clip import Clip
from robustbench_ft.data import FileImages, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.pixels.loader import Loader

WIDE = 54, 41  # pixels: neither side is the model's, and what is cropped is no whole number


def picture(mode: str = "RGB") -> Image.Image:
    """A photograph-like image that is not square."""
    return coded.picture(777, side=64).resize(WIDE, Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(picture(), "JPEG", exif=exif)


def transparent(mode: str) -> bytes:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(WIDE[0], dtype=np.uint8) * 4, (WIDE[1], 1))))
    return saved(image.convert(mode) if mode != "RGBA" else image, "PNG")


def cmyk_of_adobe() -> bytes:
    """Inverted, as Photoshop writes it: Pillow marks its own with the same APP14 segment."""
    raw = saved(picture("CMYK"), "JPEG", quality=90)
    assert b"Adobe" in raw
    return raw


FILES: dict[str, Callable[[], bytes]] = {
    "plain JPEG": lambda: saved(picture(), "JPEG", quality=90),
    **{f"EXIF orientation {k}": lambda k=k: turned(k) for k in (3, 6, 8)},
    "progressive JPEG": lambda: saved(picture(), "JPEG", progressive=True),
    "JPEG 4:4:4": lambda: saved(picture(), "JPEG", subsampling=0),
    "JPEG 4:2:2": lambda: saved(picture(), "JPEG", subsampling=1),
    "optimised JPEG of low quality": lambda: saved(picture(), "JPEG", quality=8, optimize=True),
    "grey JPEG": lambda: saved(picture("L"), "JPEG"),
    "CMYK JPEG": cmyk_of_adobe,
    "JPEG with bytes behind its end": lambda: saved(picture(), "JPEG") + b"\0" * 64,
    "JPEG with a comment and a profile": lambda: saved(picture(), "JPEG", comment=b"x" * 99, icc_profile=b"y" * 400),
    "PNG": lambda: saved(picture(), "PNG"),
    "PNG with transparency": lambda: transparent("RGBA"),
    "grey PNG with transparency": lambda: transparent("LA"),
    "PNG of 16 colours": lambda: saved(picture().quantize(16), "PNG"),
    "PNG of colours, one transparent": lambda: saved(picture().quantize(16), "PNG", transparency=3),
    "black and white PNG": lambda: saved(picture("1"), "PNG"),
    "animated GIF": lambda: saved(picture(), "GIF", save_all=True, append_images=[picture("L")]),
    "lossy WebP": lambda: saved(picture(), "WEBP", quality=60),
    "TIFF": lambda: saved(picture(), "TIFF"),
    "BMP": lambda: saved(picture(), "BMP"),
    "single row": lambda: saved(picture().crop((0, 0, 54, 1)), "PNG"),
}


@pytest.fixture(scope="module")
def clip(tiny_model: str) -> Clip:
    return clips.load(model_ref.resolve(tiny_model, None))


def one(folder: Path, name: str, content: bytes) -> Split:
    (folder / name).write_bytes(content)
    return Split("odd", FileImages(folder, (name,)), np.zeros(1, np.int64), (name,))


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("name", FILES)
def test_evaluation_pixels_are_those_of_open_clip(name: str, resize_mode: str, clip: Clip, tmp_path: Path) -> None:
    """`PIL.Image.open` and open_clip's transform, whose own conversion to RGB follows the resizing."""
    config: Any = {**clip.config["preprocess_cfg"], "resize_mode": resize_mode}
    other = clip.frozen_copy()
    other.config = {**clip.config, "preprocess_cfg": config}
    preprocess: Any = image_transform_v2(PreprocessCfg(**config), is_train=False)
    loader = Loader(other, one(tmp_path, "image.bin", FILES[name]()))
    found = loader.normalise(loader.read([0]))[0]
    with Image.open(tmp_path / "image.bin") as image:
        assert torch.equal(found, preprocess(image))


def test_an_orientation_is_not_applied(clip: Clip, tmp_path: Path) -> None:
    """Neither by open_clip nor here: the pixels of a turned photograph are those of the file."""
    plain, turn = (Loader(clip, one(tmp_path, f"{k}.jpg", turned(k))).read([0]) for k in (1, 6))
    assert torch.equal(plain, turn)


BROKEN: dict[str, tuple[bytes, str]] = {
    "truncated JPEG": (saved(picture(), "JPEG")[:700], "cannot decode .*: .*truncated"),
    "truncated PNG": (saved(picture(), "PNG")[:2000], "cannot decode"),
    "empty": (b"", "it is empty"),
    "a web page": (b"<html>not found</html>", "cannot identify"),
    "16-bit PNG": (
        saved(Image.fromarray(np.arange(54 * 41, dtype=np.uint16).reshape(41, 54) * 20), "PNG"),
        "has more than 8 bits a pixel, which would be clipped to white",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_open_clip_cannot_show_is_one_line_and_never_skipped(name: str, clip: Clip, tmp_path: Path) -> None:
    """A 16-bit image is refused although Pillow opens it: its conversion to RGB clips, so open_clip sees white."""
    content, text = BROKEN[name]
    with pytest.raises(RbftError, match=text) as caught:
        Loader(clip, one(tmp_path, "image.png", content)).read([0])
    assert str(tmp_path / "image.png") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sixteen_bits_would_be_clipped() -> None:
    """Why they are refused."""
    wide = Image.open(io.BytesIO(BROKEN["16-bit PNG"][0]))
    assert (np.asarray(wide) > 255).mean() > 0.9
    assert (np.asarray(wide.convert("RGB")) == 255).mean() > 0.9
