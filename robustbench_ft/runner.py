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

from . import atomic, cache, doctor, earlier, environment, metrics, provenance, suite_ref
from . import clip as clips
from .compare.rows import by_validation
from .data import Predictions, Split
from .errors import RbftError
from .images.roots import Roots
from .method import Candidates, Method, Run, TrainSet, candidates_of
from .plan import Cell
from .predict import depends_on_others, predict
from .progress import Progress
from .prompts import Task
from .record import store
from .record.store import Json
from .record.summary import SCHEMA, read_summary
from .suite import Suite, sealed
from .train import InterruptedRun

SAMPLE = 64  # images of each split that are predicted again


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
    splits = _find(suite, cell, workshop.progress)
    data = _train_set(suite, cell, splits)
    clip = clips.load(cell.model).to(workshop.device)
    clip.bf16 = cell.precision == "bf16"
    environment.allow_tf32(workshop.device)
    if reason := method.skip(clip, data):
        raise RbftError(f"{cell.method} cannot be run with model '{cell.model.name}': {reason}")
    atomic.sweep(folder)
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
    with sealed():  # until the last prediction: what a method left behind runs during evaluation, too
        model = candidates_of(method.fit(clip, data, run))
        fitted = time.monotonic()
        evaluated = [splits[name] for name in suite.evaluated(cell.protocol)]
        results, sample = _evaluate(model, evaluated, folder, workshop, run)
        evaluation = time.monotonic() - fitted
        transductive = _is_transductive(method, model, evaluated, sample, run)
        if workshop.save_model:
            parent = {"parent": cell.model.weights, "parent_name": cell.model.label}
            note = {**parent, "cell": cell.digest, "seed": cell.seed, "suite": cell.suite}
            model.use(model.default).save(folder / "model", note)
    summary = _summary(model, suite, cell, results)
    store.write_json(folder / "metrics.json", {**summary, **({"transductive": True} if transductive else {})})
    n = len(results) * sum(map(len, evaluated))
    cost = _cost(log.stages(), fitted - began, evaluation, n, workshop.device)
    _write_environment(folder, suite, workshop, [data.train, *evaluated], log.stages(), cost)
    store.mark_done(folder)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished cell needs."""
    for checkpoint in folder.glob("resume-*.pt"):
        checkpoint.unlink(missing_ok=True)


def _write_environment(
    folder: Path, suite: Suite, workshop: Workshop, splits: Sequence[Split], stages: list[Json], cost: Json
) -> None:
    """env.json: what it ran on, on which data (train first), and what it cost."""
    store.write_json(folder / "env.json", {
        "schema": SCHEMA,
        **environment.describe(workshop.device),
        **({"gpu_decode": True} if workshop.gpu_decode else {}),
        "data": {split.name: _data(suite, split) for split in splits},
        "manifest": doctor.for_record(suite, splits),
        **_labels(suite),
        "cost": cost,
        "stages": stages,
    })  # fmt: skip


def _cost(stages: list[Json], fit: float, evaluation: float, evaluated: int, device: torch.device) -> Json:
    """Seconds, images per second and memory of one cell."""
    seconds = sum(s["seconds"] for s in stages)
    return {
        "fit_seconds": seconds or fit,
        "fit_images_per_second": _rate(sum(s["images"] for s in stages), seconds),
        "evaluate_seconds": evaluation,
        "evaluate_images_per_second": _rate(evaluated, evaluation),
        "peak_memory_mib": environment.peak_memory_mib(device),
        "trained_parameters": max((s["parameters"] for s in stages), default=0),
    }


def _find(suite: Suite, cell: Cell, progress: Progress) -> dict[str, Split]:
    """Every split: a shift with a fault is refused now, not after hours of fitting, and later all are sealed."""
    names = tuple(dict.fromkeys((suite.trainer(cell.protocol), *suite.evaluated(cell.protocol))))
    slow = suite.places and not suite.is_loaded(names)
    found: dict[str, Split] = {}
    with (progress if slow else Progress()).bar("find images", len(names), "splits") as advance:
        for name in names:
            found[name] = suite.split(name)
            advance(1, name)
    return found


def _train_set(suite: Suite, cell: Cell, splits: Mapping[str, Split]) -> TrainSet:
    """What `fit` is given."""
    train, val = splits[suite.trainer(cell.protocol)], splits[suite.selector(cell.protocol)]
    return TrainSet(train, val, Task(suite.classes, suite.templates), suite.selection_metric(cell.protocol), suite.name)


def _evaluate(
    model: Candidates, splits: Sequence[Split], folder: Path, workshop: Workshop, run: Run
) -> tuple[dict[str, Json], dict[str, Predictions]]:
    """Predictions of all candidates on all splits, written split by split: their metrics, and those of the default."""

    def check() -> None:
        if run.stopped():
            raise InterruptedRun("stopped during evaluation")

    results: dict[str, Json] = {}
    default: dict[str, Predictions] = {}
    with workshop.progress.bar("evaluate", len(model.members) * sum(map(len, splits)), "images") as advance:
        for split in splits:
            for candidate, predictions in predict(model, split, advance, check, workshop.workers).items():
                store.write_predictions(store.predictions_path(folder, candidate, split.name), predictions)
                results.setdefault(candidate, {}).update(metrics.score_views(split.name, predictions))
                if candidate == model.default:
                    default[split.name] = predictions
    return results, default


def _is_transductive(
    method: Method, model: Candidates, splits: Sequence[Split], before: Mapping[str, Predictions], run: Run
) -> bool:
    """Whether a prediction depends on other test images: declared, or seen on a sample that is predicted again."""
    if method.transductive:
        return True
    for split in splits:
        order = torch.randperm(len(split), generator=run.generator(f"again/{split.name}"))
        if depends_on_others(model, split, before[split.name], order[:SAMPLE].tolist()):
            run.progress.say(
                f"  predictions on {split.name} depend on the other images they are shown with: marked as transductive"
            )
            return True
    return False


def _summary(model: Candidates, suite: Suite, cell: Cell, results: dict[str, Json]) -> Json:
    """metrics.json: all numbers, which candidate is the headline, and which one ID validation would choose."""
    val, metric = suite.selector(cell.protocol), suite.selection_metric(cell.protocol)
    evaluated = suite.evaluated(cell.protocol)
    summary: Json = {
        "schema": SCHEMA,
        "version": metrics.VERSION,
        "default": model.default,
        "axis": dict(model.axis),
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
        "selection_metric": metric,
        "candidates": results,
    }
    return {**summary, "id_val": by_validation(read_summary(summary, Path("metrics.json")))}


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
