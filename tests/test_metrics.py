"""Metrics from predictions: rules that are easy to get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from robustbench_ft import metrics
from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError
from robustbench_ft.metrics.across import Setting, select_best, select_one_se, suite_mean
from robustbench_ft.metrics.calibration import equal_width
from robustbench_ft.metrics.classes import worst_group


def predictions(**changes: object) -> Predictions:
    """Four examples of three classes, two of them right."""
    fields: dict[str, object] = {
        "ids": tuple("abcd"), "label": np.array([0, 1, 2, 0]), "prediction": np.array([0, 1, 0, 1]),
        "confidence": np.array([0.8, 0.6, 0.5, 0.4], np.float32),
        "log_prob": np.log(np.array([0.8, 0.6, 0.2, 0.3], np.float32)),
        "sum_sq": np.array([0.66, 0.44, 0.38, 0.34], np.float32),
        "top_classes": np.zeros((4, 1), np.int64), "top_probs": np.zeros((4, 1), np.float32),
        "groups": {"place": np.array([0, 0, 1, 1])},
    }  # fmt: skip
    return Predictions(**(fields | changes))  # pyright: ignore[reportArgumentType]


def test_all_metrics_have_names_and_versions() -> None:
    found = metrics.score(predictions())
    assert set(found) == {*metrics.METRICS, "worst_group:place"}
    assert all(np.isfinite(list(found.values())))
    assert all(metric.version >= 1 for metric in metrics.METRICS.values())


def test_metrics_by_hand() -> None:
    found = metrics.score(predictions())
    assert found["accuracy"] == 0.5
    assert found["nll"] == pytest.approx(-np.log([0.8, 0.6, 0.2, 0.3]).mean(), rel=1e-6)
    assert found["brier"] == pytest.approx(((0.66 - 0.6) + (0.44 - 0.2) + (0.38 + 0.6) + (0.34 + 0.4)) / 4, rel=1e-5)
    assert found["ece"] == pytest.approx((0.2 + 0.4 + 0.5 + 0.4) / 4, rel=1e-5)  # one example per bin
    assert found["macro_f1"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert found["macro_recall"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["worst_group:place"] == 0.0


def test_worst_group_is_named_with_its_size_and_interval() -> None:
    worst = metrics.worst_groups(predictions())["place"]
    assert (worst.group, worst.n, worst.few) == (1, 2, True)
    assert worst.interval == pytest.approx((0.0, 0.6576), abs=1e-4)


def test_groups_that_do_not_count_are_ignored() -> None:
    correct, group = np.array([True, False]), np.array([0, 1])
    assert worst_group(correct, group, ignore=(1,)).group == 0
    with pytest.raises(RbftError, match="no group"):
        worst_group(correct, group, ignore=(0, 1))


def test_full_confidence_is_in_the_last_bin() -> None:
    n, confidence, right = equal_width(np.array([1.0, 0.99]), np.array([False, True]), 10)
    assert (n.tolist(), right.tolist()) == ([2.0], [0.5])
    assert confidence[0] == pytest.approx(0.995)


def test_equal_mass_bins_do_not_depend_on_the_order_of_files() -> None:
    whole = predictions(confidence=np.array([1, 1, 1, 1], np.float32))
    order = [3, 1, 0, 2]
    turned = predictions(
        ids=tuple("abcd"[k] for k in order), confidence=whole.confidence, label=whole.label[order],
        prediction=whole.prediction[order],
    )  # fmt: skip
    assert metrics.adaptive_ece(whole) == metrics.adaptive_ece(turned)


def test_a_missing_set_blocks_the_mean() -> None:
    assert suite_mean({"a": 0.5, "b": None}).suite_mean is None
    assert suite_mean({"a": 0.5, "b": 0.7}).suite_mean == pytest.approx(0.6)


def test_both_learning_rate_rules() -> None:
    settings = [Setting(1e-4, 0.80, 400), Setting(3e-4, 0.81, 400), Setting(1e-3, 0.70, 400)]
    assert select_best(settings) == 1
    assert select_one_se(settings) == 0  # one SE of .81 on 400 is .0196
    assert select_one_se([Setting(1e-4, 0.80, 40_000), *settings[1:]][:2]) == 0
    assert select_one_se([Setting(1e-4, 0.80, 40_000), Setting(3e-4, 0.81, 40_000)]) == 1


def official(name: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """What the WILDS package says, and the arrays that it was asked about."""
    folder = Path(__file__).with_name("vectors")
    with np.load(folder / "wilds.npz") as file:
        arrays = {key.partition("/")[2]: file[key] for key in file if key.startswith(f"{name}/")}
    return json.loads((folder / "wilds.json").read_text())[name]["results"], arrays


def test_iwildcam_is_scored_as_by_wilds() -> None:
    said, arrays = official("iwildcam")
    ours = predictions(label=arrays["y_true"], prediction=arrays["y_pred"])
    assert metrics.macro_f1(ours) == pytest.approx(said["F1-macro_all"], rel=1e-6)
    assert metrics.macro_recall(ours) == pytest.approx(said["recall-macro_all"], rel=1e-6)
    assert metrics.accuracy(ours) == pytest.approx(said["acc_avg"], rel=1e-6)


def test_fmow_regions_are_scored_as_by_wilds() -> None:
    said, arrays = official("fmow")
    correct, region = arrays["y_true"] == arrays["y_pred"], arrays["metadata"][:, 0]
    assert worst_group(correct, region, ignore=(5,)).accuracy == pytest.approx(said["acc_worst_region"], rel=1e-6)
    assert worst_group(correct, region).accuracy == pytest.approx(said["acc_region:Other"], rel=1e-6)
    assert worst_group(correct, arrays["metadata"][:, 1]).accuracy == pytest.approx(said["acc_worst_year"], rel=1e-6)
