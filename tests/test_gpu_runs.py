"""Whole runs on a GPU: beside a CPU's, killed, on two processes, in parts, by NCCL, with files decoded there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import coded
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from robustbench_ft import checks, clip, environment, model_ref, needs, ranks, registry
from robustbench_ft.clip.autocast import allow_tf32
from robustbench_ft.data import ArrayImages, Split
from robustbench_ft.memory import MicroBatch
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.prompts import Task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.usefixtures("shelves"),
]
GPU = torch.device("cuda")
LIPSUM = ("--method", "lipsum", "--suite", "tiny", "--set", "steps=24", "--set", "batch=12", "--seeds", "3")
DRAWN = """
name = "drawn"
title = "Drawn"
version = 1
licence = "MIT"
train = "train"
test = 0.2
val = 0.2
templates = ["a photo of a {}"]
[classes]
red = "red page"
green = "green page"
blue = "blue page"
[shifts]
dim = "dim"
[recipe]
lr = 1e-3
steps = 4
batch = 6
augment = "crop-flip"
"""
VICTIM = """
import os, signal
import robustbench_ft.train.loop as loop
update, calls = loop._State.update, iter(range(10**6))
def last(state):
    if next(calls) == 15:
        state.writer.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    update(state)
loop._State.update = last
"""


def rbft(out: Path, *words: str, prelude: str = "", device: str = "cuda", code: int = 0) -> str:
    """What it says on standard error."""
    whole = ["run", "--out", str(out), "--device", device, "--precision", "fp32", *words]
    script = f"{prelude}\nfrom robustbench_ft.cli import main\nmain({whole})"
    if "--devices" in words:  # the workers are started with the same words
        command = [sys.executable, "-m", "robustbench_ft", *whole]
    else:
        command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def one(out: Path, pattern: str) -> Path:
    [path] = out.rglob(pattern)
    return path


def far(a: Path, b: Path) -> float:
    """Largest difference of two runs' weights, relative to the largest change that training made of any."""
    ours, theirs = (load_file(path) for out in (a, b) for path in [one(out, "model/open_clip_model.safetensors")])
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in ours.items())


