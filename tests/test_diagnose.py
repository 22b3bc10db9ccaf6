"""Diagnostics of saved models: measures are what their formulas say, and correlations are over the right models."""

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from tiny import Tiny

import robustbench_ft as rb
from robustbench_ft import clip as clips
from robustbench_ft import metrics, model_ref, registry
from robustbench_ft.cli.main import main
from robustbench_ft.clip import Clip, load_saved
from robustbench_ft.data import Split
from robustbench_ft.diagnose import correlate, measure, points, report
from robustbench_ft.diagnose.measure import Ask, Sample
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.predict import of_logits
from robustbench_ft.prompts import Task
from robustbench_ft.record.store import Record, find_records
from robustbench_ft.stats.streams import generator
from robustbench_ft.train import ImageBatches

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
SPLITS = ("test", "dim", "noisy")
N, M = 20, 30


@pytest.fixture(scope="module", autouse=True)
def shelf(shelf_folder: Path) -> Iterator[None]:
    """The suites `tiny` and `spaced` are registered, for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shelf_folder)
        patch.syspath_prepend(Path(__file__).parent)
        registry.entries.cache_clear()
        yield
    registry.entries.cache_clear()


def rbft(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def fit(out: Path, model: str, *words: str) -> Path:
    done = rbft(
        "run", "--suite", "tiny", "--model", model, "--device", "cpu", "--threads", "1", "--out", str(out), *words
    )
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Path:
    """Five methods and zero-shot, two seeds, with all candidates."""
    names = ("zero-shot", "ft", "lipsum", "flyp", "wise-ft", "ft+path")
    methods = [word for name in names for word in ("--method", name)]
    more = ("--save-candidates", "--seeds", "0-1", "--set", "points=2", "--set", "alpha=0.5")
    return fit(tmp_path_factory.mktemp("diagnose"), tiny_model, *methods, *more)


@pytest.fixture(scope="module")
def found(runs: Path) -> points.Diagnosis:
    [one] = rb.diagnose(rb.load(runs), images=N, texts=M, forget="spaced", device="cpu", progress=False)
    return one


@pytest.fixture
def clip(tiny_model: str) -> Clip:
    model = clips.load(model_ref.resolve(tiny_model, None)).eval()
    model.start_from_zero_shot(TASK)
    return model


def record(runs: Path, method: str, seed: int = 0) -> Record:
    return next(r for r in find_records([runs]) if r.config.method == method and r.seed == seed)


def point(found: points.Diagnosis, method: str, candidate: str = "final", seed: int = 0) -> points.Point:
    return next(p for p in found.points if (p.method, p.candidate, p.seed) == (method, candidate, seed))


def by_hand(model: Clip, zero_shot: Clip, name: str) -> dict[str, float]:
    """Every measure on one split, written out."""
    split = SUITE.split(name)
    rows = np.sort(generator("diagnose", "tiny", SUITE.version, name).choice(len(split), N, replace=False))
    seed = int(generator("diagnose", "texts").integers(2**62))
    tokens = zero_shot.random_tokens(M, 8, torch.Generator().manual_seed(seed))
    images = (
        torch.from_numpy(np.stack([np.array(split.images.read([int(k)])[0]) for k in rows])).permute(0, 3, 1, 2) / 255
    )
    with torch.no_grad():
        raw, raw0 = ((net.model.encode_image((images - 0.5) / 0.5)).numpy() for net in (model, zero_shot))
        g, g0 = (net.encode_text(tokens).numpy() for net in (model, zero_shot))
    s, s0 = (float(net.model.logit_scale.exp()) for net in (model, zero_shot))
    distances, raws, gaps, scaled = [], [], [], []
    for f, f0 in zip(raw, raw0, strict=True):
        raws.append(math.dist(f, f0))
        f, f0 = f / np.linalg.norm(f), f0 / np.linalg.norm(f0)
        distances.append(math.dist(f, f0))
        for t, t0 in zip(g, g0, strict=True):
            gaps.append((float(t @ f) - float(t0 @ f0)) ** 2)
            scaled.append((s * float(t @ f) - s0 * float(t0 @ f0)) ** 2)
    return {
        "distortion": float(np.mean(distances)), "distortion_squared": float(np.mean(np.square(distances))),
        "raw_distortion": float(np.mean(raws)), "raw_distortion_squared": float(np.mean(np.square(raws))),
        "energy_gap": float(np.mean(gaps)), "energy_gap_scaled": float(np.mean(scaled)),
    }  # fmt: skip


@pytest.mark.parametrize("method", ["ft", "flyp", "lipsum"])
def test_measures_are_what_their_formulas_say(method: str, found: points.Diagnosis, runs: Path, clip: Clip) -> None:
    model = load_saved(record(runs, method).folder / "model")
    expected, measured = by_hand(model, clip, "noisy"), point(found, method).measures["noisy"]
    for name, value in expected.items():
        assert value > 0
        assert getattr(measured, name) == pytest.approx(value, rel=1e-3), name
    assert measured.images == N


def test_flyp_answers_with_its_own_text_tower_and_scale(found: points.Diagnosis, runs: Path, clip: Clip) -> None:
    model = load_saved(record(runs, "flyp").folder / "model")
    frozen = by_hand(model, model, "dim")  # image tower and texts of FLYP on both sides
    assert frozen["energy_gap"] == 0
    mixed = clips.load_saved(record(runs, "flyp").folder / "model")
    mixed.encode_text = clip.encode_text  # type: ignore[method-assign]
    wrong = by_hand(mixed, clip, "dim")["energy_gap"]
    assert point(found, "flyp").measures["dim"].energy_gap != pytest.approx(wrong, rel=1e-3)


def test_zero_shot_has_not_moved(found: points.Diagnosis) -> None:
    for one in (point(found, "zero-shot"), *(point(found, "wise-ft", "alpha-0", seed) for seed in (0, 1))):
        for measured in one.measures.values():
            assert measured == points.Measures(N, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        assert found.forgetting is not None
        assert one.remembered == found.forgetting.before
        assert one.scores == found.zero_shot


def test_the_energy_gap_is_lipsums_penalty(clip: Clip) -> None:
    """The penalty is strength * mean of (v - v0)^2 / 2, with the scale in v."""
    kind: Any = registry.load("method", "lipsum", Method)
    method = kind(recipe=Tiny.recipe, strength=1.0, n_texts=M)
    data, run = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK), Run(0, torch.device("cpu"))
    before = clip.frozen_copy()
    clip.train_only("image", "head")
    objective = method.objective(clip, data, run)
    with torch.no_grad():
        for p in clip.model.visual.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=run.generator("nudge")))
    before = clips.load(model_ref.resolve(f"local-dir:{Path(clip.files['vocab.txt']).parent}", None)).eval()
    recipe = replace(Tiny.recipe, augment="none")
    rows = list(range(12))
    penalty = objective(ImageBatches(clip, data).batch(clip, rows, 3, recipe, run))["energy_gap"].item()
    part = data.train.take(np.array(rows))
    loader = Loader(before, part)
    sample, tokens = Sample(part, loader, loader.read(rows)), method.texts(clip, run, 3)
    views = [measure.view(model, sample, measure.embed(model, tokens)) for model in (before, clip.eval())]
    measured = measure.measures(*views)
    assert measured.energy_gap == pytest.approx(2 * penalty / before.scale.item() ** 2, rel=1e-4)
    assert measured.energy_gap_scaled == pytest.approx(2 * penalty, rel=1e-4)
    assert penalty > 0


def test_accuracies_are_the_stored_ones_and_changes_go_from_zero_shot(found: points.Diagnosis, runs: Path) -> None:
    for name in ("dim", "noisy", "test"):
        stored = record(runs, "wise-ft", 1).predictions("alpha-0.3", name)
        assert point(found, "wise-ft", "alpha-0.3", 1).scores[name] == metrics.accuracy(stored)
    row = next(r for r in report.rows(found) if r["row"] == "lipsum" and r["seed"] == 1)
    assert found.zero_shot is not None
    zero = (found.zero_shot["dim"] + found.zero_shot["noisy"]) / 2
    assert row["change"] == pytest.approx(row["mean OOD"] - zero)
    gaps = [point(found, "lipsum", seed=1).measures[split].energy_gap for split in ("dim", "noisy")]
    assert row["energy gap"] == pytest.approx((gaps[0] + gaps[1]) / 2)  # type: ignore[operator]


def test_forgetting_is_zero_shot_accuracy_with_a_head_of_the_own_text_tower(
    found: points.Diagnosis, runs: Path
) -> None:
    from spaced import Spaced

    suite = Spaced("spaced")
    split = suite.split("test")
    rows = np.sort(generator("diagnose", "spaced", suite.version, "test").choice(len(split), N, replace=False))
    told = found.forgetting
    assert told is not None
    assert (told.suite, told.split, told.metric, told.images) == ("spaced", "test", "macro_f1", N)
    for method in ("ft", "flyp"):
        model = load_saved(record(runs, method).folder / "model")
        head = torch.stack([
            F.normalize(model.encode_text(model.tokenize([t.format(name) for t in suite.templates])).mean(0), dim=-1)
            for name in suite.classes
        ])  # fmt: skip
        part = split.take(rows)
        loader = Loader(model, part)
        features = model.encode_image(loader.normalise(loader.read(range(N))))
        after = metrics.macro_f1(of_logits(part, (features @ head.T).detach()))
        assert point(found, method).remembered == pytest.approx(after)


def test_correlations_are_over_the_models_of_a_seed(found: points.Diagnosis) -> None:
    models = correlate.models_of_seeds(found)
    names = [(p.method, p.candidate) for p in models[0]]
    assert ("zero-shot", "final") not in names
    assert ("wise-ft", "alpha-0") not in names  # it is zero-shot
    assert ("wise-ft", "alpha-1") not in names  # it is ft
    assert len({p.numbers() for p in models[0]}) == len(names)
    every = correlate.correlations(found)
    for seed in (0, 1):
        gap = [p.mean("energy_gap", found.shifts) or 0.0 for p in models[seed]]
        moved = [p.mean("distortion", found.shifts) or 0.0 for p in models[seed]]
        ood = [p.score(found.shifts) for p in models[seed]]
        rho, other = (float(scipy.stats.spearmanr(values, ood).statistic) for values in (gap, moved))
        assert every.measures["energy_gap"].by_seed[seed] == pytest.approx(rho)
        assert every.difference is not None
        assert every.difference.by_seed[seed] == pytest.approx(rho - other)


def test_headline_models_and_kinds_of_shift_are_ranked_apart(found: points.Diagnosis) -> None:
    assert found.groups == {}
    one = replace(found, groups={"dark": ("dim",)})
    every = correlate.scopes(one)
    assert every.headlines is not None
    some = correlate.models_of_seeds(one, headlines=True)[1]
    assert [p.method for p in some] == ["flyp", "ft", "lipsum", "wise-ft"]  # the end of ft+path is ft
    ood = [p.score(found.shifts) for p in some]
    gaps = [p.mean("energy_gap", found.shifts) or 0.0 for p in some]
    rho = float(scipy.stats.spearmanr(gaps, ood).statistic)
    assert every.headlines.measures["energy_gap"].by_seed[1] == pytest.approx(rho)
    models = correlate.models_of_seeds(one)[0]
    moved, accuracy = [p.measures["dim"].distortion for p in models], [p.scores["dim"] for p in models]
    rho = float(scipy.stats.spearmanr(moved, accuracy).statistic)
    assert every.groups["dark"].measures["distortion"].by_seed[0] == pytest.approx(rho)
    assert "The same by kind of shift" in report.markdown(one)
    assert "headline models only" in report.markdown(one)


def test_one_seed_has_no_interval_and_says_so(runs: Path) -> None:
    [one] = rb.diagnose(rb.load(runs).of(seed=0), images=4, texts=4, device="cpu", progress=False)
    text = report.markdown(one)
    assert "One seed: no interval, run more with --seeds." in text
    over = correlate.correlations(one).measures["distortion"].over_seeds
    assert over is None or over.low is None


def test_images_and_texts_are_the_same_every_time(found: points.Diagnosis, runs: Path) -> None:
    [again] = rb.diagnose(rb.load(runs).of(method="ft", seed=0), images=N, texts=M, device="cpu", progress=False)
    assert point(again, "ft").measures == point(found, "ft").measures
    [all_of_it] = rb.diagnose(rb.load(runs).of(method="ft", seed=0), images=999, texts=M, device="cpu", progress=False)
    assert all_of_it.images == {"test": 36, "dim": 30, "noisy": 30}


def test_the_candidates_stand_in_order(found: points.Diagnosis) -> None:
    rows = list(found.rows)
    alphas = [row for row in rows if row.startswith("wise-ft")]
    assert [row.rpartition("=")[2].rstrip(")") for row in alphas] == [f"{k / 10:g}" for k in range(11)]
    assert [row.rpartition(", ")[2].rstrip(")") for row in rows if row.startswith("ft+path")] == [
        "step-3",
        "step-6",
        "end",
    ]


def test_an_image_is_decoded_once_and_a_model_loaded_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    samples: list[str] = []
    original, taken = clips.load_saved, measure.sample

    def load(folder: Path) -> Clip:
        loaded.append(folder)
        return original(folder)

    def sample(suite: Any, name: str, clip: Clip, ask: Ask) -> Sample:
        samples.append(name)
        return taken(suite, name, clip, ask)

    monkeypatch.setattr(clips, "load_saved", load)
    monkeypatch.setattr(measure, "sample", sample)
    [one] = rb.diagnose(rb.load(runs), images=4, texts=4, device="cpu", progress=False)
    assert len(loaded) == len(set(loaded)) == len(one.points)
    assert sorted(samples) == sorted(SPLITS)


def test_the_command_writes_tables_json_and_a_picture(runs: Path, tmp_path: Path) -> None:
    words = ("diagnose", str(runs), "--images", "8", "--texts", "8", "--device", "cpu", "--threads", "1")
    png, out = tmp_path / "a" / "picture.png", tmp_path / "b" / "all.json"
    done = rbft(*words, "--format", "json", "--out", str(out), "--figure", str(png), "--forget", "spaced")
    assert done.exit_code == 0, done.output
    assert png.read_bytes().startswith(b"\x89PNG")
    [content] = json.loads(out.read_text())
    assert {p["method"] for p in content["points"]} == {"zero-shot", "ft", "lipsum", "flyp", "wise-ft", "ft+path"}
    assert set(content["points"][0]["measures"]) == set(SPLITS)
    assert set(content["correlations"]["every"]["difference"]["by_seed"]) == {"0", "1"}
    assert content["forgetting"]["suite"] == "spaced"
    for style in ("terminal", "markdown"):
        shown = rbft(*words, "--format", style).stdout
        assert "Spearman's rank correlation with mean OOD" in shown
        assert "Energy gap by test set" in shown
        assert "Not diagnosed" not in shown
    assert f"{out}" in done.stderr
    first, *_ = rbft(*words, "--format", "csv").stdout.split("\n\n")
    rows = list(csv.DictReader(io.StringIO(first)))
    assert {row["model"] for row in rows} >= {"ft", "lipsum"}
    assert all(0 < float(row["mean OOD"]) <= 100 for row in rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--images", "0"), "0 is not in the range"),
        (("--forget", "spacedd"), "did you mean spaced"),
        (("--forget", "tiny"), "the runs were trained on it"),
        (("--suite", "spaced"), "no run of suite 'spaced' there"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("nowhere",), "no such folder"),
        (("--out", "/dev/null/x", "--images", "2", "--texts", "2"), "choose another --out"),
        (("--figure", "/dev/null/x.png", "--images", "2", "--texts", "2"), "cannot write the figure"),
    ],
)
def test_wrong_input_is_one_line(words: tuple[str, ...], says: str, runs: Path) -> None:
    small = () if words[0].startswith("--") else words
    done = rbft("diagnose", *(small or (str(runs), *words)), "--device", "cpu", *(words if "--device" in words else ()))
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("  ", "tables"))]
    assert done.exit_code == 2, done.output
    assert len(lines) == 1
    assert says in lines[0]


def test_other_weights_or_data_than_the_records_are_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = model_ref.resolve
    monkeypatch.setattr(model_ref, "resolve", lambda *words: replace(original(*words), weights="0" * 64))
    with pytest.raises(RbftError, match=r"are not those that .* started from"):
        rb.diagnose(rb.load(runs), images=2, texts=2, device="cpu", progress=False)
    monkeypatch.undo()
    kind = registry.load("suite", "tiny", Tiny)
    load = kind.load

    def altered(self: Any, name: str) -> Split:
        split = load(self, name)
        return split.take(np.arange(len(split))[::-1]) if name == "dim" else split

    monkeypatch.setattr(kind, "load", altered)
    with pytest.raises(RbftError, match=r"split 'dim' of suite 'tiny' is not the one that"):
        rb.diagnose(rb.load(runs), images=2, texts=2, device="cpu", progress=False)
