"""Power of a design: minimal detectable differences, and seeds needed, from seed sd and psi.

Formulas: docs/statistics.md, 'What a design can show'.

psi = var over examples of the seed-averaged difference, roughly how often two methods disagree; typically .02-.15.
"""

from dataclasses import dataclass

import scipy  # whose parts are imported where they are first used

ALPHA, POWER = 0.05, 0.80
LEAST_SEEDS, MOST_SEEDS = 3, 100_000  # fewer than three seeds claim nothing; more than the other is 'never'


@dataclass(frozen=True)
class Design:
    """Two methods of S seeds each on shared examples."""

    sd: float  # of the suite mean over seeds, per method
    v_examples: float  # sum over sets of psi / n, over T^2
    df_examples: float = 1e9


def variance(design: Design, seeds: float) -> tuple[float, float]:
    """(V, its Satterthwaite df) of a difference between two methods."""
    part = design.sd**2 / seeds
    total = 2 * part + design.v_examples
    spread = 2 * part**2 / (seeds - 1) + design.v_examples**2 / design.df_examples
    return total, max(1.0, total**2 / spread) if spread else 1e9


def power(design: Design, seeds: float, delta: float, alpha: float = ALPHA) -> float:
    """P(p < alpha) when the true difference is `delta`: noncentral t, both tails."""
    total, df = variance(design, seeds)
    return _power(total**0.5, df, delta, alpha)


def _power(se: float, df: float, delta: float, alpha: float) -> float:
    if se == 0:
        return 1.0
    critical, shift = float(scipy.stats.t.ppf(1 - alpha / 2, df)), abs(delta) / se
    if shift > critical + 10:
        return 1.0  # where scipy's noncentral t is nan
    wrong_side = float(scipy.stats.nct.cdf(-critical, df, shift))
    return float(scipy.stats.nct.sf(critical, df, shift)) + (wrong_side if wrong_side == wrong_side else 0.0)


def detectable(design: Design, seeds: int, alpha: float = ALPHA, wanted: float = POWER) -> float:
    """The least true difference that is found with probability `wanted`."""
    total, df = variance(design, seeds)
    return detectable_with(total**0.5, df, alpha, wanted)


def detectable_with(se: float, df: float, alpha: float = ALPHA, wanted: float = POWER) -> float:
    """The least true difference found with probability `wanted`, from a known standard error and df."""
    if se == 0:
        return 0.0
    guess = float(scipy.stats.t.ppf(1 - alpha / 2, df) + scipy.stats.t.ppf(wanted, df)) * se

    def lacking(delta: float) -> float:
        return _power(se, df, delta, alpha) - wanted

    return float(scipy.optimize.brentq(lacking, 0.3 * guess, 3 * guess))  # pyright: ignore[reportArgumentType]


def exact_seeds(design: Design, delta: float, alpha: float = ALPHA, wanted: float = POWER) -> float | None:
    """The real number of seeds per method at which power is reached; None when three suffice or none does."""

    def lacking(seeds: float) -> float:
        return power(design, seeds, delta, alpha) - wanted

    least, most = float(LEAST_SEEDS), float(MOST_SEEDS)
    if lacking(least) > 0 or lacking(most) < 0:
        return None
    return float(scipy.optimize.brentq(lacking, least, most))  # pyright: ignore[reportArgumentType]


def seeds_needed(design: Design, delta: float, alpha: float = ALPHA, wanted: float = POWER) -> int | None:
    """Whole seeds per method, at least three; None: never, the examples alone do not suffice."""
    if power(design, MOST_SEEDS, delta, alpha) < wanted:
        return None
    exact = exact_seeds(design, delta, alpha, wanted)
    return LEAST_SEEDS if exact is None else max(LEAST_SEEDS, -int(-exact // 1))


def example_floor(design: Design, alpha: float = ALPHA, wanted: float = POWER) -> float:
    """The detectable difference of infinitely many seeds: about 2.8 sqrt(psi / n)."""
    return float(scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(wanted)) * design.v_examples**0.5
