"""What tests run on: a suite of three colours, a random CLIP of 30 thousand parameters, and a shelf of odd methods.

The folder that `write_shelves` makes is what an installed third-party package looks like to the registry.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_ft.data import ArrayImages, Bytes, Split
from robustbench_ft.recipe import Recipe
from robustbench_ft.suite import Card, Suite

WORDS = ("a", "blue", "drawing", "green", "of", "page", "photo", "red")
N = {"train": 48, "val": 24, "test": 36, "dim": 30, "noisy": 30}
ENTRY_POINTS = (
    "[robustbench_ft.benchmarks]\ntests = tiny\nspaced = spaced\n[robustbench_ft.methods]\ntests = odd_methods\n"
)


class Tiny(Suite):
    """Noise with one colour channel lit: the label can be read off the pixels."""

    recipe = Recipe(
        lr=3e-3, weight_decay=0.1, steps=6, batch=8, warmup_fraction=0.2, augment="shift", validate_every=2
    )  # fmt: skip
    shifts = ("dim", "noisy")
    card: Card = Card("Tiny", "tests", "MIT", "made on the spot", counts=N)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("red page", "green page", "blue page")

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a photo of a {}", "a drawing of a {}")

    def load(self, name: str) -> Split:
        labels = np.arange(N[name]) % 3
        return Split(name, ArrayImages(pixels(name, labels)), labels, tuple(f"{name}/{i}" for i in range(N[name])))


def pixels(name: str, labels: Any) -> Bytes:
    """[n, 32, 32, 3]"""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))
    lit, spread = {"dim": (60, 40), "noisy": (100, 150)}.get(name, (120, 80))
    images = rng.integers(0, spread, (len(labels), 32, 32, 3))
    images[np.arange(len(labels)), :, :, labels] += lit
    return images.astype(np.uint8)


def write_model(folder: Path, seed: int = 0, random_ids: bool = True) -> Path:
    """A `local-dir:` folder of open_clip: a vision transformer of one layer, random weights, a word vocabulary."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from robustbench_ft.embedded.tokenizer import Words

    words = Words(WORDS)
    sizes = {"width": 32, "layers": 1}
    model_cfg: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "head_width": 16, **sizes},
        "text_cfg": {"context_length": 16, "vocab_size": words.vocab_size, "heads": 2, **sizes},
    }
    own = {"tokenizer": "words", "bos": 1, "eos": words.vocab_size - 1}
    config = {
        "model_cfg": model_cfg,
        "preprocess_cfg": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
        "rbft": own | ({"random_ids": words.word_ids} if random_ids else {}),
    }
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    words.save(folder / "vocab.txt")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**model_cfg)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def write_shelves(folder: Path, entry_points: str = ENTRY_POINTS, name: str = "rbft_tests") -> Path:
    """Metadata of a distribution with these entry points; `folder` goes on `sys.path`."""
    info = folder / f"{name}-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return folder
