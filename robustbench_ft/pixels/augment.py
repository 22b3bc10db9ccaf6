"""Training augmentations: what is cut from an image, and how it is resized. uint8 in, uint8 out.

'crop' is the recipe of WiSE-FT and FLYP: an anti-aliased random crop of 90 to 100 % of the area. 'crop-flip' is that of
Lipsum-FT: a crop of 10 to 100 % as TensorFlow draws it, resized as TensorFlow does without anti-aliasing, and flipped
half the time. The two crops follow different rules: torchvision draws the area uniformly and the aspect log-uniformly,
TensorFlow the height and the aspect uniformly, which makes its crops smaller (mean area .39 against .43 of 500 x 375).
"""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from robustbench_ft.data import decode
from robustbench_ft.recipe import Augment

AREA = (0.9, 1.0)  # range of the area that 'crop' keeps
DISTORTED_AREA = (0.08, 1.0)  # the range from which 'crop-flip' takes its limits of the height
COVERED = 0.1  # share of the image that a crop of 'crop-flip' must keep: TensorFlow's min_object_covered of a whole box
PADDING = 32  # where 'crop-flip' finds no crop, it takes the central S / (S + 32) of the shorter side
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10
DRAWS = 2 * ATTEMPTS + 3  # uniform numbers that one crop takes
SHIFT = 1 / 16  # of the side, each way
REDUCED = 1.5  # a JPEG may be decoded at 1/2, 1/4 or 1/8 while the crop keeps this many times the final side
Box = tuple[int, int, int, int]  # left, top, width, height


def crop(raw: bytes, name: str, augment: Augment, draws: Sequence[float], size: int) -> Tensor:
    """The random crop of an image file at the model's size, [3, S, S]; `name` is what errors call the file.

    The box is drawn in the full image, whatever it is decoded at. A JPEG is decoded by torchvision, or, where its crop
    is far larger than needed and will be smoothed anyway, at a half, a quarter or an eighth of its side, which the DCT
    gives for little.
    """
    try:
        image = Image.open(io.BytesIO(raw))
        if _is_plain_jpeg(image):
            box = box_of(augment, image.width, image.height, draws, size)
            scale = next((k for k in (8, 4, 2) if augment == "crop" and min(box[2:]) / k >= REDUCED * size), 1)
            patch = _reduced(image, box, scale) if scale > 1 else window(_decoded(raw), box)
            return resized(patch, augment, draws, size)
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass  # `decode` reads it after all, or says what is wrong
    return crop_of(tensor(decode(raw, name)), augment, draws, size)


def crop_of(pixels: Tensor, augment: Augment, draws: Sequence[float], size: int) -> Tensor:
    """The random crop of a decoded image [3, H, W], [3, S, S]."""
    box = box_of(augment, pixels.shape[2], pixels.shape[1], draws, size)
    return resized(window(pixels, box), augment, draws, size)


def crops_on(
    device: torch.device, raws: Sequence[bytes], names: Sequence[str], augment: Augment,
    draws: Sequence[Sequence[float]], size: int,
) -> Tensor:  # fmt: skip
    """The crops of several files, [n, 3, S, S] on `device`, with the JPEGs among them decoded there in one call.

    On a GPU nvJPEG decodes, whose pixels may differ from libjpeg's by a few levels.
    """
    plain = [k for k, raw in enumerate(raws) if _is_plain_jpeg_file(raw)]
    files = [_stored(raws[k]) for k in plain]
    try:
        decoded = cast(list[Tensor], decode_jpeg(files, ImageReadMode.RGB, device=device)) if files else []
    except RuntimeError:
        plain, decoded = [], []  # one by one on the CPU: the file that cannot be decoded is named
    found = dict(zip(plain, decoded, strict=True))
    images = [found[k] if k in found else tensor(decode(raw, names[k])).to(device) for k, raw in enumerate(raws)]
    return torch.stack([crop_of(image, augment, d, size) for image, d in zip(images, draws, strict=True)])


