"""A suite.toml over folders and manifests: labels by name, held-out parts, groups, bad input."""

from collections.abc import Callable
from pathlib import Path

import coded
import pytest
from click.testing import CliRunner
from custom_cases import BASE, CASES, CLASSES, Case, build

from robustbench_ft import checks, custom, metrics, plan
from robustbench_ft.cli.main import main
from robustbench_ft.custom.form import METRICS, WORST
from robustbench_ft.data import FileImages
from robustbench_ft.errors import PlanError, RbftError, SealedError
from robustbench_ft.suite import Suite, sealed


def test_metrics_of_the_file_are_those_that_exist() -> None:
    assert set(METRICS) <= set(metrics.METRICS)
    assert WORST == metrics.WORST


@pytest.fixture
def pets(tmp_path: Path) -> Callable[..., Suite]:
    """Build the base tree once, and read it with any suite file."""

    def read(toml: str = BASE, **files: str) -> Suite:
        folder = tmp_path / "pets"
        if folder.exists():
            (folder / "suite.toml").write_text(toml, encoding="utf-8")
            for name, text in files.items():
                (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
        else:
            build(folder, Case(toml, (), {name.replace("__", "."): text for name, text in files.items()}))
        return custom.read(folder / "suite.toml")

    return read


Read = Callable[..., Suite]


def test_the_ends_of_a_held_out_set_are_disjoint_and_fixed(pets: Read, tmp_path: Path) -> None:
    suite = pets("test = 2\nval = 0.5\n" + BASE)
    parts = {name: set(suite.split(name).ids) for name in ("train", "val", "test")}
    assert {name: len(ids) for name, ids in parts.items()} == {"train": 6, "val": 6, "test": 6}
    assert len(set.union(*parts.values())) == 18
    (tmp_path / "pets").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "train").rename(tmp_path / "elsewhere" / "learn")
    toml = (tmp_path / "elsewhere" / "suite.toml").read_text().replace('"train"', '"learn"') + "# moved\n"
    (tmp_path / "elsewhere" / "suite.toml").write_text(toml)
    moved = custom.read(tmp_path / "elsewhere")
    assert {name: set(moved.split(name).ids) for name in parts} == parts
    assert moved.definition == suite.definition


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "night" / "cat" / "9.png").write_bytes(b""),
        lambda folder: (folder / "night" / "cat" / "0.png").write_bytes(b"x"),
        lambda folder: (folder / "night" / "cat" / "0.png").rename(folder / "night" / "dog" / "7.png"),
        lambda folder: (folder / "suite.toml").write_text('templates = "openai-80"\n' + BASE),
        lambda folder: (folder / "suite.toml").write_text('metric = "macro_f1"\n' + BASE),
        lambda folder: (folder / "suite.toml").write_text('classes = ["dog", "cat", "old_fox"]\n' + BASE),
        lambda folder: (folder / "suite.toml").write_text("val = 0.3\n" + BASE),
    ],
    ids=["an image more", "another image", "another label", "templates", "metric", "class order", "held out"],
)  # fmt: skip
def test_whatever_can_move_a_number_makes_other_cells(
    change: Callable[[Path], object], pets: Read, tmp_path: Path
) -> None:
    before = pets().definition
    change(tmp_path / "pets")
    request = plan.Request(method=("ft",), suite=(str(tmp_path / "pets"),))
    [cell] = plan.make(request)
    assert cell.suite_definition != before
    assert cell.digest != plan.dataclasses.replace(cell, suite_definition=before).digest


def test_a_run_on_other_images_is_not_called_done(tiny_model: str, tmp_path: Path) -> None:
    for split in ("train", "night"):
        for k in range(8):
            coded.write(tmp_path / "pages" / split / ("red_page", "blue_page")[k % 2] / f"{split}{k}.png", k % 2)
    toml = 'name = "pages"\ntrain = "train"\ntemplates = "a photo of a {}"\n[shifts]\nnight = "night"\n'
    (tmp_path / "pages" / "suite.toml").write_text(toml)
    words = ["run", "--method", "zero-shot", "--suite", f"{tmp_path}/pages", "--model", tiny_model]
    words += ["--out", str(tmp_path / "runs"), "--no-save-model"]

    def finished() -> tuple[int, str]:
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        return len(list((tmp_path / "runs").rglob("done"))), done.stderr

    assert finished()[0] == 1
    again, said = finished()
    assert again == 1
    assert "done before" in said
    coded.write(tmp_path / "pages" / "night" / "red_page" / "new.png", 0)
    more, said = finished()
    assert more == 2
    assert "done before" not in said


def test_words_for_readers_move_nothing(pets: Read) -> None:
    before = pets()
    after = pets('title = "Our pets"\nlicence = "CC0"\nnote = "small"\n' + BASE)
    assert after.definition == before.definition
    assert after.card.note.startswith("small; val is held out of train")


