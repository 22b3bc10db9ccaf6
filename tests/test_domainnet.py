"""DomainNet: labels are those of the official split files, of either generation, wherever people keep them."""

import random
from collections.abc import Iterator
from pathlib import Path

import coded
import forest
import numpy as np
import pytest
from domainnet_cases import CASES, SPOKEN
from test_bad_input import answer, invoke

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry, suite_ref
from robustbench_ft.checks import check_suite
from robustbench_ft.compare import report
from robustbench_ft.data import Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.record import store
from robustbench_ft.suite import Suite

KIND = registry.load("suite", "domainnet", Suite)
SPLITS = ("train", "val", "train-all", "test", "painting", "clipart", "infograph", "sketch", "quickdraw")
TREES = {"cleaned": forest.domainnet, "pre-cleaning": forest.domainnet_before}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "forest"


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Both generations count what the small lists hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{KIND.__module__}.GENERATIONS", forest.LINES)
        yield


def load(root: Path, options: str = "+quickdraw", partial: bool = False) -> Suite:
    return suite_ref.load(f"domainnet{options}", root, partial)


def seen(split: Split) -> list[int]:
    """The labels that pixels carry."""
    return coded.labels(np.stack([np.asarray(image) for image in split.images.read(range(len(split)))])).tolist()


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("generation", TREES)
def test_every_image_has_the_label_that_its_pixels_carry(generation: str, name: str, base: Path) -> None:
    suite = load(TREES[generation](base))
    split = suite.split(name)
    assert seen(split) == split.labels.tolist()
    assert set(split.labels.tolist()) == set(range(345))
    assert split.layout == f"{generation} split files"
    for k, example in enumerate(split.ids):
        domain, folder, stem = example.split("/")
        assert folder == suite.classes[split.labels[k]]
        assert stem.split("_")[:2] == [domain, f"{split.labels[k] + 1:03d}"]


@pytest.mark.parametrize("name", ["train", "painting", "quickdraw"])
def test_the_loader_keeps_image_and_label_together(name: str, base: Path, tiny_model: str) -> None:
    split = load(forest.domainnet(base)).split(name)
    pixels = Loader(clips.load(model_ref.resolve(tiny_model, None)), split).read(range(len(split)))
    assert coded.labels(pixels.permute(0, 2, 3, 1).numpy()).tolist() == split.labels.tolist()


def test_the_official_order_is_none_that_sorting_gives(base: Path) -> None:
    names = list(load(forest.domainnet(base)).classes)
    assert len(set(names)) == 345
    sortings = [sorted(names), sorted(names, key=str.lower)]
    assert all(names != found for found in sortings)
    assert sum(a != b for a, b in zip(names, sortings[0], strict=True)) == 328  # of which ImageFolder is wrong about
    assert names.index("cello") + 1 == names.index("cell_phone") == 67


def test_prompts_keep_raw_names_unless_asked_otherwise(base: Path) -> None:
    raw, clean = (load(forest.domainnet(base), options) for options in ("", "+clean-prompts"))
    assert {"The_Eiffel_Tower", "t-shirt", "aircraft_carrier"} <= set(raw.classes)
    assert {"The Eiffel Tower", "t-shirt", "aircraft carrier"} <= set(clean.classes)
    assert [name.replace(" ", "_") for name in clean.classes] == list(raw.classes)
    assert (len(raw.templates), raw.templates) == (80, clean.templates)
    assert clean.name == "domainnet+clean-prompts"  # records and boards of the two never meet
    assert clean.split("painting").digest == raw.split("painting").digest


def test_quickdraw_is_off_as_in_the_paper(base: Path) -> None:
    assert load(forest.domainnet(base), "").shifts == ("painting", "clipart", "infograph", "sketch")
    assert load(forest.domainnet(base)).shifts[-1] == "quickdraw"
    with pytest.raises(RbftError, match="unknown split of suite 'domainnet' 'quickdraw'"):
        load(forest.domainnet(base), "").split("quickdraw")


def test_validation_is_held_out_of_train(base: Path) -> None:
    suite = load(forest.domainnet(base))
    train, val, whole = (set(suite.split(name).ids) for name in ("train", "val", "train-all"))
    assert train | val == whole
    assert not train & val
    assert suite.under("as-published").train == "train-all"
    assert suite.under("as-published").select == "test"


