"""One cell, start to finish: fit under seal, evaluate once, write the record. Safe to kill at any moment.

A folder with `done` is never run again; one without resumes where its last checkpoint stands.
"""

import json
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from . import cache, doctor, earlier, environment, metrics, provenance, store, suite_ref
from . import clip as clips
from .clip import Clip
from .data import Split
from .errors import RbftError
from .method import Family, Run, TrainSet
from .places import Roots
from .plan import Cell
from .predict import predict
from .progress import Progress
from .store import Json
from .suite import Suite, Task, sealed
from .train import InterruptedRun


@dataclass(frozen=True)
class Workshop:
    """Where and how cells are run."""

    out: Path
    device: torch.device
    root: Roots | Path | None = None  # of downloaded data
    progress: Progress = field(default_factory=Progress)
    checkpoint_seconds: float = 30.0
    save_model: bool = True
    files: Mapping[str, str] = field(default_factory=dict[str, str])  # suite name -> its suite.toml, where it has one
    workers: int = 0  # threads that decode images; 0: as many as there are cores
    gpu_decode: bool = False  # decode training JPEGs on the GPU
    way: earlier.Way = "refuse"  # with records that other code made


def run_cells(cells: Sequence[Cell], workshop: Workshop) -> list[Path]:
    """Run what is not done yet, in order; returns the folders of all cells."""
    claim(workshop.out)
    cache.check()
    for cell in cells:
        _suite(cell, workshop).check_ready()
    folders = [workshop.out / cell.folder for cell in cells]
    renewed = earlier.to_renew(cells, folders, workshop.way)
    for k, (cell, folder) in enumerate(zip(cells, folders, strict=True), start=1):
        title = f"[{k}/{len(cells)}] {cell.method} on {cell.suite}, seed {cell.seed}"
        if folder in renewed:
            earlier.clear(folder)
        if store.is_done(folder):
            workshop.progress.say(f"{title}: {earlier.standing(cell, folder).note}")
            _tidy(folder)
            continue
        workshop.progress.say(title)
        with _graceful() as stopped:
            run_cell(cell, folder, workshop, stopped)
            if stopped() and k < len(cells):
                raise InterruptedRun(f"stopped after cell {k} of {len(cells)}")
    return folders


def claim(out: Path) -> None:
    """Make sure that records can be written to `out`, before any work is done and without leaving a trace."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise RbftError(f"cannot write to {out}: {existing} is a file; choose another folder with --out")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise RbftError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error


def run_cell(cell: Cell, folder: Path, workshop: Workshop, stopped: Callable[[], bool] = lambda: False) -> None:
    """Fit, evaluate, record. Raises `InterruptedRun` when asked to stop, leaving a folder that resumes."""
    earlier.check_same(cell, folder)
    suite = _suite(cell, workshop)
    method = cell.build()
    task = Task(suite.classes, suite.templates)
    _find(suite, cell, workshop.progress)
    data = TrainSet(suite.split(suite.trainer(cell.protocol)), suite.split(suite.selector(cell.protocol)), task)
    clip = clips.load(cell.model).to(workshop.device)
    clip.bf16 = cell.precision == "bf16"
    if reason := method.skip(clip):
        raise RbftError(f"{cell.method} cannot be run with model '{cell.model.name}': {reason}")
    store.sweep(folder)
    record = {**cell.to_json(), "code": provenance.code_of(type(method)).to_json()}
    store.write_json(folder / "cell.json", record)  # all that can be asked wrongly has been loaded by now
    log = _Log(folder / "log.jsonl")
    run = Run(
        cell.seed, workshop.device, cell.precision, folder, workshop.progress, log, workshop.checkpoint_seconds,
        stopped, workshop.workers, workshop.gpu_decode,
    )  # fmt: skip
    if workshop.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(workshop.device)
    began = time.monotonic()
    with sealed():
        model = method.fit(clip, data, run)
    fitted = time.monotonic()
    results, digests, evaluated = _evaluate(model, suite, cell, folder, workshop, stopped)
    evaluation = time.monotonic() - fitted
    if workshop.save_model:
        default = model.use(model.default) if isinstance(model, Family) else model
        parent = {"parent": cell.model.weights, "cell": cell.digest, "seed": cell.seed, "suite": cell.suite}
        default.save(folder / "model", parent)
    store.write_json(folder / "metrics.json", _summary(model, suite, cell, results))
    stages = log.stages()
    store.write_json(folder / "env.json", {
        **environment.describe(workshop.device),
        **({"gpu_decode": True} if workshop.gpu_decode else {}),
        "data": {data.train.name: _data(suite, data.train), **digests},
        "manifest": doctor.for_record(suite, [data.train, *map(suite.split, suite.evaluated(cell.protocol))]),
        **_labels(suite),
        "cost": {
            "fit_seconds": sum(s["seconds"] for s in stages) or fitted - began,
            "fit_images_per_second": _rate(sum(s["images"] for s in stages), sum(s["seconds"] for s in stages)),
            "evaluate_seconds": evaluation,
            "evaluate_images_per_second": _rate(evaluated, evaluation),
            "peak_memory_mib": environment.peak_memory_mib(workshop.device),
            "trained_parameters": max((s["parameters"] for s in stages), default=0),
        },
        "stages": stages,
    })  # fmt: skip
    store.mark_done(folder)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished cell needs."""
    for checkpoint in folder.glob("resume-*.pt"):
        checkpoint.unlink(missing_ok=True)


