"""Processes that fit one model together, one per device: who they are, and what they tell each other.

A rank that lost another raises `LostRankError`. Plain values and CPU tensors go by gloo, tensors on GPUs by NCCL.
"""

import hashlib
import io
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from .errors import RbftError

Value = TypeVar("Value")
CPU = torch.device("cpu")
PATIENCE = timedelta(hours=2)  # the longest that one rank may work alone, e.g. save candidates, before others give up
BUCKET = 25 * 2**20  # bytes that are summed in one go, as torch's DistributedDataParallel takes them


class LostRankError(RbftError):
    """Another rank ended, so this one cannot go on."""


class UnequalRanksError(RbftError):
    """Ranks that must hold the same numbers do not."""


class Ranks:
    """The ranks of one run. This one is alone: it hears itself, and nothing is sent."""

    rank = 0
    world = 1
    kind = ""  # how they talk, e.g. 'gloo'; empty: there is nobody to talk to

    @property
    def first(self) -> bool:
        """Whether this is the one that logs, saves and shows progress."""
        return self.rank == 0

    def share(self, n: int, rank: int | None = None) -> slice:
        """The rows of a batch of `n` that a rank takes, this one where none is named."""
        return slice(min(self.rank if rank is None else rank, n), n, self.world)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on one of them at least."""
        return flag

    def union(self, flags: Sequence[bool]) -> list[bool]:
        """`any` of each of several flags."""
        return list(flags)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over ranks, in place. All ranks give the same shapes in the same order."""

    def begin_sum(self, tensor: Tensor) -> Callable[[], object]:
        """Begin `sum` of one tensor; call what this returns to wait for it."""
        return lambda: None

    def gather(self, rows: Tensor | None, places: Sequence[Sequence[int]]) -> Tensor:
        """[n, ...] on all ranks, from the rows of each; `places` says for every rank which of the n these are.

        A rank that has none gives None.
        """
        assert rows is not None, "one rank has all rows"
        return rows

    def collect(self, value: Value) -> list[Value]:
        """The values of all ranks, on the first; [] on the others. Plain values and tensors."""
        return [value]

    def broadcast(self, value: Value, device: torch.device = CPU) -> Value:
        """The first rank's value, on all. Plain values and tensors, which arrive on `device`."""
        return value

    def wait(self) -> None:
        """Wait until all ranks are here."""

    def check_same(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Raise `UnequalRanksError` on all ranks where a tensor differs in a bit between two of them."""


class Group(Ranks):
    """The ranks of torch's default process group."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.rank, self.world = device, distributed.get_rank(), distributed.get_world_size()
        self.kind = distributed.get_backend_config().replace("cpu:gloo,cuda:", "") if device.type == "cuda" else "gloo"

    def any(self, flag: bool) -> bool:
        return self.union([flag])[0]

    def union(self, flags: Sequence[bool]) -> list[bool]:
        found = torch.tensor(flags, dtype=torch.uint8)
        with _heard():
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        waiting = [(some, flat, self.begin_sum(flat)) for some, flat in _flattened(tensors)]
        for some, flat, wait in waiting:
            wait()
            with torch.no_grad():
                for tensor, value in zip(some, flat.split([t.numel() for t in some]), strict=True):
                    tensor.copy_(value.view_as(tensor))

    def begin_sum(self, tensor: Tensor) -> Callable[[], object]:
        with _heard():
            work = distributed.all_reduce(tensor, async_op=True)
        assert work is not None

        def wait() -> None:
            with _heard():
                work.wait()

        return wait

    def gather(self, rows: Tensor | None, places: Sequence[Sequence[int]]) -> Tensor:
        sizes = [len(some) for some in places]
        if not all(sizes):  # known to all: a rank without rows must hear what rows look like
            [like] = self.broadcast([None if rows is None else rows[:0]])
            assert like is not None, "the first rank has rows"
            rows = like.to(self.device) if rows is None else rows
        assert rows is not None
        place = rows if self.kind != "gloo" else rows.cpu()  # gloo gathers in main memory
        padded = place.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = place
        parts = [torch.empty_like(padded) for _ in places]
        with _heard():
            distributed.all_gather(parts, padded)
        whole = padded.new_empty(sum(sizes), *rows.shape[1:])
        for part, some, size in zip(parts, places, sizes, strict=True):
            whole[torch.as_tensor(list(some), device=whole.device, dtype=torch.long)] = part[:size]
        return whole.to(rows.device)

    def collect(self, value: Value) -> list[Value]:
        packed = _pack(value)
        sizes = torch.zeros(self.world, dtype=torch.long)
        sizes[self.rank] = len(packed)
        with _heard():
            distributed.all_reduce(sizes)
            padded = torch.zeros(int(sizes.max()), dtype=torch.uint8)
            padded[: len(packed)] = packed
            parts = [torch.empty_like(padded) for _ in range(self.world)] if self.first else None
            distributed.gather(padded, parts)
        return [_unpack(part[: int(size)]) for part, size in zip(parts or [], sizes, strict=False)]

    def broadcast(self, value: Value, device: torch.device = CPU) -> Value:
        packed = _pack(value) if self.first else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(packed)])
        with _heard():
            distributed.broadcast(size, 0)
            if not self.first:
                packed = torch.empty(int(size), dtype=torch.uint8)
            distributed.broadcast(packed, 0)
        return value if self.first else _unpack(packed, device)

    def wait(self) -> None:
        self.any(False)

    def check_same(self, tensors: Mapping[str, Tensor], where: str) -> None:
        names, found = list(tensors), checksums(list(tensors.values()))
        kept = [torch.empty_like(found) for _ in range(self.world)]
        with _heard():
            distributed.all_gather(kept, found)
        differ = {names[int(k)]: r for r, other in enumerate(kept) for k in (other != kept[0]).nonzero()[:, 0]}
        if differ:
            name, rank = next(iter(differ.items()))
            raise UnequalRanksError(
                f"{where}, {len(differ)} tensors of rank {rank} and rank 0 differ, e.g. {name}: a result of one device "
                "alone, or a method that draws from elsewhere than `run.generator`, has got into the weights"
            )


