"""ImageNet and its shifts: in every layout an image has the label that its pixels carry, and one id."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import coded
import forest
import numpy as np
import pytest
import torch
from imagenet_cases import CASES, SPOKEN, Case, put
from test_bad_input import answer, invoke

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry, suite_ref
from robustbench_ft.checks import check_suite
from robustbench_ft.claims import claim_store
from robustbench_ft.claims.schema import Trust
from robustbench_ft.compare import report
from robustbench_ft.data import Split
from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import roots
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.predict import reduce
from robustbench_ft.record import store
from robustbench_ft.suite import Suite

VECTORS = np.load(Path(__file__).parent / "vectors" / "imagenet_masks.npz")
ID = ("train", "val", "train-all", "test")
ONE = ("imagenet", "clean")  # what one table may hold
SHIFTS = ("v2", "r", "a", "sketch", "objectnet")
LAYOUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "folders": (forest.imagenet, "wnid folders"),
    "kaggle": (forest.kaggle, "flat folder with LOC_val_solution.csv"),
    "parquet": (lambda base: forest.parquet(base).parents[1], "Hugging Face Parquet, 3 shards"),
    "tars": (lambda base: forest.tars(base).parent, "WebDataset tars, 3 shards"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "forest"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card counts what the small trees hold."""
    kind = registry.load("suite", "imagenet", Suite)
    monkeypatch.setattr(kind, "card", replace(kind.card, counts=forest.COUNTS, per_class={}))


def load(root: Path, partial: bool = False) -> Suite:
    return suite_ref.load("imagenet+objectnet", root, partial)


def seen(split: Split) -> list[int]:
    """The labels that pixels carry."""
    return coded.labels(np.stack([np.asarray(image) for image in split.images.read(range(len(split)))])).tolist()


def cases() -> Iterator[tuple[str, str]]:
    for layout in LAYOUTS:
        yield from ((layout, name) for name in (*ID, *(SHIFTS if layout == "folders" else ())))


@pytest.mark.parametrize(("layout", "name"), cases())
def test_every_image_has_the_label_that_its_pixels_carry(layout: str, name: str, base: Path) -> None:
    split = load(LAYOUTS[layout][0](base)).split(name)
    assert len(split) == forest.COUNTS[name]
    pixels = seen(split)
    assert all(k in (split.members[own] if split.members else (own,))
               for k, own in zip(pixels, split.labels.tolist(), strict=True))  # fmt: skip
    assert len(set(split.labels.tolist())) == (len(split.members) if split.members else 1000)
    for space in split.also.values():
        for k, own in zip(pixels, space.labels.tolist(), strict=True):
            everywhere = {
                m: place for place, some in enumerate(space.members or [(m,) for m in range(1000)]) for m in some
            }
            assert own == everywhere.get(k, -1)
    if name in ID:
        assert split.layout == ("wnid folders" if layout == "kaggle" and name != "test" else LAYOUTS[layout][1])


@pytest.mark.parametrize(
    ("layout", "name"), [*(("folders", name) for name in ("test", "v2", "r", "objectnet")), ("kaggle", "test"),
                         ("parquet", "train"), ("tars", "val")],
)  # fmt: skip
def test_the_loader_keeps_image_and_label_together(layout: str, name: str, base: Path, tiny_model: str) -> None:
    split = load(LAYOUTS[layout][0](base)).split(name)
    pixels = Loader(clips.load(model_ref.resolve(tiny_model, None)), split).read(range(len(split)))
    found = coded.labels(pixels.permute(0, 2, 3, 1).numpy())
    members = split.members or [(k,) for k in range(1000)]
    assert all(k in members[own] for k, own in zip(found.tolist(), split.labels.tolist(), strict=True))


def test_an_image_that_cannot_be_decoded_is_named(base: Path, tmp_path: Path) -> None:
    """By its path, or by its archive and the name in it; nothing is skipped."""
    folder = forest.copy(forest.imagenet(base) / "imagenet-a", tmp_path / "imagenet-a")
    path = min(folder.glob("*/*.jpg"))
    put(path, path.read_bytes()[:300])
    with pytest.raises(
        RbftError, match=rf"cannot decode {re.escape(str(path))}: .*; replace the file, nothing is skipped"
    ):
        load(tmp_path).split("a").images.read([0])
    cut = [replace(one, content=one.content[:300]) for one in forest.val()[:3]]
    shard = forest.write_tar(tmp_path / "validation.tar", cut)
    split = suite_ref.load("imagenet", roots.choose([f"imagenet/test={tmp_path}"], {}), partial=True).split("test")
    with pytest.raises(RbftError, match=rf"cannot decode {shard}:{cut[1].stem}: .*; replace the file"):
        split.images.read([1])


