"""Several fits inside one cell, and soups of them: means of the weights (Wortsman et al., ICML 2022)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_ft import Candidates, Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import ImageBatches, train

from .ft import FT

State = dict[str, Tensor]
Rate = Callable[[State], float]  # of a state: what ID validation says of it; more is better


@dataclass(frozen=True)
class Members(FT):
    """FT several times from one start. Member 0 is the FT of the cell's own seed; the others have streams of their own.

    A cell costs as much as its members together, and its record counts them all. Member k trains at the recipe's
    learning rate times the factor number k of `lr_factors`, which are taken in turn; '1' repeats one recipe.
    """

    averages: ClassVar[bool] = False  # there are several paths

    members: int = 3  # fits in one cell
    lr_factors: str = "1"  # on the recipe's learning rate, for one member after the other, in turn

    def states(self, clip: Clip, data: TrainSet, run: Run) -> tuple[State, list[State]]:
        """What all members start from, and what each ends with."""
        self.start(clip, data)
        start = clip.snapshot()
        return start, fit_members(self, clip, data, run, [self.recipe_of(k) for k in range(self.members)])

    def recipe_of(self, k: int) -> Recipe:
        """The recipe of member k."""
        factors = numbers(self.lr_factors)
        return replace(self.resolved, lr=self.resolved.lr * factors[k % len(factors)])

    def problems(self) -> list[str]:
        found = [] if self.members >= 1 else [f"members={self.members} must be at least 1"]
        return found + positive("lr_factors", self.lr_factors)


@dataclass(frozen=True)
class Soup(Members):
    """Members, and one mean of their weights."""

    reduces_to: ClassVar[Mapping[str, tuple[str, int, str]]] = {
        "soup": ("members", 1, "ft"),
        "member-0": ("members", 1, "ft"),
    }

    def fit(self, clip: Clip, data: TrainSet, run: Run) -> Candidates:
        _, ends = self.states(clip, data, run)
        return Candidates(clip, named(ends) | {"soup": fixed(self.soup(ends, clip, data, run))}, default="soup")

    def soup(self, ends: Sequence[State], clip: Clip, data: TrainSet, run: Run) -> State:
        """The weights of the headline row."""
        raise NotImplementedError


def fit_members(
    method: FT | Sequence[FT], clip: Clip, data: TrainSet, run: Run, recipes: Sequence[Recipe]
) -> list[State]:
    """Fit the objective of `method` once for each recipe, always from where `clip` is now; returns the ends.

    Several methods are taken one for each recipe.

    Member 0 draws from the streams of `run`, so it is what `method` alone would give; the others have their own.
    Members that were finished before come from their checkpoints.
    """
    start, ends = clip.snapshot(), list[State]()
    methods = [method] * len(recipes) if isinstance(method, FT) else method
    for k, (recipe, each) in enumerate(zip(recipes, methods, strict=True)):
        clip.restore(start)
        own, stage = (run.branch(f"member-{k}"), "fit") if k else (run, "member-0.fit")
        run.progress.say(f"  member {k + 1} of {len(recipes)}")
        train(clip, data, each.objective(clip, data, own), recipe, own, stage=stage)
        ends.append(clip.snapshot())
    return ends


def mean(states: Sequence[State]) -> State:
    """Mean of the states, tensor by tensor; of one, that one to the bit."""
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def greedy(states: Sequence[State], rate: Rate, ties: bool = False) -> tuple[State, list[int]]:
    """Greedy soup (Wortsman et al., 2022, Recipe 1): by falling rating, a state joins where the mean's rating rises.

    With `ties`, it joins also where the rating stays. Returns the soup, and which states are in it.
    """
    rates = [rate(state) for state in states]
    order = sorted(range(len(states)), key=lambda k: -rates[k])  # of equals the first comes first
    kept, soup, best = [order[0]], states[order[0]], rates[order[0]]
    for k in order[1:]:
        trial = mean([states[i] for i in (*kept, k)])
        found = rate(trial)
        if found > best or (ties and found == best):
            kept, soup, best = [*kept, k], trial, found
    return soup, kept


def rating(clip: Clip, data: TrainSet, run: Run) -> Rate:
    """Rates a state on ID validation, by the metric that checkpoints are selected by."""
    source = ImageBatches(clip, data, run.workers)

    def rate(state: State) -> float:
        clip.restore(state)
        return source.rating(clip)

    return rate


def named(ends: Sequence[State]) -> dict[str, Callable[[], State]]:
    """Members as candidates: 'member-0', 'member-1', ..."""
    return {f"member-{k}": fixed(end) for k, end in enumerate(ends)}


def fixed(state: State) -> Callable[[], State]:
    """A candidate that is this state."""
    return partial(dict, state)


def numbers(text: str) -> list[float]:
    """'1 0.3' -> [1.0, 0.3]; words that are no numbers are NaN."""
    return [_number(word) for word in text.split()]


def positive(name: str, text: str) -> list[str]:
    """What is wrong with a setting that lists numbers above 0."""
    found = numbers(text)
    ok = found and all(math.isfinite(value) and value > 0 for value in found)
    return [] if ok else [f"{name}={text!r} must be numbers above 0 with spaces between them, e.g. '1 0.3'"]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