def _find(suite: Suite, cell: Cell, progress: Progress) -> None:
    """Load every split: a shift with a fault is refused now, not after hours of fitting."""
    names = tuple(dict.fromkeys((suite.trainer(cell.protocol), *suite.evaluated(cell.protocol))))
    slow = suite.places and not suite.is_loaded(names)
    with (progress if slow else Progress()).bar("find images", len(names), "splits") as advance:
        for name in names:
            suite.split(name)
            advance(1, name)


def _evaluate(
    model: Clip | Family, suite: Suite, cell: Cell, folder: Path, workshop: Workshop, stopped: Callable[[], bool]
) -> tuple[dict[str, Json], Json, int]:
    """Predictions of all candidates on all splits, written split by split; their metrics; what was evaluated on."""

    def check() -> None:
        if stopped():
            raise InterruptedRun("stopped during evaluation")

    results: dict[str, Json] = {}
    digests: Json = {}
    splits = [suite.split(name) for name in suite.evaluated(cell.protocol)]
    candidates = len(model.members) if isinstance(model, Family) else 1
    total = candidates * sum(len(split) for split in splits)
    with workshop.progress.bar("evaluate", total, "images") as advance:
        for split in splits:
            for candidate, predictions in predict(model, split, advance, check, workshop.workers).items():
                store.write_predictions(store.predictions_path(folder, candidate, split.name), predictions)
                results.setdefault(candidate, {}).update(metrics.score_views(split.name, predictions))
            digests[split.name] = _data(suite, split)
    return results, digests, total


def _summary(model: Clip | Family, suite: Suite, cell: Cell, results: dict[str, Json]) -> Json:
    """metrics.json: all numbers, which candidate is the headline, and which one ID validation would choose."""
    default = model.default if isinstance(model, Family) else "final"
    # the first of equals: with alphas, the smallest
    val = suite.selector(cell.protocol)
    by_val = max(results, key=lambda name: results[name][val]["accuracy"])
    evaluated = suite.evaluated(cell.protocol)
    return {
        "version": metrics.VERSION,
        "default": default,
        "id_val": by_val,
        "axis": dict(model.axis) if isinstance(model, Family) else {},
        "splits": {
            "val": val,
            "test": suite.test,
            "shifts": list(suite.shifts),
            "extra": [name for name in evaluated if name not in (val, suite.test, *suite.shifts)],
        },
        "official": {name: suite.metric_of(name) for name in evaluated},
        "views": sorted({name for scores in results.values() for name in scores} - {*evaluated}),
        "shift_groups": {name: list(members) for name, members in suite.shift_groups.items()},
        "clusters": dict(suite.clusters),
        "candidates": results,
    }


class _Log:
    """Appends JSON lines, and knows what the stages of this cell cost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():  # a kill may have cut the last line
            whole = path.read_bytes()
            store.write_bytes(path, whole[: whole.rfind(b"\n") + 1])
        self.ends: dict[str, Json] = {}
        self.parameters: dict[str, int] = {}

    def __call__(self, line: Any) -> None:
        if line["event"] == "start":
            self.parameters[line["stage"]] = line["parameters"]
        if line["event"] == "end":
            self.ends[line["stage"]] = {k: v for k, v in line.items() if k not in ("event", "stage")}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")

    def stages(self) -> list[Json]:
        return [{"stage": name, "parameters": self.parameters[name], **end} for name, end in self.ends.items()]


@contextmanager
def _graceful() -> Generator[Callable[[], bool], None, None]:
    """While this is open, the first Ctrl-C or SIGTERM only sets a flag; a second one ends the process."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _data(suite: Suite, split: Split) -> Json:
    """What the record says of a split: how many images, which, how they were found, and what is not as it should be."""
    found: Json = {"n": len(split), "digest": split.digest}
    if split.layout:
        found |= {"layout": split.layout}
    if problems := suite.count_problems(split):
        found |= {"partial": problems}
    return found


def _labels(suite: Suite) -> Json:
    """What stored labels and groups stand for, where no registered suite says it."""
    found: Json = {"classes": list(suite.classes)} if suite.definition else {}
    if suite.group_names:
        found["group_names"] = {name: list(texts) for name, texts in suite.group_names.items()}
    return {"labels": found} if found else {}


def _suite(cell: Cell, workshop: Workshop) -> Suite:
    asked = workshop.files.get(cell.suite, cell.suite), workshop.root, cell.partial
    suite = _load(*asked)
    if suite.definition != cell.suite_definition:  # or an earlier run of this process left it here
        _load.cache_clear()
        suite = _load(*asked)
    if suite.definition != cell.suite_definition:
        raise RbftError(f"suite '{cell.suite}' has changed since the plan was made; run the command again")
    return suite


@lru_cache(maxsize=2)
def _load(text: str, root: Roots | Path | None, partial: bool) -> Suite:
    return suite_ref.load(text, root, partial)


def _rate(n: int, seconds: float) -> float | None:
    return n / seconds if seconds else None