@pytest.mark.parametrize("name", ID)
def test_an_image_has_one_id_in_every_layout(name: str, base: Path) -> None:
    splits = [load(make(base)).split(name) for make, _ in LAYOUTS.values()]
    assert len({split.ids for split in splits}) == 1
    assert len({split.digest for split in splits}) == 1
    assert len({split.images.fingerprint() for split in splits}) == len(LAYOUTS)
    assert splits[0].images.raw(7) == splits[2].images.raw(7) == splits[3].images.raw(7)
    assert all(str(split.place) in split.images.name(7) for split in splits)


def test_ids_say_what_an_image_is(base: Path) -> None:
    suite = load(forest.imagenet(base))
    wnid, one = forest.wnids()[3], forest.val()[3]
    assert {i.partition("/")[0] for i in suite.split("train").ids} == set(forest.wnids())
    assert suite.split("test").ids[3] == one.stem
    assert suite.split("v2").ids[10] == f"v2/10/{10 * 7919:040x}"
    assert f"sketch/{wnid}/sketch_3" in suite.split("sketch").ids
    assert f"r/{forest.wnids('imagenet_r')[5]}/sketch_3" in suite.split("r").ids
    assert suite.split("a").ids[0].endswith(("_0.865662", "_0.3"))  # only the suffix is cut off


def test_validation_is_held_out_of_train(base: Path) -> None:
    suite = load(forest.imagenet(base))
    train, val, whole = (suite.split(name) for name in ("train", "val", "train-all"))
    assert set(train.ids) | set(val.ids) == set(whole.ids)
    assert not set(train.ids) & set(val.ids)
    assert suite.under("as-published").train == "train-all"
    assert suite.under("as-published").select == "test"
    assert suite.under("as-published").evaluate == ("test", *SHIFTS)


def test_the_real_counts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    card = suite_ref.load("imagenet").card
    assert card.counts["train"] + card.counts["val"] == card.counts["train-all"]
    for name in ("val", "test", "v2"):
        least, most = card.per_class[name]
        assert least == most == card.counts[name] / 1000
    for name, (least, most) in card.per_class.items():
        n = {"r": 200, "a": 200, "objectnet": 113}.get(name, 1000)
        assert least * n <= card.counts[name] <= most * n


