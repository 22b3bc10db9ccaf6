"""Counter-based random draws: a number depends on (key, index, name, position) and on nothing else.

There is no state to advance, so image i is the same whatever batch it is rendered in, and a new name moves no other.
"""

from collections.abc import Sequence
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]  # float32 throughout; numpy's stubs lose that in arithmetic with Python floats
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# A normal variate is looked up by 12 random bits: the mid-quantiles of 4096 equal slices. No logarithm or cosine is
# evaluated at draw time, so the values are the same on every machine.
_QUANTILES: Floats = np.array([NormalDist().inv_cdf((i + 0.5) / 4096) for i in range(4096)], dtype=np.float32)


def _mix(x: Words) -> Words:
    """Finaliser of splitmix64 (Steele et al., 2014): every input bit reaches every output bit."""
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"))


class Draws:
    """Random numbers for `n` images at once; row i of every result belongs to `indices[i]`."""

    def __init__(self, key: str, indices: ArrayLike):
        rows = np.atleast_1d(np.asarray(indices)).astype(np.uint64)
        self._roots: Words = _mix(_mix(rows * _GOLDEN + _hash(key)) + _GOLDEN)  # [n]

    def __len__(self) -> int:
        return len(self._roots)

    def __getitem__(self, rows: slice | Ints | Bools) -> "Draws":
        """The same draws for some of the images."""
        some = object.__new__(Draws)
        some._roots = self._roots[rows]
        return some

    def bits(self, name: str, shape: tuple[int, ...] = ()) -> Words:
        """Uniform 64-bit words.  # [n, *shape]"""
        start = _mix(self._roots ^ _hash(name))
        if not shape:
            return _mix(start + _GOLDEN)
        steps = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * _GOLDEN
        return _mix(start[:, None] + steps).reshape(-1, *shape)

    def uniform(self, name: str, lo: float = 0.0, hi: float = 1.0, shape: tuple[int, ...] = ()) -> Floats:
        """Uniform in [lo, hi).  # [n, *shape]"""
        unit = (self.bits(name, shape) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return unit * np.float32(hi - lo) + np.float32(lo)

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Floats:
        """Standard normal, in 4096 levels.  # [n, *shape]"""
        return _QUANTILES[self.bits(name, shape) >> np.uint64(52)]

    def noise(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Standard normal like `normal`, four values from each word: for whole pictures.  # [n, *shape]"""
        words = -(-int(np.prod(shape)) // 4)
        levels = self.bits(name, (words,)).astype("<u8").view("<u2") >> 4  # [n, 4 words]
        return _QUANTILES[levels[:, : int(np.prod(shape))]].reshape(-1, *shape)

    def chance(self, name: str, p: float, shape: tuple[int, ...] = ()) -> Bools:
        """True with probability p.  # [n, *shape]"""
        return self.uniform(name, shape=shape) < p

    def integers(self, name: str, lo: int, hi: int, shape: tuple[int, ...] = ()) -> Ints:
        """Integers lo..hi, both included.  # [n, *shape]"""
        return (self.uniform(name, shape=shape) * (hi - lo + 1)).astype(np.int64) + lo

    def choice(self, name: str, weights: int | Sequence[float], shape: tuple[int, ...] = ()) -> Ints:
        """Positions 0..k-1: k equally likely ones, or one per weight.  # [n, *shape]"""
        if isinstance(weights, int):
            return self.integers(name, 0, weights - 1, shape)
        edges = np.cumsum(np.asarray(weights, dtype=np.float64))
        return np.searchsorted(edges[:-1] / edges[-1], self.uniform(name, shape=shape), side="right").astype(np.int64)