def test_classes_are_the_sorted_folders_unless_the_file_orders_them(pets: Read) -> None:
    assert pets().classes == ("cat", "dog", "old fox")
    assert pets('underscores = "keep"\n' + BASE).classes == CLASSES
    assert pets('classes = ["old_fox", "dog", "cat"]\n' + BASE).classes == ("old fox", "dog", "cat")
    table = pets(BASE + '[classes]\ndog = "good dog"\nold_fox = "a_fox"\ncat = "cat"\n')
    assert table.classes == ("good dog", "a_fox", "cat")
    night = table.split("night")
    assert [i.split("/")[1] for i in night.ids] == [("dog", "old_fox", "cat")[k] for k in night.labels]
    assert pets('classes = "names.txt"\n' + BASE, names__txt="dog\n\ncat\nold_fox\n").classes == (
        "dog",
        "cat",
        "old fox",
    )
    named = pets('classes = "names.json"\n' + BASE, names__json='{"old_fox": "fox", "cat": "cat", "dog": "dog"}')
    assert named.classes == ("fox", "cat", "dog")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("field.csv", "path,label,site\nheap/b.png,2,9\nheap/a.png,cat,10\n"),
        ("field.csv", '\ufefflabel,path,site\nold_fox,"heap/b.png",9\r\ncat, heap/./a.png,10\r\n'),
        (
            "field.json",
            '[{"path": "heap/b.png", "label": 2, "site": 9}, {"path": "heap/a.png", "label": 0, "site": 10}]',
        ),
    ],
)
def test_a_manifest_says_the_same_in_every_form(name: str, text: str, pets: Read) -> None:
    suite = pets('groups = ["site"]\n' + BASE.replace('"night"', f'"{name}"'), **{name.replace(".", "__"): text})
    night = suite.split("night")
    assert night.ids == ("night/heap/b.png", "night/heap/a.png")
    assert night.labels.tolist() == [2, 0]
    assert night.groups["site"].tolist() == [9, 10]  # whole numbers are stored as they are
    assert "site" not in suite.group_names
    assert not suite.split("test").groups  # a folder has none


def test_an_object_of_paths_is_a_manifest(pets: Read) -> None:
    suite = pets(BASE.replace('"night"', '"field.json"'), field__json='{"heap/b.png": "dog", "heap/a.png": 0}')
    assert suite.split("night").labels.tolist() == [1, 0]


def test_one_table_can_hold_every_split(pets: Read) -> None:
    sizes = {"train": 6, "night": 2}
    rows = [f"{s}/{c}/{k}.png,{c},{s},{'ab'[k % 2]}" for s, n in sizes.items() for c in CLASSES for k in range(n)]
    shifts = "\n".join(f'{x} = {{path = "all.csv", where = {{set = "night", site = "{x}"}}}}' for x in "ab")
    toml = (
        'name = "pets"\ntrain = {path = "all.csv", where = {set = "train"}}\nmetric = "worst_group:site"\n'
        f'[columns]\npath = "file"\nlabel = "species"\n[shifts]\n{shifts}\n'
    )
    suite = pets(toml, all__csv="\n".join(["file,species,set,site", *rows]))
    assert suite.card.counts == {"train": 12, "a": 3, "b": 3, "test": 3, "val": 3}
    assert suite.split("a").ids == tuple(f"a/night/{c}/0.png" for c in CLASSES)
    assert suite.metrics == dict.fromkeys(("test", "a", "b"), "worst_group:site")
    assert suite.group_names == {"site": ("a", "b")}
    assert suite.split("test").groups["site"].tolist() == [int(i[-5]) % 2 for i in suite.split("test").ids]


def test_images_may_lie_elsewhere(pets: Read, tmp_path: Path) -> None:
    coded.write(tmp_path / "pool" / "1.png", 1)
    coded.write(tmp_path / "pool" / "2.png", 2)
    toml = BASE.replace('"night"', f'{{path = "field.csv", images = "{tmp_path}/pool"}}')
    first = pets(toml, field__csv="path,label\n1.png,1\n2.png,old_fox\n")
    images = first.split("night").images
    assert isinstance(images, FileImages)
    assert [coded.label_of(image) for image in images.read([0, 1])] == first.split("night").labels.tolist() == [1, 2]
    other = pets(toml.replace(f"{tmp_path}/pool", "../pool"))
    assert other.definition == first.definition


def test_a_shift_with_a_part_of_the_classes(pets: Read) -> None:
    """Its labels stay those of the suite; on request it is scored among its own, and so is the ID test set."""
    toml = BASE.replace('"night"', '{path = "field.csv", own_classes = true}')
    suite = pets(toml, field__csv="path,label\nheap/a.png,old_fox\nheap/b.png,cat\n")
    night, test = suite.split("night"), suite.split("test")
    assert night.labels.tolist() == [2, 0]
    assert night.also["own-classes"].members == ((0,), (2,))
    assert night.also["own-classes"].labels.tolist() == [1, 0]
    own = test.also["night-classes"].labels
    assert own.tolist() == [{0: 0, 2: 1}.get(int(label), -1) for label in test.labels]
    assert pets(BASE).split("night").also == {}


