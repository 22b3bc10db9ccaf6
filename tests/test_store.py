"""Records: what is read back is what was written, it suffices for every metric, and damage is noticed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustbench_ft import metrics
from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store

N, K = 200, 7


def full_probabilities(classes: int = K) -> tuple[Any, Any]:
    """[N, K] probabilities of a mediocre model, and labels [N]."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, N)
    logits = rng.normal(size=(N, classes)) + 1.5 * np.eye(classes)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probs, labels


def predictions(classes: int = K) -> Predictions:
    """What `predict` would keep of the full probabilities."""
    probs, labels = full_probabilities(classes)
    order = np.argsort(-probs, axis=1)[:, :5]
    top = np.take_along_axis(probs, order, axis=1).astype(np.float32)
    return Predictions(
        ids=tuple(f"dim/{i}" for i in range(N)), label=labels, prediction=order[:, 0], confidence=top[:, 0],
        log_prob=np.log(probs[np.arange(N), labels]).astype(np.float32),
        sum_sq=(probs**2).sum(axis=1).astype(np.float32), top_classes=order, top_probs=top,
        groups={"camera": np.arange(N) % 3, "year": np.full(N, 2012)},
    )  # fmt: skip


@pytest.mark.parametrize("classes", [K, 3])
def test_predictions_survive_the_file(classes: int, tmp_path: Path) -> None:
    before = predictions(classes)
    store.write_predictions(tmp_path / "a" / "dim.parquet", before)
    after = store.read_predictions(tmp_path / "a" / "dim.parquet")
    assert after.ids == before.ids
    for name in ("label", "prediction", "confidence", "log_prob", "sum_sq", "top_classes", "top_probs"):
        one, two = getattr(before, name), getattr(after, name)
        assert one.dtype == two.dtype
        assert np.array_equal(one, two), name
    assert after.top_classes.shape == (N, min(classes, 5))
    assert {name: values.tolist() for name, values in after.groups.items()} == {
        "camera": (np.arange(N) % 3).tolist(), "year": [2012] * N,
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["dim.parquet"]


def test_equal_predictions_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store.write_predictions(tmp_path / name, predictions())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_stored_columns_give_the_metrics_of_the_full_probabilities(tmp_path: Path) -> None:
    store.write_predictions(tmp_path / "p.parquet", predictions())
    found = metrics.score(store.read_predictions(tmp_path / "p.parquet"))
    probs, labels = full_probabilities()
    truth, confidence, correct = np.eye(K)[labels], probs.max(axis=1), probs.argmax(axis=1) == labels
    bins = [(confidence > k / 15) & (confidence <= (k + 1) / 15) for k in range(15)]
    gaps = [abs(correct[b].sum() - confidence[b].sum()) for b in bins]
    assert found["accuracy"] == correct.mean()
    assert found["nll"] == pytest.approx(-np.log(probs[np.arange(N), labels]).mean(), rel=1e-6)
    assert found["brier"] == pytest.approx(((probs - truth) ** 2).sum(axis=1).mean(), rel=1e-6)
    assert found["ece"] == pytest.approx(sum(gaps) / N, rel=1e-5)


def test_metrics_of_a_case_worked_by_hand() -> None:
    # two examples, two classes: [0.8, 0.2] and [0.4, 0.6], both of class 0
    case = Predictions(
        ids=("a", "b"), label=np.array([0, 0]), prediction=np.array([0, 1]),
        confidence=np.array([0.8, 0.6], np.float32), log_prob=np.log([0.8, 0.4]).astype(np.float32),
        sum_sq=np.array([0.68, 0.52], np.float32),
        top_classes=np.array([[0, 1], [1, 0]]), top_probs=np.array([[0.8, 0.2], [0.6, 0.4]], np.float32),
    )  # fmt: skip
    assert metrics.accuracy(case) == 0.5
    assert metrics.nll(case) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert metrics.brier(case) == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    assert metrics.ece(case) == pytest.approx((abs(1 - 0.8) + abs(0 - 0.6)) / 2)


def rewrite(path: Path, column: str, change: Any) -> None:
    """Replace one column of a file by `change` of its values."""
    table = pq.read_table(path)
    values = pa.array(change(table.column(column).to_pylist()), table.schema.field(column).type)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), path)


