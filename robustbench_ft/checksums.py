"""Check sums at the end of a large file, one for each block of it: a part that is read is checked without the rest.

CRC-32 finds every flipped bit and every burst of up to 32 of them; it is no protection against forgers. The file is
`content, sums, number of bytes of content, check sum of the sums, MAGIC`: readers that map the content alone (such as
NumPy's) do not see what follows.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 20  # bytes
MAGIC = b"rbftsum1"
_TAIL = struct.Struct("<QI8s")


class Sums:
    """Check sums of content that comes piece by piece."""

    def __init__(self) -> None:
        self.sums: list[int] = []
        self.size = self._running = 0

    def add(self, content: Any) -> None:
        """Take the next bytes: anything with a buffer of bytes."""
        view, start = memoryview(content).cast("B"), 0
        while start < len(view):
            piece = view[start : start + BLOCK - self.size % BLOCK]
            self._running = zlib.crc32(piece, self._running)
            self.size, start = self.size + len(piece), start + len(piece)
            if not self.size % BLOCK:
                self.sums.append(self._running)
                self._running = 0

    def tail(self) -> bytes:
        """What is to be written behind the content."""
        rest = [self._running] if self.size % BLOCK else []
        sums = np.array([*self.sums, *rest], "<u4").tobytes()
        return sums + _TAIL.pack(self.size, zlib.crc32(sums), MAGIC)


@dataclass(frozen=True)
class Sealed:
    """A file with check sums, mapped."""

    content: NDArray[np.uint8]  # [bytes of content]
    sums: NDArray[np.uint32]  # [blocks]

    def is_whole(self, start: int = 0, stop: int | None = None) -> bool:
        """Whether the blocks that hold these bytes are as they were written."""
        stop = len(self.content) if stop is None else stop
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if zlib.crc32(self.content[block * BLOCK : (block + 1) * BLOCK].data) != self.sums[block]:
                return False
        return True


def append(path: Path) -> None:
    """Add check sums to a file that was just written."""
    found = Sums()
    with path.open("r+b") as file:
        while block := file.read(BLOCK):
            found.add(block)
        file.write(found.tail())


def opened(path: Path) -> Sealed | None:
    """A file with its check sums; None where it has none, or they are damaged. Raises `OSError`."""
    whole = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    if len(whole) < _TAIL.size:
        return None
    size, own, magic = _TAIL.unpack(whole[-_TAIL.size :].tobytes())
    sums = whole[size : -_TAIL.size].tobytes()
    if magic != MAGIC or len(sums) != 4 * -(-size // BLOCK) or zlib.crc32(sums) != own:
        return None
    return Sealed(np.asarray(whole[:size]), np.frombuffer(sums, "<u4"))
