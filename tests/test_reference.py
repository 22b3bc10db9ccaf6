"""Published zero-shot numbers: whole, on the splits of our suites, and judged with the tolerance that is stated."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustbench_ft import suite_ref
from robustbench_ft.data import Predictions
from robustbench_ft.reference import Reference, find, judge, key_of, numbers
from robustbench_ft.reference.causes import another_set, label_space, options, subset

B16 = ("ViT-B-16", "openai")
PUBLISHED = Path(__file__).parent.parent / "leaderboards" / "published_results.json"
EVERY = [reference for some in numbers.every().values() for reference in some]


def answers(right: int, n: int, label: int = 0) -> Predictions:
    """`right` of `n` images of two classes are predicted."""
    labels = np.full(n, label)
    said = np.where(np.arange(n) < right, label, 1 - label)
    top = np.stack([said, 1 - said], axis=1)
    half = np.full(n, 0.5, np.float32)
    probs = np.full((n, 2), 0.5, np.float32)
    return Predictions(tuple(map(str, range(n))), labels, said, half, np.log(half), half, top, probs)


def test_all_models_of_open_clip_are_there() -> None:
    import open_clip

    assert len({(r.model, r.pretrained) for r in EVERY if r.source == numbers.OPEN_CLIP}) == 121
    assert all(open_clip.get_pretrained_cfg(r.model, r.pretrained) for r in EVERY)
    test = find(B16, "imagenet")["test"]
    assert [r.value for r in test] == [0.6834, 0.6817]  # the least allowance first
    assert {r.suite for r in EVERY} == {"imagenet", "domainnet", "wilds-iwildcam", "wilds-camelyon17", "wilds-fmow"}


@pytest.mark.parametrize(
    "name", ["imagenet+objectnet", "domainnet", "wilds-iwildcam", "wilds-camelyon17", "wilds-fmow"]
)
def test_they_are_of_the_splits_and_metrics_of_our_suites(name: str) -> None:
    suite = suite_ref.load(name)
    for reference in EVERY:
        if reference.suite == suite.base:
            assert reference.split in suite.splits
            assert reference.metric == suite.metric_of(reference.split)
            assert reference.n in (0, suite.card.counts.get(reference.split, 0))
            assert reference.classes <= len(suite.classes)
            assert reference.classes == len(suite.classes) or reference.split in ("r", "a", "objectnet")
            assert reference.task in (None, numbers.Task(suite.classes, suite.templates))
            assert set(reference.excludes) <= set(suite.options)


def test_the_numbers_of_lipsum_ft_are_those_of_the_boards() -> None:
    boards = {"ImageNet": "imagenet", "DomainNet": "domainnet"}
    splits = {"ImageNet-val": "test", "real": "test", "ImageNet-V2": "v2", "ImageNet-R": "r", "ImageNet-A": "a",
              "ImageNet-Sketch": "sketch"}  # fmt: skip
    printed = {
        (boards[row["suite"]], splits.get(row["dataset"], row["dataset"])): row["value"] / 100
        for row in json.loads(PUBLISHED.read_text())
        if row["method"] == "zero-shot" and "lipsum-ft@" in row["source"] and row["metric"] == "top1_acc_pct"
    }
    ours = {(r.suite, r.split): r.value for r in EVERY if r.source == numbers.LIPSUM}
    assert ours == pytest.approx(printed)
    assert len(ours) == 10


def test_the_allowance_for_other_pixels_is_the_largest_gap_between_two_sources_of_one_model() -> None:
    gaps = [abs(some[0].value - some[1].value) for some in find(B16, "imagenet").values() if len(some) > 1]
    assert len(gaps) == 5
    assert max(gaps) <= numbers.LIPSUM_ALLOWANCE < max(gaps) + 0.001


def test_worst_regions_that_are_those_of_four_images_are_left_out() -> None:
    having = [r for r in EVERY if r.suite == "wilds-fmow"]
    assert len(having) == 121 - 33
    assert not [r for r in having if r.value % 0.25 == 0]
    assert not find(("RN50", "openai"), "wilds-fmow")


def test_a_model_is_named_by_its_tag_or_by_what_a_file_is_said_to_hold() -> None:
    assert key_of("ViT-B-16", "openai") == B16
    assert key_of("ViT-B-16", "weights.safetensors", "openai") == B16
    assert key_of("local-dir:x", "", "ViT-B-16:openai") == B16
    assert find(("ViT-B-16-quickgelu", "openai"), "imagenet") == find(B16, "imagenet")
    assert not find(("ViT-B-16", "weights.safetensors"), "imagenet")


@pytest.mark.parametrize(("right", "inside"), [(6834, True), (7029, True), (6639, True), (7039, False), (6629, False)])
def test_the_tolerance_is_sampling_on_both_sides_and_an_allowance(right: int, inside: bool) -> None:
    """10,000 of 10,000 images at .6834: 2.58 * sqrt(.6834 * .3166 * 2 / 10,000) + .003 = .0200."""
    reference = replace(find(B16, "imagenet")["test"][0], n=10_000)
    verdict = judge("test", answers(right, 10_000), [reference])
    assert verdict.tolerance == pytest.approx(0.0200, abs=1e-4)
    assert verdict.gap == pytest.approx((right - 6834) / 10_000)
    assert verdict.inside is inside


def test_worst_region_and_macro_f1_have_errors_of_their_own() -> None:
    region = Reference("m", "t", "s", "test", 0.2, 22_108, 2, "x", metric="worst_group:region")
    some = replace(answers(500, 1_000), groups={"region": np.arange(1_000) // 900})
    verdict = judge("test", some, [region])
    assert verdict.measured == 0.0  # of the hundred images in the second region
    assert verdict.error == pytest.approx((2 * 0.2 * 0.8 / 100) ** 0.5)
    f1 = judge("test", answers(500, 1_000), [replace(region, metric="macro_f1", n=1_000)])
    plain = judge("test", answers(500, 1_000), [replace(region, metric="accuracy", value=0.5, n=1_000)])
    assert 0.3 < f1.error / plain.error < 3


def test_counts_classes_and_variants_are_compared() -> None:
    verdict = judge("v2", answers(70, 100), [Reference(*B16, "imagenet", "v2", 0.5, 200, 3, "x")])
    assert subset(verdict, True).state == "found"
    assert subset(verdict, False).state == "not checked"
    assert subset(replace(verdict, reference=replace(verdict.reference, n=0)), True).state == "not checked"
    assert label_space(verdict, answers(70, 100), 3).state == "ruled out"
    assert label_space(verdict, answers(70, 100), 2).state == "found"
    assert another_set(verdict, "/data/imagenetv2-matched-frequency-format-val").state == "possible"
    assert another_set(verdict, "/data/imagenetv2-top-images-format-val").state == "found"
    assert another_set(replace(verdict, measured=0.2), "/data/v2").state == "ruled out"
    assert another_set(replace(verdict, split="r"), "/data/threshold").state == "not checked"


def test_an_option_that_changes_prompts_is_named() -> None:
    reference = find(B16, "domainnet")["sketch"][0]
    assert options(reference, suite_ref.load("domainnet")) is None
    found = options(reference, suite_ref.load("domainnet+clean-prompts"))
    assert found is not None
    assert (found.cause, found.state) == ("prompts", "found")
