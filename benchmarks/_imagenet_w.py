"""ImageNet-W: the validation images with a watermark of Chinese characters, a shortcut to the class 'carton'.

Li et al., A Whac-A-Mole Dilemma, CVPR 2023 (arXiv:2212.04825); facebookresearch/Whac-A-Mole@c91b097,
imagenet_w/watermark_transform.py. It is drawn after resizing and cropping, so a model's size counts.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robustbench_ft.data import LabelSpace, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.images.overlaid import OverlaidImages
from robustbench_ft.suite import Source, Suite

NAME, VIEW = "w", "carton"
CARTON = 478  # label of that class
TEXT = "捷径" * 3  # 'shortcut', three times
LEFT, TOP, OPACITY = 0.01, 0.4, 0.5  # shares of the side
FONT_SIZES: Mapping[int, int] = {224: 36, 384: 62, 512: 82, 518: 84}  # side -> size of the font; else side / 6.22
FONT = "SourceHanSerifSC-ExtraLight.otf"
SHA = "9f5605324c82b264efc87a7cf0e8e2f26a02ec67f539843368f066cb2e08aed0"  # of the font in imagenet-w 1.0.0
PLACES = tuple(f"{folder}{FONT}" for folder in ("imagenet_w/fonts/", "imagenet-w/imagenet_w/fonts/", "imagenet-w/", ""))
SOURCE = Source(
    (NAME,), "ImageNet-W, the font of its watermark", "PyPI imagenet-w 1.0.0 (pip download --no-deps imagenet-w)",
    "17 MB", "CC BY-NC 4.0 (github facebookresearch/Whac-A-Mole)", unpack=f"imagenet_w/fonts/{FONT}, unzipped",
)  # fmt: skip
GAPS: Mapping[str, tuple[str, str]] = {  # accuracy on the first minus accuracy on the second
    "IN-W gap": (NAME, "test"), "carton gap": (f"{NAME}@{VIEW}", f"test@{VIEW}"),
}  # fmt: skip


def add_watermark(suite: Suite) -> None:
    """Let a suite predict the watermarked test images too, in no mean."""
    suite.extra = (*suite.extra, NAME)
    suite.places = {**suite.places, NAME: PLACES}
    suite.gaps = GAPS
    card = suite.card
    suite.card = replace(
        card, counts={**card.counts, NAME: card.counts["test"]}, sources=(*card.sources, SOURCE),
        per_class={**card.per_class, **({NAME: card.per_class["test"]} if "test" in card.per_class else {})},
    )  # fmt: skip


def with_carton(split: Split) -> Split:
    """A split whose images of cartons are scored apart, among all classes."""
    labels = np.where(split.labels == CARTON, CARTON, -1)
    return replace(split, also={**split.also, VIEW: LabelSpace(None, labels)})


def watermarked(test: Split, font: Path) -> Split:
    """The test images, each with the watermark. Raises `RbftError` where the font is another."""
    try:
        found = hashlib.sha256(font.read_bytes()).hexdigest()
    except OSError as error:
        raise RbftError(f"cannot read {font}: {error.strerror}; put the file of imagenet-w 1.0.0 there") from error
    if found != SHA:
        raise RbftError(f"{font} is not the font of imagenet-w 1.0.0, so the watermark would differ; put that there")
    images = OverlaidImages(test.images, Watermark(font), f"ImageNet-W watermark, font {SHA[:12]}")
    ids = tuple(f"{NAME}/{name}" for name in test.ids)
    plain = replace(test, name=NAME, images=images, ids=ids, also={}, layout=f"{test.layout}, watermarked")
    return with_carton(plain)


@dataclass(frozen=True)
class Watermark:
    """Draws over square RGB images."""

    font: Path

    def __call__(self, image: Image.Image) -> Image.Image:
        return Image.alpha_composite(image.convert("RGBA"), _layer(self.font, *image.size)).convert("RGB")


@lru_cache
def _layer(font: Path, width: int, height: int) -> Image.Image:
    """The watermark alone, transparent elsewhere."""
    try:
        letters = ImageFont.truetype(str(font), FONT_SIZES.get(width, int(width / 6.22)))
    except OSError as error:
        raise RbftError(f"Pillow cannot read the font {font}: {error}; install a Pillow with FreeType") from error
    layer = Image.new("RGBA", (width, height), (255, 255, 255, 0))
    fill = (255, 255, 255, round(OPACITY * 255))
    ImageDraw.Draw(layer).text((LEFT * width, TOP * height), TEXT, fill=fill, font=letters)
    return layer
