"""Splits scored in several sets of classes, by their official metrics, from the forward pass to the board."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from spaced import WARM, Spaced

from robustbench_ft import metrics
from robustbench_ft.claims import audit, bundle, claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli.main import main
from robustbench_ft.compare import report
from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics import further_columns
from robustbench_ft.predict import reduce
from robustbench_ft.record import store

pytestmark = pytest.mark.usefixtures("shelves")
VIEWS = ["dim@3-way", "test@red-green"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Path:
    return tmp_path_factory.mktemp("spaced")


def run(runs: Path, model: str, *words: str) -> list[store.Record]:
    command = ["run", "--suite", "spaced", "--model", model, "--out", str(runs), "--precision", "fp32", *words]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    return store.find_records([runs])


@pytest.fixture(scope="module")
def records(runs: Path, tiny_model: str, shelf_folder: Path) -> list[store.Record]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shelf_folder)
        from robustbench_ft import registry

        registry.entries.cache_clear()
        return run(runs, tiny_model, "--method", "zero-shot", "--method", "ft", "--seeds", "0-2")


def test_a_class_has_the_largest_logit_of_its_members() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
    assert reduce(logits, WARM).tolist() == [[1, 3], [0, 5]]
    assert reduce(logits, ((2,), (0,))).tolist() == [[2, 1], [5, 0]]
    assert reduce(logits, None) is logits


def test_classes_are_left_out_before_softmax(records: list[store.Record]) -> None:
    """p(red | red or green) = p(red) / (p(red) + p(green)), and the third class is never predicted."""
    whole = records[0].predictions("final", "test")
    pair = whole.also["red-green"]
    rows = np.flatnonzero(whole.label < 2)
    order = whole.top_classes[rows].argsort(axis=1)
    probs = np.take_along_axis(whole.top_probs[rows], order, axis=1)  # [n, 3] by class
    own = probs[np.arange(len(rows)), whole.label[rows]]
    assert np.allclose(np.exp(pair.log_prob), own / probs[:, :2].sum(axis=1), atol=1e-5)
    assert (pair.prediction == probs[:, :2].argmax(axis=1)).all()
    assert pair.ids == tuple(whole.ids[k] for k in rows)


def test_what_is_written_is_read_back_in_every_space(records: list[store.Record], tmp_path: Path) -> None:
    found = records[0].predictions("final", "dim")
    assert set(found.also) == {"3-way"}
    assert set(found.prediction) <= {0, 1}
    assert set(found.also["3-way"].label) == {0, 1, 2}
    store.write_predictions(tmp_path / "again.parquet", found)
    same(store.read_predictions(tmp_path / "again.parquet"), found)
    one = records[0].predictions("final", "test@red-green")
    same(one, records[0].predictions("final", "test").also["red-green"])
    with pytest.raises(RbftError, match="has no predictions for 'test@blue'"):
        records[0].predictions("final", "test@blue")


def same(a: Predictions, b: Predictions) -> None:
    for name in ("ids", "label", "prediction", "confidence", "log_prob", "sum_sq", "top_classes", "top_probs"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert all(np.array_equal(a.groups[name], b.groups[name]) for name in b.groups)
    for space in b.also:
        same(a.also[space], b.also[space])


def test_columns_of_one_space_leave_out_rows_without_a_label(records: list[store.Record]) -> None:
    path = store.predictions_path(records[0].folder, "final", "test@red-green")
    column = store.read_columns(path, ("id", "label"), "red-green")
    assert len(column["id"]) == len(column["label"]) == 24
    assert column["label"].null_count == 0


def test_metrics_of_a_space_have_names_of_their_own(records: list[store.Record]) -> None:
    summary = records[0].metrics
    assert summary["views"] == VIEWS
    assert summary["splits"]["extra"] == ["noisy"]
    assert summary["official"] == {
        "val": "accuracy",
        "test": "macro_f1",
        "dim": "worst_group:side",
        "noisy": "accuracy",
    }
    scores = summary["candidates"]["final"]
    assert set(scores) == {"val", "test", "dim", "noisy", *VIEWS}
    assert scores["dim@3-way"] == metrics.score(records[0].predictions("final", "dim@3-way"))
    assert [column.title for column in further_columns(summary)] == [
        "test: accuracy", "dim: accuracy", "dim@3-way: accuracy", "test@red-green: accuracy",
    ]  # fmt: skip
    assert records[0].env["data"]["dim"]["layout"] == "two classes"


def test_examples_in_no_group_are_in_no_worst_group(records: list[store.Record]) -> None:
    found = records[0].predictions("final", "dim")
    side = found.groups["side"]
    expected = min(found.correct[side == g].mean() for g in (0, 1))
    assert records[0].metrics["candidates"]["final"]["dim"]["worst_group:side"] == pytest.approx(expected)


def test_reports_show_them_beside_the_table(records: list[store.Record], runs: Path) -> None:
    text = report.markdown(report.tables(records)[0])
    assert "| ID: macro-F1 |" in " ".join(text.split())
    assert "dim: worst-side accuracy" in text
    assert "dim@3-way: accuracy" in text
    assert "no intervals" in text
    assert "dim@3-way: accuracy" in CliRunner().invoke(main, ["report", str(runs)]).output
    [table] = json.loads(report.as_json(report.tables(records)))
    assert len(table["rows"][1]["further"]["test@red-green: accuracy"]) == 3
    done = CliRunner().invoke(main, ["compare", str(runs), "--baseline", "ft"])
    assert done.exit_code == 0, done.output


def test_boards_hold_and_verify_them(records: list[store.Record], runs: Path, tmp_path: Path) -> None:
    made = claim_store.add([runs], tmp_path, Trust("rerun"))
    assert not any(audit.audit_all(tmp_path).values())
    results = made[-1].claim.results
    assert results.columns["noisy"] == ["noisy"]
    assert results.columns["dim@3-way"] == ["dim@3-way"]
    assert results.columns["mean OOD"] == ["dim"]
    from robustbench_ft.images.roots import Roots

    assert not any(audit.audit_all(tmp_path, data=Roots()).values())  # ids and labels of every view, from the suite
    done = CliRunner().invoke(main, ["leaderboard", "build", "--root", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for page in ("spaced-v1.md", "site/spaced-v1.html"):
        assert "dim: worst-side accuracy" in (tmp_path / page).read_text()
    one = made[-1]
    path = one.root / one.place.run(0)
    held = bundle.read(path)
    held.choices["dim@3-way"]["final"][0] = (held.choices["dim@3-way"]["final"][0] + 1) % 3
    bundle.write(path, held)
    assert any("dim@3-way" in line for line in audit.audit(one))


def test_options_are_part_of_the_name(runs: Path, tiny_model: str, tmp_path: Path) -> None:
    loud = [r for r in run(tmp_path, tiny_model, "--suite", "spaced+loud", "--method", "zero-shot")
            if r.cell["suite"] == "spaced+loud"]  # fmt: skip
    assert loud[0].metrics["splits"] == {"val": "val", "test": "test", "shifts": ["dim", "noisy"], "extra": []}
    done = CliRunner().invoke(main, ["run", "--method", "ft", "--suite", "spaced+lout"])
    assert done.exit_code == 2
    assert "unknown option of suite 'spaced' 'lout': did you mean loud?" in done.output


def test_the_published_protocol_trains_on_all_and_selects_on_test(tiny_model: str, tmp_path: Path) -> None:
    [record] = run(tmp_path, tiny_model, "--method", "ft", "--protocol", "as-published")
    assert record.metrics["splits"]["val"] == "test"
    assert "val" not in record.metrics["candidates"]["final"]
    assert record.env["data"]["train-all"]["n"] == 72


def test_partial_data_are_refused_marked_and_barred(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Spaced.card
    monkeypatch.setattr("spaced.Spaced.card", replace(card, counts={**card.counts, "dim": 31}))
    words = ["run", "--suite", "spaced", "--model", tiny_model, "--method", "zero-shot", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "split 'dim' has 30 images, its card says 31" in done.output
    [record] = run(tmp_path / "runs", tiny_model, "--method", "zero-shot", "--allow-partial")
    assert record.cell["partial"] is True
    assert record.env["data"]["dim"]["partial"] == ["split 'dim' has 30 images, its card says 31"]
    assert "(partial data: no claim)" in report.tables([record])[0].title
    with pytest.raises(RbftError, match="was run with --allow-partial; a claim needs the whole data set"):
        claim_store.add([tmp_path / "runs"], tmp_path / "boards", Trust("rerun"))
    assert not (tmp_path / "boards").exists()
