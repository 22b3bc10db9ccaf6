"""Digests of what a claim is made from: files, ids, labels and predictions of its runs."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_ft import atomic
from robustbench_ft.data import Ints
from robustbench_ft.errors import RbftError

from .bundle import SCORES, Bundle


def file_digest(path: Path) -> str:
    try:
        return atomic.digest(path)
    except OSError as error:
        raise RbftError(f"cannot read {path}: {error.strerror}") from error


@lru_cache(maxsize=64)
def ids_digest(ids: tuple[str, ...]) -> str:
    """SHA-256 of the ordered ids: each in utf-8, behind its length."""
    return hashlib.sha256(b"".join(_prefixed(name) for name in ids)).hexdigest()


def labels_digest(labels: Ints) -> str:
    """SHA-256 of the labels in order, as little-endian int32."""
    return hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()


def predictions_digest(run: Bundle, split: str) -> str:
    """SHA-256 of rows in order of ids: length-prefixed id, then the int32 top-1 class of each candidate by name."""

    def matrix() -> NDArray[np.int32]:
        found = run.choices[split]
        return np.stack([found[name] for name in sorted(found)], axis=1).astype("<i4")  # [n, candidates]

    return _rows_digest(run, ("predictions", split), matrix)


def probabilities_digest(run: Bundle, split: str) -> str:
    """SHA-256 of confidence, log-probability and sum of squares, rounded to 1e-4: logits differ between machines."""

    def matrix() -> NDArray[np.int32]:
        found = run.scored[split]
        values = [getattr(found[name], score) for name in sorted(found) for score in SCORES]
        return np.rint(np.stack(values, axis=1).astype(np.float64) * 1e4).astype("<i4")

    return _rows_digest(run, ("probabilities", split), matrix)


def _rows_digest(run: Bundle, what: tuple[str, str], matrix: Callable[[], NDArray[np.int32]]) -> str:
    """Computed once for each bundle, matrix included: an audit asks for it many times."""
    if what not in run.digests:
        order, names, used = _in_order(run.any(what[1]).ids)
        rows = np.ascontiguousarray(matrix()[order]).view(np.uint8)  # [n, bytes]
        if not used.all():
            kept = np.concatenate([used, np.ones(rows.shape, np.bool_)], axis=1)
            content = np.concatenate([names, rows], axis=1)[kept].tobytes()
        else:
            content = np.concatenate([names, rows], axis=1).tobytes()
        run.digests[what] = hashlib.sha256(content).hexdigest()
    return run.digests[what]


@lru_cache(maxsize=64)
def _in_order(ids: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    """(places of the sorted ids, their bytes with their lengths [n, most], which of these bytes are used).

    All runs of a split share them.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = [_prefixed(ids[k]) for k in order]
    sizes = np.array([len(name) for name in names])
    most = int(sizes.max())
    padded = np.frombuffer(b"".join(name.ljust(most, b"\0") for name in names), np.uint8).reshape(len(names), most)
    return np.array(order), padded, np.arange(most) < sizes[:, None]


def _prefixed(name: str) -> bytes:
    text = name.encode()
    return len(text).to_bytes(4, "little") + text
