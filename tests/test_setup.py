"""Is the setup right? A tree and a model whose accuracy is known, and each fault that setups have planted in them."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import known
import pytest
import safetensors.torch
import tiny
import torch
from click.testing import CliRunner, Result
from known import Fault

from robustbench_ft import model_ref, reference, registry
from robustbench_ft.canary import Answer, Setup, canary, choose
from robustbench_ft.cli.main import main
from robustbench_ft.prompts import Task
from robustbench_ft.reference import Reference
from robustbench_ft.reference.causes import ordered

KEY = ("known-vit", "ours")
PHOTO = Task(known.NAMES, ("a photo of a {}",))


@dataclass(frozen=True)
class Known:
    """The tree, the model, and what the model gives there by open_clip's own functions."""

    root: Path
    model: Path
    values: Mapping[str, float]

    def references(self, moved: Mapping[str, float] | None = None) -> dict[str, list[Reference]]:
        """The known numbers, `moved` by something."""
        return {
            split: [
                Reference(
                    *KEY, "known", split, value + (moved or {}).get(split, 0.0), known.N[split],
                    len(known.OWN) if split == "r" else len(known.NAMES), "tests", prompts="'a photo of a {}'",
                    task=PHOTO,
                )
            ]
            for split, value in self.values.items()
        }  # fmt: skip

    def with_fault(self, fault: Fault, folder: Path) -> Path:
        """A copy of the model with what is wrong with it."""
        folder.mkdir(parents=True)
        for path in self.model.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        config: Any = json.loads((folder / "open_clip_config.json").read_text())
        config["preprocess_cfg"] |= fault.transform
        config["model_cfg"]["quick_gelu"] = fault.quick
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        if fault.rounded:
            weights = folder / "open_clip_model.safetensors"
            state = {name: v.bfloat16().float() for name, v in safetensors.torch.load_file(weights).items()}
            safetensors.torch.save_file(state, weights)
        return folder

    def check(self, fault: Fault, folder: Path, split: str, moved: float = 0.0) -> Answer:
        """What the check says of one split of a setup with a fault; the published number is `moved`."""
        ref = model_ref.resolve(f"local-dir:{self.with_fault(fault, folder)}", None)
        numbers = {split: self.references({split: moved})[split]}
        return canary(Setup(known.suite(self.root, fault), ref, KEY, torch.device("cpu")), numbers)


def run(words: str) -> Result:
    return CliRunner().invoke(main, words.split())


@pytest.fixture
def registered(at_hand: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Known]:
    """The suite `known` is registered, and its numbers are published for the weights `known-vit ours`."""
    monkeypatch.syspath_prepend(tiny.write_shelves(tmp_path / "site", known.ENTRY_POINTS, "rbft_known"))
    registry.entries.cache_clear()
    numbers = {KEY: [one for some in at_hand.references().values() for one in some]}
    monkeypatch.setattr(reference.numbers, "every", lambda: numbers)
    yield at_hand
    registry.entries.cache_clear()


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory: pytest.TempPathFactory) -> Known:
    base = tmp_path_factory.mktemp("known")
    root = known.write_images(base / "tree")
    model = known.write_model(base / "model", root)
    return Known(root, model, known.published(model, root))


