"""Base recipes by name and from files, in words, and what sets several apart."""

import dataclasses
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from robustbench_ft import plan, registry
from robustbench_ft.cli.main import main
from robustbench_ft.errors import PlanError
from robustbench_ft.method import Method
from robustbench_ft.plan import Cell, Request
from robustbench_ft.recipe import EMBEDDED, R_FLYP, R_LIP, R_WISE, Recipe, as_stored, differing, in_words

TRAINED = ("ft", "lp-ft", "wise-ft", "flyp", "lipsum")
BOARD = Path(__file__).parent.parent / "leaderboards"


def cells(name: str | None, suite: str, *settings: tuple[str, str], methods: tuple[str, ...] = TRAINED) -> list[Cell]:
    return list(plan.make(Request(methods, (suite,), recipe=name, set=settings)))


def problems(name: str, suite: str = "shapes") -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        cells(name, suite, methods=("ft",))
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "suite", "expected"),
    [
        ("lipsum", "shapes", R_LIP),
        ("lipsum-ft", "shapes", R_LIP),
        ("wise-ft", "shapes", R_WISE),
        ("flyp", "domainnet", R_FLYP),
        ("lipsum", "imagenet", replace(R_LIP, steps=50_000)),
        ("lipsum", "imagenet+objectnet", replace(R_LIP, steps=50_000)),
        ("ft", "imagenet", R_WISE),
    ],
)
def test_a_name_puts_all_methods_on_one_recipe(name: str, suite: str, expected: Recipe) -> None:
    found = cells(name, suite)
    assert [cell.recipe for cell in found] == [as_stored(expected)] * len(TRAINED)
    assert {cell.recipe_source for cell in found} == {"--recipe lipsum" if name == "lipsum-ft" else f"--recipe {name}"}


def test_set_wins_over_the_recipe() -> None:
    [cell] = cells("flyp", "shapes", ("lr", "0.5"), ("steps", "7"), methods=("ft",))
    assert cell.recipe == as_stored(replace(R_FLYP, lr=0.5, steps=7))
    assert cell.recipe_source == "--recipe flyp, --set lr, steps"
    [grid, _] = cells("flyp", "shapes", ("lr", "0.5"), ("lr", "0.1"), methods=("ft",))
    assert (grid.recipe or {})["batch"] == R_FLYP.batch


def test_without_a_recipe_digests_are_those_of_the_board() -> None:
    compared = 0
    for path in BOARD.glob("*/embedded/*.json"):
        claim = json.loads(path.read_text())
        identity, training = claim["identity"], claim["training"]
        kind = registry.load("method", identity["method"], Method)
        if training["recipe_source"] not in ("suite", "none") or kind.version != identity["method_version"]:
            continue
        settings = tuple((key, str(value)) for key, value in training["settings"].items())
        [cell] = cells(None, identity["suite"], *settings, methods=(identity["method"],))
        assert cell.digest == training["config_sha256"], path
        compared += 1
    assert compared


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr = 2e-5\nbatch = 64", replace(EMBEDDED, lr=2e-5, batch=64)),
        ("", EMBEDDED),
        ('base = "lipsum"\nlr = 1', replace(R_LIP, lr=1.0)),
        ('base = "lipsum"\nepochs = 3', replace(R_LIP, epochs=3, steps=0)),
        ('base = "wise-ft"\nsteps = 3', replace(R_WISE, epochs=0, steps=3)),
        ('base = "wise-ft"\nsteps = 3\nepochs = 2', replace(R_WISE, epochs=2, steps=3)),
    ],
)
def test_a_file_is_laid_over_its_base_or_the_suites_recipe(text: str, expected: Recipe, tmp_path: Path) -> None:
    name = write(tmp_path / "mine.toml", text)
    found = cells(name, "shapes")
    assert [cell.recipe for cell in found] == [as_stored(expected)] * len(TRAINED)
    assert {cell.recipe_source for cell in found} == {"--recipe mine.toml"}


