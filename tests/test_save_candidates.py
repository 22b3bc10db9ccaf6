"""`--save-candidates` keeps every candidate that is weights, and `path` keeps steps of training as candidates."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry
from robustbench_ft.cli.main import main
from robustbench_ft.clip import Clip, load_saved
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Candidates, Method, Run, TrainSet
from robustbench_ft.predict import predict
from robustbench_ft.prompts import Task
from robustbench_ft.record import store
from robustbench_ft.train import InterruptedRun

SUITE = Tiny("tiny")
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), Task(SUITE.classes, SUITE.templates))
LAST = replace(Tiny.recipe, select="last")
RUN = Run(0, torch.device("cpu"))


@pytest.fixture
def fit(tiny_model: str) -> Any:
    """Fit a method on the tiny suite, as the runner does."""

    def fitted(name: str, recipe: Any = LAST, run: Run = RUN, **settings: Any) -> Any:
        kind = registry.load("method", name, Method)
        return kind(recipe=recipe, **settings).fit(clips.load(model_ref.resolve(tiny_model, None)), DATA, run)

    return fitted


def state(model: Clip) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def of(found: Candidates, name: str) -> dict[str, torch.Tensor]:
    model = found.use(name)
    assert isinstance(model, Clip)
    return state(model)


@pytest.mark.parametrize("name", ["path", "ft+path"])
def test_the_last_step_of_the_path_is_ft(name: str, fit: Any) -> None:
    found = fit(name, points=3)
    assert list(found.members) == ["step-2", "step-4", "step-6", "end"]
    assert found.default == "end"
    ft = state(fit("ft"))
    assert same(of(found, "step-6"), ft)
    assert same(of(found, "end"), ft)
    assert not same(of(found, "step-4"), ft)


def test_a_step_of_the_path_is_a_run_that_was_stopped_there(fit: Any, tmp_path: Path) -> None:
    steps = iter((False, False, False, True))
    with pytest.raises(InterruptedRun, match="step 4 of 6"):
        fit("ft", run=replace(RUN, folder=tmp_path, stopped=lambda: next(steps)))
    stopped = torch.load(tmp_path / "resume-fit.pt", weights_only=True)["weights"]
    found = fit("path", points=3)
    at_4 = of(found, "step-4")
    assert all(torch.equal(at_4[name], tensor) for name, tensor in stopped.items())


def test_the_path_of_lipsum_is_lipsums(fit: Any) -> None:
    assert same(of(fit("lipsum+path", points=2), "step-6"), state(fit("lipsum")))
    with pytest.raises(RbftError, match="only a single one has a path"):
        fit("wise-ft+path")


@pytest.mark.parametrize("select", ["last", "best"])
def test_the_path_survives_a_stop(select: str, fit: Any, tmp_path: Path) -> None:
    recipe, steps = replace(Tiny.recipe, select=select), iter((False, False, False, True))
    whole = fit("path", recipe, points=6)
    with pytest.raises(InterruptedRun):
        fit("path", recipe, replace(RUN, folder=tmp_path, stopped=lambda: next(steps)), points=6)
    resumed = fit("path", recipe, replace(RUN, folder=tmp_path), points=6)
    again = fit("path", recipe, replace(RUN, folder=tmp_path), points=6)  # the stage is finished
    assert list(whole.members) == [f"step-{n}" for n in range(1, 7)] + ["end"]
    for found in (resumed, again):
        assert list(found.members) == list(whole.members)
        assert all(same(of(found, name), of(whole, name)) for name in whole.members)


def test_more_points_than_steps_are_all_steps(fit: Any) -> None:
    assert len(fit("path", points=100).members) == 7
    assert registry.load("method", "path", Method)(points=0).problems() == ["points=0 must be at least 1"]  # pyright: ignore


def rbft(*words: str) -> Any:
    return CliRunner().invoke(main, ["run", "--device", "cpu", "--threads", "1", *words])


@pytest.mark.usefixtures("shelves")
def test_candidates_are_kept_and_answer_as_stored(tmp_path: Path, tiny_model: str) -> None:
    words = ("--suite", "tiny", "--model", tiny_model, "--method", "wise-ft", "--out", str(tmp_path))
    assert rbft(*words, "--save-candidates").exit_code == 0
    [record] = store.find_records([tmp_path])
    others = [name for name in record.summary.candidates if name != "alpha-0.5"]
    kept = json.loads((record.folder / "models" / "index.json").read_text())
    assert sorted(kept["weights"]) == sorted(others)
    assert kept["scorers"] == []
    for name in ("alpha-0", "alpha-0.3", "alpha-1"):
        model = load_saved(record.folder / "models" / name)
        assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
        found, stored = predict(model, SUITE.split("dim"))["final"], record.predictions(name, "dim")
        assert (found.prediction == stored.prediction).all()
        assert (found.log_prob == stored.log_prob).all()
    assert (record.folder / "model" / "head.safetensors").is_file()


@pytest.mark.usefixtures("shelves")
def test_what_is_no_weights_is_named_and_not_kept(tmp_path: Path, tiny_model: str) -> None:
    words = ("--suite", "tiny", "--model", tiny_model, "--out", str(tmp_path))
    done = rbft(*words, "--method", "output-ensemble", "--save-candidates")
    assert done.exit_code == 0, done.output
    [record] = store.find_records([tmp_path])
    kept = json.loads((record.folder / "models" / "index.json").read_text())
    assert kept["scorers"]
    assert "not kept, they are more than weights" in done.output
    assert all(not (record.folder / "models" / name).exists() for name in kept["scorers"])


@pytest.mark.usefixtures("shelves")
def test_a_finished_cell_without_them_says_so(tmp_path: Path, tiny_model: str) -> None:
    words = ("--suite", "tiny", "--model", tiny_model, "--method", "wise-ft", "--out", str(tmp_path))
    assert rbft(*words).exit_code == 0
    [record] = store.find_records([tmp_path])
    assert not (record.folder / "models").exists()
    assert "run without --save-candidates; choose another --out" in rbft(*words, "--save-candidates").output