# fault -> the split that shows it, the cause that comes first, and a part of what is said of it
FAULTS: Mapping[str, tuple[Fault, str, str, str]] = {
    "QuickGELU lost": (Fault(quick=False), "test", "activation", "with QuickGELU for GELU, +"),
    "not normalised": (
        Fault({"mean": (0.0,) * 3, "std": (1.0,) * 3}), "test", "preprocessing", "with OpenAI's mean and std, +",
    ),
    "squashed, not cropped": (
        Fault({"resize_mode": "squash"}), "test", "preprocessing", "the shorter side resized, the centre cropped, +",
    ),
    "labels of folders sorted as text": (
        Fault(order="text"), "test", "label order", "folders 0, 1, 10, 11, ... sorted as text",
    ),
    "labels of sorted class names": (
        Fault(order="names"), "test", "label order", "labels are those of class names in alphabetical order",
    ),
    "labels in some other order": (Fault(order="random"), "test", "label order", "numbered in another order"),
    "scored among all classes": (
        Fault(whole=True), "r", "label space", "scored among 12 classes, the published number among 4; among its own 4",
    ),
    "another variant of V2": (Fault(v2="v2-threshold"), "v2", "another set", "is called like another variant of V2"),
    "classes missing": (Fault(kept=5), "test", "subset", "500 images, the published number is of 1,200: part of them"),
    "other prompts": (
        Fault(template="a sketch of a {}"), "test", "prompts", "with the prompts of the published number ('a photo",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named(at_hand: Known, tmp_path: Path, name: str) -> None:
    fault, split, cause, text = FAULTS[name]
    answer = at_hand.check(fault, tmp_path / "model", split)
    [verdict] = answer.verdicts
    assert not verdict.inside, verdict
    first = ordered(answer.findings[split])[0]
    assert (first.cause, first.state) == (cause, "found")
    assert text in first.text


def test_a_setup_without_a_fault_is_right(at_hand: Known, tmp_path: Path) -> None:
    """To the last image: evaluation is open_clip's own, whatever stands between."""
    for split, value in at_hand.values.items():
        answer = at_hand.check(Fault(), tmp_path / split, split)
        assert answer.right
        assert not answer.findings
        assert answer.verdicts[0].measured == pytest.approx(value, abs=1e-9)
        assert 0.2 < value < 0.95  # a fault can be seen


def test_rounded_weights_are_named_where_nothing_else_explains(at_hand: Known, tmp_path: Path) -> None:
    """Rounding moves less than sampling does, so the published number is a made-up one here."""
    assert at_hand.check(Fault(rounded=True), tmp_path / "right", "test").right
    answer = at_hand.check(Fault(rounded=True), tmp_path / "model", "test", moved=-0.08)
    first = ordered(answer.findings["test"])[0]
    assert (first.cause, first.state) == ("precision", "possible")
    assert "every weight is a bfloat16 number" in first.text


def test_an_easier_v2_is_possibly_another_variant(at_hand: Known, tmp_path: Path) -> None:
    answer = at_hand.check(Fault(), tmp_path / "model", "v2", moved=-0.08)
    first = ordered(answer.findings["v2"])[0]
    assert (first.cause, first.state) == ("another set", "possible")


def test_a_gap_that_nothing_explains_is_not_explained(at_hand: Known, tmp_path: Path) -> None:
    answer = at_hand.check(Fault(), tmp_path / "model", "test", moved=0.3)
    assert {finding.state for finding in answer.findings["test"]} == {"not checked", "ruled out"}


def test_a_configuration_that_contradicts_the_tag_is_noted_even_where_the_number_is_inside(
    at_hand: Known, tmp_path: Path
) -> None:
    fault = Fault({"interpolation": "bilinear"})
    ref = model_ref.resolve(f"local-dir:{at_hand.with_fault(fault, tmp_path / 'model')}", None)
    setup = Setup(known.suite(at_hand.root), ref, ("ViT-B-16", "openai"), torch.device("cpu"))
    answer = canary(setup, {"test": at_hand.references()["test"]})
    assert answer.right
    assert answer.notes == ("interpolation is bilinear, the published weights ask for bicubic",)
    quick = model_ref.resolve(f"local-dir:{at_hand.with_fault(Fault(quick=False), tmp_path / 'gelu')}", None)
    answer = canary(replace(setup, model=quick), {"test": at_hand.references()["test"]})
    first = ordered(answer.findings["test"])[0]
    assert first.text.endswith("; the published number was made so")
    assert answer.notes == ("computes GELU, the published weights ask for the other",)


def test_the_subset_is_fixed_and_holds_each_class_in_its_share(at_hand: Known) -> None:
    split = known.suite(at_hand.root).split("test")
    chosen = choose(split, 240)
    assert [int(n) for n in torch.bincount(torch.tensor(chosen.labels.copy()))] == [20] * 12
    turned = split.take(torch.arange(len(split) - 1, -1, -1).numpy())
    assert set(choose(turned, 240).ids) == set(chosen.ids)  # in whatever order the files are listed
    assert choose(split, 5_000) is split
    uneven = choose(split.take(split.labels.argsort(kind="stable")[:150]), 15)
    assert [int(n) for n in torch.bincount(torch.tensor(uneven.labels.copy()))] == [10, 5]


def test_renumbering_is_scored_on_images_it_was_not_fitted_to(at_hand: Known) -> None:
    """Labels that mean nothing stay at chance, also where a class has two images only."""
    labels = torch.arange(12).repeat_interleave(2).numpy()
    said = torch.randint(0, 12, (24,), generator=torch.Generator().manual_seed(0)).numpy()
    assert reference.causes._fitted(labels, said, 12) < 0.35  # pyright: ignore[reportPrivateUsage]
    assert reference.causes._fitted(labels, (labels + 5) % 12, 12) == 1.0  # pyright: ignore[reportPrivateUsage]


def test_the_command_says_right_and_leaves_nothing(registered: Known, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    words = f"canary known --model local-dir:{registered.model} --as known-vit:ours --root {registered.root}"
    done = run(f"{words} --images 600")
    assert done.exit_code == 0, done.output
    head, *_ = done.stdout.splitlines()
    assert head == "setup    known-vit ours on known: right, 1 of 1 splits inside"
    assert "  600  " in done.stdout
    assert sorted(tmp_path.rglob("*")) == before
    done = run(f"{words} --split r --split v2 --images 300 --json")
    assert [found["split"] for found in json.loads(done.stdout)] == ["r", "v2"]
    head, *rows = csv.reader(io.StringIO(run(f"{words} --split r --split v2 --images 300 --format csv").stdout))
    assert [float(row[head.index("measured")]) for row in rows] == [
        100 * f["measured"] for f in json.loads(done.stdout)
    ]
    done = run(f"canary known --model local-dir:{registered.model} --root {registered.root}")
    assert done.exit_code == 2
    assert "on known is known here; 1 models have one, e.g. known-vit ours: --as TAG (or NAME:TAG)" in done.output
    assert "known: r, test, v2" in run(f"{words} --split train").output


def test_the_command_names_the_cause_and_exits_with_1(registered: Known, tmp_path: Path) -> None:
    broken = registered.with_fault(Fault(quick=False), tmp_path / "model")
    done = run(f"canary known --model local-dir:{broken} --as known-vit:ours --root {registered.root}")
    assert done.exit_code == 1
    assert "OUTSIDE" in done.stdout
    assert "\n  1. activation (found): with QuickGELU for GELU, +" in done.stdout


def test_a_zero_shot_run_ends_with_its_verdict(
    registered: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = model_ref.resolve(f"local-dir:{registered.with_fault(Fault(quick=False), tmp_path / 'model')}", None)
    published = {(ref.name, ""): [replace(one, model=ref.name) for one in reference.numbers.every()[KEY]]}
    monkeypatch.setattr(reference.numbers, "every", lambda: published)
    words = f"run --method zero-shot --suite known --model {ref.name} --root {registered.root} --out {tmp_path}/runs"
    done = run(words)
    assert done.exit_code == 0, done.output
    assert " on known: 0 of 3 splits inside" in done.stdout
    for split in ("test", "v2", "r"):
        part = done.stdout.partition(f"\n{split}: -")[2]
        assert part.splitlines()[1].startswith("  1. activation (found): with QuickGELU for GELU, +")
    tuned = run(words.replace("zero-shot", "ft") + " --set steps=1 --set batch=4")
    assert tuned.exit_code == 0, tuned.output
    assert "splits inside" not in tuned.stdout