@pytest.mark.parametrize("folder", ["", "splits", "txt", "split_files"])
def test_lists_are_found_where_people_keep_them(folder: str, base: Path, tmp_path: Path) -> None:
    forest.copy_domains(forest.domainnet(base), tmp_path)
    (tmp_path / "domainnet" / folder).mkdir(exist_ok=True)
    for path in (forest.domainnet(base) / "domainnet").glob("*.txt"):
        lines = path.read_text().splitlines()
        random.Random(0).shuffle(lines)
        (tmp_path / "domainnet" / folder / path.name).write_text("\r\n".join(lines))
    for name in ("train", "test", "sketch"):
        found = load(tmp_path).split(name)
        assert found.digest == load(forest.domainnet(base)).split(name).digest  # whatever the order of lines
        assert found.place == tmp_path / "domainnet" / ("sketch" if name == "sketch" else "real")


def test_both_generations_hold_out_the_same_way(base: Path) -> None:
    """FTP's halves of real_train are put together first, so its lists select the images that the whole list selects."""
    before, after = (load(tree(base)).split("val") for tree in (forest.domainnet_before, forest.domainnet))
    assert before.ids == after.ids


def test_real_counts_are_those_of_the_official_lists(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    monkeypatch.setattr(f"{KIND.__module__}.GENERATIONS", {"cleaned": {**forest.LINES["cleaned"], "painting_test": 346},
                                                           "pre-cleaning": forest.LINES["pre-cleaning"]})  # fmt: skip
    with pytest.raises(MissingDataError, match=r"split 'painting' has 345 images, the cleaned lists have 346, the pre"):
        load(forest.domainnet(base)).split("painting")
    split = load(forest.domainnet(base), partial=True).split("painting")
    assert split.layout == "unknown split files"
    assert len(load(forest.domainnet(base), partial=True).count_problems(split)) == 1


def test_the_contract_is_kept(base: Path) -> None:
    for check in check_suite(load(forest.domainnet(base))):
        check.run()


@pytest.mark.parametrize("name", CASES)
def test_bad_data_are_one_line(name: str, base: Path, tmp_path: Path) -> None:
    case = CASES[name]
    root = case.prepare(base, tmp_path)
    with pytest.raises(RbftError) as caught:
        load(Path(root)).split(case.split)
    assert case.text.replace("TMP", str(tmp_path)) in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SPOKEN)
def test_bad_data_leave_no_record(name: str, base: Path, tmp_path: Path) -> None:
    root = CASES[name].prepare(base, tmp_path)
    [line] = answer(invoke(f"run --suite domainnet --method zero-shot --root {root}", tmp_path))
    assert CASES[name].text.replace("TMP", str(tmp_path)) in line
    assert not list((tmp_path / "out").rglob("*"))


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods, two steps each, through the command line, on lists of either generation; two templates for 80."""
    out = tmp_path_factory.mktemp("domainnet-runs")
    model = forest.write_model(tmp_path_factory.mktemp("models") / "domainnet", "domainnet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KIND, "templates", forest.TEMPLATES)
        start = f"run --model {model} --out {out} --precision fp32 --no-save-model "
        two = "--set steps=2 --set batch=8"
        for words in (
            f"--root {forest.domainnet(base)} --suite domainnet --method zero-shot --method ft --method lipsum {two}",
            f"--root {forest.domainnet_before(base)} --suite domainnet --method lipsum --protocol as-published {two}",
            f"--root {forest.domainnet(base)} --suite domainnet+clean-prompts+quickdraw --method zero-shot",
        ):
            done = invoke(start + words, out)
            assert done.exit_code == 0, (done.output, done.exception)
    return out


def test_the_whole_path(runs: Path) -> None:
    records = {(r.cell["suite"], r.cell["method"], r.cell["protocol"]): r for r in store.find_records([runs])}
    assert len(records) == 5
    first = records["domainnet", "lipsum", "clean"]
    assert first.metrics["splits"] == {"val": "val", "test": "test", "shifts": list(SPLITS[4:8]), "extra": []}
    for name in SPLITS[3:8]:
        found = first.predictions("final", name)
        assert first.metrics["candidates"]["final"][name]["accuracy"] == pytest.approx(found.correct.mean())
        assert first.env["data"][name]["layout"] == "cleaned split files"
        assert "partial" not in first.env["data"][name]
    published = records["domainnet", "lipsum", "as-published"]
    assert published.env["data"]["train-all"]["n"] == 690
    assert published.env["data"]["sketch"]["layout"] == "pre-cleaning split files"
    assert published.metrics["splits"]["val"] == "test"
    both = records["domainnet+clean-prompts+quickdraw", "zero-shot", "clean"]
    assert both.metrics["splits"]["shifts"] == list(SPLITS[4:])
    assert "quickdraw" in report.markdown(report.tables([both])[0])