def test_small_trees_are_refused_by_their_counts(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    suite = load(forest.imagenet(base))
    for name in suite.known:
        with pytest.raises(
            MissingDataError, match=rf"split '{name}' has [\d,]+ images, its card says .*--allow-partial"
        ):
            suite.split(name)
        assert len(load(forest.imagenet(base), partial=True).split(name)) == forest.COUNTS[name]


def test_the_contract_is_kept(base: Path) -> None:
    for check in check_suite(load(forest.imagenet(base))):
        check.run()


@pytest.mark.parametrize(("name", "golden"), [("r", "ImageNetR"), ("a", "ImageNetA")])
def test_logits_are_cut_as_in_the_official_code(name: str, golden: str, base: Path) -> None:
    split = load(forest.imagenet(base)).split(name)
    assert split.members == tuple((int(k),) for k in VECTORS[f"{golden}/indices"])
    logits = reduce(torch.from_numpy(VECTORS["logits1000"]), split.members)
    assert np.array_equal(logits.numpy(), VECTORS[f"{golden}/projected"])
    labels = torch.from_numpy(VECTORS["labels200"])
    assert (logits.argmax(1) == labels).sum() == VECTORS[f"{golden}/acc_sum"]
    own = logits.double().log_softmax(1).gather(1, labels[:, None])
    assert float(-own.sum()) == pytest.approx(float(VECTORS[f"{golden}/nll_sum_prob_eps"]), rel=1e-5)
    space = load(forest.imagenet(base)).split("test").also[f"{name}-classes"]
    assert space.members == split.members


def test_a_class_of_objectnet_has_the_largest_of_its_logits(base: Path) -> None:
    members = load(forest.imagenet(base)).split("objectnet").members
    assert members is not None
    folders = sorted(forest.objectnet_classes())
    alarm, chair = folders.index("alarm_clock"), folders.index("chair")
    logits = torch.arange(2000.0).reshape(2, 1000)
    logits[1, 409] = 9_000
    found = reduce(logits, members)
    assert found.shape == (2, 113)
    assert found[:, alarm].tolist() == [530, 9_000]  # analog and digital clock
    assert found[:, chair].tolist() == [765, 1765]  # barber, folding and rocking chair
    assert sum(map(len, members)) == len({k for some in members for k in some})  # no ImageNet class is in two


def test_the_red_frame_is_cut_off_to_the_pixel(base: Path) -> None:
    images = load(forest.imagenet(base)).split("objectnet").images
    for k in (0, 50, 112):
        [image], stem = images.read([k]), Path(images.name(k)).stem
        assert image.tobytes() == coded.picture(coded.label_of(image), stem).tobytes()


def test_numbered_folders_may_be_padded(base: Path, tmp_path: Path) -> None:
    plain = load(forest.imagenet(base)).split("v2")
    padded = forest.copy(forest.imagenet(base) / "ImageNetV2-matched-frequency", tmp_path / "imagenetv2")
    for folder in padded.iterdir():
        folder.rename(padded / folder.name.zfill(4))
    again = load(tmp_path).split("v2")
    assert seen(again) == list(range(1000))
    assert again.ids == plain.ids
    assert sorted(map(str, range(1000))) != list(map(str, range(1000)))  # what a sorted listing would have made of it


def test_folders_of_other_trees_are_found(base: Path, tmp_path: Path) -> None:
    """Each split by the first of its places that exists: an existing tree needs no moving."""
    tree, suite = forest.imagenet(base), registry.load("suite", "imagenet", Suite)
    here = {"train": "imagenet/train", "test": "imagenet/val", "v2": "ImageNetV2-matched-frequency", "r": "imagenet-r",
            "a": "imagenet-a", "sketch": "sketch", "objectnet": "objectnet-1.0/images"}  # fmt: skip
    for split, known in suite.places.items():
        root = tmp_path
        for k, place in enumerate(known):
            root = tmp_path / f"{split}-{k}"
            (root / place).parent.mkdir(parents=True)
            (root / place).symlink_to(tree / here[split])
            assert load(root).place(split) == root / place
        found, original = load(root).split(split), load(tree).split(split)  # the last of its places
        assert found.ids == original.ids
        assert found.digest == original.digest


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if case.split])
def test_bad_data_are_one_line(case: Case, base: Path, tmp_path: Path) -> None:
    suite = suite_ref.load("imagenet+objectnet", roots.choose(case.prepare(base, tmp_path), {}))
    with pytest.raises(RbftError) as caught:
        suite.split(case.split)
    assert case.text.replace("TMP", str(tmp_path)) in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*(name for name, case in CASES.items() if not case.split), *SPOKEN])