def logged(out: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in one(out, "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def probabilities(out: Path) -> "dict[str, Any]":
    return {p.name: pq.read_table(p)["log_prob"].to_numpy() for p in sorted(out.rglob("predictions/final/*.parquet"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shelf_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        earlier = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join((str(shelf_folder), str(Path(__file__).parent), earlier)))
        rbft(out, *LIPSUM)
    return out


def close(a: Path, b: Path) -> None:
    """The same cell up to the order of sums."""
    ours, theirs = probabilities(a), probabilities(b)
    assert ours.keys() == theirs.keys()
    assert len(ours) >= 3
    assert [line["step"] for line in logged(a, "step")] == sorted({line["step"] for line in logged(b, "step")})
    for name, values in ours.items():
        assert np.abs(values - theirs[name]).max() < 0.05, name
    assert far(a, b) < 5e-3  # 24 steps of 1e-3 to 1e-5 each


def test_a_gpu_and_a_cpu_agree(undisturbed: Path, tmp_path: Path) -> None:
    rbft(tmp_path, *LIPSUM, device="cpu")
    close(undisturbed, tmp_path)
    found = json.loads(one(undisturbed, "env.json").read_text())
    assert found["device"] == "cuda"
    assert found["gpu"] == torch.cuda.get_device_name()
    assert found["tf32"] is False
    assert 0 < found["cost"]["peak_memory_mib"] < 2000


def test_a_killed_run_resumes(undisturbed: Path, tmp_path: Path) -> None:
    rbft(tmp_path, *LIPSUM, "--checkpoint-steps", "5", prelude=VICTIM, code=-9)
    said = rbft(tmp_path, *LIPSUM, "--checkpoint-steps", "5")
    assert "resuming at step 15 of 24" in said or logged(tmp_path, "start")[1]["step"] == 15
    close(undisturbed, tmp_path)


@pytest.mark.parametrize("words", [("--devices", "2"), ("--micro-batch", "5"), ("--devices", "2", "--low-memory")])
def test_it_is_cut_without_a_difference(words: tuple[str, ...], undisturbed: Path, tmp_path: Path) -> None:
    """Two processes share the GPU, so they talk by gloo."""
    rbft(tmp_path, *LIPSUM, *words, device="cuda:0")
    close(undisturbed, tmp_path)
    if "--devices" in words:
        assert json.loads(one(tmp_path, "env.json").read_text())["devices"]["world"] == 2


def test_two_jobs_share_a_gpu(undisturbed: Path, tmp_path: Path) -> None:
    rbft(tmp_path, *LIPSUM[:-1], "3-4", "--jobs", "2")
    for path in tmp_path.rglob("seed-3/predictions/final/test.parquet"):
        ours = pq.read_table(path)["log_prob"].to_numpy()
        assert np.abs(ours - probabilities(undisturbed)["test.parquet"]).max() < 0.05
    assert len(list(tmp_path.rglob("done"))) == 2


def test_ranks_talk_by_nccl() -> None:
    """With one rank, as one GPU carries one: what is sent and how it comes back."""
    torch.cuda.set_device(0)
    store: Any = getattr(distributed, "HashStore")()  # noqa: B009 (not in its __all__)
    group = ranks.start(torch.device("cuda:0"), 0, 1, store)
    try:
        assert "nccl" in group.kind
        tensors = [torch.arange(5.0, device=GPU), torch.ones(2, 3, device=GPU)]
        before = [tensor.clone() for tensor in tensors]
        group.sum(tensors)
        assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
        rows = torch.randn(4, 3, device=GPU)
        assert torch.equal(group.gather(rows, [[3, 1, 0, 2]])[[3, 1, 0, 2]], rows)
        assert group.any(True)
        assert not group.any(False)
        assert torch.equal(group.broadcast(rows), rows)
        assert group.collect({"a": 1}) == [{"a": 1}]
        group.check_same({"rows": rows}, "here")
        group.wait()
    finally:
        distributed.destroy_process_group()


def large(batch: int, micro: MicroBatch, seen: list[str] | None = None, **how: Any) -> tuple[Any, list[Any], float]:
    """Two updates of FT on a ViT-B/32: its weights, its log, and MiB at most above what was there before."""
    found, log = clip.load(model_ref.resolve("ViT-B-32", "random")).to(GPU), list[Any]()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (batch, 224, 224, 3)).astype(np.uint8)
    split = Split("train", ArrayImages(pixels), np.arange(batch) % 3, tuple(map(str, range(batch))))
    val = Split("val", ArrayImages(pixels[:2]), np.arange(2), ("a", "b"))
    recipe = checks.RECIPE.__class__(lr=1e-5, steps=2, batch=batch, augment="none", select="last", validate_every=0)
    kind = registry.load("method", "ft", Method)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run = Run(0, GPU, log=log.append, micro_batch=micro, **how)
    kind(recipe=recipe).fit(found, TrainSet(split, val, checks.TASK), run)
    return found.snapshot(), log, (torch.cuda.max_memory_allocated() - before) / 2**20


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    whole, _, _ = large(96, MicroBatch())
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 3.2 * 2**30) / total)
    auto = MicroBatch(auto=True)
    try:
        parts, _, _ = large(96, auto)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 0 < auto.size < 96
    off = sum(float((tensor - parts[name]).double().square().sum()) for name, tensor in whole.items()) ** 0.5
    size = sum(float(tensor.double().square().sum()) for tensor in whole.values()) ** 0.5
    assert off / size < 1e-3


def test_memory_is_about_what_was_counted() -> None:
    """Attention is counted as products of matrices; the fused kernels of a GPU keep less."""
    _, log, peak = large(64, MicroBatch())
    held = log[-1]["memory_mib"]
    counted = 2 * held["gradients"] + held["optimizer"] + 64 * (needs.activations("ViT-B-32") or 0) / 2**20
    assert 0.6 * counted < peak < 1.25 * counted
    _, _, less = large(64, MicroBatch(8))
    assert less < peak - 0.5 * 56 * (needs.activations("ViT-B-32") or 0) / 2**20


def test_zero_shot_heads_are_float32_in_every_precision(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = clip.load(model_ref.resolve(tiny_model, None)).to(GPU)
    heads: list[Any] = []
    for k, precision in enumerate(environment.PRECISIONS):
        monkeypatch.setenv("RBFT_CACHE", f"{os.environ['RBFT_CACHE']}-{k}")
        environment.use(precision, GPU)
        heads.append(found.zero_shot_head(Task(("red page", "blue page"), ("a photo of a {}",))))
    allow_tf32(GPU, False)
    assert all(torch.equal(head, heads[0]) for head in heads)


def test_training_files_are_decoded_on_the_gpu(tiny_model: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for split, n in (("train", 48), ("dim", 9)):
        for k in range(n):
            path = tree / split / ("red", "green", "blue")[k % 3] / f"{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coded.picture(k, side=64).convert("RGB").save(path)
    suite = tree / "suite.toml"
    suite.write_text(DRAWN)
    words = ("--method", "ft", "--model", tiny_model)
    rbft(tmp_path / "cpu", *words, "--suite", str(suite))
    rbft(tmp_path / "gpu", *words, "--suite", str(suite), "--gpu-decode")
    losses = [[line["nll"] for line in logged(tmp_path / where, "step")] for where in ("cpu", "gpu")]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
