"""Pixels for the model: the exact evaluation transform, and the named training augmentations.

Images stay uint8 [n, 3, S, S] until they are on the device; there they are divided by 255 and normalised, in the order
in which open_clip's own transform does it, so the values are the same to the last bit.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .clip import Clip
from .data import Split
from .recipe import Augment

CROPS = {"crop": (0.9, 1.0), "crop-flip": (0.08, 1.0)}  # range of the cropped area
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10
SHIFT = 1 / 16  # of the side, each way
WORKERS = 8


class Loader:
    """Reads one split for one model."""

    def __init__(self, clip: Clip, split: Split) -> None:
        self.split, self.size = split, clip.image_size
        self.transform, self.mean, self.std = clip.preprocess()
        self.device = clip.device
        pixels = split.images.array()
        # A stored array of the model's own size is what the transform (resize, centre crop) would return.
        self.native = pixels if pixels is not None and pixels.shape[1:3] == (self.size, self.size) else None

    def read(self, indices: Sequence[int]) -> Tensor:
        """Evaluation pixels, uint8 [n, 3, S, S]."""
        if self.native is not None:
            return torch.from_numpy(np.array(self.native[list(indices)])).permute(0, 3, 1, 2)
        with ThreadPoolExecutor(WORKERS) as pool:
            return torch.stack(list(pool.map(lambda i: _tensor(self.transform(self._image(i))), indices)))

    def augmented(self, indices: Sequence[int], augment: Augment, generator: torch.Generator) -> Tensor:
        """Training pixels, uint8 [n, 3, S, S]; the draws depend on `generator` alone, not on threads."""
        if augment == "none":
            return self.read(indices)
        if augment == "shift":
            return shift(self.read(indices), generator)
        draws = torch.rand(len(indices), 2 * ATTEMPTS + 3, generator=generator).tolist()
        with ThreadPoolExecutor(WORKERS) as pool:
            return torch.stack(
                list(pool.map(lambda item: self._crop(item[0], augment, item[1]), zip(indices, draws, strict=True)))
            )

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, S, S] -> float [n, 3, S, S] on the device, as ToTensor and Normalize do."""
        images = pixels.to(self.device, non_blocking=True).float().div_(255)
        return images.sub_(self.mean.to(self.device)).div_(self.std.to(self.device))

    def chunks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """(start, evaluation pixels) over the whole split; the next chunk is decoded while this one is used."""
        starts = range(0, len(self.split), size)
        with ThreadPoolExecutor(1) as ahead:
            pending = [ahead.submit(self.read, range(s, min(s + size, len(self.split)))) for s in starts[:1]]
            for k, start in enumerate(starts):
                pixels = pending.pop().result()
                if k + 1 < len(starts):
                    s = starts[k + 1]
                    pending.append(ahead.submit(self.read, range(s, min(s + size, len(self.split)))))
                yield start, pixels

    def _image(self, index: int) -> Image.Image:
        return self.split.images.read([index])[0]

    def _crop(self, index: int, augment: Augment, draws: Sequence[float]) -> Tensor:
        image = self._image(index)
        left, top, width, height = crop_box(image.width, image.height, CROPS[augment], draws)
        if augment == "crop":  # WiSE-FT and FLYP: Pillow's bicubic, which is anti-aliased
            box = (left, top, left + width, top + height)
            return _tensor(image.crop(box).resize((self.size, self.size), Image.Resampling.BICUBIC))
        patch = _tensor(image)[None, :, top : top + height, left : left + width].float()
        # Lipsum-FT: bicubic without anti-aliasing, and a horizontal flip
        patch = F.interpolate(patch, (self.size, self.size), mode="bicubic", antialias=False)[0]
        patch = patch.round().clamp(0, 255).to(torch.uint8)
        return patch.flip(-1) if draws[-1] < 0.5 else patch


def shift(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to 1/16 of its side each way, repeating its border. uint8 [n, 3, S, S] -> the same."""
    n, channels, size, _ = pixels.shape
    reach = max(1, round(size * SHIFT))
    moves = torch.randint(-reach, reach + 1, (2, n, 1), generator=generator)
    rows, columns = (torch.arange(size)[None] + moves).clamp_(0, size - 1)  # [n, S] each
    flat = (rows[:, :, None] * size + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
    return pixels.flatten(2).gather(2, flat).view_as(pixels)


def crop_box(width: int, height: int, area: tuple[float, float], draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Random-area crop (left, top, width, height), the Inception rule: ten attempts, then the largest legal centre."""
    for attempt in range(ATTEMPTS):
        target = width * height * (area[0] + draws[2 * attempt] * (area[1] - area[0]))
        low, high = (math.log(a) for a in ASPECT)
        ratio = math.exp(low + draws[2 * attempt + 1] * (high - low))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[-3] * (width - w + 1)), int(draws[-2] * (height - h + 1)), w, h
    ratio = min(max(width / height, ASPECT[0]), ASPECT[1])
    w, h = (width, round(width / ratio)) if width / height < ratio else (round(height * ratio), height)
    return (width - w) // 2, (height - h) // 2, w, h


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