def start(device: torch.device, rank: int, world: int, store: Any, shared: bool = False) -> Ranks:
    """Join the others. `shared`: all ranks compute on the same GPU, which NCCL refuses."""
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:gloo" if shared else "cpu:gloo,cuda:nccl"
    with _heard():
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    return Group(device)


def checksums(tensors: Sequence[Tensor]) -> Tensor:
    """[n] int64 on the CPU: sums of the bits of each tensor, read as integers."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [t.detach().contiguous().flatten().view(whole[t.element_size()]).sum(dtype=torch.int64) for t in tensors]
    return torch.stack([one.cpu() for one in sums]) if sums else torch.zeros(0, dtype=torch.int64)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and bytes, for records and tests."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _heard() -> Generator[None, None, None]:
    """What torch raises where another rank has ended becomes one line."""
    try:
        yield
    except RuntimeError as error:  # DistBackendError is one
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise LostRankError("lost another rank; run the same command again to resume from the last checkpoint") from (
            error
        )


def _flattened(tensors: Sequence[Tensor]) -> Generator[tuple[list[Tensor], Tensor], None, None]:
    for some in buckets(tensors):
        yield some, torch.cat([tensor.detach().flatten() for tensor in some])


def buckets(tensors: Sequence[Tensor], size: int = BUCKET) -> list[list[Tensor]]:
    """Neighbours of one type, together until they fill `size` bytes."""
    found: list[list[Tensor]] = []
    filled = 0
    for tensor in tensors:
        alike = found and (found[-1][0].dtype, found[-1][0].device) == (tensor.dtype, tensor.device)
        if not alike or filled >= size:
            found.append([])
            filled = 0
        found[-1].append(tensor)
        filled += tensor.numel() * tensor.element_size()
    return found


def _pack(value: Any) -> Tensor:
    file = io.BytesIO()
    torch.save(value, file)
    return torch.frombuffer(bytearray(file.getbuffer()), dtype=torch.uint8)


def _unpack(packed: Tensor, device: torch.device = CPU) -> Any:
    return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location=device, weights_only=True)
