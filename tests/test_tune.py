"""Tuning: what is drawn, equal budgets, the rules, the expected best of n, resuming, and winners as recipes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import robustbench_ft as rb
from robustbench_ft import plan, runner, toml
from robustbench_ft.cli.main import main
from robustbench_ft.compare.rows import by_validation
from robustbench_ft.errors import PlanError, RbftError
from robustbench_ft.metrics.across import Setting, select_best, select_one_se
from robustbench_ft.plan import Request
from robustbench_ft.ranges import Choices, Range, Space, around
from robustbench_ft.record import store
from robustbench_ft.stats.best_of import chances
from robustbench_ft.tuning import choose, figure, fresh, report, run, winner
from robustbench_ft.tuning.choose import Entrant
from robustbench_ft.tuning.search import Search, Trial, plan_trials

METHODS = ("ft", "lipsum", "lp-ft", "wise-ft", "ema", "zero-shot")
TUNED = METHODS[:-1]


def search(trials: int, *ranges: tuple[str, str | Space], seed: int = 0, **asked: Any) -> tuple[Trial, ...]:
    values: dict[str, Any] = {"method": METHODS, "suite": ("shapes",), **asked}
    request = Request(**values)
    return plan_trials(Search(request, trials, seed, ranges))


def drawn(trials: tuple[Trial, ...]) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(trial.method, trial.index): trial.settings for trial in trials}


# draws


def test_draws_depend_on_suite_method_seed_and_trial_only() -> None:
    eight = drawn(search(8))
    assert drawn(search(8)) == eight
    assert {key: eight[key] for key in drawn(search(3))} == drawn(search(3))
    alone = drawn(search(8, method=("lipsum",), seeds="0-2", model=("embedded",)))
    assert alone == {key: settings for key, settings in eight.items() if key[0] == "lipsum"}
    extended = drawn(search(8, ("weight_decay", "0:0.5")))
    assert all(settings.items() <= extended[key].items() for key, settings in eight.items())
    rates = {key: settings["lr"] for key, settings in eight.items() if settings}
    assert len(set(rates.values())) == 8 * len(TUNED)  # each method has draws of its own
    for others in (drawn(search(8, seed=1)), drawn(search(8, suite=("digits",)))):
        assert all(others[key]["lr"] != rate for key, rate in rates.items())


def test_every_method_has_the_same_budget_and_the_same_number_so_far() -> None:
    trials = search(4, seeds="0,3")
    for method in TUNED:
        own = [trial for trial in trials if trial.method == method]
        assert [trial.index for trial in own] == [0, 1, 2, 3]
        assert all([cell.seed for cell in trial.cells] == [0, 3] for trial in own)
        assert len({trial.cell.digest for trial in own}) == 4
    [untuned] = [trial for trial in trials if trial.method == "zero-shot"]
    assert not untuned.spaces
    order = [trial.index for trial in trials]
    assert order == sorted(order)


def test_where_it_looks() -> None:
    base = around(3e-4)
    assert base == Range(3e-5, 3e-3, "log")
    spaces = {trial.method: trial.spaces for trial in search(1)}
    assert spaces["ft"] == spaces["wise-ft"] == {"lr": base}
    assert spaces["lipsum"] == {"lr": base, "strength": Range(0.1, 10.0, "log")}
    [other] = search(1, ("lipsum.strength", "1,2"), ("strength", "5:6"), ("batch", "16:32"), ("select", "best,last"),
                     method=("lipsum",), set=(("lr", "1e-4"),))  # fmt: skip
    assert other.spaces == {
        "strength": Choices((1.0, 2.0)), "batch": Range(16, 32), "select": Choices(("best", "last"))
    }  # fmt: skip
    assert isinstance(other.settings["batch"], int)
    recipe = other.cell.recipe or {}
    assert (recipe["lr"], recipe["batch"]) == (1e-4, other.settings["batch"])
    [theirs] = search(1, method=("ft",), recipe="flyp")
    assert theirs.spaces["lr"] == around(1e-5)


def test_a_trial_is_the_cell_that_set_makes() -> None:
    for trial in search(2):
        pairs = tuple((key, str(value)) for key, value in trial.settings.items())
        [cell] = plan.make(Request((trial.method,), ("shapes",), set=pairs))
        assert cell == trial.cell


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--range", "strenght=0:1"], "--range strenght: unknown setting 'strenght': did you mean strength?"),
        (["--range", "ft.strength=0:1"], "--range ft.strength: unknown setting 'strength'"),
        (["--range", "flyp.lr=0:1"], "--range flyp.lr: method 'flyp' is not in this search (ft, lipsum)"),
        (["--range", "lr=1:0.1"], "--range lr: 1:0.1: the low end must be below the high end"),
        (["--range", "lr=1:1"], "a single value is fixed with --set"),
        (["--range", "lr=0:1:log"], "a log range must start above 0"),
        (["--range", "lr=0.5:1:log1m"], "a log1m range must end below 1"),
        (["--range", "lr=0.5:1:cubic"], "unknown scale 'cubic': known: linear, log, log1m"),
        (["--range", "lr=a:b"], "--range lr: a:b: write LOW:HIGH"),
        (["--range", "lr=1e-4"], "--range lr: 1e-4: write LOW:HIGH"),
        (["--range", "lr=nan:1"], "both ends must be finite numbers"),
        (["--range", "lr"], "--range lr: write KEY=RANGE"),
        (["--range", "lr=1e-4,fast"], "--range lr: 1e-4,fast: input should be a valid number"),
        (["--range", "head=0:1"], "--range head: 0:1: it is no number; give its values with commas"),
        (["--range", "batch=0.2:0.8"], "a whole number needs two of them in its range"),
        (["--range", "lr=0.1:1", "--range", "lr=0.1:2"], "--range lr: it is given 2 times"),
        (["--range", "lr=0.1:1", "--set", "lr=0.1"], "--range lr: --set gives it one value; leave one out"),
        (["--range", "strength=-2:-1"], "trial 0: lipsum: strength="),
        (["--set", "lr=1e-4", "--set", "lr=1e-3"], "--set makes a grid for ft: give one value, or a --range"),
        (["--fresh-seeds", "0-2"], "--fresh-seeds: 0 is among --seeds, by which winners are chosen"),
        (["--fresh-seeds", "some"], "seeds 'some': 'some' is neither a number nor a range"),
        (["--trials", "0"], "0 trials: give at least 1"),
        (["--recipe", "zero-shot"], "method 'zero-shot' brings no recipe; known: flyp, lipsum, wise-ft"),
        (["--method", "nobody"], "unknown method 'nobody'"),
        (["--suite", "nowhere"], "unknown suite 'nowhere'"),
    ],
)
def test_mistakes_get_one_line(arguments: list[str], lines: str) -> None:
    base = ["tune", "--method", "ft", "--method", "lipsum", "--suite", "shapes", "--trials", "2", "--dry-run"]
    done = CliRunner().invoke(main, [*base, *arguments])
    assert done.exit_code == 2
    assert lines in done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith(("rbft: ", "model    ")) for line in done.stderr.splitlines())


def test_nothing_to_tune_is_said() -> None:
    with pytest.raises(RbftError, match="nothing to tune: zero-shot has no setting with a range"):
        search(4, method=("zero-shot",))
    with pytest.raises(RbftError, match="nothing to tune: ft, zero-shot have"):
        search(4, method=("ft", "zero-shot"), set=(("lr", "1e-4"),))
    with pytest.raises(PlanError, match="unknown setting 'lr'"):
        search(4, ("zero-shot.lr", "0.1:1"))


# rules on hand-made records


def hand_made(out: Path, method: str, reached: list[tuple[float, float]]) -> tuple[Trial, ...]:
    """Records of trials with these (learning rate, ID validation accuracy on 100 images); `wise-ft` has two alphas."""
    trials = list(search(len(reached), method=(method,), suite=("shapes",)))
    for k, (lr, accuracy) in enumerate(reached):
        cell = replace(trials[k].cell, recipe={**(trials[k].cell.recipe or {}), "lr": lr})
        trials[k] = replace(trials[k], cells=(cell,), settings={"lr": lr})
        scores = {"val": {"accuracy": accuracy}, "test": {"accuracy": accuracy}, "sketch": {"accuracy": 1 - accuracy}}
        better = {split: {"accuracy": 1 - lr} for split in scores}
        family = method == "wise-ft"
        store.write_json(out / cell.folder / "cell.json", cell.to_json())
        store.write_json(out / cell.folder / "metrics.json", {
            "default": "alpha-0.5" if family else "final",
            "splits": {"val": "val", "test": "test", "shifts": ["sketch"]},
            "axis": {"alpha-0.5": 0.5, "alpha-1": 1.0} if family else {}, "shift_groups": {},
            "candidates": {"alpha-0.5": scores, "alpha-1": better} if family else {"final": scores},
        })  # fmt: skip
        data = {name: {"digest": name, "n": 100} for name in ("val", "test", "sketch")}
        store.write_json(out / cell.folder / "env.json", {"data": data, "cost": {"fit_seconds": 1.0}, "stages": []})
        store.write_bytes(out / cell.folder / "done", b"")
    return tuple(trials)


def test_both_rules_are_those_of_the_tables(tmp_path: Path) -> None:
    reached = [(1e-3, 0.80), (1e-4, 0.77), (3e-4, 0.80), (3e-5, 0.75)]
    settings = [Setting(lr, accuracy, 100) for lr, accuracy in reached]
    assert (select_best(settings), select_one_se(settings)) == (2, 1)  # one SE of .80 on 100 images is .04
    [entrant] = choose.entrants(hand_made(tmp_path, "ft", reached), tmp_path)
    assert [entrant.chosen(rule).trial.index for rule in ("best", "one-se")] == [2, 1]
    assert [row.setting for row in entrant.rows()] == [
        "best ID val: lr=0.0003", "smallest lr within one SE: lr=0.0001"
    ]  # fmt: skip
    assert [(o.setting.accuracy, o.identity, o.ood) for o in entrant.outcomes] == [
        (accuracy, accuracy, 1 - accuracy) for _, accuracy in reached
    ]
    last = entrant.curve("x")[-1]
    expected = chances(4, 4) @ [0.75, 0.77, 0.80, 0.80]
    assert last.best == pytest.approx(expected)
    assert last.other == pytest.approx(1 - expected)


def test_one_trial_may_win_by_both_rules(tmp_path: Path) -> None:
    [entrant] = choose.entrants(hand_made(tmp_path, "ft", [(1e-3, 0.5), (1e-4, 0.8)]), tmp_path)
    assert [row.setting for row in entrant.rows()] == ["both rules: lr=0.0001"]


def test_a_family_enters_with_its_headline_and_with_the_alpha_by_id_val(tmp_path: Path) -> None:
    trials = hand_made(tmp_path, "wise-ft", [(0.3, 0.6), (0.1, 0.5)])
    headline, by_val = choose.entrants(trials, tmp_path)
    assert (headline.name, by_val.name) == ("wise-ft, alpha=0.5", "wise-ft, alpha by ID val")
    assert headline.chosen("best").trial.index == 0
    assert headline.chosen("best").runs[0][1] == "alpha-0.5"
    assert by_val.chosen("best").trial.index == 1
    assert by_val.chosen("best").runs[0][1] == "alpha-1"
    assert {winner.file_name(e, "best") for e in (headline, by_val)} == {
        "wise-ft-best.toml", "wise-ft-alpha-by-id-val-best.toml"
    }  # fmt: skip


# real runs


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture
def tiny(shelves: None, tiny_model: str, out: Path) -> Callable[[int], list[report.Tuned]]:
    """A search of so many trials on the tiny suite; all calls share their records."""

    def tune(trials: int) -> list[report.Tuned]:
        methods = ("zero-shot", "ft", "lipsum", "wise-ft")
        asked = Search(Request(methods, ("tiny",), (tiny_model,), seeds="0-1"), trials)
        options = runner.RunOptions(out, torch.device("cpu"), save_model=False)
        return run.run(asked, plan_trials(asked), options)

    return tune


def stamps(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("seed-*/*") if path.is_file()}


def test_a_second_call_runs_nothing_and_more_trials_run_the_rest(
    tiny: Callable[[int], list[report.Tuned]], out: Path
) -> None:
    [two] = tiny(2)
    before, text, numbers = stamps(out), report.markdown(two), report.as_json(two)
    assert len(list(out.rglob("done"))) == 1 + 3 * 2 * 2
    [again] = tiny(2)
    assert stamps(out) == before
    assert (report.markdown(again), report.as_json(again)) == (text, numbers)
    assert (again.folder / "report.md").read_text() == text
    [three] = tiny(3)
    after = stamps(out)
    assert {path: after[path] for path in before} == before
    assert len(list(out.rglob("done"))) == 1 + 3 * 3 * 2
    assert [len(entrant.outcomes) for entrant in three.entrants] == [1, 3, 3, 3, 3]
    rows = [line.row for line in three.winners.lines]
    assert rows[0].name == "zero-shot (not tuned)"
    assert all(row.selection == "id_val of 3" and row.seeds == (0, 1) for row in rows[1:])
    assert "**Expected best ID validation of n random trials, %**" in report.markdown(three)
    assert (three.folder / "report.png").read_bytes().startswith(b"\x89PNG")
    plain = json.loads((three.folder / "report.json").read_text())
    assert [len(entrant["expected_best"]) for entrant in plain["entrants"]] == [0, 3, 3, 3, 3]
    assert {entrant["name"] for entrant in plain["entrants"] if not entrant["tuned"]} == {"zero-shot"}


def test_winners_are_recipes_that_make_their_cells_again(
    tiny: Callable[[int], list[report.Tuned]], tiny_model: str
) -> None:
    [found] = tiny(2)
    by_file = {
        winner.file_name(entrant, rule): (entrant, rule)
        for entrant in found.entrants if entrant.tuned for rule in choose.RULES
    }  # fmt: skip
    assert by_file.keys() == found.recipes().keys()
    for name, path in found.recipes().items():
        entrant, rule = by_file[name]
        cells = entrant.chosen(rule).trial.cells
        again = plan.make(Request((), ("tiny",), (tiny_model,), seeds="0-1", recipe=str(path)))
        assert [cell.folder for cell in again] == [cell.folder for cell in cells]
        assert [replace(cell, recipe_source="") for cell in again] == [replace(c, recipe_source="") for c in cells]
        assert {cell.recipe_source for cell in again} == {f"--recipe {name}"}
        told = toml.read(path, "it")["tuned"]
        assert (told["digest"], told["trials"], told["tuning_seed"]) == (cells[0].digest, 2, 0)
        assert told["trial_digests"] == [outcome.trial.cell.digest for outcome in entrant.outcomes]
        assert told["ranges"] == {s: space.text for s, space in cells_of(entrant).items()}


def test_many_entrants_are_drawn_by_what_was_chosen_for_each(
    tiny: Callable[[int], list[report.Tuned]], monkeypatch: pytest.MonkeyPatch
) -> None:
    [found] = tiny(2)
    monkeypatch.setattr(figure, "MANY", 4)
    _, ood, _ = figure.draw(found).axes
    best = {entrant.method: entrant.chosen("best").ood for entrant in found.entrants if entrant.headline}
    assert [text.get_text() for text in ood.get_yticklabels()] == sorted(best, key=lambda name: best[name])


def test_winners_over_fresh_seeds_are_compared_for_each_rule(
    tiny: Callable[[int], list[report.Tuned]], out: Path
) -> None:
    [found] = tiny(2)
    options = runner.RunOptions(out, torch.device("cpu"), save_model=False)
    asked = replace(found.search, fresh_seeds=(2, 3, 4))
    [again] = run.run(asked, found.trials, options)
    winners = {e.chosen(rule).trial.cell.digest for e in found.entrants if e.tuned for rule in ("best", "one-se")}
    new = fresh.cells(again.entrants, (2, 3, 4))
    assert {(cell.digest, cell.seed) for cell in new if not cell.deterministic} == set(product(winners, (2, 3, 4)))
    assert all((out / cell.folder / "done").exists() for cell in new)
    for one in again.confirmed:
        assert one.comparison.baseline is not None
        assert one.comparison.baseline.method == "ft"
        rows = [line.row for line in one.comparison.lines]
        assert {row.method for row in rows} == {"zero-shot", "ft", "lipsum", "wise-ft"}
        assert all(row.seeds == (2, 3, 4) for row in rows if not row.deterministic)
        by_val = [row for row in rows if "alpha by ID val" in (row.setting + "".join(row.also))]
        assert len(by_val) == 1
        assert all(candidate == by_validation(record.summary) for record, candidate in by_val[0].runs)
        lipsum = next(line for line in one.comparison.lines if line.row.method == "lipsum")
        chosen = next(e for e in again.entrants if e.method == "lipsum").chosen(one.rule).trial.cell
        told = [json.loads((out / replace(chosen, seed=s).folder / "metrics.json").read_text()) for s in (2, 3, 4)]
        values = [t["candidates"]["final"][shift]["accuracy"] for t in told for shift in t["splits"]["shifts"]]
        assert lipsum.cells["mean OOD"].estimate.value == pytest.approx(sum(values) / len(values))
        assert one.beyond.reference.startswith("wise-ft (alpha=0.5")
        assert {gain.row.partition(" ")[0] for gain in one.beyond.gains} == {"ft", "lipsum"}
        assert (again.folder / f"fresh-{one.rule}.png").read_bytes().startswith(b"\x89PNG")
    text = report.markdown(again)
    assert "**best ID val, fresh seeds: tiny v1" in text
    assert "**smallest lr within one SE, fresh seeds: OOD at matched ID accuracy**" in text
    assert json.loads(report.as_json(again))["fresh"]["seeds"] == [2, 3, 4]
    before = stamps(out)
    run.run(asked, found.trials, options)
    assert stamps(out) == before
    with pytest.raises(RbftError, match=r"--fresh-seeds: 1 is among --seeds, .* give others, e\.g\. 3-5"):
        plan_trials(replace(found.search, fresh_seeds=(1, 2)))


def cells_of(entrant: Entrant) -> Mapping[str, Space]:
    return entrant.outcomes[0].trial.spaces


def test_a_recipe_of_a_winner_and_what_set_says_over_it(
    tiny: Callable[[int], list[report.Tuned]], tiny_model: str
) -> None:
    [found] = tiny(2)
    path = str(found.recipes()["lipsum-best.toml"])
    request = Request(("lipsum",), ("tiny",), (tiny_model,), recipe=path, set=(("strength", "0.25"),))
    [cell] = plan.make(request)
    assert cell.settings["strength"] == 0.25
    assert cell.recipe_source == "--recipe lipsum-best.toml, --set strength"
    with pytest.raises(PlanError, match=r"it is for method 'lipsum', not for 'ft'; run them apart"):
        plan.make(replace(request, method=("ft",), set=()))


def test_the_command_shows_its_trials_and_cost_then_runs_them(shelves: None, tiny_model: str, tmp_path: Path) -> None:
    words = ["tune", "--method", "ft", "--suite", "tiny", "--model", tiny_model, "--trials", "2", "--out",
             str(tmp_path / "out")]  # fmt: skip
    planned = CliRunner().invoke(main, [*words, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert planned.stdout.count("to do   trial ") == 2
    assert "2 cells to run, 12 steps\n" in planned.stdout
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(main, [*words, "--format", "markdown"])
    assert done.exit_code == 0, done.output
    assert "| ft (" in done.stdout
    assert f"next     rbft run --recipe {tmp_path / 'out' / 'tiny'}" in done.stderr
    more = CliRunner().invoke(main, [*words, "--dry-run", "--trials", "3"])
    assert more.stdout.count("done    trial ") == 2
    assert "1 cells to run, 6 steps, about 0 min by the cells that are done\n" in more.stdout


def test_the_python_door_is_the_command(shelves: None, tiny_model: str, tmp_path: Path) -> None:
    ranges = {"lr": rb.Range(1e-4, 1e-2, "log"), "batch": rb.Choices((4, 8)), "lipsum.strength": "0.5:2"}
    found = rb.tune(
        ["ft", "lipsum"], "tiny", trials=2, ranges=ranges, model=tiny_model, out=tmp_path, device="cpu", progress=False
    )
    assert len(found) == 1
    assert [entrant.method for entrant in found[0].entrants] == ["ft", "lipsum"]
    assert cells_of(found[0].entrants[1])["strength"] == Range(0.5, 2.0)
    assert {row["method"] for row in found.table()} == {"ft", "lipsum"}
    assert "**Budget**" in found.markdown()
