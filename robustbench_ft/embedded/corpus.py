"""The image-caption pairs that the embedded model is pretrained on, drawn once and kept in a cache folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_ft import drawing
from robustbench_ft.drawing.random_draws import Draws, Ints

# Photos are the largest part, as on the web; every domain is there, so none is new to the model.
SHARES = {"real": 0.34, "painting": 0.14, "clipart": 0.16, "infograph": 0.12, "sketch": 0.14, "quickdraw": 0.10}
FREQUENCY_SD = 0.6  # of the log of a class's frequency within a domain


@dataclass(frozen=True)
class Corpus:
    images: NDArray[np.uint8]  # [n, 32, 32, 3]
    texts: list[str]  # n


def labels_of(domain: str, n: int, seed: int) -> Ints:
    """Classes of n images; some classes are common in a domain and others rare.  # [n]"""
    rates = np.exp(FREQUENCY_SD * Draws(f"frequency/{domain}/{seed}", 0).normal("rate", (len(drawing.CLASSES),))[0])
    return Draws(f"labels/{domain}/{seed}", np.arange(n)).choice("label", rates.tolist())


def corpus(size: int, seed: int, cache: Path) -> Corpus:
    """Draw about `size` pairs, or read them from the cache."""
    images_at = cache / f"corpus-v{drawing.VERSION}-seed{seed}-{size}.npy"
    texts_at = images_at.with_suffix(".json")
    if texts_at.is_file():
        return Corpus(np.load(images_at, mmap_mode="r"), json.loads(texts_at.read_text("utf-8")))
    cache.mkdir(parents=True, exist_ok=True)
    images: list[NDArray[np.uint8]] = []
    texts: list[str] = []
    for domain, share in SHARES.items():
        labels = labels_of(domain, round(share * size), seed)
        stream, index = f"pretrain/{seed}", np.arange(len(labels))
        images.append(drawing.render(domain, labels, stream, index))
        texts += drawing.captions(domain, labels, stream, index)
    made = Corpus(np.concatenate(images), texts)
    np.save(images_at, made.images)
    texts_at.write_text(json.dumps(texts), "utf-8")  # written last: its presence says that both are complete
    return made
