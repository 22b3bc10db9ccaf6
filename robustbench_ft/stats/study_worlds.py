"""Made-up methods with a known truth, for `study`: equal on fresh images and fresh seeds, unequal on those at hand.

Answers come from a latent model: P(right) = sigmoid(skill + image + method x image + seed). Each method has its own
view of the images at hand, which an interval must allow for.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy import stats as scipy_stats

from robustbench_ft.errors import RbftError

from .bootstrap import se_difference
from .intervals import Estimate, Examples, Matrix, difference, mean
from .macro_f1 import stack
from .pairs import flips
from .robustness import Point, matched_id_gain, rising
from .seeds import welch
from .streams import generator
from .tails import Part, satterthwaite, t_p
from .worst_group import worst_group_draws

IMAGE, VIEW, SKILL = 4.0, 1.5, 4.0  # sd of image and method x image effects, mean skill: logits
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(81)
Answers = NDArray[np.bool_]


def accuracy_of(skill: float, spread: float) -> float:
    """E sigmoid(N(skill, spread^2)) by Gauss-Hermite quadrature."""
    return float(WEIGHTS @ special.expit(skill + spread * NODES) / WEIGHTS.sum())


def seed_logits(sd: float, skill: float = SKILL) -> float:
    """The sd in logits that moves accuracy by `sd`."""
    step = 1e-3
    spread = float(np.hypot(IMAGE, VIEW))
    return sd / ((accuracy_of(skill + step, spread) - accuracy_of(skill - step, spread)) / (2 * step))


def answers(rng: np.random.Generator, logits: Matrix) -> Answers:
    """Right or wrong for logits [S, n]."""
    return rng.random(logits.shape, np.float32) < special.expit(logits.astype(np.float32))


@dataclass(frozen=True)
class Outcome:
    """One replicate: p of each test, and whether the interval of one method's mean held the truth."""

    p: dict[str, float]
    covered: bool | None = None


def crossed(rng: np.random.Generator, seeds: int, sd: float, n: int = 10_000) -> Outcome:
    """Two equal methods on one test set: every test that needs no draws."""
    spread = seed_logits(sd)
    shared = rng.normal(0, IMAGE, n)
    a, b = (answers(rng, SKILL + shared + rng.normal(0, VIEW, n) + rng.normal(0, spread, (seeds, 1))) for _ in range(2))
    gap = a.mean(axis=0) - b.mean(axis=0)
    x, y = a.mean(axis=1), b.mean(axis=1)
    z = abs(float(gap.mean())) / se_difference(a.astype(float), b.astype(float))
    p = {
        "McNemar, one seed each": flips(a[0], b[0]).test.mid_p,
        "examples, seed-averaged": float(scipy_stats.ttest_1samp(gap, 0.0).pvalue),
        "Welch on seeds": welch(x, y).p,
        "crossed bootstrap SE, normal": float(2 * scipy_stats.norm.sf(z)),
        "two-way t": difference([Examples(a)], [Examples(b)]).p,
    }
    truth = accuracy_of(SKILL, float(np.sqrt(IMAGE**2 + VIEW**2 + spread**2)))
    return Outcome(p, _holds(mean([Examples(a)]), truth))


class AllClusters(Examples):
    """Clusters of unequal size that all count: df = G - 1."""

    @cached_property
    def df(self) -> float:
        return self.count - 1.0


def clustered(
    rng: np.random.Generator, seeds: int, sd: float, clusters: int, evenness: float = 4.0, n: int = 6_000
) -> Outcome:
    """One replicate of `crossed` whose method effects belong to clusters of sizes ~ Dirichlet(evenness)."""
    spread = seed_logits(sd)
    shares = rng.dirichlet(np.full(clusters, evenness))
    code = np.sort(np.concatenate([np.arange(clusters), rng.choice(clusters, n - clusters, p=shares)]))
    shared = rng.normal(0, IMAGE, n) + rng.normal(0, VIEW, clusters)[code]
    a, b = (
        answers(rng, SKILL + shared + rng.normal(0, VIEW, clusters)[code] + rng.normal(0, spread, (seeds, 1)))
        for _ in range(2)
    )
    p = {
        "two-way t, examples as if independent": difference([Examples(a)], [Examples(b)]).p,
        "two-way t, df = G - 1": difference([AllClusters(a, code)], [AllClusters(b, code)]).p,
        "two-way t, df = G* - 1": difference([Examples(a, code)], [Examples(b, code)]).p,
    }
    truth = accuracy_of(SKILL, float(np.sqrt(IMAGE**2 + 2 * VIEW**2 + spread**2)))
    return Outcome(p, _holds(mean([Examples(a, code)]), truth))


