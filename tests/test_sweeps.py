"""What a method may vary inside one cell: DiWA's sweep, and CLAP's multipliers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_every_method import DATA, RUN, load
from test_parity_layers import module
from test_several_models import build, equal, fit, weights

from robustbench_ft.method import TrainSet
from robustbench_ft.plan import Request, make


def test_members_take_the_lists_in_turn_or_drawn() -> None:
    lists = {"lr_factors": "1 2 3", "decay_factors": "1 0.01", "dropouts": "0 0.1 0.5", "members": 12}
    turns, drawn = build("diwa", **lists), build("diwa", draw=True, **lists)
    base = turns.resolved

    def sweep(method: object) -> list[tuple[float, float, float]]:
        members = [method.member(k, RUN) for k in range(12)]  # pyright: ignore
        return [
            (round(m.resolved.lr / base.lr, 6), m.resolved.weight_decay / base.weight_decay, m.dropout) for m in members
        ]

    assert sweep(turns)[:4] == [(1, 1, 0), (2, 0.01, 0.1), (3, 1, 0.5), (1, 0.01, 0)]
    assert sweep(drawn) == sweep(drawn)
    assert len(set(sweep(drawn))) > 6  # of 18; in turn there are 6
    assert {dropout for *_, dropout in sweep(drawn)} == {0, 0.1, 0.5}


def test_dropped_features_train_another_member(tiny_model: str) -> None:
    plain, dropped = (fit(tiny_model, "diwa", members=2, dropouts=text) for text in ("0", "0 0.5"))
    assert equal(weights(plain, "member-0"), weights(dropped, "member-0"))
    assert not equal(weights(plain, "member-1"), weights(dropped, "member-1"))


@pytest.mark.parametrize("dropouts", ["", "1", "-0.1", "many"])
def test_a_dropout_that_leaves_nothing_is_refused(dropouts: str) -> None:
    assert any(line.startswith("dropouts=") for line in build("diwa", dropouts=dropouts).problems())


def test_clap_holds_more_once_it_has_moved(tiny_model: str) -> None:
    few = TrainSet(DATA.train.take(torch.arange(16).numpy()), DATA.val, DATA.task)  # an epoch is two steps

    def moved(**settings: object) -> float:
        method = build("clap", views=0, strength=50.0, rate=1.0, **settings)
        recipe = replace(method.resolved, steps=12, select="last")
        clip = replace(method, recipe=recipe).fit(load(tiny_model), few, RUN)
        return (clip.head - load(tiny_model).zero_shot_head(DATA.task)).norm().item()

    assert moved(adapt=True) < moved()


def test_grown_multipliers_come_back_from_a_checkpoint() -> None:
    one = module("clap").Multipliers(torch.ones(2), torch.ones(2, 3), torch.zeros(2, 3), 1)
    one.after_step(0, 9)
    one.after_step(1, 9)
    again = module("clap").Multipliers(torch.ones(2), torch.ones(2, 3), torch.zeros(2, 3), 1)
    again.load_state_dict(one.state_dict())
    again.after_step(2, 9)
    one.after_step(2, 9)
    assert torch.equal(again.holds, one.holds)
    assert one.holds.tolist() == [19, 19]  # 1, then 1 + 3 * 3, then 10 + 3 * 3


def test_settings_that_came_later_change_no_digest(tmp_path: Path) -> None:
    for method in ("diwa", "clap"):
        [cell] = make(Request((method,), ("digits",)))
        assert not {"adapt", "draw", "dropouts"} & cell.settings.keys()
