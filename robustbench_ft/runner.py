"""One cell, start to finish: fit under seal, evaluate once, write the record. Safe to kill at any moment.

A folder with `done` is never run again; one without resumes where its last checkpoint stands.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import atomic, doctor, earlier, environment, failures, metrics, model_ref, provenance, saved, trackers
from . import clip as clips
from .clip import fetched
from .compare.rows import by_validation
from .data import Predictions, Split
from .devices import Devices
from .errors import RbftError
from .memory import MicroBatch
from .method import Candidates, Method, Run, TrainSet, candidates_of
from .plan import Cell
from .predict import depends_on_others, predict
from .progress import Progress
from .prompts import Task
from .record import store
from .record.store import Json
from .record.summary import SCHEMA, read_summary
from .suite import Roles, Suite, sealed
from .train import InterruptedRun

SAMPLE = 64  # images of each split that are predicted again


@dataclass(frozen=True)
class RunOptions:
    """Where and how cells are run. None of it moves a number on one device."""

    out: Path
    device: torch.device
    progress: Progress = field(default_factory=Progress)
    checkpoint_seconds: float = 30.0
    save_model: bool = True
    save_candidates: bool = False  # also the weights of every other candidate, under models/
    workers: int = 0  # threads that decode images; 0: as many as there are cores
    gpu_decode: bool = False  # decode training JPEGs on the GPU
    compiled: bool = False  # train with compiled blocks of the image tower: it moves rounding, and the record says so
    channels_last: bool = False  # store convolutions with channels last: likewise
    changed: earlier.Way = "refuse"  # what to do with records that other code made
    track: tuple[str, ...] = ()  # trackers that are told the numbers of the log
    devices: Devices = field(default_factory=Devices)
    checkpoint_steps: int = 0  # also after every so many steps; 0: by time alone


def check_writable(out: Path) -> None:
    """Make sure that records can be written to `out`, before any work is done and without leaving a trace."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise RbftError(f"cannot write to {out}: {existing} is a file; choose another folder with --out")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise RbftError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error


def run_cell(
    cell: Cell,
    suite: Suite,
    folder: Path,
    options: RunOptions,
    stopped: Callable[[], bool] = lambda: False,
    hold: Callable[[], None] = lambda: None,
) -> None:
    """Fit, evaluate, record. Raises `InterruptedRun` when asked to stop, leaving a folder that resumes.

    All ranks fit and evaluate; the first alone reads and writes the folder. `hold` is called before the first write and
    before the last: it raises where this worker holds the cell no more.
    """
    first = options.devices.ranks.first
    if first:
        earlier.check_same(cell, folder)
    method, roles = cell.build(), suite.under(cell.protocol)
    splits = _find(suite, roles, options.progress)
    task = Task(suite.classes, suite.templates)
    data = TrainSet(splits[roles.train], splits[roles.select], task, roles.metric, suite.name)
    model_ref.check_unchanged(cell.model)
    clip = clips.load(cell.model).to(options.device)
    clip.precision = cell.precision
    clip.make_faster(options.compiled, options.channels_last)
    environment.use(cell.precision, options.device)
    if reason := method.skip(clip, data):
        raise RbftError(f"{cell.method} cannot be run with model '{cell.model.name}': {reason}")
    options.devices.prepare(clip)
    sinks = trackers.Sinks(options.track if first else (), _job(cell, options), options.progress.say)
    if first:
        hold()
        atomic.sweep(folder)
        record = {**cell.to_json(), "code": provenance.code_of(type(method)).to_json()}
        store.write_json(folder / "cell.json", record)  # all that can be asked wrongly has been loaded by now
    log = _Log(folder / "log.jsonl", sinks) if first else _Heard()
    run = Run(
        cell.seed, options.device, cell.precision, folder if first else None, options.progress, log,
        options.checkpoint_seconds, stopped, options.workers, options.gpu_decode, ranks=options.devices.ranks,
        separable=method.separable, micro_batch=options.devices.micro_batch_of(cell),
        low_memory=options.devices.low_memory, checkpoint_steps=options.checkpoint_steps,
    )  # fmt: skip
    if options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(options.device)
    began = time.monotonic()
    # sealed until the last prediction: what a method left behind runs during evaluation, too
    with sinks, failures.named(cell.method, cell.recipe), sealed():
        model = candidates_of(method.fit(clip, data, run))
        fitted = time.monotonic()
        options.devices.check(model)
        evaluated = [splits[name] for name in roles.evaluate]
        results, sample = _evaluate(model, evaluated, folder, options, run)
        evaluation = time.monotonic() - fitted
        if not first:
            return options.devices.ranks.wait()  # until the first has written the record
        transductive = _is_transductive(method, model, evaluated, sample, run)
        _save_models(model, cell, folder, options)
        sinks.results = _results(results[model.default])
    summary = _summary(model, suite, roles, results)
    store.write_json(folder / "metrics.json", {**summary, **({"transductive": True} if transductive else {})})
    n = len(results) * sum(map(len, evaluated))
    cost = _cost(log.stages(), fitted - began, evaluation, n, options.device) | {"passes": type(method).passes}
    weights = fetched.for_record(cell.model)
    _write_environment(folder, suite, options, [data.train, *evaluated], log.stages(), cost, run.micro_batch, weights)
    hold()
    store.mark_done(folder)
    tidy(folder)
    options.devices.ranks.wait()
    return None


