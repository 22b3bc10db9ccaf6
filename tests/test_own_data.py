"""docs/own-data.md, done as it stands there: from a folder of pictures to advice, predictions and an exported model."""

import csv
import glob
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import robustbench_ft as rb
from robustbench_ft.cli.main import main
from robustbench_ft.compare import advice, compare, load
from robustbench_ft.record import store

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "own-data.md").read_text(encoding="utf-8")
CLASSES = ("bird", "bottle", "car", "house")
# folder of the page -> split of the embedded suite that stands in for photos, and how many of each class
FOLDERS = {"train": ("train", 50), "catalogue": ("sketch", 20), "murals": ("painting", 20)}


def block(marker: str) -> str:
    """The code block of the page that follows a marker."""
    return PAGE.partition(f"<!-- {marker} -->")[2].partition("```")[2].partition("\n")[2].partition("```")[0]


def rbft(line: str) -> Result:
    """Run a command of the page; the shell's part, to expand a star, is done here."""
    words = [word for text in line.split()[1:] for word in (glob.glob(text) if "*" in text else [text])]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, (line, done.output)
    return done


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder in which everything was done, and what each command printed."""
    place, shapes = tmp_path_factory.mktemp("own"), rb.suite("shapes")
    for folder, (split, n) in FOLDERS.items():
        found = shapes.split(split)
        for name in CLASSES:
            inside = place / "shop" / folder / name
            inside.mkdir(parents=True)
            rows = np.flatnonzero(found.labels == shapes.classes.index(name))[:n]
            for k, image in enumerate(found.images.read(rows.tolist())):
                image.save(inside / f"{k:03}.png")
    said: dict[str, str] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for marker in ("new", "check", "run", "use"):
            if marker == "check":
                edit(place / "shop" / "suite.toml")
            for line in block(marker).strip().splitlines():
                said[line.split()[1]] = rbft(line).output
    torch.set_num_threads(threads)
    return place, said


def edit(file: Path) -> None:
    """Change the lines that the page says."""
    text = file.read_text(encoding="utf-8")
    for line in block("edit").strip().splitlines():
        key = line.partition(" = ")[0]
        text, n = re.subn(rf"^{key} = .*$", line, text, flags=re.MULTILINE)
        assert n == 1, key
    file.write_text(text, encoding="utf-8")


def test_the_new_suite_says_which_model_its_words_need(walked: tuple[Path, dict[str, str]]) -> None:
    said = walked[1]
    assert "splits   train 144, val 16, test 40, catalogue 80, murals 80" in said["new"]
    assert (
        "ViT-B-16 openai (default of shop: the embedded model does not know 'itap', it knows 185 words" in said["new"]
    )
    assert "ready: rbft run" in said["data"]
    assert "model embedded" in said["data"]


def test_the_table_ends_with_advice_and_says_that_images_are_few(walked: tuple[Path, dict[str, str]]) -> None:
    told = re.sub(r"\s+", " ", walked[1]["compare"])
    shown = re.sub(r"\s+", " ", block("advice"))
    assert "Few images: ID 40, catalogue 80, murals 80." in told
    _, ours = told.split("advice ")
    # this machine's numbers may round otherwise, so the page is held to the sentences
    for sentence in (
        "of what was trained,",
        "is best under shift:",
        "Without training, zero-shot:",
        "to be told apart",
    ):
        assert sentence in ours
        assert sentence in shown


def test_advice_is_that_of_the_numbers(walked: tuple[Path, dict[str, str]]) -> None:
    (run_set,) = load(store.find_records([walked[0] / "runs"]))
    found = compare(run_set, "ft")
    first, *more = advice.advice(found)
    trained = [line for line in found.lines if line.status == "ranked" and line.row.method != "zero-shot"]
    assert first.startswith(f"of what was trained, {trained[0].row.name} is best under shift")
    assert any(line.startswith("Without training, zero-shot") for line in more)
    assert "zero-shot" not in first


def test_one_seed_gives_no_advice(walked: tuple[Path, dict[str, str]]) -> None:
    records = [r for r in store.find_records([walked[0] / "runs"]) if r.seed == 0]
    (run_set,) = load(records)
    [line] = advice.advice(compare(run_set, "ft"))
    assert line.startswith("none: ")
    assert "--seeds 0-4" in line


def test_predictions_are_those_of_the_record(
    walked: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, said = walked
    assert "80 images; %" in said["predict"]
    monkeypatch.chdir(place)
    done = rbft(f"{block('use').strip().splitlines()[0]} --format csv --top 3")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    [record] = [r for r in store.find_records([place / "runs"]) if (r.config.method, r.seed) == ("lipsum", 0)]
    stored = record.predictions("final", "murals")
    confidence = {
        name: (CLASSES[k], float(p))
        for name, k, p in zip(stored.ids, stored.prediction, stored.confidence, strict=True)
    }
    assert len(rows) == len(confidence) == 80
    for row in rows:
        name = row["image"].removeprefix("shop/")
        assert row["class"] == confidence[name][0]
        assert float(row["%"]) == pytest.approx(100 * confidence[name][1], rel=1e-4)
        assert float(row["%"]) >= float(row["% 2"]) >= float(row["% 3"])


def test_predict_keeps_no_pixels_and_names_what_it_cannot_read(
    walked: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustbench_ft import cache

    place, _ = walked
    monkeypatch.chdir(place)
    monkeypatch.setenv("RBFT_CACHE", str(place / "cache"))
    run = glob.glob("runs/shop/embedded/lipsum-*/seed-0")[0]
    picture = place / "one.png"
    picture.write_bytes(next((place / "shop" / "murals" / "car").iterdir()).read_bytes())
    assert "1 image; " in rbft(f"rbft predict {run}/model one.png one.png").output
    assert not [entry for entry in cache.entries() if entry.kind == "pixels"]
    (place / "empty").mkdir()
    (place / "broken.png").write_bytes(b"no picture")
    for words, says in (
        (["nowhere.png"], "no such file or folder: nowhere.png"),
        (["empty"], "no image under empty"),
        (["broken.png"], "broken.png"),
    ):
        done = CliRunner().invoke(main, ["predict", run, *words])
        lines = [line for line in done.stderr.splitlines() if line.startswith("rbft: ")]
        assert (done.exit_code, len(lines)) == (2, 1), done.output
        assert says in lines[0]


def test_the_exported_folder_holds_the_lines_that_load_it(walked: tuple[Path, dict[str, str]]) -> None:
    card = (walked[0] / "lipsum-shop" / "README.md").read_text(encoding="utf-8")
    assert "open_clip.create_model_and_transforms" in card
    assert "## Limits" in card
