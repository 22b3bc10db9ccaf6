"""Pretrain the embedded CLIP from nothing: `python -m robustbench_ft.embedded.pretrain --out DIR`.

With the defaults it takes about half an hour on one CPU core. The digits it learns are drawn; scans are never seen.
"""

import argparse
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor

from robustbench_ft import drawing

from .corpus import Corpus, corpus
from .network import CONTEXT_LENGTH, model_config
from .tokenizer import Words
from .zero_shot import pixels, zero_shot


@dataclass(frozen=True)
class Recipe:
    pairs: int = 1_500_160  # seen, with repetition
    pool: int = 200_000  # drawn
    batch: int = 512
    lr: float = 1.5e-3
    warmup: int = 100  # steps
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1  # on matrices only
    clip_norm: float = 1.0
    shift: int = 2  # pixels, either way
    bf16: bool = True  # image tower only; the text tower is too small to gain
    seed: int = 0


class Log:
    """Lines to the terminal and to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        self._file.write(line + "\n")
        self._file.flush()


def batches(n: int, size: int, steps: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Positions of each step's pairs; every pair once before any comes again."""
    order = np.empty(0, np.int64)
    for _ in range(steps):
        if len(order) < size:
            order = rng.permutation(n)
        yield order[:size]
        order = order[size:]


def shifted(images: NDArray[np.uint8], most: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Move each image by up to `most` pixels, edges repeated.  # [n, S, S, C]"""
    n, size = images.shape[:2]
    offset = rng.integers(-most, most + 1, (2, n, 1, 1))
    y = np.clip(np.arange(size)[:, None] + offset[0], 0, size - 1)
    x = np.clip(np.arange(size)[None] + offset[1], 0, size - 1)
    return images[np.arange(n)[:, None, None], y, x]


def encode_text(model: CLIP, ids: Tensor) -> Tensor:
    """Unit features of texts, each distinct one encoded once and at the length of the longest.  # [n, L] -> [n, D]"""
    distinct, back = torch.unique(ids, dim=0, return_inverse=True)
    length = int((distinct != 0).sum(1).max())
    distinct = distinct[:, :length]
    tower: Any = model  # its parts are attributes that torch types as "tensor or module"
    x = tower.token_embedding(distinct) + tower.positional_embedding[:length]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))  # [m, length, W]
    x = x[torch.arange(len(x)), distinct.argmax(1)] @ tower.text_projection
    return F.normalize(x, dim=-1)[back]


def optimizer_of(model: CLIP, recipe: Recipe) -> torch.optim.AdamW:
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)


def train(model: CLIP, data: Corpus, words: Words, recipe: Recipe, log: Log) -> int:
    """The CLIP loss on random batches; returns the number of pairs seen."""
    ids, rng = words(data.texts), np.random.default_rng(recipe.seed)  # [n, L]
    optimizer, steps = optimizer_of(model, recipe), recipe.pairs // recipe.batch
    target, start, recent = torch.arange(recipe.batch), time.monotonic(), 0.0
    for step, rows in enumerate(batches(len(data.texts), recipe.batch, steps, rng)):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1.0, (step + 1) / recipe.warmup) * cosine
        images = pixels(shifted(data.images[rows], recipe.shift, rng))
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            image = model.encode_image(images)
        image, text = F.normalize(image.float(), dim=-1), encode_text(model, ids[torch.from_numpy(rows)])
        logits = model.logit_scale.exp() * image @ text.T  # [B, B]
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        recent = loss.item() if step == 0 else 0.95 * recent + 0.05 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            rate = (step + 1) * recipe.batch / (time.monotonic() - start)
            left = (steps - step - 1) * recipe.batch / rate / 60
            scale = model.logit_scale.exp().item()
            at = f"step {step + 1}/{steps}  loss {recent:.3f}  scale {scale:.1f}"
            log(f"{at}  {rate:.0f} pairs/s  {left:.1f} min left")
        if (step + 1) % 500 == 0 and step + 1 < steps:
            zero_shot(model, words, 320, log)
            model.train()
    return steps * recipe.batch


def save(model: CLIP, words: Words, out: Path) -> str:
    """Write the folder that open_clip loads, half precision; returns the sha256 of the weights."""
    low, high = words.word_ids
    config = {
        "model_cfg": model_config(words.vocab_size),
        "preprocess_cfg": {
            "size": 32,
            "mode": "RGB",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
        "rbft": {
            "tokenizer": "words",
            "random_ids": [low, high],  # [lo, hi): every one a word seen in pretraining
            "pad": 0,
            "bos": 1,
            "eos": high,
            "templates": list(drawing.TEMPLATES),
            "drawing_version": drawing.VERSION,
        },
    }
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    words.save(out / "vocab.txt")
    weights = out / "open_clip_model.safetensors"
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, weights)
    weights.chmod(0o644)  # safetensors makes it private
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def pretrain(recipe: Recipe, out: Path, cache: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    log, begin = Log(out / "pretrain.log"), time.monotonic()
    log(f"{json.dumps(asdict(recipe))}")
    log(f"torch {torch.__version__}, open_clip {open_clip.__version__}, {torch.get_num_threads()} thread(s)")
    torch.manual_seed(recipe.seed)
    words = Words(drawing.vocabulary(), CONTEXT_LENGTH)
    data = corpus(recipe.pool, recipe.seed, cache)
    log(f"{len(data.texts)} pictures with captions ready after {time.monotonic() - begin:.0f} s")
    model = CLIP(**model_config(words.vocab_size))
    sizes = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (("image tower", model.visual), ("all", model))
    }
    log("parameters: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    seen = train(model, data, words, recipe, log)
    model.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})  # as shipped
    digest, scores = save(model, words, out), zero_shot(model, words, 2000, log)
    record = {
        "recipe": asdict(recipe),
        "pairs_seen": seen,
        "seconds": round(time.monotonic() - begin),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "open_clip": open_clip.__version__, "drawing": drawing.VERSION},
        "parameters": sizes["all"],
        "zero_shot": scores,
        "sha256": digest,
    }
    (out / "pretrain.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    log(f"weights sha256 {digest}, {record['seconds']} s in all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "rbft-pretrain")
    parser.add_argument("--pairs", type=int, default=Recipe.pairs)
    parser.add_argument("--pool", type=int, default=Recipe.pool)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pretrain(Recipe(pairs=args.pairs, pool=args.pool, lr=args.lr, seed=args.seed), args.out, args.cache)


if __name__ == "__main__":
    main()
