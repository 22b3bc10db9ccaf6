"""Pixels for the model: the exact evaluation transform, and the named training augmentations.

Images stay uint8 [n, 3, S, S] until they are on the device; there they are divided by 255 and normalised, in the order
in which open_clip's own transform does it, so the values are the same to the last bit.
"""

import os
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from robustbench_ft.clip import Clip
from robustbench_ft.clip.copies import Sender, to_device
from robustbench_ft.data import Split
from robustbench_ft.recipe import Augment

from . import augment as augmentation
from . import kept

MOST_WORKERS = 16
COPIED = 64  # kept images that one thread checks and copies at a time


def available_workers() -> int:
    """Threads to decode with: as many as this process has cores, two at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(MOST_WORKERS, cores))


class Loader:
    """Reads one split for one model, with `workers` threads (0: as many as there are cores).

    With `gpu_decode`, JPEGs of training crops are decoded on the model's device; evaluation pixels never are.
    """

    def __init__(self, clip: Clip, split: Split, workers: int = 0, gpu_decode: bool = False) -> None:
        self.split, self.size, self.device = split, clip.image_size, clip.device
        self.transform, mean, std = clip.preprocess()
        self.mean, self.std, self.sender = mean.to(self.device), std.to(self.device), Sender(self.device)
        self.shape = (len(split), 3, self.size, self.size)
        self.words = clip.preprocess_key  # asked for where pixels are kept
        pixels = split.images.array()
        # A stored array of the model's own size is what the transform (resize, centre crop) would return.
        self.native = pixels if pixels is not None and pixels.shape[1:3] == (self.size, self.size) else None
        self.encoded = pixels is None  # files, which `raw` gives as they lie
        self.border = getattr(split.images, "border", 0)
        self.finish = getattr(split.images, "finish", None)  # drawn over what the transform returns
        self.workers, self.gpu_decode = workers or available_workers(), gpu_decode

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
        return self._evaluations(indices).result()

    def augmented(self, indices: Sequence[int], augment: Augment, generator: torch.Generator) -> Tensor:
        """Training pixels, uint8 [n, 3, S, S]; the draws depend on `generator` alone, not on threads."""
        return self.ahead(indices, augment, generator).result()

    def ahead(
        self, indices: Sequence[int], augment: Augment, generator: torch.Generator, only: slice = slice(None)
    ) -> "Pending":
        """Begin `augmented` in the worker threads; `Pending.result` waits for the pixels.

        `only` chooses some of `indices`. Draws are made for all of them, so they are the same whichever are chosen.
        """
        n, indices = len(indices), indices[only]
        if augment in ("none", "shift"):
            moves = augmentation.moves(n, self.size, generator)[:, only] if augment == "shift" else None
            return self._as_evaluated(indices, moves)
        draws = torch.rand(n, augmentation.DRAWS, generator=generator)[only].tolist()
        if self.gpu_decode and self.encoded and not self.border:
            return self._on_gpu(indices, augment, draws)
        tasks = [lambda i=i, d=d: self._crop(i, augment, d) for i, d in zip(indices, draws, strict=True)]
        return self._gather(tasks, ready=self.device.type == "cpu")

    def _as_evaluated(self, indices: Sequence[int], moves: Tensor | None) -> "Pending":
        """Evaluation pixels, moved by `moves` [2, n]."""
        if self.native is not None:
            pixels = self.read(indices)
            return Pending(pixels if moves is None else augmentation.shift(pixels, moves), [])
        if moves is None:
            return self._evaluations(indices)

        def moved(k: int, index: int) -> Tensor:
            return augmentation.shift(self._evaluated(index)[None], moves[:, k : k + 1])[0]

        tasks = [lambda k=k, i=i: moved(k, i) for k, i in enumerate(indices)]
        return self._gather(tasks, ready=self.device.type == "cpu")

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, S, S] -> float [n, 3, S, S] on the device, as ToTensor and Normalize do."""
        return self._scaled(to_device(pixels, self.device).float())

    def normalised(self, pending: "Pending") -> Tensor:
        """`normalise` of a batch on its way, once it is there."""
        pixels = pending.result()
        if pending.ready is not None:
            return pending.ready
        if pending.sent is not None:
            return self._scaled(self.sender.wait_for(pending.sent).float())
        return self.normalise(pixels)

    def send(self, pending: "Pending") -> None:
        """Begin to copy a batch to a GPU while it computes, if all of the batch is there; nothing on a CPU."""
        if self.sender.stream is not None and pending.ready is None and pending.sent is None and pending.is_there():
            pending.sent = self.sender.send(pending.result())

    def _scaled(self, images: Tensor) -> Tensor:
        """Scale in place."""
        return images.div_(255).sub_(self.mean).div_(self.std)

    def chunks(
        self, size: int, keep: bool = True, only: slice = slice(None)
    ) -> Generator[tuple[int, Tensor], None, None]:
        """(start, evaluation pixels) over the whole split; the next chunk is read while this one is used.

        Pixels come from the cache where they were kept before; with `keep`, they are kept now. `only` chooses some of
        the chunks; pixels are kept where all are asked for.
        """
        whole = range(0, len(self.split), size)
        starts, keep = whole[only], keep and self.split.keep and whole[only] == whole
        if self.native is not None:
            yield from self._in_turn(starts, lambda rows: Pending(self.read(rows), []), size)
            return
        held = kept.stored(self.key, self.shape)
        if held is not None:
            yield from self._in_turn(starts, lambda rows: self._copied(held, rows), size)
            return
        if not keep:
            yield from self._in_turn(starts, self._evaluations, size)
            return
        what = f"{self.split.name}, {len(self.split):,} images of {self.size} pixels"
        about = {"what": what, "place": str(self.split.place or "")}
        with kept.filling(self.key, self.shape, about) as add:
            for start, pixels in self.decoded(size):
                add(pixels.numpy())
                yield start, pixels

    def decoded(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """(start, pixels) of consecutive chunks, decoded from the files and not from the cache."""
        return self._in_turn(range(0, len(self.split), size), self._evaluations, size)

    @cached_property
    def key(self) -> str:
        """Names the evaluation pixels of this split for this model."""
        return f"{self.split.images.fingerprint()}\0{self.words()}"

    def _in_turn(
        self, starts: range, begin: "Callable[[Sequence[int]], Pending]", size: int
    ) -> Iterator[tuple[int, Tensor]]:
        rows = [range(start, min(start + size, len(self.split))) for start in starts]
        pending = [begin(rows[0])] if rows else []
        for k, part in enumerate(rows):
            pixels = pending.pop().result()
            if k + 1 < len(rows):
                pending.append(begin(rows[k + 1]))
            yield part.start, pixels

    def _gather(self, tasks: Sequence[Callable[[], Tensor]], ready: bool = False) -> "Pending":
        """Run tasks in the pool; each writes its image into its place in the batch.

        With `ready` it is normalised there too. On a CPU this keeps the main thread free.
        """
        pixels = torch.empty(len(tasks), *self.shape[1:], dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        images = torch.empty(pixels.shape) if ready else None

        def place(k: int, task: Callable[[], Tensor]) -> None:
            pixels[k] = task()
            if images is not None:
                self._scaled(images[k].copy_(pixels[k]))

        return Pending(pixels, [self.pool.submit(place, k, task) for k, task in enumerate(tasks)], ready=images)

    def _copied(self, held: kept.Held, rows: Sequence[int]) -> "Pending":
        pixels = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8, pin_memory=self.device.type == "cuda")

        def copy(part: range) -> None:
            found = held.rows(rows[part.start], rows[part.stop - 1] + 1)
            if found is not None:
                pixels.numpy()[part.start : part.stop] = found
                return
            for k in part:
                pixels[k] = self._evaluated(rows[k])

        n = len(rows)
        parts = [range(start, min(start + COPIED, n)) for start in range(0, n, COPIED)]
        return Pending(pixels, [self.pool.submit(copy, part) for part in parts])

    def _evaluations(self, indices: Sequence[int]) -> "Pending":
        return self._gather([lambda i=i: self._evaluated(i) for i in indices])

    def _evaluated(self, index: int) -> Tensor:
        image = self.transform(self.split.images.read([index])[0])
        return augmentation.tensor(image if self.finish is None else self.finish(image))

    def _crop(self, index: int, augment: Augment, draws: Sequence[float]) -> Tensor:
        images = self.split.images
        if self.encoded and not self.border:
            return augmentation.crop(images.raw(index), images.name(index), augment, draws, self.size)
        return augmentation.crop_of(augmentation.tensor(images.read([index])[0]), augment, draws, self.size)

    def _on_gpu(self, indices: Sequence[int], augment: Augment, draws: Sequence[Sequence[float]]) -> "Pending":
        """Files are read ahead by the threads; they are decoded when the batch is asked for."""
        images, raws = self.split.images, [b""] * len(indices)

        def read(k: int, index: int) -> None:
            raws[k] = images.raw(index)

        def decoded(_: Tensor) -> Tensor:
            names = [images.name(i) for i in indices]
            return augmentation.crops_on(self.device, raws, names, augment, draws, self.size)

        return Pending(torch.empty(0), [self.pool.submit(read, k, i) for k, i in enumerate(indices)], decoded)


class Pending:
    """A batch on its way."""

    def __init__(
        self, pixels: Tensor, tasks: "list[Future[None]]", last: Callable[[Tensor], Tensor] | None = None,
        ready: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.pixels, self.tasks, self.last, self.ready = pixels, tasks, last, ready
        self.sent: Tensor | None = None  # on its way to a GPU, see `Sender`

    def is_there(self) -> bool:
        """Whether all of it is in pinned host memory, with nothing left to do."""
        return self.last is None and self.pixels.is_pinned() and all(task.done() for task in self.tasks)

    def result(self) -> Tensor:
        """uint8 [n, 3, S, S], once all of it is there. Raises what the first failing image raised."""
        wait(self.tasks, return_when="FIRST_EXCEPTION")
        for task in self.tasks:
            if task.done():
                task.result()
        return self.pixels if self.last is None else self.last(self.pixels)