def unequal(
    rng: np.random.Generator, seeds: int, sd: float, other_seeds: int, other_sd: float, n: int = 10_000
) -> Outcome:
    """One replicate of `crossed` with unequal seed numbers and seed sd; sd 0 is a deterministic method."""
    shared, made = rng.normal(0, IMAGE, n), list[Examples]()
    for count, noise in ((seeds, sd), (other_seeds, other_sd)):
        spread = seed_logits(noise)
        # the same expected accuracy whatever the seed sd
        skill = _skill(accuracy_of(SKILL, float(np.hypot(IMAGE, VIEW))), float(np.sqrt(IMAGE**2 + VIEW**2 + spread**2)))
        made.append(Examples(answers(rng, skill + shared + rng.normal(0, VIEW, n) + rng.normal(0, spread, (count, 1)))))
    found = difference([made[0]], [made[1]])
    trained = [x for x in made if len(x.runs) > 1]
    parts = [Part(0.0, float(x.runs.var(ddof=1)) / len(x.runs), len(x.runs) - 1) for x in trained]
    df = satterthwaite(found.se**2, parts, [Part(0.0, found.v_examples, n - 1)])
    return Outcome({"two-way t, Satterthwaite": t_p(abs(found.value) / found.se, df), "as compared": found.p})


SHARES = (0.38, 0.27, 0.20, 0.11, 0.04)  # of five groups
YEARS = 6  # clusters in each group
SKILLS = {
    "tied": (3.0, 3.0, 3.0, 3.0, 3.0), "near-tied": (3.3, 3.0, 3.15, 3.05, 3.1), "apart": (5.0, 4.5, 4.0, 3.0, 6.0),
    "the smallest is the worst": (5.0, 4.5, 4.0, 6.0, 3.0),
}  # fmt: skip
WORLDS, DRAWS = 1_000, 300  # runs that give the expected metric; resamples


def grouped(rng: np.random.Generator, groups: str, n: int, clusters: bool, seeds: int = 3) -> Outcome:
    """Two methods with the same five groups of unequal size: the official metric of FMoW."""
    a, b, group, code = worlds_of_groups(rng, SKILLS[groups], n, clusters, seeds)
    drawn = worst_group_draws(np.concatenate([a, b]), group, DRAWS, rng.integers(2**62), clusters=code)
    one, two = stack(drawn[:seeds]), stack(drawn[seeds:])
    fixed = difference([taken_as_fixed(a, group, code)], [taken_as_fixed(b, group, code)])
    p = {"worst groups as fixed": fixed.p, "two-way t, minimum in each draw": difference([one], [two]).p}
    return Outcome(p, _holds(mean([one]), expected_worst(groups, n, clusters)))


@cache
def expected_worst(groups: str, n: int, clusters: bool) -> float:
    """The metric on average, for fresh images and seeds: below the least true accuracy where groups are tied."""
    rng, found = generator("study", "worst", groups, n, clusters), list[float]()
    for _ in range(WORLDS):
        a, b, group, _ = worlds_of_groups(rng, SKILLS[groups], n, clusters, 1)
        found += [float(accuracies(y, group).min()) for y in (a, b)]
    return float(np.mean(found))


