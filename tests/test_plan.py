"""From a request to cells: grids, scopes, digests, plan files, and every mistake at once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from robustbench_ft import plan
from robustbench_ft.cli.main import main
from robustbench_ft.errors import PlanError, RbftError
from robustbench_ft.plan import Cell, Request, make, parse_seeds, precision_text
from robustbench_ft.recipe import SHARED_VERSIONS, Recipe

FT = Request(method=("ft",), suite=("shapes",))


def with_set(*pairs: str, request: Request = FT) -> Request:
    return replace(request, set=tuple((key, value) for key, _, value in (pair.partition("=") for pair in pairs)))


def one(request: Request) -> Cell:
    [cell] = make(request)
    return cell


def problems(request: Request) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        make(request)
    return caught.value.problems


def test_lists_multiply_in_a_stated_order() -> None:
    cells = make(Request(method=("ft", "flyp"), suite=("shapes", "digits"), seeds="0-1"))
    assert [(c.suite, c.method, c.seed) for c in cells] == [
        (suite, method, seed) for suite in ("shapes", "digits") for method in ("ft", "flyp") for seed in (0, 1)
    ]


def test_a_repeated_key_is_a_grid() -> None:
    cells = make(with_set("lr=1e-4", "lr=3e-4", "batch=8", "batch=16"))
    assert [(c.recipe or {})["lr"] for c in cells] == [1e-4, 1e-4, 3e-4, 3e-4]
    assert [(c.recipe or {})["batch"] for c in cells] == [8, 16, 8, 16]
    assert len({c.digest for c in cells}) == 4


def test_equal_cells_are_one() -> None:
    assert len(make(with_set("lr=1e-4", "lr=0.0001", "lr=1.0e-4"))) == 1
    assert len(make(replace(FT, method=("ft", "ft"), seeds="0,0-1,1"))) == 2
    assert len(make(Request(method=("lipsum", "lipsum-ft"), suite=("shapes",)))) == 1


def test_a_setting_goes_to_the_methods_that_have_it() -> None:
    cells = make(with_set("strength=0.5", request=replace(FT, method=("ft", "lipsum"))))
    assert [c.settings for c in cells] == [{}, {"strength": 0.5, "n_texts": 80, "text_length": 8}]


def test_a_scoped_setting_goes_to_one_method() -> None:
    cells = make(with_set("lipsum-ft.lr=1e-5", request=replace(FT, method=("ft", "lipsum"))))
    assert [(c.recipe or {})["lr"] for c in cells] == [3e-4, 1e-5]
    assert [c.recipe_source for c in cells] == ["suite", "suite, --set lr"]


@pytest.mark.parametrize(
    ("pair", "value"),
    [("steps=1e2", 100), ("steps=50", 50), ("lr=1", 1.0), ("shuffle=false", False), ("head=scaled", "scaled")],
)
def test_a_value_gets_the_type_of_its_field(pair: str, value: Any) -> None:
    stored = (one(with_set(pair)).recipe or {})[pair.partition("=")[0]]
    assert stored == value
    assert type(stored) is type(value)


@pytest.mark.parametrize(
    "pair",
    ["lr=fast", "lr=true", "lr=[1]", "lr=", "lr=nan", "lr=inf", "steps=2.5", "steps=true", "shuffle=oui", "head=round"],
)
def test_a_value_of_another_type_is_refused(pair: str) -> None:
    [problem] = problems(with_set(pair))
    assert pair in problem


@pytest.mark.parametrize("key", ["steps", "lr", "head"])
def test_a_number_of_thousands_of_digits_is_refused(key: str) -> None:
    [problem] = problems(with_set(f"{key}={'9' * 5000}"))
    assert problem.startswith(f"--set {key}=999")


def test_digest_changes_with_every_setting() -> None:
    base = one(Request(method=("lipsum",), suite=("shapes",)))
    request = Request(method=("lipsum",), suite=("shapes",))
    changes = ["lr=1e-4", "weight_decay=0.2", "steps=7", "epochs=1", "batch=8", "warmup_fraction=0.5", "warmup_steps=3",
               "schedule=wise-ft", "clip_norm=1", "label_smoothing=0.1", "head=scaled", "augment=crop", "shuffle=false",
               "select=last", "validate_every=5", "beta1=0.8", "beta2=0.99", "eps=1e-6", "strength=2", "n_texts=3",
               "text_length=4"]  # fmt: skip
    cells = [one(with_set(change, request=request)) for change in changes]
    cells.append(one(replace(request, precision="bf16")))
    cells.append(one(replace(request, suite=("digits",))))
    cells += [replace(base, suite_version=9), replace(base, method_version=9), replace(base, schema=9)]
    cells += [replace(base, model=replace(base.model, weights="0"))]
    assert len({cell.digest for cell in [base, *cells]}) == len(cells) + 1


def test_a_cell_states_the_versions_of_what_it_shares_with_others() -> None:
    """Only where it uses it, so that digests of other cells stay."""
    cells = {name: one(with_set(*pairs, request=Request(method=("lipsum",), suite=("shapes",), precision=precision)))
             for name, pairs, precision in (("plain", (), "fp32"), ("crop", ("augment=crop-flip",), "fp32"),
                                            ("bf16", (), "bf16"))}  # fmt: skip
    assert "shared" not in cells["plain"].to_json()
    assert cells["crop"].to_json()["shared"] == {"crop-flip": SHARED_VERSIONS["crop-flip"]}
    assert cells["bf16"].to_json()["shared"] == {"bf16": SHARED_VERSIONS["bf16"]}
    iwildcam = one(Request(method=("ft",), suite=("wilds-iwildcam",)))
    assert iwildcam.to_json()["shared"] == {"official-selection": SHARED_VERSIONS["official-selection"]}
    fmow = one(Request(method=("ft",), suite=("wilds-fmow",)))  # its ID validation is scored by accuracy
    published = one(Request(method=("ft",), suite=("wilds-iwildcam",), protocol="as-published"))
    assert "shared" not in fmow.to_json() | published.to_json()
    assert cells["crop"].digest != replace(cells["crop"], shared={}).digest


def test_auto_precision_follows_the_recipe_of_each_cell() -> None:
    request = Request(
        method=("zero-shot", "ft", "flyp", "lipsum"), suite=("shapes",), precision="auto", set=(("lr", "1e-6"),)
    )
    assert {cell.precision for cell in make(request)} == {"fp32", "tf32"}
    cells = make(replace(request, suite=("imagenet",)))
    assert [cell.precision for cell in cells] == ["fp32", "tf32", "tf32", "bf16"]
    assert precision_text(cells) == (
        "precision auto: bf16 for lipsum (Lipsum-FT's recipe, published in it; blocks of the image tower only); "
        "tf32 for ft, flyp (recipes published in float32, whose products GPUs made in TF32); "
        "fp32 for zero-shot (what is not trained)"
    )
    assert [cell.precision for cell in make(replace(request, suite=("domainnet",)))] == ["fp32", *["bf16"] * 3]


def test_flyp_refuses_the_recipe_field_that_it_ignores() -> None:
    request = Request(method=("flyp", "ft"), suite=("shapes",))
    assert problems(with_set("label_smoothing=0.1", request=request)) == (
        "flyp: label_smoothing has no effect on the contrastive loss; leave it out",
    )
    assert len(make(with_set("ft.label_smoothing=0.1", request=request))) == 2


@pytest.mark.parametrize("suite", ["wilds-iwildcam", "wilds-fmow", "wilds-camelyon17"])
def test_wilds_validates_once_an_epoch_whatever_the_batch(suite: str) -> None:
    for batch in (256, 64):
        cell = one(with_set(f"batch={batch}", request=Request(method=("ft",), suite=(suite,))))
        found = Recipe(**(cell.recipe or {}))
        assert [step for step in range(1, 40) if found.validates_after(step, 10 * batch - 1)] == [10, 20, 30]
    with pytest.raises(PlanError, match="validate_every must be at least 0, or -1 for once an epoch, not -2"):
        make(with_set("validate_every=-2", request=Request(method=("ft",), suite=(suite,))))


def test_digest_stays_with_seed_place_and_wording() -> None:
    cell = one(FT)
    same = [replace(cell, seed=9), replace(cell, recipe_source="elsewhere"), one(with_set("lr=3e-4")), one(FT)]
    same.append(replace(cell, model=replace(cell.model, pretrained="other/path.safetensors")))
    assert {other.digest for other in same} == {cell.digest}
    assert cell.folder == Path("shapes") / "embedded" / f"ft-{cell.digest[:8]}" / "seed-0"


def test_what_trains_nothing_has_one_seed_and_no_recipe() -> None:
    cell = one(Request(method=("zero-shot",), suite=("shapes",), seeds="3-7"))
    assert (cell.seed, cell.recipe, cell.recipe_source, cell.deterministic) == (3, None, "none", True)


def test_epochs_replace_steps() -> None:
    recipe = one(with_set("epochs=2")).recipe or {}
    assert (recipe["epochs"], recipe["steps"]) == (2, 0)


def test_recipe_source_says_whose_it_is() -> None:
    assert one(FT).recipe_source == "suite"
    assert one(with_set("lr=1e-4", "batch=8")).recipe_source == "suite, --set batch, lr"
    [cell] = make(Request(method=("lipsum",), suite=("imagenet",)))
    assert cell.recipe_source == "method"
    assert (cell.recipe or {})["steps"] == 50_000


def test_a_cell_survives_json_and_builds_its_method() -> None:
    cell = one(with_set("strength=0.5", "lr=1e-4", request=Request(method=("lipsum",), suite=("shapes",))))
    stored = cell.to_json()
    assert stored["digest"] == cell.digest
    assert stored["settings"] == {"strength": 0.5, "n_texts": 80, "text_length": 8}
    method: Any = cell.build()
    assert (method.strength, method.resolved.lr) == (0.5, 1e-4)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", (0,)), ("0-4", (0, 1, 2, 3, 4)), ("0, 2,5-7", (0, 2, 5, 6, 7)), ("3,1,3", (1, 3))]
)
def test_seeds_are_sorted_and_unique(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0-", "-1", "5-2", "a", "1,,2", "1.5", "0-9-12", "0-99999999", "9" * 5000])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(RbftError, match=r"write e\.g\. 0, 0-4 or 0,2,5-7"):
        parse_seeds(text)


def test_all_problems_come_at_once() -> None:
    request = Request(
        method=("ftt", "ft"), suite=("shapess", "shapes"), model=("embeded",), seeds="0-", precision="fp8",
        protocol="nonsense", set=(("nope", "1"), ("lr", "fast"), ("lipsum.strength", "1"), ("fft.lr", "1")),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    found = problems(request)
    for text in (
        "unknown method 'ftt'", "unknown suite 'shapess'", "unknown model 'embeded'", "seeds '0-'",
        "unknown precision 'fp8'", "unknown protocol 'nonsense'",
        "unknown setting 'nope'", "--set lr=fast", "method 'lipsum' is not in this plan",
        "--set fft.lr: unknown method 'fft'",
    ):  # fmt: skip
        assert sum(text in line for line in found) == 1, (text, found)
    assert not any("\n" in line for line in found)


def test_an_impossible_recipe_is_found_before_anything_runs() -> None:
    found = problems(with_set("lr=-1", "batch=0", "steps=0", "warmup_fraction=2"))
    assert [line.split(" must")[0] for line in found] == [
        "ft: lr", "ft: batch", "ft: warmup_fraction", "ft: one of steps and epochs",
    ]  # fmt: skip


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return plan.read_toml(path)


def test_a_plan_file_says_what_flags_say(tmp_path: Path) -> None:
    lines = ('method = ["ft", "lipsum"]', 'suite = "shapes"', 'seeds = "0-1"', "[set]", "lr = [1e-4, 3e-4]")
    request = Request(**read(tmp_path, "\n".join((*lines, "lipsum.strength = 0.5"))))
    assert request.method == ("ft", "lipsum")
    assert request.set == (("lr", "0.0001"), ("lr", "0.0003"), ("lipsum.strength", "0.5"))
    assert len(make(request)) == 8


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('methods = "ft"\nsuit = "a"', ["unknown key 'methods': did you mean method?", "unknown key 'suit'"]),
        ("suite = 3", ["suite: ", "string"]),
        ("seeds = [0, 1]", ["seeds: ", "string"]),
        ('protocol = "nonsense"', ["protocol: ", "'clean' or 'as-published'"]),
        ('set = "lr=1"', ["[set] must be a table"]),
        ("method = [", ["is not valid TOML"]),
        ('method = "ft', ["is not valid TOML"]),
    ],
)
def test_a_wrong_plan_file_is_refused(text: str, messages: list[str], tmp_path: Path) -> None:
    with pytest.raises(RbftError) as caught:
        read(tmp_path, text)
    for message in ("plan.toml", *messages):
        assert message in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_plan_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    if content:
        path.write_bytes(content)
    with pytest.raises(RbftError, match=r"cannot read the plan .*plan\.toml"):
        plan.read_toml(path)


def test_flags_win_over_the_plan_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('method = "ft"\nsuite = "digits"\nseeds = "0-4"\nset = {lr = [1e-4, 3e-4], batch = 8}\n')
    words = ["run", "--config", str(path), "--suite", "shapes", "--seeds", "7", "--set", "lr=1e-5", "--dry-run"]
    result = CliRunner().invoke(main, words)
    expected = one(replace(with_set("batch=8", "lr=1e-5"), seeds="7"))
    lines = result.stdout.splitlines()
    assert (lines[0], lines[-1]) == (f"to do   {Path('runs') / expected.folder}", "1 cells, cpu, fp32")


def test_a_wrong_value_hides_no_other_problem() -> None:
    with pytest.raises(PlanError) as caught:
        make(Request(method=("ft",), suite=("shapes",), set=(("lr", "abc"), ("batch", "0"))))
    assert len(caught.value.problems) == 2
