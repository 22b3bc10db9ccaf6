"""ImageNet-C: corruption, severity and class that are in the pixels, mCE as published, no pixels kept, faults."""

import shutil
from collections.abc import Callable
from pathlib import Path

import coded
import forest
import numpy as np
import pytest
from click.testing import CliRunner

from robustbench_ft import cache, metrics, registry, suite_ref
from robustbench_ft.cli import main
from robustbench_ft.compare import report
from robustbench_ft.errors import MissingDataError
from robustbench_ft.record import store
from robustbench_ft.suite import Suite

TARS = {  # hendrycks/robustness: Zenodo's archives, in the order in which tables list their corruptions
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS = tuple(name for names in TARS.values() for name in names)
ALEXNET = {  # error at severities 1 to 5, of two of them, as lists that give each severity print it
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
}
LABELS = (0, 3, 20, 21, 62)  # of the wnids that the small tree has, less than 64


def write(root: Path, tars: bool) -> Path:
    """Every corruption at every severity, one image a class; pixels carry class, severity and corruption."""
    numbers = np.random.default_rng(0).permutation(50_000)[: len(LABELS)] + 1
    for tar, names in TARS.items():
        for name in names:
            for severity in range(1, 6):
                for label, number in zip(LABELS, numbers.tolist(), strict=True):
                    code = label + 64 * severity + 512 * CORRUPTIONS.index(name)
                    place = root / "ImageNet-C" / (tar if tars else "") / name / str(severity)
                    coded.write(place / forest.wnids()[label] / f"ILSVRC2012_val_{number:08d}.JPEG", code)
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imagenet-c")


@pytest.fixture(scope="module")
def root(base: Path) -> Path:
    return write(base / "tars", True)


def test_class_severity_and_corruption_are_those_in_the_pixels(root: Path, base: Path) -> None:
    flat = suite_ref.load("imagenet+c", write(base / "flat", False), True)
    suite = suite_ref.load("imagenet+c", root, True)
    for k, name in enumerate(CORRUPTIONS):
        split = suite.split(f"c-{name}")
        codes = split.labels + 64 * split.groups["severity"] + 512 * k
        assert [coded.label_of(image) for image in split.images.read(range(len(split)))] == codes.tolist()
        assert len(split) == 5 * len(LABELS)
        assert flat.split(f"c-{name}").ids == split.ids
    last = suite.split(f"c-{CORRUPTIONS[-1]}")
    assert last.ids[0] == f"c-{CORRUPTIONS[-1]}/1/ILSVRC2012_val_{last.groups['image'][0]:08d}"
    assert suite.extra == tuple(f"c-{name}" for name in CORRUPTIONS)
    assert suite.shifts == ("v2", "r", "a", "sketch")


def test_nothing_changes_without_the_option() -> None:
    plain, more = suite_ref.load("imagenet"), suite_ref.load("imagenet+c")
    assert not plain.relative_errors
    assert not [name for name in (*plain.known, *plain.card.counts, *plain.places) if name.startswith("c-")]
    assert sum(n for name, n in more.card.counts.items() if name.startswith("c-")) == 3_750_000
    assert more.card.per_class["c-fog"] == (250, 250)


def test_alexnet_is_at_one_hundred() -> None:
    references = suite_ref.load("imagenet+c").relative_errors["mCE"]
    assert list(references) == [f"c-{name}" for name in CORRUPTIONS]
    for name, errors in ALEXNET.items():
        assert references[f"c-{name}"] == pytest.approx(np.mean(errors), abs=1e-9)
    [column] = metrics.derived_columns({"relative_errors": {"mCE": references}})
    assert column.of({name: {"accuracy": 1 - error} for name, error in references.items()}) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_mce_is_that_of_public_code(seed: int) -> None:
    """google-research/augmix@202cf4c, imagenet.py: 100 (1 - mean accuracy over severities) / AlexNet's, and the mean;
    the errors are typed again from that file."""
    alexnet = (0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324,
               0.564592, 0.853204, 0.646056, 0.717840, 0.606500)  # fmt: skip
    accuracies = np.random.default_rng(seed).random((15, 5))
    mce = 0.0
    for k in range(15):
        mce += 100 * (1 - np.mean(accuracies[k])) / alexnet[k] / 15
    [column] = metrics.derived_columns({"relative_errors": suite_ref.load("imagenet+c").relative_errors})
    scores = {f"c-{name}": {"accuracy": float(own.mean())} for name, own in zip(CORRUPTIONS, accuracies, strict=True)}
    assert 100 * column.of(scores) == pytest.approx(mce, abs=1e-9)


def test_a_run_shows_mce_and_keeps_no_pixels(
    root: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "cache"))
    model = forest.write_model(base / "model", "imagenet")
    kind = registry.load("suite", "imagenet", Suite)
    words = f"run --method zero-shot --suite imagenet+c --model {model} --allow-partial --out {tmp_path / 'out'}"
    monkeypatch.setattr(kind, "templates", forest.TEMPLATES)
    done = CliRunner().invoke(main, f"{words} --root {root} --root {forest.imagenet(base)}".split())
    assert done.exit_code == 0, done.output
    [record] = store.find_records([tmp_path / "out"])
    references = suite_ref.load("imagenet+c").relative_errors["mCE"]
    errors = [1 - record.predictions("final", name).correct.mean() for name in references]
    mce = np.mean(np.array(errors) / list(references.values()))
    [table] = report.tables([record])
    assert report.further_values(table.lines[0].row, table.further[-1]) == [pytest.approx(mce)]
    assert "mCE (lower is better)" in report.markdown(table)
    assert f"{100 * mce:.1f}" in report.markdown(table)
    held = [str(entry.text) for entry in cache.entries() if entry.kind == "pixels"]
    assert any(text.startswith("test, ") for text in held)
    assert not [text for text in held if text.startswith("c-")]


def first(place: Path) -> Path:
    return sorted(place.glob("noise/shot_noise/3/*/*"))[0]


def renamed(place: Path) -> None:
    file = first(place)
    file.rename(file.with_name("sketch_3.JPEG"))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no corruption": (lambda p: shutil.rmtree(p / "noise/shot_noise"), "split 'c-shot_noise': "),
    "no severity": (lambda p: shutil.rmtree(p / "noise/shot_noise/3"), "lacks 1 severity folder (3) of 5; unpack"),
    "no class": (lambda p: None, "/1 lacks 995 wnid folders (n01443537, n01484850, n01494475, ...) of 1,000;"),
    "stray folder": (lambda p: (p / "noise/shot_noise/1/dog").mkdir(), "holds 1 folder (dog) that name no wnid"),
    "other names": (renamed, "sketch_3' is no file name of ImageNet's validation set; unpack the tar again"),
    "no severities": (lambda p: [shutil.rmtree(q) for q in (p / "noise/shot_noise").iterdir()], "lacks 5 severity"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    damage, text = FAULTS[fault]
    damage(tmp_path / "data/ImageNet-C")
    partial = fault not in ("no class", "no severity")
    with pytest.raises(MissingDataError if fault != "other names" else Exception) as found:
        suite_ref.load("imagenet+c", tmp_path / "data", partial).split("c-shot_noise")
    assert text in str(found.value)
    assert len(str(found.value).splitlines()) == 1