def worlds_of_groups(
    rng: np.random.Generator, skills: tuple[float, ...], n: int, clusters: bool, seeds: int
) -> tuple[Answers, Answers, NDArray[np.int64], NDArray[np.int64] | None]:
    """(answers of both methods [S, n], group [n], clusters [n]: years in each group)"""
    group = np.repeat(np.arange(len(SHARES)), np.round(np.array(SHARES) * n).astype(int))
    place = np.concatenate([np.arange(size) for size in np.bincount(group)])
    # every other block of images is of the first half of the years
    year = np.where(place // YEARS % 2 == 0, place % YEARS, place % YEARS // 2)
    code = group * YEARS + year
    count, spread, level = len(SHARES) * YEARS, seed_logits(0.003), np.array(skills)[group]
    image = rng.normal(0, IMAGE, n) + (rng.normal(0, 1, count)[code] if clusters else 0.0)

    def method() -> Answers:
        view = rng.normal(0, VIEW / 2, count)[code] if clusters else rng.normal(0, VIEW, n)
        seed = rng.normal(0, spread, (seeds, 1)) + rng.normal(0, spread, (seeds, len(SHARES)))[:, group]
        return answers(rng, level + image + view + seed)

    return method(), method(), group, code if clusters else None


def accuracies(right: Answers, group: NDArray[np.int64]) -> Matrix:
    """[K, S]"""
    return np.array([np.bincount(group, weights=row) for row in right]).T / np.bincount(group)[:, None]


def taken_as_fixed(right: Answers, group: NDArray[np.int64], code: NDArray[np.int64] | None) -> Examples:
    """Scores whose means are the accuracies in the group that is each run's worst, taken as given."""
    found = accuracies(right, group)
    worst, least = found.argmin(axis=0), found.min(axis=0)
    inside = group[None] == worst[:, None]
    scale = len(group) / inside.sum(axis=1, keepdims=True)
    return Examples(inside * (right - least[:, None]) * scale + least[:, None], code)


ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ID_SKILL, OOD_SKILL = (0.5, 1.5, 2.3, 3.0, 3.6), (2.0, 2.2, 2.0, 1.4, 0.4)  # of the alphas: rises, and bends down


def matched(rng: np.random.Generator, seeds: int, sd: float, paired: bool, n: int = 3_000) -> Outcome:
    """A method that lies on the zero-shot-to-FT curve between two alphas: its matched-ID gain is 0."""
    spread = seed_logits(sd)
    total = float(np.sqrt(IMAGE**2 + VIEW**2 + spread**2))
    skills = [_between(ID_SKILL, total), _between(OOD_SKILL, total)]
    runs = rng.normal(0, spread, (seeds, 1))
    other = runs if paired else rng.normal(0, spread, (seeds, 1))

    def sets(own: float, curve: tuple[float, ...]) -> tuple[Examples, list[Examples]]:
        shared, view, mine = rng.normal(0, IMAGE, n), rng.normal(0, VIEW, n), rng.normal(0, VIEW, n)
        # every alpha has the whole seed effect: a weaker one at small alphas would only make the test easier
        made = [Examples(answers(rng, skill + shared + view + runs)) for skill in curve]
        return Examples(answers(rng, own + shared + mine + other)), made

    identity, ood = sets(skills[0], ID_SKILL), [sets(skills[1], OOD_SKILL) for _ in range(2)]
    curve = rising([
        Point(identity[1][k], tuple(members[k] for _, members in ood)) for k in range(len(ALPHAS))
    ])  # fmt: skip
    point = Point(identity[0], tuple(own for own, _ in ood))
    try:
        return Outcome({"matched-ID gain": matched_id_gain(point, curve, paired).p})
    except RbftError:  # chance put the method's ID accuracy outside the curve's range: refused, no claim
        return Outcome({"matched-ID gain": float("nan")})


def _between(skills: tuple[float, ...], spread: float) -> float:
    """The skill whose accuracy is the mean of those at alphas .5 and .75: exactly on the straight line of the curve."""
    return _skill((accuracy_of(skills[2], spread) + accuracy_of(skills[3], spread)) / 2, spread)


@cache
def _skill(wanted: float, spread: float) -> float:
    """The skill that has this accuracy."""
    return float(optimize.brentq(lambda skill: accuracy_of(skill, spread) - wanted, -9, 9))


def _holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high
