"""What is odd about one image file, and what that means for a run. Decodes as `data.decode` does, only cheaper."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from robustbench_ft.errors import RbftError
from robustbench_ft.images.files import MOST_LONG, WIDE_MODES, is_strip


@dataclass(frozen=True)
class Kind:
    """One oddity. The n-th of `KINDS` is bit n of the flags that `look` returns."""

    name: str
    stops: bool  # a run would stop here; all others are read, as the meaning says
    meaning: str


KINDS = (
    Kind("empty", True, "zero bytes, a run would stop; get the file again"),
    Kind("unreadable", True, "cannot be opened, a run would stop; put the file back or correct its permissions"),
    Kind("no image", True, "not an image inside, a run would stop; get the file again"),
    Kind("truncated", True, "cut off, a run would stop; get the file again"),
    Kind("damaged", True, "cannot be decoded, a run would stop; get the file again"),
    Kind("16-bit", True, "more than 8 bits a pixel, which would be clipped to white: a run refuses it; convert it"),
    Kind("greyscale", False, "one channel, converted to RGB as open_clip does"),
    Kind("CMYK", False, "four inks, converted to RGB as open_clip does"),
    Kind("transparent", False, "has an alpha channel, which is dropped as open_clip does"),
    Kind("animated", False, "several frames, of which the first is used"),
    Kind("wrong suffix", False, "of another format than its name says, read all the same"),
    Kind("turned", False, "has an EXIF orientation, which is not applied, as in open_clip"),
    Kind("strip", True, f"more than {MOST_LONG} times as long as wide, a run would stop; take it out"),
)
BIT = {kind.name: 1 << n for n, kind in enumerate(KINDS)}
STOPS = sum(BIT[kind.name] for kind in KINDS if kind.stops)
FORMATS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF",
    ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM",
}  # fmt: skip
SAME = {"MPO": "JPEG"}  # a JPEG with further pictures behind the first, as cameras write
MODES = {"1": "greyscale", "L": "greyscale", "CMYK": "CMYK"}
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
ORIENTATION = 0x0112
UPRIGHT = (None, 0, 1)
CHEAP = 8  # JPEGs are decoded at an eighth of their size: every byte is read, few pixels are made
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")  # of files that were images
FAILURES = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def look(raw: bytes, name: str) -> tuple[int, str]:
    """Flags of one stored file, and in a few words what its name and flags do not say."""
    if not raw:
        return BIT["empty"], ""
    try:
        image: Any = Image.open(io.BytesIO(raw))
    except FAILURES as error:
        if raw.startswith(BEGINNINGS):
            return _broken(error)
        text = raw[:64].lstrip()[:1] in (b"<", b"{")
        return BIT["no image"], "it begins like a web page" if text else _reason(error)
    flags, words = 0, list[str]()
    form, mode, size = SAME.get(image.format, image.format), image.mode, image.size
    if is_strip(size):
        return BIT["strip"], f"{size[0]} x {size[1]} pixels"
    try:
        image.draft(None, (max(1, size[0] // CHEAP), max(1, size[1] // CHEAP)))
        image.load()
        frames = getattr(image, "n_frames", 1)
    except FAILURES as error:
        return _broken(error)
    if mode in WIDE_MODES:
        return BIT["16-bit"], f"mode {mode}"
    if mode in MODES:
        flags |= BIT[MODES[mode]]
    if mode in ALPHA or "transparency" in image.info:
        flags |= BIT["transparent"]
        flags |= BIT["greyscale"] if mode in ("LA", "La") else 0
    if frames > 1:
        flags |= BIT["animated"]
        words.append(f"{frames} frames")
    expected = FORMATS.get(Path(name).suffix.lower())
    if expected and expected != form:
        flags |= BIT["wrong suffix"]
        words.append(f"{form} inside")
    if (turn := _orientation(image)) not in UPRIGHT:
        flags |= BIT["turned"]
        words.append(f"orientation {turn}")
    return flags, ", ".join(words)


def look_at(images: Any, index: int) -> tuple[bytes, int, str]:
    """The stored bytes of one image of a split, with its flags; a file that cannot be opened is empty and flagged."""
    try:
        raw: bytes = images.raw(index)
    except RbftError as error:
        return b"", BIT["unreadable"], str(error).rpartition(": ")[2].partition(";")[0]
    return raw, *look(raw, images.name(index))


def names(flags: int) -> list[str]:
    """Names of the kinds whose bit is set."""
    return [kind.name for kind in KINDS if flags & BIT[kind.name]]


def _orientation(image: Any) -> Any:
    """The EXIF orientation; a block that cannot be parsed has none."""
    if "exif" not in image.info and image.format not in ("TIFF", "PNG", "WEBP", "MPO"):
        return None
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # EXIF blocks of every kind are about, and nothing in them can stop a run
        return None


def _broken(error: Exception) -> tuple[int, str]:
    cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
    return BIT["truncated" if cut else "damaged"], _reason(error)


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return "its header makes no sense" if text.startswith("cannot identify image file") else text