def _is_plain_jpeg_file(raw: bytes) -> bool:
    try:
        return _is_plain_jpeg(Image.open(io.BytesIO(raw)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _is_plain_jpeg(image: Image.Image) -> bool:
    return image.format == "JPEG" and image.mode == "RGB"


def _decoded(raw: bytes) -> Tensor:
    return cast(Tensor, decode_jpeg(_stored(raw), ImageReadMode.RGB))


def _stored(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)  # of a copy: tensors are writable, bytes are not


def _reduced(image: Image.Image, box: Box, scale: int) -> Tensor:
    """The box of a JPEG that is decoded at 1 / scale of its side, uint8 [3, h, w]."""
    full = image.size
    image.draft("RGB", (full[0] // scale, full[1] // scale))
    pixels = tensor(image)
    across, down = pixels.shape[2] / full[0], pixels.shape[1] / full[1]
    left, top, width, height = box
    return window(pixels, (round(left * across), round(top * down), round(width * across), round(height * down)))


def resized(patch: Tensor, augment: Augment, draws: Sequence[float], size: int) -> Tensor:
    """[3, h, w] -> [3, S, S], and flipped where the recipe and the last draw say so."""
    if augment == "crop":
        return smooth_bicubic(patch, size, patch.device.type == "cpu")
    patch = keys_bicubic(patch, size)
    return patch.flip(-1) if draws[-1] < 0.5 else patch


def window(pixels: Tensor, box: Box) -> Tensor:
    """The box of an image [3, H, W], as a view."""
    left, top, width, height = box
    return pixels.narrow(1, top, height).narrow(2, left, width)


def smooth_bicubic(patch: Tensor, size: int, whole: bool) -> Tensor:
    """uint8 [3, h, w] -> [3, size, size], anti-aliased; `whole`: in integers, which is fast and which only CPUs do."""
    if whole:
        return F.interpolate(patch[None], (size, size), mode="bicubic", antialias=True)[0]
    smooth = F.interpolate(patch[None].float(), (size, size), mode="bicubic", antialias=True)[0]
    return smooth.round_().clamp_(0, 255).to(torch.uint8)


def keys_bicubic(patch: Tensor, size: int) -> Tensor:
    """uint8 [3, h, w] -> [3, size, size], without anti-aliasing, as TensorFlow resizes for Lipsum-FT.

    The kernel is that of Keys (1981) with a = -0.5, and what lies outside has no weight; torch's own has a = -0.75 and
    repeats the border, which moves single pixels by up to 5 levels.
    """
    channels, height, width = patch.shape
    (iy, wy), (ix, wx) = (_taps(n, size, patch.device) for n in (height, width))
    rows = patch.permute(1, 2, 0).reshape(height, -1).float()  # [h, w * 3]
    rows = F.embedding_bag(iy, rows, per_sample_weights=wy, mode="sum")  # [S, w * 3]: weighted sums of four rows
    columns = rows.t().reshape(width, -1)  # [w, 3 * S]
    columns = F.embedding_bag(ix, columns, per_sample_weights=wx, mode="sum")  # [S, 3 * S]
    return columns.round_().clamp_(0, 255).to(torch.uint8).view(size, channels, size).permute(1, 2, 0)


@lru_cache(maxsize=4096)
def _taps(n: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of `size` places the four of `n` pixels around it and their weights, [size, 4] each."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * n / size - 0.5
    index = centre.floor().long()[:, None] + torch.arange(-1, 3)
    d = (centre[:, None] - index).abs()
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    weight = torch.where(d < 1, near, torch.where(d < 2, far, 0.0)).where((index >= 0) & (index < n), 0.0)
    return index.clamp(0, n - 1).to(device), (weight / weight.sum(dim=1, keepdim=True)).float().to(device)


def box_of(augment: Augment, width: int, height: int, draws: Sequence[float], size: int) -> Box:
    """The crop (left, top, width, height) that `draws` [DRAWS], uniform on [0, 1), give of an image of this size."""
    return crop_box(width, height, draws) if augment == "crop" else distorted_box(width, height, draws, size)


def distorted_box(width: int, height: int, draws: Sequence[float], size: int) -> Box:
    """The crop of Lipsum-FT (cs-giung/lipsum-ft, src/input_pipeline.py): ten attempts, then the centre.

    Ten attempts of TensorFlow's sample_distorted_bounding_box, whose object is the whole image. A crop that is the
    whole image counts as none, and gives way to the square of S / (S + 32) of the shorter side in the centre.
    """
    for attempt in range(ATTEMPTS):
        ratio = ASPECT[0] + draws[2 * attempt] * (ASPECT[1] - ASPECT[0])
        w, h = _distorted(width, height, ratio, draws[2 * attempt + 1])
        if w and w * h >= COVERED * width * height:
            if (w, h) == (width, height):
                break
            return int(draws[-3] * (width - w)), int(draws[-2] * (height - h)), w, h
    side = max(1, int(size / (size + PADDING) * min(width, height)))
    return (width - side + 1) // 2, (height - side + 1) // 2, side, side


def _distorted(width: int, height: int, ratio: float, draw: float) -> tuple[int, int]:
    """One attempt: width and height of a crop of this aspect, (0, 0) where none is legal.

    The height is uniform between the roots of the smallest and the largest area, as far as the image allows; one pixel
    is added or taken where rounding leaves the range of areas (tensorflow, sample_distorted_bounding_box_op.cc).
    """
    least, most = (share * width * height for share in DISTORTED_AREA)
    high = round(math.sqrt(most / ratio))
    if round(high * ratio) > width:
        high = int((width + 0.5 - 1e-7) / ratio)
        high -= round(high * ratio) > width
    high = min(high, height)
    low = min(round(math.sqrt(least / ratio)), high)
    h = low + int(draw * (high - low + 1))
    h += round(h * ratio) * h < least
    h -= round(h * ratio) * h > most
    w = round(h * ratio)
    return (w, h) if least <= w * h <= most and 0 < w <= width and 0 < h <= height else (0, 0)


def crop_box(width: int, height: int, draws: Sequence[float]) -> Box:
    """The crop of WiSE-FT and FLYP, torchvision's rule: ten attempts, then the largest legal centre."""
    for attempt in range(ATTEMPTS):
        target = width * height * (AREA[0] + draws[2 * attempt] * (AREA[1] - AREA[0]))
        low, high = (math.log(a) for a in ASPECT)
        ratio = math.exp(low + draws[2 * attempt + 1] * (high - low))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[-3] * (width - w + 1)), int(draws[-2] * (height - h + 1)), w, h
    ratio = min(max(width / height, ASPECT[0]), ASPECT[1])
    w, h = (width, round(width / ratio)) if width / height < ratio else (round(height * ratio), height)
    return (width - w) // 2, (height - h) // 2, w, h


def moves(n: int, size: int, generator: torch.Generator) -> Tensor:
    """What 'shift' draws for a batch of `n`: pixels that each image moves down and to the right, [2, n]."""
    reach = max(1, round(size * SHIFT))
    return torch.randint(-reach, reach + 1, (2, n, 1), generator=generator)[..., 0]


def shift(pixels: Tensor, moves: Tensor) -> Tensor:
    """Move each image by what was drawn for it, [2, n], repeating its border. uint8 [n, 3, S, S] -> the same."""
    n, channels, size, _ = pixels.shape
    rows, columns = (torch.arange(size)[None] + moves[..., None]).clamp_(0, size - 1)  # [n, S] each
    flat = (rows[:, :, None] * size + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
    return pixels.flatten(2).gather(2, flat).view_as(pixels)


def tensor(image: Image.Image) -> Tensor:
    """[3, H, W] in RGB."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
