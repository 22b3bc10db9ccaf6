"""Pixels for the model: the exact evaluation transform, and the named training augmentations.

Images stay uint8 [n, 3, S, S] until they are on the device; there they are divided by 255 and normalised, in the order
in which open_clip's own transform does it, so the values are the same to the last bit.
"""

import io
import math
import os
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property, lru_cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from . import pixel_cache
from .clip import Clip
from .data import Bytes, Split, decode
from .recipe import Augment

CROPS = {"crop": (0.9, 1.0), "crop-flip": (0.08, 1.0)}  # range of the cropped area
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10
SHIFT = 1 / 16  # of the side, each way
MOST_WORKERS = 16
REDUCED = 1.5  # a JPEG may be decoded at 1/2, 1/4 or 1/8 while the crop keeps this many times the final side
Box = tuple[int, int, int, int]  # left, top, width, height


def available_workers() -> int:
    """Threads to decode with: as many as this process has cores, two at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(MOST_WORKERS, cores))


class Loader:
    """Reads one split for one model, with `workers` threads (0: as many as there are cores)."""

    def __init__(self, clip: Clip, split: Split, workers: int = 0) -> None:
        self.split, self.size, self.device = split, clip.image_size, clip.device
        self.transform, self.mean, self.std = clip.preprocess()
        self.shape = (len(split), 3, self.size, self.size)
        self.transform_key = clip.preprocess_key()
        pixels = split.images.array()
        # A stored array of the model's own size is what the transform (resize, centre crop) would return.
        self.native = pixels if pixels is not None and pixels.shape[1:3] == (self.size, self.size) else None
        self.encoded = pixels is None  # files, which `raw` gives as they lie
        self.border = getattr(split.images, "border", 0)
        self.workers = workers or available_workers()

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Threads that live as long as this loader; what nobody waits for any more is not decoded."""
        pool = ThreadPoolExecutor(self.workers, "decode", initializer=lambda: torch.set_num_threads(1))
        weakref.finalize(self, pool.shutdown, wait=False, cancel_futures=True)
        return pool

    def read(self, indices: Sequence[int]) -> Tensor:
        """Evaluation pixels, uint8 [n, 3, S, S]."""
        if self.native is not None:
            return torch.from_numpy(np.array(self.native[list(indices)])).permute(0, 3, 1, 2)
        return self._gather([lambda i=i: self._evaluated(i) for i in indices]).result()

    def augmented(self, indices: Sequence[int], augment: Augment, generator: torch.Generator) -> Tensor:
        """Training pixels, uint8 [n, 3, S, S]; the draws depend on `generator` alone, not on threads."""
        return self.ahead(indices, augment, generator).result()

    def ahead(self, indices: Sequence[int], augment: Augment, generator: torch.Generator) -> "Pending":
        """As `augmented`, begun now and waited for later."""
        if self.native is not None and augment in ("none", "shift"):
            pixels = self.read(indices)
            return Pending(shift(pixels, generator) if augment == "shift" else pixels, [])
        if augment in ("none", "shift"):
            found = self._gather([lambda i=i: self._evaluated(i) for i in indices])
            return found if augment == "none" else Pending(found.pixels, found.tasks, lambda p: shift(p, generator))
        draws = torch.rand(len(indices), 2 * ATTEMPTS + 3, generator=generator).tolist()
        return self._gather([lambda i=i, d=d: self._crop(i, augment, d) for i, d in zip(indices, draws, strict=True)])

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, S, S] -> float [n, 3, S, S] on the device, as ToTensor and Normalize do."""
        images = pixels.to(self.device, non_blocking=True).float().div_(255)
        return images.sub_(self.mean.to(self.device)).div_(self.std.to(self.device))

    def chunks(self, size: int, keep: bool = True) -> Generator[tuple[int, Tensor], None, None]:
        """(start, evaluation pixels) over the whole split; the next chunk is read while this one is used.

        Pixels come from the cache where they were kept before; with `keep`, they are kept now.
        """
        starts = range(0, len(self.split), size)
        if self.native is not None:
            yield from self._in_turn(starts, lambda rows: Pending(self.read(rows), []))
            return
        held = pixel_cache.stored(self.key, self.shape)
        if held is not None:
            yield from self._in_turn(starts, lambda rows: self._copied(held, rows))
            return
        if not keep:
            yield from self.decoded(size)
            return
        what = f"{self.split.name}, {len(self.split):,} images of {self.size} pixels"
        about = {"what": what, "place": str(self.split.place or "")}
        with pixel_cache.filling(self.key, self.shape, about) as add:
            for start, pixels in self.decoded(size):
                add(pixels.numpy())
                yield start, pixels

    def decoded(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """As `chunks`, without the cache."""
        starts = range(0, len(self.split), size)
        return self._in_turn(starts, lambda rows: self._gather([lambda i=i: self._evaluated(i) for i in rows]))

    @cached_property
    def key(self) -> str:
        """Names the evaluation pixels of this split for this model."""
        return f"{self.split.images.stamp()}\0{self.transform_key}"

    def _in_turn(self, starts: range, begin: "Callable[[range], Pending]") -> Iterator[tuple[int, Tensor]]:
        rows = [range(start, min(start + starts.step, len(self.split))) for start in starts]
        pending = [begin(rows[0])] if rows else []
        for k, part in enumerate(rows):
            pixels = pending.pop().result()
            if k + 1 < len(rows):
                pending.append(begin(rows[k + 1]))
            yield part.start, pixels

    def _gather(self, tasks: Sequence[Callable[[], Tensor]]) -> "Pending":
        """Run tasks in the pool; each writes its image into its place in the batch."""
        pixels = torch.empty(len(tasks), *self.shape[1:], dtype=torch.uint8, pin_memory=self.device.type == "cuda")

        def place(k: int, task: Callable[[], Tensor]) -> None:
            pixels[k] = task()

        return Pending(pixels, [self.pool.submit(place, k, task) for k, task in enumerate(tasks)])

    def _copied(self, held: Bytes, rows: range) -> "Pending":
        pixels = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8, pin_memory=self.device.type == "cuda")

        def copy() -> None:
            pixels.numpy()[:] = held[rows.start : rows.stop]

        return Pending(pixels, [self.pool.submit(copy)])

    def _evaluated(self, index: int) -> Tensor:
        return _tensor(self.transform(self.split.images.read([index])[0]))

    def _crop(self, index: int, augment: Augment, draws: Sequence[float]) -> Tensor:
        """WiSE-FT's and FLYP's crop is anti-aliased; Lipsum-FT's is not, and is flipped half the time."""
        area, smooth = CROPS[augment], augment == "crop"
        if self.encoded and not self.border:
            patch = _patch(self.split.images.raw(index), self.split.images.name(index), area, draws, self.size, smooth)
        else:
            patch = _cut(_tensor(self.split.images.read([index])[0]), area, draws)
        if smooth:
            return F.interpolate(patch[None], (self.size, self.size), mode="bicubic", antialias=True)[0]
        patch = keys_bicubic(patch, self.size)
        return patch.flip(-1) if draws[-1] < 0.5 else patch