def _save_models(model: Candidates, cell: Cell, folder: Path, options: RunOptions) -> None:
    """The default into `model/`, the weights of every other candidate into `models/<candidate>/`, as far as asked for.

    `models/index.json` says which candidates are weights, and which answer with more than weights and are not kept. It
    is written last.
    """
    parent = {"parent": cell.model.weights, "parent_name": cell.model.label}
    note = {**parent, "cell": cell.digest, "seed": cell.seed, "suite": cell.suite}
    if options.save_candidates:
        kept: dict[str, list[str]] = {"weights": [], "scorers": []}
        for name in model.members:
            if name == model.default:
                continue
            made = model.use(name)
            kept["weights" if isinstance(made, clips.Clip) else "scorers"].append(name)
            if isinstance(made, clips.Clip):
                made.save(folder / store.MODELS / name, {**note, "candidate": name})
        if kept["scorers"]:
            options.progress.say(f"  not kept, they are more than weights: {', '.join(kept['scorers'])}")
        store.write_json(folder / store.MODELS / store.INDEX, {"schema": SCHEMA, **kept})
    if options.save_model:
        saved.write(model.use(model.default), folder / "model", cell.method, note)


def tidy(folder: Path) -> None:
    """Remove what only an unfinished cell needs."""
    for checkpoint in folder.glob("resume-*.pt"):
        checkpoint.unlink(missing_ok=True)


