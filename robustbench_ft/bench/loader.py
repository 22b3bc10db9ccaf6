"""`rbft bench-loader`: our loaders beside torchvision's ImageFolder and DataLoader, on JPEGs as large as ImageNet's.

Every contestant ends with normalised float batches on the device. All take turns on the same files with the same number
of workers; the figures to quote are the ratios within a round.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from robustbench_ft import cache
from robustbench_ft import clip as clips
from robustbench_ft.clip import Clip
from robustbench_ft.data import FileImages, Split
from robustbench_ft.environment import describe
from robustbench_ft.errors import RbftError
from robustbench_ft.images.folders import SUFFIXES
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.model_ref import ModelRef
from robustbench_ft.pixels import kept
from robustbench_ft.pixels.augment import AREA, DISTORTED_AREA
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.progress import Progress
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Augment, Recipe
from robustbench_ft.tabular import Text, interval, number
from robustbench_ft.train import ImageBatches, indices_at

SIDE = (500, 375)  # ImageNet's commonest size
CLASSES = 10
Pass = Callable[[], int]  # runs once over all images; how many it saw


@dataclass(frozen=True)
class Setting:
    """What is measured, on what."""

    model: ModelRef
    device: torch.device
    images: int
    batch: int
    workers: int
    rounds: int
    tree: Path | None  # class folders of the user's own; None: files are made


@dataclass(frozen=True)
class Rates:
    """What was measured: images per second, by round and loader."""

    setting: Setting
    images: int
    bytes_each: float  # on average
    rounds: Sequence[Mapping[str, float]]

    def ratios(self, name: str) -> list[float]:
        """Of images per second to those of the torchvision loader above this one, by round; empty for that itself."""
        before = list(self.rounds[0])[: list(self.rounds[0]).index(name) + 1]
        peer = [one for one in before if one.endswith("torchvision")][-1]
        return [] if peer == name else sorted(round_[name] / round_[peer] for round_ in self.rounds)


def measure(setting: Setting, progress: Progress) -> Rates:
    """Images per second of each loader, in turns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing is computed but pixels, and idle threads that wait in circles disturb decoding
    try:
        return _measure(setting, progress)
    finally:
        torch.set_num_threads(threads)


def _measure(setting: Setting, progress: Progress) -> Rates:
    with tempfile.TemporaryDirectory() as made:
        tree = setting.tree or Path(made)
        if setting.tree is None:
            write_tree(tree, setting.images, progress)
        clip, split = clips.load(setting.model).to(setting.device), folder_split(tree)
        passes = _Passes(setting, clip, split, tree)
        contestants = passes.contestants()
        rounds: list[dict[str, float]] = []
        with progress.bar("bench-loader", (setting.rounds + 1) * len(contestants), "passes") as advance:
            for number in range(setting.rounds + 1):  # the first one warms the page cache, the workers and our cache
                rounds.append({})
                for name, contestant in contestants.items():
                    rounds[-1][name] = _rate(contestant, setting.device)
                    advance(1, f"{name}, {'warm-up' if not number else f'round {number}'}")
        cache.forget(kept.path(Loader(clip, split).key))
        sizes = [split.images.size(i) for i in range(len(split))]
        return Rates(setting, len(split), statistics.mean(sizes), rounds[1:])


def write_tree(root: Path, n: int, progress: Progress) -> None:
    """`n` JPEGs of ImageNet's commonest size in class folders, each with coarse shapes and fine grain of its own."""
    with progress.bar("write JPEGs", n, "files") as advance:
        for k in range(n):
            folder = root / f"class-{k % CLASSES}"
            folder.mkdir(exist_ok=True)
            picture(k).save(folder / f"{k:06d}.jpg", quality=90)
            advance()


