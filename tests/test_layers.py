"""Methods that train some layers, or parameters beside them: what moves, what stays, and what is saved."""

from typing import Any

import pytest
import torch
from tiny import Tiny

from robustbench_ft import clip as clips
from robustbench_ft import model_ref, registry
from robustbench_ft.clip import Clip, State
from robustbench_ft.method import Method, Run, TrainSet
from robustbench_ft.prompts import Task

SUITE = Tiny("tiny")
TASK = Task(SUITE.classes, SUITE.templates)
DATA = TrainSet(SUITE.split("train"), SUITE.split("val"), TASK)
RUN = Run(0, torch.device("cpu"))


def load(model: str) -> Clip:
    return clips.load(model_ref.resolve(model, None))


def made(name: str, recipe: Any = Tiny.recipe, **settings: Any) -> Any:
    kind: Any = registry.load("method", name, Method)
    return kind(recipe=recipe, **settings)


class Seen:
    """A companion that remembers the model at the start of every stage, and otherwise only listens."""

    starts: list[State]

    def __init__(self, clip: Clip, starts: list[State]) -> None:
        starts.append({name: tensor.detach().clone() for name, tensor in clip.state_dict().items()})

    def after_step(self, step: int, of: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        pass


@pytest.mark.parametrize("probe", ["zero-shot", "logistic"])
def test_lp_is_what_lp_ft_fine_tunes(probe: str, tiny_model: str) -> None:
    starts: list[State] = []
    made("lp-ft", probe=probe).fit(
        load(tiny_model), DATA, Run(0, torch.device("cpu"), companions=(lambda clip: Seen(clip, starts),))
    )
    lp = made("lp", probe=probe).fit(load(tiny_model), DATA, RUN).state_dict()
    second = starts[-1]  # of fine-tuning, the last stage
    assert len(starts) == (2 if probe == "zero-shot" else 1)
    assert second.keys() == lp.keys()
    assert all(torch.equal(tensor, lp[name]) for name, tensor in second.items())
    assert not torch.equal(lp["head"], load(tiny_model).zero_shot_head(TASK))


def test_paint_moves_the_image_tower_only(tiny_model: str) -> None:
    candidates, before = made("paint").fit(load(tiny_model), DATA, RUN), load(tiny_model)
    after = candidates.use("alpha-1").state_dict()
    moved = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])}
    assert moved
    assert all(name.startswith("model.visual.") for name in moved)
    assert torch.equal(after["head"], before.zero_shot_head(TASK))
    assert list(candidates.axis.values()) == [k / 10 for k in range(11)]