def test_bad_data_leave_no_record(name: str, base: Path, tmp_path: Path) -> None:
    roots = " ".join(f"--root {root}" for root in CASES[name].prepare(base, tmp_path))
    [line] = answer(invoke(f"run --suite imagenet+objectnet --method zero-shot {roots}", tmp_path))
    assert CASES[name].text.replace("TMP", str(tmp_path)) in line
    assert not list((tmp_path / "out").rglob("*"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return forest.write_model(tmp_path_factory.mktemp("models") / "imagenet", "imagenet")


@pytest.fixture(scope="module")
def runs(base: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods, two steps each, through the command line; two templates for 80."""
    out = tmp_path_factory.mktemp("imagenet-runs")
    kind = registry.load("suite", "imagenet", Suite)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "card", replace(kind.card, counts=forest.COUNTS, per_class={}))
        patch.setattr(kind, "templates", forest.TEMPLATES)
        start = f"run --model {model} --root {forest.imagenet(base)} --out {out} --precision fp32 "
        for words in (
            "--suite imagenet+objectnet --method zero-shot",
            "--suite imagenet --method ft --method lipsum --set steps=2 --set batch=8",
            "--suite imagenet --method ft --set steps=2 --set batch=8 --protocol as-published --no-save-model",
        ):
            done = invoke(start + words, out)
            assert done.exit_code == 0, (done.output, done.exception)
    return out


def test_the_whole_path(runs: Path) -> None:
    records = {(r.cell["suite"], r.cell["method"], r.cell["protocol"]): r for r in store.find_records([runs])}
    assert len(records) == 4
    whole = records["imagenet+objectnet", "zero-shot", "clean"]
    views = ["a@1000-way", "r@1000-way", "test@a-classes", "test@objectnet-classes", "test@r-classes"]
    assert whole.metrics["views"] == views
    assert whole.metrics["splits"] == {"val": "val", "test": "test", "shifts": list(SHIFTS), "extra": []}
    scores = whole.metrics["candidates"]["final"]
    for view in views:
        split, _, space = view.partition("@")
        found = whole.predictions("final", view)
        assert scores[view]["accuracy"] == pytest.approx(found.correct.mean())
        assert len(found) == len(whole.predictions("final", split)) if space == "1000-way" else len(found) < 1000
    r, wide = (whole.predictions("final", view) for view in ("r", "r@1000-way"))
    members = np.array([forest.wnids().index(wnid) for wnid in forest.wnids("imagenet_r")])
    assert np.array_equal(members[r.label], wide.label)
    assert (r.log_prob >= wide.log_prob).all()  # fewer rivals
    assert scores["r"]["accuracy"] >= scores["r@1000-way"]["accuracy"]
    assert set(whole.predictions("final", "objectnet").prediction) <= set(range(113))
    assert "2 pixels cut off each side" in whole.env["data"]["objectnet"]["layout"]
    for (_, method, protocol), record in records.items():
        assert "partial" not in record.env["data"]["test"]
        assert not record.cell.get("partial")
        published = protocol == "as-published"
        assert ("val" in record.metrics["candidates"]["final"]) is not published
        assert ("train-all" in record.env["data"]) is published, method


def test_the_mean_of_the_papers_five_shifts_is_named_so(runs: Path) -> None:
    """mlfoundations/wise-ft@09aa691, README.md: ImageNetV2, ImageNet-R, ImageNet Sketch, ObjectNet and ImageNet-A."""
    column = "mean of WiSE-FT's five shifts"
    tables = {table.run_set.suite: table for table in report.tables(store.find_records([runs]))}
    whole = tables["imagenet+objectnet"]
    [line] = whole.lines
    found = [whole.estimate(line, name) for name in ("v2", "r", "sketch", "objectnet", "a", column)]
    *shifts, mean = [estimate.value for estimate in found if estimate]
    assert mean == pytest.approx(np.mean(shifts))
    assert column in report.markdown(whole)
    assert column not in report.markdown(tables["imagenet"])  # four shifts: 'mean OOD' is what it was


def test_reports_show_the_other_label_spaces(runs: Path) -> None:
    tables = report.tables(store.find_records([runs]))
    assert {table.run_set.suite for table in tables} == {"imagenet", "imagenet+objectnet"}
    text = "".join(report.markdown(table) for table in tables)
    for view in ("r@1000-way: accuracy", "a@1000-way: accuracy", "test@objectnet-classes: accuracy"):
        assert view in text


def test_effective_robustness_is_shown_where_a_line_explains_enough(runs: Path, tmp_path: Path) -> None:
    """At the ID accuracy of an untrained model ImageNet-A's line does not."""
    clean = [r.folder for r in store.find_records([runs]) if (r.cell["suite"], r.cell["protocol"]) == ONE]
    done = invoke(f"compare {' '.join(map(str, clean))} --baseline ft --json {tmp_path / 'all.json'}", tmp_path)
    assert done.exit_code == 0, done.output
    assert "Effective robustness, points" in done.output
    text = json.dumps(json.loads((tmp_path / "all.json").read_text())).partition('"effective_robustness": ')[2]
    found, _ = json.JSONDecoder().raw_decode(text)
    shown = {row: set(cells) for row, cells in found["rows"].items()}
    assert shown == {row: {"v2", "r", "sketch"} for row in ("ft (batch=8, steps=2)", "lipsum (batch=8, steps=2)")}
    assert found["lines"]["r"][0]["identity"] == "test@r-classes"
    boards = tmp_path / "boards"
    claim_store.add([runs], boards, Trust("rerun"))
    assert invoke(f"leaderboard build --root {boards}", tmp_path).exit_code == 0
    assert "points above the line" in (boards / "site" / "imagenet-v1.html").read_text()


def test_partial_data_are_marked(base: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.load("suite", "imagenet", Suite)
    monkeypatch.setattr(kind, "card", replace(kind.card, counts={**forest.COUNTS, "a": 201}))
    monkeypatch.setattr(kind, "templates", forest.TEMPLATES)
    words = f"run --suite imagenet --method zero-shot --model {model} --root {forest.imagenet(base)}"
    [line] = answer(invoke(words, tmp_path))
    assert "split 'a' has 200 images, its card says 201" in line
    assert not list((tmp_path / "out").rglob("*"))
    assert invoke(f"{words} --allow-partial", tmp_path).exit_code == 0
    [record] = store.find_records([tmp_path / "out"])
    assert record.cell["partial"] is True
    assert record.env["data"]["a"]["partial"] == ["split 'a' has 200 images, its card says 201"]
    with pytest.raises(RbftError, match="was run with --allow-partial; a claim needs the whole data set"):
        claim_store.add([tmp_path / "out"], tmp_path / "boards", Trust("rerun"))
