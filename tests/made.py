"""Records as `rbft run` leaves them, without running anything: several methods, seeds and splits from a latent model.

Accuracy is sigmoid(skill + image + method x image + seed); every image keeps its difficulty for all methods.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_ft import metrics
from robustbench_ft.data import Predictions
from robustbench_ft.record import store

SHIFTS = ("painting", "clipart", "sketch")
# method -> (skill on ID, skill on shifts), in logits
SKILLS: Mapping[str, tuple[float, float]] = {
    "zero-shot": (0.4, 0.2), "ft": (1.8, -0.3), "wise-ft": (1.8, -0.3), "lipsum": (1.7, 0.45), "lp-ft": (1.5, -0.25),
}  # fmt: skip
ALPHAS = tuple(k / 10 for k in range(11))
CLASSES = 8


@dataclass(frozen=True)
class World:
    """What is made. Skills, sizes and names can be changed one by one."""

    suite: str = "shapes"
    version: int = 2
    model: str = "embedded"
    pretrained: str = ""
    protocol: str = "clean"
    shifts: tuple[str, ...] = SHIFTS
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    skills: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(SKILLS))
    seeds: Sequence[int] = (0, 1, 2)
    n: int = 120
    lr: float = 3e-4
    seed_sd: float = 0.08
    data: str = "made"  # names the images: another name, other digests
    cluster: int = 0  # so many images of a shift come from one camera
    official: Mapping[str, str] = field(default_factory=dict[str, str])  # split -> metric, where not accuracy
    val: str = "val"  # the split that selects; 'test' where papers select on what they report
    changed: Mapping[str, object] = field(default_factory=dict[str, object])  # recipe fields that were set by hand
    transductive: tuple[str, ...] = ()  # methods
    code: str = ""  # digest of the methods' source
    derived: bool = False  # wise-ft is made from the runs of ft and zero-shot: its ends answer as these do

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.val, "test", *self.shifts)))


def write(out: Path, world: World | None = None) -> Path:
    """Every cell of a world under `out`."""
    world = world or World()
    for method in world.skills:
        for seed in world.seeds if method != "zero-shot" else world.seeds[:1]:
            _write_cell(out, world, method, seed)
    return out


def _write_cell(out: Path, world: World, method: str, seed: int) -> None:
    cell = _cell(world, method, seed)
    model = cell["model"]["name"] + (f"-{world.pretrained}" if world.pretrained else "")
    folder = out / world.suite / model / f"{method}-{cell['digest'][:8]}" / f"seed-{seed}"
    family = method == "wise-ft"
    skills = {"final": world.skills[method]}
    if family:
        start, end = world.skills.get("zero-shot", (0.4, 0.2)), world.skills[method]
        skills = {f"alpha-{a:g}": _bent(start, end, a) for a in ALPHAS}
    results: dict[str, dict[str, Any]] = {}
    for candidate, (identity, shift) in skills.items():
        for k, split in enumerate(world.splits):
            skill = identity if split in ("val", "test") else shift - 0.15 * k
            made = predictions(world, *_author(world, method, seed, candidate), split, skill)
            store.write_predictions(store.predictions_path(folder, candidate, split), made)
            results.setdefault(candidate, {})[split] = metrics.score(made)
    store.write_json(folder / "metrics.json", {
        "version": metrics.VERSION, "default": "alpha-0.5" if family else "final",
        "id_val": max(sorted(results), key=lambda name: results[name][world.val]["accuracy"]),
        **({"official": dict.fromkeys(world.splits, "accuracy") | dict(world.official)} if world.official else {}),
        **({"transductive": True} if method in world.transductive else {}),
        "axis": {f"alpha-{a:g}": a for a in ALPHAS} if family else {},
        "splits": {"val": world.val, "test": "test", "shifts": list(world.shifts)},
        "clusters": dict.fromkeys(world.shifts, "camera") if world.cluster else {},
        "shift_groups": {name: list(members) for name, members in world.groups.items()}, "candidates": results,
    })  # fmt: skip
    store.write_json(folder / "cell.json", cell)
    store.write_json(folder / "env.json", _env(world, method))
    store.write_bytes(folder / "done", b"")


def _author(world: World, method: str, seed: int, candidate: str) -> tuple[str, int]:
    """The method and seed whose answers a candidate gives."""
    ends = {"alpha-0": ("zero-shot", 0), "alpha-1": ("ft", seed)} if world.derived else {}
    return ends.get(candidate, (method, seed))


def _bent(start: tuple[float, float], end: tuple[float, float], alpha: float) -> tuple[float, float]:
    """Between two models, above the straight line, as weight interpolation tends to be."""
    arc = 0.9 * alpha * (1 - alpha)
    identity, shift = ((1 - alpha) * a + alpha * b for a, b in zip(start, end, strict=True))
    return identity + arc, shift + arc


def predictions(world: World, method: str, seed: int, split: str, skill: float) -> Predictions:
    """[n] answers; images are named by split, method effects by (split, method), runs by seed."""
    images, own, run = _rng(split), _rng(split, method), _rng(method, seed)
    difficulty = images.normal(0, 1.2, world.n)
    drift = run.normal(0, world.seed_sd)  # one seed is good or bad on all splits at once
    score = skill + difficulty + own.normal(0, 0.7, world.n) + drift + _rng(split, method, seed).normal(0, 0.5, world.n)
    label = images.integers(0, CLASSES, world.n)
    other = (label + 1 + own.integers(0, CLASSES - 1, world.n)) % CLASSES
    right = score > 0
    confidence = (0.15 + 0.84 / (1 + np.exp(-1.3 * np.abs(score) - 0.4))).astype(np.float32)
    rest = (1 - confidence) / (CLASSES - 1)
    true = np.where(right, confidence, rest)
    prediction = np.where(right, label, other)
    second = np.where(right, other, label)
    return Predictions(
        ids=tuple(f"{world.data}/{split}/{i:05d}" for i in range(world.n)), label=label, prediction=prediction,
        confidence=confidence, log_prob=np.log(true).astype(np.float32),
        sum_sq=(confidence**2 + (CLASSES - 1) * rest**2).astype(np.float32),
        top_classes=np.stack([prediction, second], axis=1),
        top_probs=np.stack([confidence, rest], axis=1).astype(np.float32),
        groups={"camera": np.arange(world.n) // world.cluster} if world.cluster else {},
    )  # fmt: skip


def _rng(*names: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _cell(world: World, method: str, seed: int) -> dict[str, Any]:
    trains = method != "zero-shot"
    content: dict[str, Any] = {
        "suite": world.suite, "suite_version": world.version, "method": method, "method_version": 1,
        "model": {"weights": hashlib.sha256(world.model.encode()).hexdigest(), "name": world.model},
        "settings": {"alpha": 0.5} if method == "wise-ft" else {},
        "recipe": {"lr": world.lr, "steps": 240, "batch": 128, "head": "unit", **world.changed} if trains else None,
        "protocol": world.protocol, "precision": "fp32", "deterministic": not trains, "schema": 1,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["model"]["pretrained"] = world.pretrained
    source = "suite" + (f", --set {', '.join(sorted(world.changed))}" if world.changed else "")
    content |= {"code": {"sha256": world.code, "files": {}, "distribution": "made 1"}} if world.code else {}
    return {**content, "seed": seed, "recipe_source": source if trains else "none", "digest": digest}


def _env(world: World, method: str) -> dict[str, Any]:
    digests = {
        name: {"n": world.n, "digest": hashlib.sha256(f"{world.data}/{name}".encode()).hexdigest()}
        for name in ("train", *world.splits)
    }
    trained = 0 if method == "zero-shot" else 1_244_704
    seconds = 0.2 if method == "zero-shot" else 20.0 + len(method)
    return {
        "rbft": "0.1.0", "git": {"commit": "0" * 40, "dirty": False}, "python": "3.11.7", "platform": "Linux x86_64",
        "packages": {"numpy": "2.4.6", "torch": "2.15.0", "open_clip_torch": "3.3.0"}, "device": "cpu", "gpu": None,
        "cuda": None, "cpu": "a processor", "cores": 2, "threads": 1, "data": digests,
        "cost": {
            "fit_seconds": seconds, "fit_images_per_second": 128 * 240 / seconds if trained else None,
            "evaluate_seconds": 4.0, "evaluate_images_per_second": 3000.0, "peak_memory_mib": 1067.0,
            "trained_parameters": trained,
        },
        "stages": [{"stage": "fit", "parameters": trained, "diverged": False, "seconds": seconds, "images": 30_720}]
        if trained else [],
    }  # fmt: skip