@pytest.mark.parametrize(
    ("column", "change", "what"),
    [
        ("correct", lambda values: [not values[0], *values[1:]], "'correct'"),
        ("prediction", lambda values: values[::-1], "'correct'"),
        ("label", lambda values: values[::-1], "'correct'"),
        ("confidence", lambda values: [float("nan"), *values[1:]], "'confidence'"),
        ("log_prob", lambda values: [float("nan"), *values[1:]], "'log_prob'"),
        ("log_prob", lambda values: [0.5, *values[1:]], "'log_prob'"),
        ("sum_sq", lambda values: [float("inf"), *values[1:]], "'sum_sq'"),
        ("top_classes", lambda values: [values[0][::-1], *values[1:]], "'prediction'"),
        ("id", lambda values: [values[1], *values[1:]], "an id is there twice"),
    ],
)  # fmt: skip
def test_a_tampered_column_is_noticed(column: str, change: Any, what: str, tmp_path: Path) -> None:
    path = tmp_path / "dim.parquet"
    store.write_predictions(path, predictions())
    rewrite(path, column, change)
    with pytest.raises(RbftError, match=rf"dim\.parquet contradict themselves \(.*{what}.*\); run the cell again"):
        store.read_predictions(path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing", "column"])
def test_a_damaged_file_is_named_in_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "dim.parquet"
    store.write_predictions(path, predictions())
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "column":
        pq.write_table(pq.read_table(path).drop_columns("sum_sq"), path)
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(RbftError, match=r"cannot read predictions .*dim\.parquet: .+; run the cell again") as caught:
        store.read_predictions(path)
    assert "\n" not in str(caught.value)


CELL = {
    "suite": "tiny", "suite_version": 1, "method": "ft", "method_version": 1, "protocol": "clean", "precision": "fp32",
    "model": {"name": "m", "pretrained": "", "weights": "w"}, "seed": 4, "digest": "0123456789", "settings": {},
    "recipe": None, "recipe_source": "none", "deterministic": True,
}  # fmt: skip


def finished(folder: Path, done: bool = True) -> Path:
    store.write_json(folder / "cell.json", CELL)
    if done:
        store.write_bytes(folder / "done", b"")
    return folder


def test_unfinished_cells_are_no_records(tmp_path: Path) -> None:
    b, a = finished(tmp_path / "x" / "b"), finished(tmp_path / "x" / "a")
    finished(tmp_path / "x" / "c", done=False)
    store.write_bytes(tmp_path / "x" / "d" / "done", b"")  # no cell.json
    records = store.find_records([tmp_path, tmp_path / "x"])
    assert [record.folder for record in records] == [a, b]
    assert records[0].seed == 4


def test_no_records_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    finished(tmp_path / "c", done=False)
    with pytest.raises(RbftError, match=r"no finished cell under .*; finish one with `rbft run`"):
        store.find_records([tmp_path])
    with pytest.raises(RbftError, match=r"no such folder: .*nowhere"):
        store.find_records([tmp_path / "nowhere"])


def test_json_is_sorted_and_refuses_what_json_has_not(tmp_path: Path) -> None:
    store.write_json(tmp_path / "x.json", {"b": 1, "a": 0.1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 0.1, "b": 1}
    assert (tmp_path / "x.json").read_text().index('"a"') < (tmp_path / "x.json").read_text().index('"b"')
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json(tmp_path / "y.json", {"a": float("nan")})
    assert not (tmp_path / "y.json").exists()


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text('{"seed": 4')
    with pytest.raises(RbftError, match=r"cannot read .*cell\.json: .*; delete its folder to run the cell again"):
        _ = store.Record(tmp_path).seed
