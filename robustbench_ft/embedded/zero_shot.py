"""Zero-shot accuracy of the embedded model on freshly drawn pictures, domain by domain.

`python -m robustbench_ft.embedded.zero_shot` measures the shipped weights again and renews their `pretrain.json`.
"""

import json
from collections.abc import Callable

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import Tensor

from robustbench_ft import drawing, embedded

from .tokenizer import Words

STREAM = "zero-shot"  # pretraining draws from other streams, so no picture is in both


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """Bytes to the model's input, mean and sd .5.  # [n, 32, 32, 3] -> [n, 3, 32, 32]"""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1)


@torch.no_grad()
def head(model: CLIP, words: Words, names: tuple[str, ...]) -> Tensor:
    """Mean of the unit text features over the templates, unit rows.  # [K, D]"""
    texts = [template.format(name) for name in names for template in drawing.TEMPLATES]
    features = model.encode_text(words(texts), normalize=True)
    return torch.nn.functional.normalize(features.view(len(names), len(drawing.TEMPLATES), -1).mean(1), dim=-1)


@torch.no_grad()
def accuracy(model: CLIP, classes: Tensor, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Share of images [n, 32, 32, 3] whose nearest row of `classes` [K, D] is their label's."""
    hits = 0
    for start in range(0, len(images), 500):
        features = model.encode_image(pixels(images[start : start + 500]))
        hits += int(((features @ classes.T).argmax(1).numpy() == labels[start : start + 500]).sum())
    return hits / len(images)


def zero_shot(
    model: CLIP, words: Words, n: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, float]]:
    """Percent correct, n images each: objects among 32, digits among ten; as pretrained on, and in the hard views."""
    model.eval()
    scores: dict[str, dict[str, float]] = {}
    views = [(domain, domain, "snapshot") for domain in drawing.DOMAINS]
    views += [(f"hard {domain}", domain, "hard") for domain in drawing.DOMAINS]
    for family, names, first in (
        ("objects", drawing.OBJECTS, 0),
        ("digits", drawing.DIGIT_NAMES, len(drawing.OBJECTS)),
    ):
        classes, index = head(model, words, names), np.arange(n)
        labels = index % len(names)
        scores[family] = {}
        for view, domain, camera in views:
            images = drawing.render(domain, labels + first, f"{STREAM}/{family}", index, camera)
            scores[family][view] = round(100 * accuracy(model, classes, images, labels), 2)
        say(f"zero-shot {family}: " + "  ".join(f"{view} {score:.1f}" for view, score in scores[family].items()))
    return scores


def main() -> None:
    embedded.register()
    model = open_clip.create_model(f"local-dir:{embedded.CHECKPOINT}")
    assert isinstance(model, CLIP)
    path = embedded.CHECKPOINT / "pretrain.json"
    record = json.loads(path.read_text("utf-8"))
    record["zero_shot"] = zero_shot(model, Words.load(embedded.CHECKPOINT / "vocab.txt"), 2000, print)
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
