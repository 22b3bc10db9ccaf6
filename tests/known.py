"""Known: a suite of files and a model whose accuracy on it is known, into which tests plant what setups get wrong.

The model is a small ViT of open_clip with QuickGELU and OpenAI's transform. Its weights are random but for the image
projection, which is fitted to the class names' embeddings. Two numbers make it as touchy as a real one: see `_touchy`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tiny
from PIL import Image

from robustbench_ft.data import FileImages, Split
from robustbench_ft.suite import Card, Suite

COLOURS = ("red", "green", "blue", "pale", "dark", "warm")
NAMES = tuple(f"{colour} {thing}" for thing in ("page", "drawing") for colour in COLOURS)
WORDS = tuple(sorted({"a", "photo", "of", "sketch", "page", "drawing", *COLOURS}))
OWN = (1, 4, 6, 11)  # classes that r holds
N = {"train": 1_200, "test": 1_200, "v2": 1_200, "r": 600}
WIDE, HIGH = 54, 36  # pixels of an image
ENTRY_POINTS = "[robustbench_ft.benchmarks]\nknown = known\n"


def write_images(root: Path) -> Path:
    """Class folders 0 to 11 under train, test, v2, r, and v2-threshold, which is easier."""
    for split, n in (*N.items(), ("v2-threshold", N["v2"])):
        for k in range(n):
            label = OWN[k % len(OWN)] if split == "r" else k % len(NAMES)
            folder = root / "known" / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            noise = 0.5 if split == "v2-threshold" else 1.0
            picture(split, label, k, noise).save(folder / f"{split}_{k:05d}.png")
    return root


def picture(split: str, label: int, k: int, noise: float = 1.0) -> Image.Image:
    """A class's own tile of 9 x 9 pixels, with an image's own tile over it, repeated.

    Resized and cropped as it should be, a tile is a patch of the model.
    """
    own = np.random.default_rng([7, label]).normal(0, 1, (3, 3, 3))
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{split}/{k}".encode()).digest()[:6], "little"))
    tile = np.kron(own + noise * rng.normal(0, 0.9, (3, 3, 3)), np.ones((1, 3, 3)))
    pixels = np.tile(tile, (1, HIGH // 9, WIDE // 9)) * 22 + 118 + rng.integers(-20, 21, (3, HIGH, WIDE))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


@dataclass(frozen=True)
class Fault:
    """What is wrong with the setup."""

    transform: Mapping[str, Any] = field(default_factory=dict[str, Any])  # changes of preprocess_cfg
    quick: bool = True
    rounded: bool = False  # weights to bfloat16
    order: str = ""  # 'text' or 'names' or 'random': how labels are numbered
    whole: bool = False  # r is scored among all classes
    v2: str = "v2"  # the folder that is taken for it
    kept: int = len(NAMES)  # classes of test that are there
    template: str = "a photo of a {}"


class Known(Suite):
    """Labels are the numbers of the folders."""

    recipe = tiny.Tiny.recipe
    shifts = ("v2", "r")
    places = {name: (f"known/{name}",) for name in N}  # noqa: RUF012
    card: Card = Card("Known", "tests", "MIT", "the test that writes it", counts={})
    fault: ClassVar[Fault] = Fault()

    @property
    def classes(self) -> tuple[str, ...]:
        return NAMES

    @property
    def templates(self) -> tuple[str, ...]:
        return (self.fault.template,)

    def load(self, name: str) -> Split:
        place = self.place("train" if name == "val" else name)
        place = place.with_name(self.fault.v2) if name == "v2" else place
        files = sorted((int(path.parent.name), path) for path in place.rglob("*.png"))
        files = [file for file in files if name != "test" or file[0] < self.fault.kept]
        files = files[:24] if name == "val" else files
        labels = self._numbered(np.array([label for label, _ in files], np.int64), name)
        images = FileImages(place, tuple(path.relative_to(place).as_posix() for _, path in files))
        ids = tuple(f"{name}/{path.stem}" for _, path in files)
        split = Split(name, images, labels, ids, place=place)
        if name == "r" and not self.fault.whole:
            own = np.searchsorted(OWN, split.labels)
            return replace(split, labels=own, members=tuple((label,) for label in OWN))
        return split

    def _numbered(self, labels: Any, name: str) -> Any:
        if name == "r" or not self.fault.order:
            return labels
        k = range(len(NAMES))
        order = {
            "text": sorted(k, key=str), "names": sorted(k, key=NAMES.__getitem__),
            "random": np.random.default_rng(5).permutation(len(NAMES)).tolist(),
        }[self.fault.order]  # fmt: skip
        place = np.empty(len(NAMES), np.int64)
        place[order] = np.arange(len(NAMES))
        return place[labels]


def suite(root: Path, fault: Fault | None = None) -> Suite:
    """Known, with something wrong."""
    kind: type[Suite] = type("Known", (Known,), {"fault": fault or Fault(), "__doc__": "Known."})
    return kind("known", root)


def write_model(folder: Path, root: Path) -> Path:
    """The model without a fault, as an open_clip folder."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from robustbench_ft.embedded.tokenizer import Words

    words = Words(WORDS)
    model_cfg: dict[str, Any] = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "head_width": 16, "width": 64, "layers": 2},
        "text_cfg": {"context_length": 16, "vocab_size": words.vocab_size, "heads": 2, "width": 32, "layers": 1},
    }
    config: dict[str, Any] = {
        "model_cfg": model_cfg,
        "preprocess_cfg": {"size": 32, "mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD,
                           "interpolation": "bicubic", "resize_mode": "shortest"},
        "rbft": {"tokenizer": "words", "bos": 1, "eos": words.vocab_size - 1},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    words.save(folder / "vocab.txt")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = open_clip.CLIP(**model_cfg)
    _touchy(model)
    _fit(model, words, open_clip.transform.PreprocessCfg(**config["preprocess_cfg"]), root)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def _touchy(model: Any) -> None:
    """Make one hidden unit constant, at the place where GELU and QuickGELU differ most, and let its output count much.

    Under QuickGELU a bias takes the constant away again, so nothing changes; under GELU all features are pushed aside,
    as a dozen layers of small differences push those of a real model.
    """
    import torch

    mlp = model.visual.transformer.resblocks[-1].mlp
    at, width = torch.tensor(-2.4), mlp.c_proj.weight.shape[0]
    aside = torch.randn(width, generator=torch.Generator().manual_seed(1)) * 30
    with torch.no_grad():
        mlp.c_fc.weight[0], mlp.c_fc.bias[0] = 0.0, at
        mlp.c_proj.weight[:, 0] = aside
        mlp.c_proj.bias -= aside * at * torch.sigmoid(1.702 * at)


def _fit(model: Any, words: Any, transform: Any, root: Path) -> None:
    """The image projection by ridge regression of the class names' embeddings, centred, on the training images."""
    import torch
    from open_clip.transform import image_transform_v2

    preprocess: Any = image_transform_v2(transform, is_train=False)
    files = sorted((root / "known" / "train").rglob("*.png"))
    labels = torch.tensor([int(path.parent.name) for path in files])
    with torch.no_grad():
        texts = torch.nn.functional.normalize(model.encode_text(words([f"a photo of a {name}" for name in NAMES])))
        model.visual.proj = None
        features = torch.cat([
            model.visual(torch.stack([preprocess(Image.open(path)) for path in files[k : k + 200]]))
            for k in range(0, len(files), 200)
        ]).double()  # fmt: skip
        target = (texts - texts.mean(dim=0))[labels].double()
        eye = torch.eye(features.shape[1], dtype=torch.float64)
        proj = torch.linalg.solve(features.T @ features + 30.0 * eye, features.T @ target)
        model.visual.proj = torch.nn.Parameter((proj * 30).float())


def published(folder: Path, root: Path) -> dict[str, float]:
    """Accuracy on test, v2 and r by open_clip's own transform and towers, without a line of the harness."""
    import open_clip
    import torch

    from robustbench_ft.embedded.tokenizer import Words

    model: Any
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    preprocess: Any
    tokens = Words.load(folder / "vocab.txt")([f"a photo of a {name}" for name in NAMES])
    found: dict[str, float] = {}
    with torch.no_grad():
        texts = model.eval().encode_text(tokens, normalize=True)
        for split in ("test", "v2", "r"):
            files = sorted((root / "known" / split).rglob("*.png"))
            labels = torch.tensor([int(path.parent.name) for path in files])
            images = torch.stack([preprocess(Image.open(path)) for path in files])
            logits = torch.cat([model.encode_image(part, normalize=True) for part in images.split(256)]) @ texts.T
            if split == "r":
                logits = logits.index_fill(1, torch.tensor([k for k in range(len(NAMES)) if k not in OWN]), -9.0)
            found[split] = float((logits.argmax(dim=1) == labels).double().mean())
    return found
