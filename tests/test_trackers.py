"""Trackers: each is given the same numbers, and one that fails stops nothing."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner

from robustbench_ft import trackers
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store

LINES = (
    {"event": "start", "stage": "member-0.fit", "step": 0, "of": 2, "parameters": 7},
    {"event": "step", "step": 0, "lr": 0.1, "loss": 2.0, "nll": 2.0},
    {"event": "validate", "step": 1, "val_accuracy": 0.5},
    {"event": "end", "stage": "member-0.fit", "step": 1, "seconds": 1.0},
    {"event": "start", "stage": "fit", "step": 0, "of": 1, "parameters": 7},
    {"event": "step", "step": 0, "lr": 0.2, "loss": 1.0, "nll": 1.0},
    {"event": "teacher", "model": "embedded", "pretrained": "", "weights": "0"},
)
SENT = {
    ("member-0.fit/lr", 0.1, 0), ("member-0.fit/loss", 2.0, 0), ("member-0.fit/nll", 2.0, 0),
    ("member-0.fit/val_accuracy", 0.5, 1), ("fit/lr", 0.2, 0), ("fit/loss", 1.0, 0), ("fit/nll", 1.0, 0),
}  # fmt: skip
RESULTS = {"test/accuracy": 0.7}


def job(out: Path) -> trackers.Job:
    key = "shapes/embedded/ft-12345678/seed-0"
    return trackers.Job("shapes", "ft-12345678", "seed-0", key, {"method": "ft", "seed": 0}, out)


def send(name: str, out: Path) -> list[str]:
    """Send all lines to one tracker; what was said."""
    said: list[str] = []
    with trackers.Sinks([name], job(out), said.append) as sinks:
        for line in LINES:
            sinks(line)
        sinks.results = RESULTS
    return said


def pairs(calls: Iterator[dict[str, float]]) -> set[tuple[str, float, int]]:
    """(name, value, step) of what wandb and trackio are given: a dictionary with the step of its stage in it."""
    found = set[tuple[str, float, int]]()
    for numbers in calls:
        (step,) = (int(value) for name, value in numbers.items() if name.endswith("/step"))
        found |= {(name, value, step) for name, value in numbers.items() if not name.endswith("/step")}
    return found


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a module that remembers every call in the place of a tracker's."""

    def place(name: str) -> MagicMock:
        module = MagicMock(spec=ModuleType(name))
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return place


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert send("tensorboard", tmp_path) == []
    found: Any = EventAccumulator(str(tmp_path / "tensorboard" / "shapes" / "ft-12345678" / "seed-0")).Reload()
    tags = found.Tags()["scalars"]
    read = {(tag, round(event.value, 6), event.step) for tag in tags for event in found.Scalars(tag)}
    assert read == SENT | {("results/test/accuracy", 0.7, 0)}


def test_wandb_is_given_the_same_numbers_each_stage_with_steps_of_its_own(pretend: Any, tmp_path: Path) -> None:
    module = pretend("wandb")
    module.init = MagicMock()
    assert send("wandb", tmp_path) == []
    run = module.init.return_value
    assert pairs(call.args[0] for call in run.log.call_args_list) == SENT
    metrics = {(call.args[0], call.kwargs["step_metric"]) for call in run.define_metric.call_args_list}
    assert metrics == {("member-0.fit/*", "member-0.fit/step"), ("fit/*", "fit/step")}
    run.summary.update.assert_called_once_with(RESULTS)
    run.finish.assert_called_once()
    asked = module.init.call_args.kwargs
    assert (asked["resume"], asked["id"]) == ("allow", "shapes-embedded-ft-12345678-seed-0")  # a cut run goes on


def test_trackio_is_given_the_same_numbers(pretend: Any, tmp_path: Path) -> None:
    module = pretend("trackio")
    module.init = MagicMock()
    assert send("trackio", tmp_path) == []
    *steps, last = [call.args[0] for call in module.init.return_value.log.call_args_list]
    assert pairs(iter(steps)) == SENT
    assert last == {"results/test/accuracy": 0.7}


@pytest.mark.parametrize("again", [False, True])
def test_mlflow_is_given_the_same_numbers_and_goes_on_with_a_run_that_was_cut(
    pretend: Any, tmp_path: Path, again: bool
) -> None:
    module = pretend("mlflow")
    module.MlflowClient = MagicMock()
    client = module.MlflowClient.return_value
    client.search_runs.return_value = [SimpleNamespace(info=SimpleNamespace(run_id="old"))] if again else []
    client.create_run.return_value = SimpleNamespace(info=SimpleNamespace(run_id="new"))
    assert send("mlflow", tmp_path) == []
    calls = client.log_metric.call_args_list
    assert {(call.args[1], call.args[2], call.kwargs["step"]) for call in calls[:-1]} == SENT
    assert {call.args[0] for call in calls} == {"old" if again else "new"}
    assert calls[-1].args[1:] == ("results/test/accuracy", 0.7)
    assert client.create_run.called is not again


def test_a_tracker_that_fails_is_said_once_and_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[tuple[str, int]] = []

    class Failing:
        def log(self, stage: str, numbers: trackers.Numbers, step: int) -> None:
            sent.append((stage, step))
            raise OSError("no\nroute")

        def finish(self, results: trackers.Numbers) -> None:
            raise AssertionError("it was left out")

    kind = trackers.Kind(lambda job: Failing(), "json", "")
    monkeypatch.setattr(trackers, "KINDS", {**trackers.KINDS, "failing": kind})
    assert send("failing", tmp_path) == ["  failing failed and is left out; the run goes on: no route"]
    assert sent == [("member-0.fit", 0)]


def test_unknown_and_missing_trackers_get_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RbftError, match="unknown tracker 'wand': did you mean wandb"):
        trackers.check(["wand"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RbftError, match="--track mlflow: its package is not installed; pip install mlflow"):
        trackers.check(["mlflow"])


def test_a_run_tells_its_trackers_what_it_logs(shelves: None, tiny_model: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asked = ["--suite", "tiny", "--method", "ft", "--model", tiny_model, "--track", "tensorboard", "--set", "steps=3"]
    done = CliRunner().invoke(main, ["run", *asked, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "tensorboard").glob("*/*/*")
    found: Any = EventAccumulator(str(folder)).Reload()
    (record,) = store.find_records([tmp_path])
    lines = [json.loads(line) for line in (record.folder / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "step"]
    assert [event.value for event in found.Scalars("fit/loss")] == pytest.approx(losses, rel=1e-6)
    assert len(losses) == 3
    shown = {tag: found.Scalars(tag)[-1].value for tag in found.Tags()["scalars"] if tag.startswith("results/")}
    for split, scores in record.metrics["candidates"]["final"].items():
        assert shown[f"results/{split}/accuracy"] == pytest.approx(scores["accuracy"], rel=1e-6)