def test_every_field_can_be_in_a_file(tmp_path: Path) -> None:
    other = Recipe(
        0.5, 0.25, 3, 4, 5, 0.5, 6, "wise-ft", 7.0, 0.125, "scaled", "crop", False, "last", 8, 0.5, 0.75, 0.5, 2
    )
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in asdict(other).items())
    for field in dataclasses.fields(Recipe):
        assert getattr(other, field.name) != getattr(EMBEDDED, field.name)
    [cell] = cells(write(tmp_path / "mine.toml", text), "shapes", methods=("ft",))
    assert cell.recipe == asdict(other)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "lrr = 1\nbatsh = 2",
            ["unknown setting 'lrr': did you mean lr", "unknown setting 'batsh': did you mean batch"],
        ),
        ('lr = "1e-4"', ['lr is "1e-4": input should be a valid number']),
        ("lr = true", ["lr is true: input should be a valid number"]),
        (
            "steps = 2.5\nshuffle = 1",
            ["steps is 2.5: input should be a valid integer", "shuffle is 1: input should be"],
        ),
        ('head = "round"', ["head is \"round\": input should be 'unit' or 'scaled'"]),
        ("eps = nan", ["every number must be finite"]),
        ("batch = 0\nlr = -1", ["lr must be above 0, not -1.0", "batch must be at least 1, not 0"]),
        ("[lr]\nx = 1", ['lr is {"x": 1}: input should be a valid number']),
        ('base = "lipsun"', ["base: unknown recipe 'lipsun': did you mean lipsum?"]),
        ("base = 3", ["base must be the name of a recipe"]),
        ("lr = ", ["is not valid TOML"]),
        (f"steps = {'9' * 5000}", ["is not valid TOML"]),
    ],
)
def test_a_wrong_file_is_refused(text: str, lines: list[str], tmp_path: Path) -> None:
    found = problems(write(tmp_path / "mine.toml", text))
    assert len(found) == len(lines), found
    for line, expected in zip(found, lines, strict=True):
        assert "mine.toml" in line
        assert expected in line


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("lipsun", "unknown recipe 'lipsun': did you mean lipsum? known: flyp, lipsum, wise-ft, or a .toml file"),
        ("zero-shot", "method 'zero-shot' brings no recipe; known: flyp, lipsum, wise-ft, or a .toml file"),
        ("ft", "--recipe ft: its authors publish none for suite 'shapes', only for imagenet"),
        ("no.toml", "cannot read the recipe no.toml: "),
    ],
)
def test_a_name_that_brings_no_recipe_is_refused(name: str, line: str) -> None:
    [found] = problems(name)
    assert found.startswith(line)


def test_a_plan_file_may_name_a_recipe_and_the_flag_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "plan.toml", 'method = "ft"\nsuite = "shapes"\nrecipe = "flyp"\n')
    for more, expected in (([], R_FLYP), (["--recipe", "wise-ft"], R_WISE)):
        result = CliRunner().invoke(main, ["run", "--config", path, "--dry-run", *more])
        assert in_words(asdict(expected)) in result.stdout
    assert "recipe: input should be a valid string" in "\n".join(_wrong(tmp_path, "recipe = 3")).lower()


def _wrong(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        plan.read_toml(Path(write(tmp_path / "wrong.toml", text)))
    return caught.value.problems


WORDS = {
    "lr": {"lr": 1.0},
    "weight decay": {"weight_decay": 0.5},
    "head": {"head": "scaled"},
    "augmentation": {"augment": "crop"},
    "batch": {"batch": 7},
    "length": {"steps": 7},
    "schedule": {"warmup_fraction": 0.5},
    "selection": {"select": "last"},
    "gradient clipping": {"clip_norm": 1.0},
    "label smoothing": {"label_smoothing": 0.1},
    "order of images": {"shuffle": False},
    "Adam betas": {"beta2": 0.5},
    "Adam eps": {"eps": 1e-6},
    "warmth": {"warmth": 3},  # of a later version
}


@pytest.mark.parametrize("word", WORDS)
def test_each_field_differs_in_its_word(word: str) -> None:
    base = asdict(EMBEDDED)
    assert differing({"a": base, "b": {**base, **WORDS[word]}}) == (word,)


def test_words_come_in_a_fixed_order() -> None:
    base = asdict(EMBEDDED)
    changes: list[dict[str, Any]] = [*WORDS.values()]
    for order in (changes, changes[::-1]):
        assert differing({"0": base} | {str(k + 1): {**base, **change} for k, change in enumerate(order)}) == tuple(
            WORDS
        )


def test_published_recipes_differ_where_their_papers_do() -> None:
    wise, flyp, lipsum = (asdict(base) for base in (R_WISE, R_FLYP, R_LIP))
    assert differing({"ft": wise, "flyp": flyp}) == ("lr", "gradient clipping")
    assert differing({"ft": wise, "lipsum": lipsum}) == (
        "lr", "weight decay", "head", "augmentation", "batch", "length", "schedule", "selection", "gradient clipping",
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"warmup_steps": 9},  # of the other schedule
        {"epochs": 9},  # steps are counted
    ],
)
def test_what_has_no_effect_is_no_difference(changes: dict[str, Any]) -> None:
    base = asdict(EMBEDDED)
    assert differing({"a": base, "b": {**base, **changes}}) == ()
    last = {**base, "select": "last"}
    assert differing({"a": last, "b": {**last, "validate_every": 9}}) == ()
    assert differing({"a": base, "b": {**base, "validate_every": 9}}) == ("selection",)


