"""Do the intervals hold what they say? Type-I error and coverage by simulation, as a table with its command on top.

    python -m robustbench_ft.stats.study [--replicates 1000] [--out docs/results/statistics_study.md]

Answers come from a latent model: P(right) = sigmoid(skill + image + method x image + seed). Both methods are equal on
fresh images and fresh seeds; each has its own view of the images at hand, which an interval must allow for.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy import stats as scipy_stats

from robustbench_ft.errors import RbftError

from .bootstrap import se_difference
from .intervals import Estimate, Examples, Matrix, difference, mean
from .pairs import flips
from .robustness import Point, matched_id_gain, rising
from .seeds import welch
from .streams import generator

IMAGE, VIEW, SKILL = 4.0, 1.5, 4.0  # sd of image and method x image effects, mean skill: logits
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(81)
LIMITS = {"type-I": (0.02, 0.06), "coverage": (0.94, 0.98)}
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
    """Two equal methods on one test set: every test of statistics.md 1.5 that needs no draws."""
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


def clustered(rng: np.random.Generator, seeds: int, sd: float, clusters: int, n: int = 6_000) -> Outcome:
    """As `crossed`, but the method's view belongs to a cluster (slide, camera) of unequal size."""
    spread = seed_logits(sd)
    shares = rng.dirichlet(np.full(clusters, 4.0))
    code = np.sort(np.concatenate([np.arange(clusters), rng.choice(clusters, n - clusters, p=shares)]))
    shared = rng.normal(0, IMAGE, n) + rng.normal(0, VIEW, clusters)[code]
    a, b = (
        answers(rng, SKILL + shared + rng.normal(0, VIEW, clusters)[code] + rng.normal(0, spread, (seeds, 1)))
        for _ in range(2)
    )
    p = {
        "two-way t, examples as if independent": difference([Examples(a)], [Examples(b)]).p,
        "two-way t, clusters": difference([Examples(a, code)], [Examples(b, code)]).p,
    }
    truth = accuracy_of(SKILL, float(np.sqrt(IMAGE**2 + 2 * VIEW**2 + spread**2)))
    return Outcome(p, _holds(mean([Examples(a, code)]), truth))


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
    wanted = (accuracy_of(skills[2], spread) + accuracy_of(skills[3], spread)) / 2
    return float(optimize.brentq(lambda skill: accuracy_of(skill, spread) - wanted, -5, 5))


def _holds(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


Make = Callable[[np.random.Generator], Outcome]


def cells() -> Iterator[tuple[str, str, Make]]:
    """(part, cell, generator of replicates)"""
    for seeds in (3, 5, 10):
        for sd in (0.0005, 0.003, 0.01):
            yield "crossed", f"S = {seeds}, seed sd {100 * sd:g} pt", _bind(crossed, seeds, sd)
    for count in (10, 30, 100):
        for seeds in (3, 5):
            yield "clustered", f"{count} clusters, S = {seeds}", _bind(clustered, seeds, 0.003, count)
    for seeds in (3, 5, 10):
        for sd in (0.003, 0.01):
            for paired in (False, True):
                name = f"S = {seeds}, seed sd {100 * sd:g} pt, seeds {'paired' if paired else 'independent'}"
                yield "matched", name, _bind(matched, seeds, sd, paired)


def _bind(make: Callable[..., Outcome], *arguments: float) -> Make:
    return lambda rng: make(rng, *arguments)


TITLES = {
    "crossed": "Two equal methods, one test set of 10,000 images",
    "clustered": "The same with 6,000 images in clusters of unequal size, seed sd 0.3 pt",
    "matched": "A method on the zero-shot-to-FT curve: gain at matched ID (ID and two shifts of 3,000, five alphas)",
}


MORE = {"crossed": 4}  # the headline cells are held to limits: their rates are wanted to .0034
MONTE_CARLO = (0.05 * 0.95) ** 0.5


def run(replicates: int) -> str:
    """A table for each part, each with the range of its headline test: the last one."""
    parts: dict[str, list[tuple[str, Make]]] = {}
    for name, cell, make in cells():
        parts.setdefault(name, []).append((cell, make))
    return "\n".join(_part(name, members, replicates * MORE.get(name, 1)) for name, members in parts.items())


def _part(name: str, members: list[tuple[str, Make]], count: int) -> str:
    body: list[str] = []
    headlines: list[float] = []
    head: list[str] = []
    for cell, make in members:
        outcomes = [make(generator("study", name, cell, k)) for k in range(count)]
        made = {test: np.array([outcome.p[test] for outcome in outcomes]) for test in outcomes[0].p}
        rates = {test: float(np.mean(p[np.isfinite(p)] < 0.05)) for test, p in made.items()}
        *_, last = rates
        covered = [outcome.covered for outcome in outcomes if outcome.covered is not None]
        refused = int(np.sum(~np.isfinite(made[last])))
        head = ["cell", *rates, "coverage, difference", *(["coverage, one method"] if covered else [])]
        headlines.append(rates[last])
        shares = [1 - rates[last], *([float(np.mean(covered))] if covered else [])]
        cell = f"{cell} ({refused} refused)" if refused else cell
        body.append(_row([cell, *(f"{rate:.3f}" for rate in rates.values()), *(f"{100 * s:.1f} %" for s in shares)]))
        click.echo(body[-1], err=True)
    said = (
        f"**{TITLES[name]}**: {count} replicates per cell, s.e. {MONTE_CARLO / count**0.5:.4f}; type-I error of the "
        f"last test {min(headlines):.3f} to {max(headlines):.3f}."
    )
    return "\n".join(["", said, "", _row(head), _row(["---", *["---:"] * (len(head) - 1)]), *body])


def _row(values: list[str]) -> str:
    return f"| {' | '.join(values)} |"


def world() -> str:
    """What the made-up methods are like, measured."""
    rng, n = generator("study", "world"), 50_000
    shared = rng.normal(0, IMAGE, n)
    a, b = (answers(rng, SKILL + shared + rng.normal(0, VIEW, n) + np.zeros((3, 1))) for _ in range(2))
    gap = a.mean(axis=0) - b.mean(axis=0)
    return (
        f"The made-up methods: accuracy {100 * a.mean():.0f} %, two seeds disagree on being right on "
        f"{100 * np.mean(a[0] != a[1]):.0f} % of images, two methods on {100 * np.mean(a[0] != b[0]):.0f} %, psi of "
        f"three seeds {gap.var(ddof=1):.3f}."
    )


@click.command()
@click.option("--replicates", default=1000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(replicates: int, out: Path | None) -> None:
    """Simulate, print, and write the tables."""
    began = time.monotonic()
    text = (
        f"`python -m robustbench_ft.stats.study --replicates {replicates}`\n\n"
        "Share of p < .05 where nothing differs (nominal .050; s.e.: of Monte Carlo). The last test of each table "
        f"is the one that `rbft compare` uses. Wanted of it: {LIMITS['type-I'][0]:.2f} to {LIMITS['type-I'][1]:.2f}, "
        f"coverage {100 * LIMITS['coverage'][0]:.0f} to {100 * LIMITS['coverage'][1]:.0f} %. "
        f"{world()}\n{run(replicates)}\n"
    )
    click.echo(text)
    click.echo(f"{time.monotonic() - began:.0f} s", err=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