class Pending:
    """A batch on its way."""

    def __init__(
        self, pixels: Tensor, tasks: "list[Future[None]]", last: Callable[[Tensor], Tensor] = lambda pixels: pixels
    ) -> None:
        self.pixels, self.tasks, self.last = pixels, tasks, last

    def result(self) -> Tensor:
        """uint8 [n, 3, S, S], once all of it is there. Raises what the first failing image raised."""
        wait(self.tasks, return_when="FIRST_EXCEPTION")
        for task in self.tasks:
            if task.done():
                task.result()
        return self.last(self.pixels)


def _patch(
    raw: bytes, name: str, area: tuple[float, float], draws: Sequence[float], size: int, reduce: bool
) -> Tensor:  # fmt: skip
    """The random crop of a file, uint8 [3, h, w]. The box is drawn in the full image, whatever it is decoded at.

    A JPEG is decoded by torchvision, or, where its crop is far larger than needed and will be smoothed anyway, at a
    half, a quarter or an eighth of its side, which the DCT gives for little.
    """
    try:
        image = Image.open(io.BytesIO(raw))
        if image.format == "JPEG" and image.mode == "RGB":
            box = crop_box(image.width, image.height, area, draws)
            scale = next((k for k in (8, 4, 2) if reduce and min(box[2:]) / k >= REDUCED * size), 1)
            if scale > 1:
                return _reduced(image, box, scale)
            pixels = decode_jpeg(torch.frombuffer(bytearray(raw), dtype=torch.uint8), ImageReadMode.RGB)
            return _window(cast(Tensor, pixels), box)
    except (OSError, RuntimeError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass  # `decode` reads it after all, or says what is wrong
    return _cut(_tensor(decode(raw, name)), area, draws)


def _reduced(image: Image.Image, box: Box, scale: int) -> Tensor:
    """The box of a JPEG that is decoded at 1 / scale of its side, uint8 [3, h, w]."""
    full = image.size
    image.draft("RGB", (full[0] // scale, full[1] // scale))
    pixels = _tensor(image)
    across, down = pixels.shape[2] / full[0], pixels.shape[1] / full[1]
    left, top, width, height = box
    return _window(pixels, (round(left * across), round(top * down), round(width * across), round(height * down)))


def _cut(pixels: Tensor, area: tuple[float, float], draws: Sequence[float]) -> Tensor:
    return _window(pixels, crop_box(pixels.shape[2], pixels.shape[1], area, draws))


def _window(pixels: Tensor, box: Box) -> Tensor:
    left, top, width, height = box
    return pixels.narrow(1, top, height).narrow(2, left, width)


def keys_bicubic(patch: Tensor, size: int) -> Tensor:
    """uint8 [3, h, w] -> [3, size, size], without anti-aliasing, as TensorFlow resizes for Lipsum-FT.

    The kernel is that of Keys (1981) with a = -0.5, and what lies outside has no weight; torch's own has a = -0.75 and
    repeats the border, which moves single pixels by up to 5 levels.
    """
    channels, height, width = patch.shape
    (iy, wy), (ix, wx) = _taps(height, size), _taps(width, size)
    rows = patch.permute(1, 2, 0).reshape(height, -1).float()  # [h, w * 3]
    rows = F.embedding_bag(iy, rows, per_sample_weights=wy, mode="sum")  # [S, w * 3]: weighted sums of four rows
    columns = rows.view(size, width, channels).transpose(0, 1).reshape(width, -1)  # [w, S * 3]
    columns = F.embedding_bag(ix, columns, per_sample_weights=wx, mode="sum")  # [S, S * 3]
    return columns.view(size, size, channels).permute(2, 1, 0).round_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=4096)
def _taps(n: int, size: int) -> tuple[Tensor, Tensor]:
    """For each of `size` places the four of `n` pixels around it and their weights, [size, 4] each."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * n / size - 0.5
    index = centre.floor().long()[:, None] + torch.arange(-1, 3)
    d = (centre[:, None] - index).abs()
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    weight = torch.where(d < 1, near, torch.where(d < 2, far, 0.0)).where((index >= 0) & (index < n), 0.0)
    return index.clamp(0, n - 1), (weight / weight.sum(dim=1, keepdim=True)).float()


def shift(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to 1/16 of its side each way, repeating its border. uint8 [n, 3, S, S] -> the same."""
    n, channels, size, _ = pixels.shape
    reach = max(1, round(size * SHIFT))
    moves = torch.randint(-reach, reach + 1, (2, n, 1), generator=generator)
    rows, columns = (torch.arange(size)[None] + moves).clamp_(0, size - 1)  # [n, S] each
    flat = (rows[:, :, None] * size + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
    return pixels.flatten(2).gather(2, flat).view_as(pixels)


def crop_box(width: int, height: int, area: tuple[float, float], draws: Sequence[float]) -> Box:
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