def test_a_field_that_an_old_record_lacks_is_at_its_default() -> None:
    base = asdict(EMBEDDED)
    old = {key: value for key, value in base.items() if key != "eps"}
    assert differing({"old": old, "new": base}) == ()
    assert differing({"old": old, "new": {**base, "eps": 1e-6}}) == ("Adam eps",)
    assert differing({"a": base, "zero-shot": {}, "b": base}) == differing({"a": base}) == differing({}) == ()


def test_a_recipe_in_words() -> None:
    assert in_words(asdict(replace(R_LIP, steps=50_000))) == (
        "lr 1e-05, weight decay 0, unit head, augmentation crop-flip, 50,000 steps of batch 256, cosine after 10% of "
        "warm-up (lipsum), best checkpoint, validated every 1,000 steps"
    )
    assert in_words(asdict(replace(R_WISE, label_smoothing=0.1, shuffle=False, eps=1e-6))) == (
        "lr 3e-05, weight decay 0.1, scaled head, augmentation crop, 10 epochs of batch 512, cosine after 500 steps of "
        "warm-up (wise-ft), last checkpoint, gradient norm up to 1, label smoothing 0.1, images in the order of the "
        "split, Adam betas 0.9 and 0.999, eps 1e-06"
    )


def dry_run(*words: str) -> list[str]:
    result = CliRunner().invoke(main, ["run", "--dry-run", "--device", "cpu", *words])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_a_dry_run_says_each_recipe_and_how_they_differ() -> None:
    methods = [word for name in ("zero-shot", "ft", "lipsum") for word in ("--method", name)]
    lines = dry_run(*methods, "--suite", "imagenet", "--suite", "shapes", "--seeds", "0-1")
    words = "lr, weight decay, head, augmentation, batch, length, schedule, selection, gradient clipping"
    at, same = lines.index(f"recipes differ: {words}"), lines.index("one recipe for all methods")
    assert [line.startswith("to do   runs/imagenet") for line in lines[:at]] == [
        True, False, True, True, False, True, True, False,
    ]  # fmt: skip
    assert lines[4] == f"        method: {in_words(asdict(R_WISE))}"
    assert lines[1] == "        nothing is trained"
    assert all("shapes" in line or in_words(asdict(EMBEDDED)) in line for line in lines[at + 3 : same])
    assert lines[-1] == "10 cells, cpu, fp32"
    assert lines[same + 1] == "imagenet: ViT-B-16 openai, weights fetched at run time"


def test_a_dry_run_on_one_recipe() -> None:
    lines = dry_run("--method", "ft", "--method", "lipsum", "--suite", "imagenet", "--recipe", "lipsum")
    expected = in_words(asdict(replace(R_LIP, steps=50_000)))
    assert lines.count(f"        --recipe lipsum: {expected}") == 2
    assert lines[lines.index("one recipe for all methods") + 1].startswith("imagenet: ViT-B-16 openai")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[settings]\nstrength = 1.0", "unknown setting 'strength'|strength belongs to another method: ft has no"),
        ("[settings]\nlr = 1.0", r"\[settings\] lr belongs to the recipe: put it above \[settings\]"),
        ('method = "lipsum"\n[settings]\nstrenght = 1.0', "it is for method 'lipsum', not for 'ft'"),
        ('method = "nobody"', "mine.toml: method: unknown method 'nobody'"),
        ("method = 3", "method must be the name of a method"),
        ("settings = 3", r"settings must be a table: write \[settings\]"),
    ],
)
def test_a_setting_that_does_not_belong_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(PlanError, match=line) as caught:
        plan.make(Request(("ft",), ("shapes",), recipe=str(tmp_path / "mine.toml")))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("strenght = 1.0", "of lipsum: unknown setting 'strenght': did you mean strength"),
        ("strength = true", "strength is True: input should be a valid number"),
        ("n_texts = 1.5", "n_texts is 1.5: "),
        ("strength = nan", "strength is nan: "),
        ("strength = -1.0", "lipsum: strength=-1.0 is too small"),
    ],
)
def test_a_wrong_value_of_a_setting_is_one_line(settings: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'method = "lipsum"\n[settings]\n{settings}')
    with pytest.raises(PlanError) as caught:
        plan.make(Request((), ("shapes",), recipe=str(tmp_path / "mine.toml")))
    [problem] = caught.value.problems
    assert line in problem