def _write_environment(
    folder: Path,
    suite: Suite,
    options: RunOptions,
    splits: Sequence[Split],
    stages: list[Json],
    cost: Json,
    micro_batch: MicroBatch,
    weights: Json,
) -> None:
    """env.json: what it ran on, on which data (train first), and what it cost."""
    store.write_json(folder / "env.json", {
        "schema": SCHEMA,
        **environment.describe(options.device),
        **{name: True for name in ("gpu_decode", "compiled", "channels_last") if getattr(options, name)},
        **options.devices.for_record(micro_batch),
        "data": {split.name: _data(suite, split) for split in splits},
        "manifest": doctor.for_record(suite, splits),
        **_labels(suite),
        **weights,
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
        "waiting": _rate(sum(s.get("waiting", 0.0) for s in stages), seconds),
        "trained_parameters": max((s["parameters"] for s in stages), default=0),
    }


def _find(suite: Suite, roles: Roles, progress: Progress) -> dict[str, Split]:
    """Every split: a shift with a fault is refused now, not after hours of fitting, and later all are sealed."""
    names = tuple(dict.fromkeys((roles.train, *roles.evaluate)))
    slow = suite.places and not suite.is_loaded(names)
    found: dict[str, Split] = {}
    with (progress if slow else Progress()).bar("find images", len(names), "splits") as advance:
        for name in names:
            found[name] = suite.split(name)
            advance(1, name)
    return found


def _evaluate(
    model: Candidates, splits: Sequence[Split], folder: Path, options: RunOptions, run: Run
) -> tuple[dict[str, Json], dict[str, Predictions]]:
    """Predictions of all candidates on all splits, written split by split: their metrics, and those of the default."""

    def check() -> None:
        if run.stopped():
            raise InterruptedRun("stopped during evaluation")

    results: dict[str, Json] = {}
    default: dict[str, Predictions] = {}
    with options.progress.bar("evaluate", len(model.members) * sum(map(len, splits)), "images") as advance:
        for split in splits:
            for candidate, predictions in predict(
                model, split, advance, check, options.workers, options.devices.ranks
            ).items():
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


def _summary(model: Candidates, suite: Suite, roles: Roles, results: dict[str, Json]) -> Json:
    """metrics.json: all numbers, which candidate is the headline, and which one ID validation would choose."""
    summary: Json = {
        "schema": SCHEMA,
        "version": metrics.VERSION,
        "default": model.default,
        "axis": dict(model.axis),
        "splits": {
            "val": roles.select,
            "test": suite.test,
            "shifts": list(suite.shifts),
            "extra": [name for name in roles.evaluate if name not in (roles.select, suite.test, *suite.shifts)],
        },
        "official": {name: suite.metric_of(name) for name in roles.evaluate},
        "views": sorted({name for scores in results.values() for name in scores} - {*roles.evaluate}),
        "shift_groups": {name: list(members) for name, members in suite.shift_groups.items()},
        "clusters": dict(suite.clusters),
        "selection_metric": roles.metric,
        "candidates": results,
    }
    if suite.relative_errors:
        summary["relative_errors"] = {name: dict(errors) for name, errors in suite.relative_errors.items()}
    if suite.gaps:
        summary["gaps"] = {name: list(views) for name, views in suite.gaps.items()}
    return {**summary, "id_val": by_validation(read_summary(summary, Path("metrics.json")))}


def _job(cell: Cell, options: RunOptions) -> trackers.Job:
    """What trackers show this cell as."""
    return trackers.Job(
        cell.suite, f"{cell.method}-{cell.digest[:8]}", f"seed-{cell.seed}", cell.folder.as_posix(), cell.to_json(),
        options.out,
    )  # fmt: skip


class _Heard:
    """The log of a rank that writes none."""

    def __call__(self, line: Any) -> None:
        pass

    def stages(self) -> list[Json]:
        return []


def _results(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """'split/metric' -> value, of the metrics that are single numbers."""
    return {
        f"{split}/{name}": float(value)
        for split, metrics_of in scores.items()
        for name, value in metrics_of.items()
        if isinstance(value, int | float)
    }


class _Log:
    """Appends JSON lines, passes them on, and knows what the stages of this cell cost."""

    def __init__(self, path: Path, sinks: trackers.Sinks) -> None:
        self.path, self.sinks = path, sinks
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
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")
        except OSError as error:
            raise RbftError(f"cannot write {self.path}: {error.strerror}; {store.HINT}") from error
        self.sinks(line)

    def stages(self) -> list[Json]:
        return [{"stage": name, "parameters": self.parameters[name], **end} for name, end in self.ends.items()]


def _data(suite: Suite, split: Split) -> Json:
    """What the record says of a split: how many images, which, how they were found, and what is not as it should be."""
    found: Json = {"n": len(split), "digest": split.digest}
    if split.layout:
        found |= {"layout": split.layout}
    if suite.shots and split.name in (suite.train, suite.val):
        found |= {"ids": list(split.ids)}  # the list that was drawn
    if problems := suite.problems_of(split):
        found |= {"partial": problems}
    return found


def _labels(suite: Suite) -> Json:
    """What stored labels and groups stand for, where no registered suite says it."""
    found: Json = {"classes": list(suite.classes)} if suite.definition else {}
    if suite.group_names:
        found["group_names"] = {name: list(texts) for name, texts in suite.group_names.items()}
    return {"labels": found} if found else {}


def _rate(n: int, seconds: float) -> float | None:
    return n / seconds if seconds else None
