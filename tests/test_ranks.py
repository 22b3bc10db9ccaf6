"""Several processes for one cell, parts of a batch, and what saves memory: equal to one process and the whole batch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ranks as script
import torch
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import distributed, memory, model_ref
from robustbench_ft.clip import Clip
from robustbench_ft.errors import DiedError, RbftError
from robustbench_ft.memory import MicroBatch
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.prompts import Task
from robustbench_ft.ranks import Ranks, UnequalRanksError, buckets, checksums
from robustbench_ft.train import Batch, ImageBatches, LossTerms, backward, train
from robustbench_ft.train.sums import GradientSums

SUITE = Tiny("tiny")
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), Task(SUITE.classes, SUITE.templates))
RUN = Run(0, torch.device("cpu"))
FT: Any = import_module("robustbench_ft.methods.ft").FT
FEW = ("ft", "flyp", "tpgm", "saft")


def load(model: str) -> Clip:
    found = clips.load(model_ref.resolve(model, None))
    found.start_from_zero_shot(DATA.task)
    found.train_only("image", "head")
    return found


def rbft(*words: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "robustbench_ft", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def cell(*words: str) -> tuple[str, ...]:
    return ("run", "--suite", "digits", "--device", "cpu", "--no-save-model", *words)


def test_gradients_and_weights_of_two_and_three_processes_are_those_of_one(tmp_path: Path) -> None:
    """A few methods: a mean, a contrastive loss, one with batches of its own, one that sums gradients before."""
    script.run(FEW, tmp_path)
    for row in script.rows(FEW, tmp_path):
        for key in script.CELLS:
            gradients, weights = row[key]
            assert gradients < 5e-6, (row["name"], key)
            assert weights < 2e-3, (row["name"], key)


def test_evaluation_of_two_processes_writes_the_same_bytes(tmp_path: Path) -> None:
    for n in (1, 2):
        with rbft(*cell("--method", "zero-shot", "--devices", str(n), "--out", str(tmp_path / str(n)))) as process:
            _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    one, two = (sorted((tmp_path / str(n)).rglob("*.parquet")) for n in (1, 2))
    assert len(one) == len(two) > 3
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    environment = json.loads(next((tmp_path / "2").rglob("env.json")).read_text())
    assert environment["devices"] == {"world": 2, "backend": "gloo"}


def steps(out: Path) -> int:
    return sum(path.read_text().count('"event": "step"') for path in out.rglob("log.jsonl"))


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 200
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.2)


def workers_of(parent: int) -> list[int]:
    found = [path for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    fields = [path.read_text().rpartition(")")[2].split() for path in found]
    return [int(path.parent.name) for path, field in zip(found, fields, strict=True) if int(field[1]) == parent]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_killed_rank_ends_all_with_one_line_and_the_cell_resumes_on_one_device(tmp_path: Path) -> None:
    words = cell(
        "--method", "ft", "--set", "steps=40", "--set", "batch=16", "--checkpoint-seconds", "0", "--out", str(tmp_path)
    )
    process = rbft(*words, "--devices", "2")
    until(lambda: steps(tmp_path) >= 3 or process.poll() is not None)
    os.kill(max(workers_of(process.pid)), signal.SIGKILL)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 1
    [line] = [line for line in stderr.splitlines() if line.startswith("rbft:")]
    assert "was ended by SIGKILL" in line
    assert "Traceback" not in stderr
    again = rbft(*words)
    _, stderr = again.communicate(timeout=300)
    assert again.returncode == 0
    assert "resuming at step" in stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--method", "zero-shot", "--micro-batch", "all"), "--micro-batch all: give a number"),
        (("--method", "zero-shot", "--set", "steps=2"), "unknown setting 'steps'"),
    ],
)
def test_what_a_user_can_mend_is_said_once(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    process = rbft(*cell(*words, "--devices", "2", "--out", str(tmp_path)))
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 2
    assert [says in line for line in stderr.splitlines() if "rbft:" in line] == [True]


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ({0: 2, 1: -15}, 2),  # the launcher ended the second
        ({0: 2, 1: 3}, 2),
        ({0: 130, 1: 130}, 130),
        ({0: -15, 1: -9}, "rank 1 of 2 was ended by SIGKILL"),
        ({0: 3, 1: -9}, "rank 1 of 2 was ended by SIGKILL"),
        ({0: 3, 1: -15}, "rank 1 of 2 was ended by SIGTERM"),
        ({1: 3}, "one of 2 ranks ended"),
    ],
)
def test_what_became_of_all_follows_from_what_became_of_each(codes: dict[int, int], says: int | str) -> None:
    if isinstance(says, int):
        assert distributed._verdict(codes, 2) == says  # pyright: ignore
    else:
        with pytest.raises(DiedError, match=says):
            distributed._verdict(codes, 2)  # pyright: ignore


def test_places_that_torchrun_and_srun_give() -> None:
    assert distributed.place({}) is None
    assert distributed.place({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None  # a batch script, outside srun
    torchrun = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    with pytest.raises(RbftError, match="MASTER_ADDR, MASTER_PORT"):
        distributed.place(torchrun)
    found = distributed.place(torchrun | {"MASTER_ADDR": "a", "MASTER_PORT": "7"})
    assert found == distributed.Place(3, 4, 1, 2, "a", 7, False)
    srun = {
        "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
        "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "1", "SLURM_STEP_ID": "2",
    }  # fmt: skip
    assert distributed.place(srun) == distributed.Place(5, 8, 1, 4, "gpu07", distributed.PORTS[18], False)


@pytest.mark.parametrize(
    ("nodes", "first"), [("a", "a"), ("a,b", "a"), ("n[3,5]", "n3"), ("n[03-07]-x,m", "n03-x"), ("r1-n[2-3]", "r1-n2")]
)
def test_first_node(nodes: str, first: str) -> None:
    assert distributed.first_node(nodes) == first


class Two(Ranks):
    """Rank 0 of two, the other of which has the same gradients: a sum is twice what is given."""

    world = 2

    def begin_sum(self, tensor: torch.Tensor) -> Callable[[], object]:
        tensor.mul_(2)
        return lambda: None


def test_a_gradient_that_comes_after_its_bucket_was_summed_is_summed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustbench_ft.train.sums.buckets", lambda tensors: buckets(tensors, size=1))
    a, b, c = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    loss = torch.zeros(())
    with GradientSums([a, b, c], Two()) as sums:
        for step in range(3):
            for p in (a, b, c):
                p.grad = None
            sums.arm()
            ((a + (b if step == 1 else 0)) * (step + 1)).sum().backward()  # b has a gradient in step 1 alone
            sums.finish([loss])
            assert torch.equal(a.grad, torch.full((3,), 2.0 * (step + 1)))  # pyright: ignore
            assert (b.grad is not None) == (step == 1)
            assert c.grad is None  # no optimiser moves what has no gradient
            if b.grad is not None:
                assert torch.equal(b.grad, torch.full((3,), 4.0))


def test_checksums_see_one_bit() -> None:
    tensors = [torch.randn(5), torch.arange(3), torch.randn(2, 2, dtype=torch.bfloat16)]
    before = checksums(tensors)
    assert torch.equal(before, checksums(tensors))
    tensors[0].view(torch.int32)[3] += 1
    assert (before != checksums(tensors)).tolist() == [True, False, False]
    assert issubclass(UnequalRanksError, RbftError)


@pytest.mark.parametrize("separable", [True, False])
def test_auto_halves_until_it_fits_and_remembers(separable: bool, tiny_model: str) -> None:
    """The gradients are those of the whole batch, and dropout has drawn nothing twice."""
    clip, sizes = load(tiny_model), list[int]()
    batch = ImageBatches(clip, DATA).batch(clip, list(range(8)), 1, Tiny.recipe, RUN)

    def objective(part: Batch) -> LossTerms:
        rows = part.by_rows(encode, part.images)
        return {"nll": torch.nn.functional.cross_entropy(clip.classify(rows), part.labels)}

    def encode(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clip.encode_image(images)

    run = replace(RUN, micro_batch=MicroBatch(auto=True), separable=separable)
    backward(objective, batch, 0, run, clip.zero_grad)
    found = [p.grad.clone() for p in clip.parameters() if p.grad is not None]
    assert run.micro_batch.size == 2
    assert sizes[:3] == [8, 4, 2]
    sizes.clear()
    backward(objective, batch, 0, run, clip.zero_grad)
    assert set(sizes) == {2}
    clip.zero_grad()
    torch.nn.functional.cross_entropy(clip.logits(batch.images), batch.labels).backward()
    whole = [p.grad for p in clip.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, whole, strict=True))


def test_auto_gives_up_in_one_line_where_one_example_is_too_much(tiny_model: str) -> None:
    def objective(part: Batch) -> LossTerms:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")

    clip = load(tiny_model)
    batch = ImageBatches(clip, DATA).batch(clip, list(range(8)), 1, Tiny.recipe, RUN)
    with pytest.raises(RbftError, match="one example does not fit"):
        backward(objective, batch, 0, replace(RUN, micro_batch=MicroBatch(auto=True)))


def test_both_passes_of_gradient_caching_draw_the_same_dropout(tiny_model: str) -> None:
    clip, seen = load(tiny_model), list[torch.Tensor]()
    batch = ImageBatches(clip, DATA).batch(clip, list(range(8)), 1, Tiny.recipe, RUN)

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.append(torch.nn.functional.dropout(torch.ones(4), 0.5))
        return clip.encode_image(images)

    def objective(part: Batch) -> LossTerms:
        return {"sum": part.by_rows(encode, part.images).sum()}

    backward(objective, batch, 4, replace(RUN, separable=False))
    assert len(seen) == 4
    assert torch.equal(torch.stack(seen[:2]), torch.stack(seen[2:]))
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("bf16", [False, True])
def test_computing_activations_again_gives_the_same_gradients(bf16: bool, tiny_model: str) -> None:
    found: list[list[torch.Tensor]] = []
    for again in (False, True):
        clip = load(tiny_model)
        clip.bf16 = bf16
        if again:
            clip.checkpoint_gradients()
        clip.train()
        batch = ImageBatches(clip, DATA).batch(clip, list(range(8)), 1, Tiny.recipe, RUN)
        backward(FT(recipe=Tiny.recipe).objective(clip, DATA, RUN), batch, 0, RUN)
        found.append([p.grad for p in clip.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_low_memory_changes_no_weight(tiny_model: str) -> None:
    recipe = replace(Tiny.recipe, select="best")
    states = []
    for low in (False, True):
        clip, run = load(tiny_model), replace(RUN, low_memory=low)
        states.append(train(clip, DATA, FT(recipe=recipe).objective(clip, DATA, run), recipe, run).state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_moments_are_moved_and_step_counts_are_not() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([p])
    p.grad = torch.ones(3)
    optimizer.step()
    memory.move_state(optimizer, home=False)
    state = optimizer.state[p]
    assert {name: value.device.type for name, value in state.items()} == dict.fromkeys(state, "cpu")
    elsewhere: Any = SimpleNamespace(state={p.to("meta"): state})
    memory.move_state(elsewhere, home=True)
    assert {name for name, value in state.items() if value.device.type == "meta"} == {"exp_avg", "exp_avg_sq"}
