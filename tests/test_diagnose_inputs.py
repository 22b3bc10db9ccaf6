"""Diagnostics: known numbers give known results, and what cannot be diagnosed is named in one line."""

import re
import sys
from pathlib import Path
from subprocess import run as start

import pytest
import scipy.stats
import tiny
import torch
from click.testing import CliRunner, Result

import robustbench_ft as rb
from robustbench_ft.cli.main import main
from robustbench_ft.diagnose import correlate, figure, measure, points, report
from robustbench_ft.diagnose.measure import View
from robustbench_ft.errors import RbftError
from robustbench_ft.record.store import find_records

pytestmark = pytest.mark.usefixtures("shelves")


def rbft(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def fit(out: Path, model: str, *words: str) -> None:
    start_of = ("run", "--suite", "tiny", "--model", model, "--device", "cpu", "--threads", "1", "--out", str(out))
    done = rbft(*start_of, *words)
    assert done.exit_code == 0, done.output


def test_known_vectors_give_known_measures() -> None:
    """Two images, one text: distances are 5 and 0 raw, and sqrt(2) and 0 as unit rows."""
    raw0, raw = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0]])
    measured = measure.measures(View(raw0, text, 10.0), View(raw, text, 20.0))
    assert measured.raw_distortion == pytest.approx(2.5)
    assert measured.raw_distortion_squared == pytest.approx(12.5)
    assert measured.distortion == pytest.approx(2**0.5 / 2)
    assert measured.distortion_squared == pytest.approx(1.0)
    assert measured.energy_gap == pytest.approx(0.5)  # (0 - 1)^2 and 0
    assert measured.energy_gap_scaled == pytest.approx(50.0)
    assert measure.measures(View(raw0, None, 1.0), View(raw, None, 1.0)).energy_gap is None


def test_spearman_is_scipys() -> None:
    assert correlate.spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert correlate.spearman([1.0, 5.0, 9.0], [0.3, 0.2, 0.1]) == pytest.approx(-1.0)
    a, b = [0.1, 0.1, 0.4, 0.9, 2.0], [5.0, 4.0, 4.0, 1.0, 2.0]  # ties
    ranks = [scipy.stats.rankdata(values) for values in (a, b)]
    assert correlate.spearman(a, b) == pytest.approx(float(scipy.stats.pearsonr(*ranks).statistic))
    assert correlate.spearman([1.0, 2.0], [1.0, 2.0]) is None
    assert correlate.spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_the_interval_over_seeds_is_the_t_interval() -> None:
    values = [-0.9, -0.8, -0.85, -0.95]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    over = correlate.over_seeds(values)
    assert over is not None
    assert (over.low, over.high) == pytest.approx((expected.low, expected.high))
    assert correlate.over_seeds([-0.5]) == correlate.OverSeeds(-0.5, 1, None, None)
    assert correlate.over_seeds([-0.5, -0.5]) == correlate.OverSeeds(-0.5, 2, None, None)
    assert correlate.over_seeds([]) is None
    wide = correlate.over_seeds([-0.9, 0.1])
    assert wide is not None
    assert (wide.low, wide.high) == (-1.0, 1.0)


def test_a_missing_model_is_one_line_that_names_the_flag(tmp_path: Path, tiny_model: str) -> None:
    fit(tmp_path, tiny_model, "--method", "ft", "--no-save-model")
    done = rbft("diagnose", str(tmp_path))
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--save-model" in done.stderr
    with pytest.raises(RbftError, match=r"no model to diagnose: ft, seed 0, final: its weights were not kept"):
        rb.diagnose(rb.load(tmp_path), device="cpu")


def test_what_cannot_be_diagnosed_is_named(tmp_path: Path, tiny_model: str) -> None:
    fit(tmp_path, tiny_model, "--method", "wise-ft", "--method", "ft")  # only the default of wise-ft is kept
    fit(tmp_path, tiny_model, "--method", "output-ensemble", "--save-candidates")
    fit(tmp_path, tiny_model, "--method", "lipsum", "--no-save-model")
    [one] = rb.diagnose(rb.load(tmp_path), images=4, texts=4, device="cpu", progress=False)
    reasons = {(m.row, m.reason) for m in one.missing}
    assert ("wise-ft", points.NO_CANDIDATES) in reasons
    assert ("output-ensemble", points.NO_MODEL) in reasons
    assert ("lipsum", points.NO_WEIGHTS) in reasons
    told = [name for m in one.missing if m.row == "output-ensemble" for name in m.candidates]
    known = find_records([tmp_path / "tiny"])
    ensemble = next(r for r in known if r.config.method == "output-ensemble")
    diagnosed = [p.candidate for p in one.points if p.method == "output-ensemble"]
    assert sorted(told + diagnosed) == sorted(ensemble.summary.candidates)
    assert "no record of zero-shot here" in report.markdown(one)
    assert "Not diagnosed" in report.markdown(one)


def test_a_model_without_an_id_range_has_no_energy_gap(tmp_path: Path) -> None:
    model = f"local-dir:{tiny.write_model(tmp_path / 'm', random_ids=False)}"
    fit(tmp_path / "runs", model, "--method", "ft", "--seeds", "0-1")
    [one] = rb.diagnose(rb.load(tmp_path / "runs"), images=4, device="cpu", progress=False)
    assert one.texts == 0
    assert "energy_gap" not in one.measured
    text = report.markdown(one)
    assert "no energy gap: the model does not state the id range" in text
    assert correlate.correlations(one).difference is None
    assert len(figure.draw(one).axes) == 1


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "head.safetensors", "open_clip_config.json"])
def test_a_damaged_model_is_one_line(name: str, tmp_path: Path, tiny_model: str) -> None:
    fit(tmp_path, tiny_model, "--method", "ft")
    [path] = tmp_path.rglob(f"model/{name}")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(RbftError, match=re.escape(str(path))) as error:
        rb.diagnose(rb.load(tmp_path), images=2, texts=2, device="cpu", progress=False)
    assert "\n" not in str(error.value)


def test_published_runs_hold_no_weights() -> None:
    boards = Path(__file__).parent.parent / "leaderboards" / "digits-v1"
    with pytest.raises(RbftError, match="a published run holds no weights"):
        rb.diagnose(rb.load(boards), device="cpu")


def test_reading_a_diagnosis_needs_no_torch() -> None:
    names = "answer, correlate, figure, points, report"
    code = f"from robustbench_ft.diagnose import {names}\nimport sys; print('torch' in sys.modules)"
    done = start([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_the_tables_of_the_page_are_those_that_were_made() -> None:
    docs = Path(__file__).parent.parent / "docs"
    page = (docs / "diagnostics.md").read_text(encoding="utf-8").partition("## A worked result")[2]
    made = (docs / "results" / "diagnostics.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in page.splitlines() if line.startswith(("|", "**"))]
    assert len(shown) > 25
    assert set(shown) <= set(made)
