"""The seal holds until the last prediction, nothing is drawn under it, and transductive rows are marked."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Tiny

from robustbench_ft import drawing, launch, plan, registry, runner
from robustbench_ft.checks import check_method
from robustbench_ft.errors import FailedError, SealedError
from robustbench_ft.method import Method
from robustbench_ft.progress import Progress
from robustbench_ft.prompts import Task
from robustbench_ft.record import store
from robustbench_ft.suite import sealed

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)


class Spoken(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def run(method: str, model: str, out: Path, **settings: Any) -> tuple[store.Record, list[str]]:
    """The record of one cell on the tiny suite, and what was said."""
    pairs = tuple((key, str(value)) for key, value in settings.items())
    cells = plan.make(plan.Request((method,), ("tiny",), (model,), set=pairs))
    progress = Spoken()
    [folder] = launch.run_cells(cells, runner.RunOptions(out, torch.device("cpu"), progress=progress))
    return store.Record(folder), progress.lines


@pytest.mark.usefixtures("shelves")
@pytest.mark.parametrize("split", ["dim", "test"])
def test_what_a_method_left_behind_runs_under_the_seal(split: str, tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=f"split '{split}' is sealed during fit"):
        run("late", tiny_model, tmp_path, split=split)
    assert not list(tmp_path.rglob("*.parquet"))
    assert len(SUITE.split(split)) > 0  # the seal is open again


@pytest.mark.usefixtures("shelves")
def test_what_a_method_left_behind_may_read_what_fit_may(tiny_model: str, tmp_path: Path) -> None:
    record, _ = run("late", tiny_model, tmp_path, split="val")
    assert set(record.metrics["candidates"]["only"]) == set(SUITE.splits)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: drawing.render("sketch", [0], "own", [0], "hard"),
        lambda: drawing.render("real", [0], "shapes-v1/test", [0], "hard"),
        lambda: drawing.scan_images(np.ones((1, 8, 8)), "own", [0], "inverted"),
    ],
    ids=["shift", "test", "scans"],
)
def test_nothing_is_drawn_during_fit(draw: Any) -> None:
    assert len(draw()) == 1
    with sealed():
        with pytest.raises(SealedError, match=r"drawing '.*is sealed during fit: drawn pictures are what shifts"):
            draw()
        with ThreadPoolExecutor(1) as pool, pytest.raises(SealedError):
            pool.submit(draw).result()


def test_drawn_suites_are_drawn_for_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fit may see is drawn where no cache has it; what it may not is refused."""
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path))
    kind: Any = registry.load("suite", "shapes", object)
    monkeypatch.setattr(kind, "card", replace(kind.card, counts=dict.fromkeys(kind.card.counts, 3)))
    with sealed():
        assert len(kind("shapes").split("val")) == 3
        with pytest.raises(SealedError, match="split 'sketch' is sealed"):
            kind("shapes").load("sketch")


@pytest.mark.usefixtures("shelves")
def test_a_model_that_adapts_to_test_images_is_marked(tiny_model: str, tmp_path: Path) -> None:
    record, said = run("tta", tiny_model, tmp_path)
    assert record.metrics["transductive"] is True
    assert any("depend on the other images they are shown with: marked as transductive" in line for line in said)


@pytest.mark.usefixtures("shelves")
def test_others_are_not(tiny_model: str, tmp_path: Path) -> None:
    for method in ("zero-shot", "wise-ft"):
        record, said = run(method, tiny_model, tmp_path)
        assert "transductive" not in record.metrics
        assert not [line for line in said if "transductive" in line]


@pytest.mark.usefixtures("shelves")
def test_one_that_declares_it_is_marked_unasked(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = registry.load("method", "zero-shot", Method)
    monkeypatch.setattr(kind, "transductive", True)
    record, said = run("zero-shot", tiny_model, tmp_path)
    assert record.metrics["transductive"] is True
    assert not [line for line in said if "transductive" in line]


@pytest.mark.usefixtures("shelves")
def test_the_check_of_methods_finds_it(tiny_model: str) -> None:
    found = {c.name: c for c in check_method(registry.load("method", "tta", Method), tiny_model, TASK)}
    with pytest.raises(AssertionError, match="shown in another order and in other batches, images are predicted other"):
        found["predictions-do-not-depend-on-other-images"].run()