def test_splits_of_its_own_need_nothing_of_train(pets: Read) -> None:
    suite = pets(
        'val = "train"\n'
        + BASE.replace('train = "train"', 'train = "night"').replace('night = "night"', 'f = "field.csv"')
    )
    assert (len(suite.split("val")), len(suite.split("train")), len(suite.split("test"))) == (18, 3, 3)
    assert suite.card.note == "test is held out of train: 20% of each class, by id"


def test_train_may_lack_classes_if_the_file_says_so(pets: Read) -> None:
    suite = pets('incomplete = true\nclasses = ["cat", "dog", "owl", "old_fox"]\n' + BASE)
    assert set(suite.split("train").labels) == {0, 1, 3}


def test_the_recipe_is_the_default_but_for_what_is_given(pets: Read) -> None:
    plain = pets().recipe
    given = pets(BASE + "[recipe]\nsteps = 7\nlr = 1\n").recipe
    assert (given.steps, given.epochs, given.lr) == (7, 0, 1.0)
    assert plan.dataclasses.replace(given, steps=0, epochs=plain.epochs, lr=plain.lr) == plain
    assert plain.total_steps(640) == 10 * plain.epochs


def test_names_mean_the_same_on_every_system(pets: Read, tmp_path: Path) -> None:
    """Some systems store an accent apart from its letter."""
    apart, whole = "cafe\u0301", "caf\u00e9"
    for split, spelt in (("learn", apart), ("dawn", whole)):
        for k, name in enumerate((spelt, "tea") * 5):
            coded.write(tmp_path / split / name / f"{spelt}{k}.png", k % 2)
    suite = pets('name = "cups"\ntrain = "../learn"\n[shifts]\ndawn = "../dawn"\n')
    assert suite.classes == (whole, "tea")
    assert {i.split("/")[1] for name in ("train", "dawn") for i in suite.split(name).ids} == {whole, "tea"}
    images = suite.split("train").images
    assert [coded.label_of(image) for image in images.read(range(len(images)))] == suite.split("train").labels.tolist()


def test_no_way_leads_from_fit_to_a_shift(pets: Read) -> None:
    suite = pets()
    with sealed():
        assert len(suite.split("train")) + len(suite.split("val")) > 0
        for attempt in (lambda: suite.split("night"), lambda: suite.load("test"), pets):
            with pytest.raises(SealedError, match="is sealed during fit, which sees train and val only"):
                attempt()


def test_it_keeps_the_contract_of_suites(pets: Read, tmp_path: Path) -> None:
    suite = pets(BASE + '[shift_groups]\ndark = ["night"]\n')
    for check in checks.check_suite(suite):
        if not check.name.endswith("-says"):  # images are empty here
            check.run()
    assert type(suite)(suite.name, None, (), True).definition == suite.definition
    assert suite.under("clean").select == "val"
    with pytest.raises(RbftError, match="has no published protocol"):
        suite.under("as-published")


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_bad_input_is_answered_in_lines(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "pets", case)
    before = sorted(path for path in tmp_path.rglob("*"))
    done = CliRunner().invoke(main, case.words.replace("TMP", str(tmp_path)).split())
    assert done.exit_code == 2, (done.output, done.exception)
    lines = done.stderr.splitlines()
    assert len(lines) == len(case.lines), lines
    for line, text in zip(lines, case.lines, strict=True):
        assert line.startswith("rbft: ")
        assert text.replace("TMP", str(tmp_path)) in line
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_problems_of_two_suites_and_a_method_come_together(tmp_path: Path) -> None:
    build(tmp_path / "pets", CASES["all at once"])
    with pytest.raises(PlanError) as caught:
        plan.make(plan.Request(method=("ftt",), suite=(str(tmp_path / "pets"), "shapez")))
    assert len(caught.value.problems) == len(CASES["all at once"].lines) + 2


def test_what_cannot_be_settled_by_looking_is_left_to_the_user(tmp_path: Path) -> None:
    build(
        tmp_path / "pets", Case(None, (), {"night/dogs/1.png": b"", "old/runs/1/2.png": b"", "table.csv": "a,b\n1,2\n"})
    )
    done = CliRunner().invoke(main, ["new", "suite", str(tmp_path / "pets")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "pets" / "suite.toml").read_text()
    assert "# no split: " in text
    assert "table.csv has no column 'path'" in text
    assert "to do    " in done.output
    assert "unknown class 'dogs': did you mean dog" in done.output
