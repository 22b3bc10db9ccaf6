"""Records made up from numbers, in the layout that `rbft run` writes: methods x seeds x splits of any size.

The latent model: an example has a difficulty that all methods share, each method a skill and its own view of every
example, each seed a shift; the probability of a right answer is their logistic.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_ft.data import Predictions
from robustbench_ft.record import store
from robustbench_ft.stats.streams import generator

SHIFTS = ("painting", "sketch")


@dataclass(frozen=True)
class World:
    """One made-up suite."""

    name: str = "made-up"
    version: int = 1
    protocol: str = "clean"
    shifts: tuple[str, ...] = SHIFTS
    n: int = 400
    classes: int = 10
    seed_sd: float = 0.05  # logits
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    clusters: int = 0  # examples come in this many groups of equal view
    digest: str = "d"

    def size(self, split: str) -> int:
        return self.sizes.get(split, self.n)


def write(
    root: Path, world: World, skills: Mapping[str, float], seeds: int = 3, alphas: Sequence[float] = (),
    recipes: Mapping[str, float] | None = None, deterministic: tuple[str, ...] = ("zero-shot",),
) -> list[Path]:  # fmt: skip
    """One cell per method and seed. 'wise-ft' is a family over `alphas`: at 0 zero-shot, at 1 ft itself."""
    folders: list[Path] = []
    for method, skill in skills.items():
        for seed in range(1 if method in deterministic else seeds):
            family = method == "wise-ft"
            candidates = {f"alpha-{a:g}": a for a in alphas} if family else {"final": 1.0}
            mixes = {c: (1 - a) * skills["zero-shot"] + a * skills["ft"] if family else skill
                     for c, a in candidates.items()}  # fmt: skip
            folders.append(_cell(root, world, method, seed, mixes, candidates if family else {},
                                 (recipes or {}).get(method, 1e-3), method in deterministic))  # fmt: skip
    return folders


def _cell(
    root: Path, world: World, method: str, seed: int, skills: Mapping[str, float], axis: Mapping[str, float],
    lr: float, deterministic: bool,
) -> Path:  # fmt: skip
    recipe = None if deterministic else {"lr": lr, "steps": 10}
    digest = hashlib.sha256(repr((world.name, world.version, method, lr, world.protocol)).encode()).hexdigest()
    folder = root / world.name / "model" / f"{method}-{digest[:8]}" / f"seed-{seed}"
    results: dict[str, dict[str, Any]] = {}
    for candidate, skill in skills.items():
        author, run = {0.0: ("zero-shot", 0)}.get(axis.get(candidate, 1.0), ("ft" if axis else method, seed))
        for split in ("val", "test", *world.shifts):
            # between the ends, interpolated weights are better on shifts than either
            alpha = axis.get(candidate, 1.0)
            bonus = 3 * alpha**2 * (1 - alpha) if split in world.shifts else 0.0
            made = predictions(world, author, run, split, skill + bonus)
            store.write_predictions(store.predictions_path(folder, candidate, split), made)
            results.setdefault(candidate, {})[split] = {"accuracy": float(made.correct.mean())}
    store.write_json(folder / "cell.json", {
        "suite": world.name, "suite_version": world.version, "method": method, "method_version": 1, "seed": seed,
        "model": {"name": "model", "pretrained": "", "weights": "w"}, "protocol": world.protocol, "precision": "fp32",
        "recipe": recipe, "recipe_source": "suite", "settings": {}, "deterministic": deterministic, "digest": digest,
        "schema": 1,
    })  # fmt: skip
    store.write_json(folder / "env.json", {
        "data": {
            split: {"n": world.size(split), "digest": f"{world.digest}-{split}"}
            for split in ("val", "test", *world.shifts)
        },
        "cost": {"fit_seconds": 1.0}, "stages": [], "git": {"commit": "c", "dirty": False}, "packages": {"numpy": "2"},
    })  # fmt: skip
    by_val = max(results, key=lambda name: results[name]["val"]["accuracy"])
    store.write_json(folder / "metrics.json", {
        "version": 2, "default": "alpha-0.5" if axis else "final", "id_val": by_val, "axis": dict(axis),
        "splits": {"val": "val", "test": "test", "shifts": list(world.shifts)}, "shift_groups": {},
        "candidates": results, **({"clusters": dict.fromkeys(world.shifts, "place")} if world.clusters else {}),
    })  # fmt: skip
    store.write_bytes(folder / "done", b"")
    return folder


def predictions(world: World, method: str, seed: int, split: str, skill: float) -> Predictions:
    """[n] answers of one run: the same examples for every method, the same view of them for every seed."""
    n = world.size(split)
    shared = generator(world.name, split)
    label, difficulty = shared.integers(world.classes, size=n), shared.normal(0, 1.5, n)
    places = np.arange(n) % world.clusters if world.clusters else np.zeros(n, np.int64)
    view = generator(world.name, split, method).normal(0, 0.7, n)[places if world.clusters else slice(None)]
    run = generator(world.name, method, seed)
    shift = run.normal(0, world.seed_sd)
    chance = 1 / (1 + np.exp(-(skill + shift + difficulty + view)))
    luck = generator(world.name, split, method, seed)
    correct = luck.random(n) < chance
    wrong = (label + luck.integers(1, world.classes, n)) % world.classes
    prediction = np.where(correct, label, wrong)
    confidence = np.clip(chance, 0.2, 1).astype(np.float32)
    true = np.where(correct, confidence, (1 - confidence) / (world.classes - 1)).astype(np.float32)
    groups = {"place": places.astype(np.int64)} if world.clusters else {}
    return Predictions(
        tuple(f"{split}/{i:06d}" for i in range(n)), label, prediction, confidence, np.log(true), confidence**2,
        np.stack([prediction, label], 1), np.stack([confidence, true], 1), groups,
    )  # fmt: skip


def rewrite(path: Path, **columns: Any) -> None:
    """Replace columns of one prediction file, e.g. to damage it."""
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path)


def truncate(path: Path, size: int = 1000) -> None:
    path.write_bytes(path.read_bytes()[:size])