def picture(seed: int) -> Image.Image:
    """About 100 KB as a JPEG of quality 90, as ImageNet's files are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(SIDE, Image.Resampling.BICUBIC)
    grain = rng.integers(-25, 26, (SIDE[1], SIDE[0], 1))
    return Image.fromarray((np.asarray(coarse).astype(np.int64) + grain).clip(0, 255).astype(np.uint8))


def folder_split(tree: Path) -> Split:
    """All images of a tree of class folders."""
    paths = sorted(str(p.relative_to(tree)) for p in tree.glob("*/*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise RbftError(f"{tree} has no <class>/<image> files; name a folder of class folders, or leave --tree out")
    folders = sorted({path.partition("/")[0] for path in paths})
    labels = np.array([folders.index(path.partition("/")[0]) for path in paths], np.int64)
    return Split("tree", FileImages(tree, tuple(paths)), labels, tuple(paths), place=tree)


class _Passes:
    """The contestants."""

    def __init__(self, setting: Setting, clip: Clip, split: Split, tree: Path) -> None:
        self.setting, self.clip, self.split, self.tree = setting, clip, split, tree
        self.config = PreprocessCfg(**clip.config["preprocess_cfg"])

    def contestants(self) -> dict[str, Pass]:
        """By name; a peer stands before those that are compared with it."""
        whole = image_transform_v2(self.config, is_train=False)
        size, bicubic = self.clip.image_size, transforms.InterpolationMode.BICUBIC
        normalise = transforms.Normalize(self.config.mean, self.config.std)
        smooth = transforms.Compose([
            _rgb, transforms.RandomResizedCrop(size, AREA, interpolation=bicubic),
            transforms.ToTensor(), normalise,
        ])  # fmt: skip
        sharp = v2.Compose([
            v2.RGB(), v2.PILToTensor(),
            v2.RandomResizedCrop(size, DISTORTED_AREA, interpolation=bicubic, antialias=False),
            v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(self.config.mean, self.config.std),
        ])  # fmt: skip
        gpu: dict[str, Pass] = {}
        if self.setting.device.type == "cuda":
            gpu["training 'crop': rbft, GPU decode"] = self.training("crop", gpu_decode=True)
        return {
            "evaluation: torchvision": self.peer(whole, shuffle=False),
            "evaluation: rbft, decoding": self.evaluation(keep=False),
            "evaluation: rbft, from the cache": self.evaluation(keep=True),
            "training 'crop': torchvision": self.peer(smooth, shuffle=True),
            "training 'crop': rbft": self.training("crop"),
            **gpu,
            "training 'crop-flip': torchvision": self.peer(sharp, shuffle=True),
            "training 'crop-flip': rbft": self.training("crop-flip"),
        }

    def peer(self, transform: Any, shuffle: bool) -> Pass:
        data: Any = ImageFolder(str(self.tree), transform=transform)
        loader: Any = DataLoader(
            data, self.setting.batch, shuffle=shuffle, num_workers=self.setting.workers, persistent_workers=True,
            pin_memory=self.setting.device.type == "cuda",
        )  # fmt: skip
        return lambda: sum(len(images.to(self.setting.device, non_blocking=True)) for images, _ in loader)

    def evaluation(self, keep: bool) -> Pass:
        loader = Loader(self.clip, self.split, self.setting.workers)

        def once() -> int:
            chunks = loader.chunks(self.setting.batch) if keep else loader.decoded(self.setting.batch)
            return sum(len(loader.normalise(pixels)) for _, pixels in chunks)

        return once

    def training(self, augment: Augment, gpu_decode: bool = False) -> Pass:
        task = Task(("a", "b"), ("{}",))
        recipe = Recipe(epochs=1, batch=self.setting.batch, augment=augment)
        run = Run(0, self.setting.device, workers=self.setting.workers)

        def once() -> int:
            source = ImageBatches(self.clip, TrainSet(self.split, self.split, task), self.setting.workers, gpu_decode)
            steps = range(recipe.total_steps(len(source)))
            batches = (source.batch(self.clip, indices_at(k, len(source), recipe, run), k, recipe, run) for k in steps)
            return sum(len(batch.images) for batch in batches)

        return once


def _rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _rate(contestant: Pass, device: torch.device) -> float:
    """Images per second of one pass."""
    began = time.perf_counter()
    n = contestant()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return n / (time.perf_counter() - began)


HEAD = ("loader", "images/s", "/ torchvision")


def table(rates: Rates) -> Text:
    """A line for each loader."""
    body: list[tuple[str, ...]] = []
    for name in rates.rounds[0]:
        rate, ratios = statistics.median(round_[name] for round_ in rates.rounds), rates.ratios(name)
        shown = number(1.0, "g")
        if ratios:
            middle, low, high = statistics.median(ratios), ratios[0], ratios[-1]
            shown = interval(f"{middle:.2f} ({low:.2f}–{high:.2f})", middle, low, high)
        body.append((name, number(rate, ",.0f"), shown))
    return Text("images per second", HEAD, tuple(body))


def as_json(rates: Rates) -> str:
    """Every number, by round."""
    setting = rates.setting
    content = {
        "model": setting.model.label, "images": rates.images, "bytes_each": rates.bytes_each, "batch": setting.batch,
        "workers": setting.workers, "environment": describe(setting.device),
        "loaders": {name: [round_[name] for round_ in rates.rounds] for name in rates.rounds[0]},
    }  # fmt: skip
    return json.dumps(content, indent=2) + "\n"


def as_markdown(rates: Rates) -> str:
    """The table with what is behind it, and the machine."""
    setting = rates.setting
    files = f"{SIDE[0]}x{SIDE[1]} JPEGs, made" if setting.tree is None else "images of a tree of the user's"
    lines = [
        f"{rates.images:,} {files}, {rates.bytes_each / 1000:.0f} kB on average; batches of {setting.batch} at "
        f"{setting.model.label}'s size, {setting.workers} workers each, files in the page cache: medians over "
        f"{len(rates.rounds)} rounds; behind a ratio its range. 'crop' is the augmentation of WiSE-FT and FLYP, the "
        "same on both sides; 'crop-flip' is Lipsum-FT's, resized by rbft with TensorFlow's kernel and by torchvision "
        "with its own.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---|---:|---:|",
        *(f"| {' | '.join(cells)} |" for cells in table(rates).body),
    ]
    machine = describe(setting.device)
    kept = {name: machine[name] for name in ("cpu", "gpu", "cores", "python")} | {
        name: machine["packages"][name] for name in ("torch", "torchvision", "pillow")
    }
    return "\n".join([*lines, "", json.dumps(kept)])
