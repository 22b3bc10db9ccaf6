"""What methods declare of themselves, and which of them can follow each other.

A method that is FT and more inherits what is true of FT. This table is where a wrong inheritance is noticed.
"""

from typing import Any, NamedTuple

import pytest
import torch
from test_every_method import DATA, METHODS, RUN, load
from test_several_models import build
from tiny import Tiny

from robustbench_ft import registry
from robustbench_ft.clip import Clip
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Candidates, Method
from robustbench_ft.plan import Request, make


class Facts(NamedTuple):
    """Of one method; the defaults are those of most."""

    averages: bool = False  # NAME+ema is possible
    separable: bool = True
    passes: float = 1
    single: bool = True
    transductive: bool = False
    published: tuple[str, ...] = ()
    equals: tuple[str, ...] = ()  # the methods that it is at some setting


PATH = Facts(averages=True)  # one path of weights, as FT
TO_FT = Facts(averages=True, equals=("ft",))
SOUP = Facts(published=("imagenet",), equals=("ft",))
MERGE = Facts(equals=("zero-shot",))
MIXTURE = Facts(passes=2, single=False, equals=("ft", "zero-shot"))
SHOTS = ("imagenet+shots=16",)
FACTS = {
    "adam-spd": PATH,
    "car-ft": TO_FT,
    "carot": Facts(separable=False, published=("imagenet",)),
    "clap": Facts(published=SHOTS),
    "clipood": Facts(),
    "coop": Facts(published=SHOTS),
    "dare": MERGE,
    "dawin": MIXTURE._replace(passes=5, transductive=True),
    "diwa": Facts(equals=("lp-ft",)),
    "ema": Facts(equals=("ft",)),
    "ewc": TO_FT,
    "feature-distill": TO_FT,
    "flyp": Facts(separable=False, published=("imagenet",)),
    "ft": Facts(averages=True, published=("imagenet",)),
    "ft-strong": Facts(published=("imagenet",)),
    "ftp": PATH,
    "greedy-soup": SOUP,
    "kd": TO_FT,
    "kgcoop": Facts(published=SHOTS, equals=("coop",)),
    "l2-sp": TO_FT,
    "ldifs": TO_FT._replace(published=("imagenet",)),
    "lines": Facts(equals=("ft",)),
    "lipsum": TO_FT._replace(published=("domainnet", "imagenet")),
    "lora": Facts(),
    "lp": Facts(),
    "lp-ft": PATH,
    "lwf": TO_FT,
    "miro": PATH,
    "mixout": TO_FT,
    "model-stock": Facts(equals=("ft",)),
    "olor": PATH,
    "path": Facts(equals=("ft",)),
    "output-ensemble": MIXTURE._replace(published=("imagenet",)),
    "paint": Facts(equals=("zero-shot",)),
    "partial-ft": TO_FT,
    "prolip": PATH._replace(published=SHOTS),
    "promptsrc": Facts(single=False, published=SHOTS),
    "saft": TO_FT,
    "starft": Facts(separable=False, published=("imagenet",)),
    "swad": Facts(equals=("ft",)),
    "task-arithmetic": MERGE,
    "ties": MERGE,
    "tpgm": Facts(equals=("ft",)),
    "tsv-m": MERGE,
    "uniform-soup": SOUP,
    "vrf": MIXTURE,
    "wise-ft": Facts(published=("imagenet",), equals=("ft", "zero-shot")),
    "zero-shot": Facts(),
}
AVERAGES = sorted(name for name, facts in FACTS.items() if facts.averages)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_declares_what_is_true_of_it(name: str) -> None:
    kind = registry.load("method", name, Method)
    equals = tuple(sorted({other for _, _, other in kind.reduces_to.values()}))
    found = Facts(
        kind.averages, kind.separable, kind.passes, kind.single_model, kind.transductive,
        tuple(sorted(kind.published)), equals,
    )  # fmt: skip
    assert found == FACTS[name]


@pytest.mark.parametrize("name", AVERAGES)
def test_a_mean_that_forgets_at_once_is_the_method_itself(name: str, tiny_model: str) -> None:
    """Whoever moves weights after an update, as SAFT does, must do it before the mean looks at them."""
    found = build(f"{name}+ema", decay=0.0).fit(load(tiny_model), DATA, RUN)
    alone = build(name).fit(load(tiny_model), DATA, RUN)
    assert isinstance(alone, Clip)
    expected = {key: tensor.clone() for key, tensor in alone.state_dict().items()}
    ours = found.use("ema").state_dict()
    assert not [key for key in expected if not torch.equal(ours[key], expected[key])]


WORD = "answers with several models, so there are no weights for"
REFUSED = {
    "output-ensemble+wise-ft": WORD,
    "vrf+wise-ft": WORD,
    "dawin+wise-ft": WORD,
    "vrf+ema": WORD,
    "wise-ft+ema": "no single path of weights whose mean is a model; ema\\+wise-ft is possible",
    "ema+ema": "no single path of weights whose mean is a model$",
    "greedy-soup+ema": "no single path of weights whose mean is a model$",
    "lipsum+wise-ft+ema": "no single path of weights whose mean is a model",
    "lipsum+ema+ema": "no single path of weights whose mean is a model",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_follow_is_refused_with_the_plan(name: str) -> None:
    with pytest.raises(RbftError, match=REFUSED[name]) as caught:
        make(Request(method=(name,), suite=("shapes",)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["lora+wise-ft", "ema+wise-ft", "lipsum+ema+wise-ft", "greedy-soup+wise-ft", "swad+wise-ft"]
)
def test_what_can_follow_begins_at_zero_shot(name: str, tiny_model: str) -> None:
    kind: Any = registry.load("method", name, Method)
    found = kind(recipe=Tiny.recipe).fit(load(tiny_model), DATA, RUN)
    assert isinstance(found, Candidates)
    clip = load(tiny_model)
    clip.start_from_zero_shot(DATA.task, Tiny.recipe.head)
    ours = found.use("alpha-0").state_dict()  # pyright: ignore
    assert not [key for key, tensor in clip.state_dict().items() if not torch.equal(ours[key], tensor)]


def test_a_composition_is_trained_by_the_recipe_of_its_first_method() -> None:
    for name in ("lipsum+wise-ft", "flyp+wise-ft", "ft+ema"):
        first = registry.load("method", name.partition("+")[0], Method)
        assert registry.load("method", name, Method).published == first.published


def test_a_subclass_has_authors_of_its_own() -> None:
    class More(registry.load("method", "ft", Method)):
        """FT and more."""

    assert More.published == {}
