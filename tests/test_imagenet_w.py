"""ImageNet-W: the watermark is drawn on what the model sees, gaps are differences of stored accuracies, faults."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import coded
import forest
import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageFont

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry, suite_ref
from robustbench_ft.board import ranking, text
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.cli import main
from robustbench_ft.compare import report
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.record import store
from robustbench_ft.suite import Suite

CARTON = forest.wnids().index("n02971356")
FONT = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"  # stands for the official one, of 21 MB
MARK: Any = __import__("importlib").import_module("robustbench_ft.benchmarks._imagenet_w")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("imagenet-w")


@pytest.fixture(autouse=True)
def font(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = base / "font/imagenet_w/fonts" / MARK.FONT
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(FONT, path)
    monkeypatch.setattr(MARK, "SHA", hashlib.sha256(FONT.read_bytes()).hexdigest())
    return path


def roots(base: Path) -> list[str]:
    return ["--root", str(forest.imagenet(base)), "--root", str(base / "font")]


def load(base: Path) -> Suite:
    return suite_ref.load("imagenet+w", Roots((forest.imagenet(base), base / "font")), True)


@pytest.mark.parametrize(("side", "size"), [(224, 36), (384, 62), (32, 5), (336, 54)])
def test_it_is_drawn_half_white_at_the_official_place(side: int, size: int, font: Path) -> None:
    """Sizes, place, opacity: facebookresearch/Whac-A-Mole@c91b097, imagenet_w/watermark_transform.py. Outside this
    repository, with the official font, 100 images of 5 sizes were equal to that code's to the bit."""
    pixels = np.random.default_rng(side).integers(0, 200, (side, side, 3), np.uint8)
    marked = np.asarray(MARK.Watermark(font)(Image.fromarray(pixels)))
    mask = Image.new("L", (side, side))
    letters = ImageFont.truetype(str(font), size)
    ImageDraw.Draw(mask).text((0.01 * side, 0.4 * side), "捷径捷径捷径", fill=128, font=letters)
    alpha = np.asarray(mask, np.float64)[..., None] / 255
    assert alpha.max() > 0.4
    assert np.abs(marked - (pixels * (1 - alpha) + 255 * alpha)).max() <= 1.01
    assert np.array_equal(marked[alpha[..., 0] == 0], pixels[alpha[..., 0] == 0])


def test_models_see_it_after_their_own_transform(base: Path, font: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.load("suite", "imagenet", Suite), "templates", forest.TEMPLATES)
    clip = clips.load(model_ref.resolve(forest.write_model(base / "seen", "imagenet"), None))
    suite = load(base)
    plain, marked = (Loader(clip, suite.split(name), 1) for name in ("test", "w"))
    pixels, found = plain.read(range(4)), marked.read(range(4))
    assert not np.array_equal(pixels, found)
    for own, other in zip(pixels, found, strict=True):
        seen = np.asarray(MARK.Watermark(font)(Image.fromarray(own.permute(1, 2, 0).numpy())))
        assert np.array_equal(other.permute(1, 2, 0).numpy(), seen)
    assert plain.key != marked.key
    few = suite.split("w").take(np.array([3, 1]))
    assert np.array_equal(Loader(clip, few, 1).read(range(2)), found[[3, 1]])
    assert few.digest != suite.split("test").take(np.array([3, 1])).digest


def test_images_and_labels_are_those_of_validation(base: Path) -> None:
    suite = load(base)
    test, marked = suite.split("test"), suite.split("w")
    assert [f"w/{name}" for name in test.ids] == list(marked.ids)
    assert (test.labels == marked.labels).all()
    for split in (test, marked):
        labels = split.also["carton"].labels
        assert set(labels.tolist()) == {CARTON, -1}
        assert (split.labels[labels >= 0] == CARTON).all()
    assert CARTON == MARK.CARTON
    assert "carton" in suite.classes[CARTON]
    assert (suite.card.counts["w"], suite.card.per_class["w"]) == (50_000, (50, 50))


def test_nothing_changes_without_the_option(base: Path) -> None:
    plain = suite_ref.load("imagenet", forest.imagenet(base), True)
    assert not plain.gaps
    assert "w" not in (*plain.known, *plain.places, *plain.card.counts)
    assert "carton" not in plain.split("test").also


def test_a_run_shows_the_gaps(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.load("suite", "imagenet", Suite)
    monkeypatch.setattr(kind, "templates", forest.TEMPLATES)
    monkeypatch.setattr(kind, "card", replace(kind.card, counts={**forest.COUNTS, "test": 1001}, per_class={}))
    tree = forest.copy(forest.imagenet(base), tmp_path / "tree")
    coded.write(tree / "imagenet/val/n02971356/ILSVRC2012_val_00049999.JPEG", CARTON)  # of one there is no interval
    model = forest.write_model(base / "model", "imagenet")
    words = f"run --method zero-shot --suite imagenet+w --model {model} --out {tmp_path / 'out'}"
    done = CliRunner().invoke(main, [*words.split(), "--root", str(tree), *roots(base)[2:]])
    assert done.exit_code == 0, done.output
    [record] = store.find_records([tmp_path / "out"])
    right = {name: record.predictions("final", name).correct.mean() for name in ("test", "w")}
    carton = {name: record.predictions("final", f"{name}@carton") for name in ("test", "w")}
    [table] = report.tables([record])
    gaps = {column.title: report.further_values(table.lines[0].row, column)[0] for column in table.further[-2:]}
    assert gaps["IN-W gap"] == pytest.approx(right["w"] - right["test"])
    assert gaps["carton gap"] == pytest.approx(carton["w"].correct.mean() - carton["test"].correct.mean())
    assert len(carton["w"]) == 2
    assert "IN-W gap" in report.markdown(table)
    assert "w" not in record.summary.splits.shifts
    claim_store.add([tmp_path / "out"], tmp_path / "boards", Trust("rerun"))
    verify = ["leaderboard", "verify", "--root", str(tmp_path / "boards"), "--data"]
    verify += ["--data-root", str(tree), "--data-root", str(base / "font")]
    done = CliRunner().invoke(main, verify)
    assert done.exit_code == 0, done.output
    with monkeypatch.context() as patch:
        patch.setattr(MARK, "GAPS", {"IN-W gap": ("w", "test")})
        done = CliRunner().invoke(main, verify)
    assert done.exit_code == 2
    assert "its relative errors or gaps are not those of suite imagenet+w v1" in done.output
    [board] = ranking.boards(claim_store.find(tmp_path / "boards"))
    assert [board.rows[0].further(column)[0] for column in board.further[-2:]] == pytest.approx(list(gaps.values()))
    assert "carton gap" in text.markdown(board)


def test_the_doctor_does_not_take_them_for_copies(base: Path) -> None:
    done = CliRunner().invoke(main, ["data", "check", "imagenet+w", *roots(base)])
    [line] = [line for line in done.output.splitlines() if line.startswith("w ")][:1]
    assert "watermarked" in line
    assert "images are in 'test' too" not in done.output


def test_another_font_is_refused(base: Path, font: Path) -> None:
    with font.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        RbftError, match=r"is not the font of imagenet-w 1\.0\.0, so the watermark would differ; put that"
    ):
        load(base).split("w")


def test_no_font_is_one_line(base: Path, font: Path) -> None:
    font.unlink()
    with pytest.raises(
        MissingDataError, match=r"suite 'imagenet', split 'w': .* has no imagenet_w/fonts/SourceHanSerif"
    ):
        load(base).split("w")
