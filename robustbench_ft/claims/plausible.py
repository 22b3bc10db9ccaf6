"""What no run can give, whatever its digests say: impossible probabilities, seeds that are one run, chosen defaults.

These checks look at the stored answers alone. `against_suite` also asks the suite and the method of this machine.
"""

from collections.abc import Sequence

import numpy as np

from robustbench_ft import metrics, registry
from robustbench_ft.compare.rows import selection_metric
from robustbench_ft.data import Predictions
from robustbench_ft.errors import RbftError
from robustbench_ft.suite import Protocol, Suite

from . import digests
from .bundle import Bundle
from .schema import Claim

SLACK = 1e-4  # probabilities are float32, and sums over a thousand classes round


def problems(runs: Sequence[Bundle]) -> list[str]:
    """What is impossible or dishonest in the stored runs of a claim, a line each; empty when nothing is."""
    found = [line for run in runs for line in _of_run(run)]
    config = runs[0].config
    if config.deterministic and config.recipe is not None:
        found.append("it is marked as deterministic and was trained: a trained method counts by its seeds")
    if not config.deterministic:
        seen: dict[tuple[str, ...], int] = {}
        for run in runs:
            key = tuple(digests.probabilities_digest(run, split) for split in sorted(run.scored))
            other = seen.setdefault(key, run.seed)
            if other != run.seed:
                found.append(
                    f"seeds {other} and {run.seed} give the same probabilities on every split: they are one run"
                )
    return found


def _of_run(run: Bundle) -> list[str]:
    found: list[str] = []
    for split, scored in run.scored.items():
        for name, answers in scored.items():
            if wrong := impossible(answers):
                found.append(f"seed {run.seed}, split '{split}', candidate '{name}': {', '.join(wrong)}")
    return found + _default(run)


def _default(run: Bundle) -> list[str]:
    """The headline of a family lies where a setting puts it, or where ID validation does."""
    axis, default = run.summary.axis, run.summary.default
    if not axis or default not in axis:
        return []
    set_by_hand = {float(v) for v in run.config.settings.values() if isinstance(v, int | float)}
    val, metric = run.summary.splits.val, selection_metric(run.summary)
    scores = {name: run.numbers.candidates[name][val][metric] for name in axis}
    if axis[default] in set_by_hand or scores[default] >= max(scores.values()) or _is_least(scores, default, metric):
        return []
    return [f"seed {run.seed}: its headline '{default}' is no setting of the method, and ID validation chooses another"]


def _is_least(scores: dict[str, float], default: str, metric: str) -> bool:
    return metrics.sign_of(metric) < 0 and scores[default] <= min(scores.values())


def impossible(p: Predictions) -> list[str]:
    """Columns of answers that no probabilities over classes give."""
    true, right = np.exp(p.log_prob), p.prediction == p.label
    rules = {
        "a class below 0": bool((p.prediction >= 0).all() and (p.label >= 0).all()),
        "a confidence outside of [0, 1]": bool(((p.confidence > 0) & (p.confidence <= 1 + SLACK)).all()),
        "a probability above 1": bool((p.log_prob <= SLACK).all()),
        "a true class more probable than the top one": bool((true <= p.confidence + SLACK).all()),
        "a right answer whose two probabilities differ": bool((np.abs(true - p.confidence)[right] <= SLACK).all()),
        "two classes with more than 1 together": bool(((true + p.confidence)[~right] <= 1 + SLACK).all()),
        "a sum of squares that its top class does not allow": bool(
            ((p.sum_sq >= p.confidence**2 - SLACK) & (p.sum_sq <= p.confidence + SLACK)).all()
        ),
    }
    return [what for what, holds in rules.items() if not holds]


def against_suite(claim: Claim, runs: Sequence[Bundle], suite: Suite) -> list[str]:
    """What the claim says of the suite's splits and of its method, held against those of this machine."""
    protocol: Protocol = "as-published" if claim.identity.protocol == "as-published" else "clean"
    roles, told = suite.under(protocol), claim.data.roles
    here = {
        "val": roles.select, "test": suite.test, "shifts": tuple(suite.shifts),
        "extra": tuple(n for n in roles.evaluate if n not in (roles.select, suite.test, *suite.shifts)),
    }  # fmt: skip
    stated = {"val": told.val, "test": told.test, "shifts": tuple(told.shifts), "extra": tuple(told.extra)}
    found = [
        f"its {role} is {_named(stated[role])}, suite {suite.name} v{suite.version} has {_named(mine)}"
        for role, mine in here.items()
        if _different(role, stated[role], mine)
    ]
    summary = runs[0].summary
    groups = {name: tuple(members) for name, members in summary.shift_groups.items()}
    if groups != {name: tuple(members) for name, members in suite.shift_groups.items()}:
        found.append(f"its shift_groups are not those of suite {suite.name} v{suite.version}")
    if (summary.relative_errors, summary.gaps) != (
        {name: dict(errors) for name, errors in suite.relative_errors.items()}, dict(suite.gaps)
    ):  # fmt: skip
        found.append(f"its relative errors or gaps are not those of suite {suite.name} v{suite.version}")
    official = {split: summary.official_of(split) for split in roles.evaluate}
    if official != {split: suite.metric_of(split) for split in roles.evaluate}:
        found.append(f"its official metrics are not those of suite {suite.name} v{suite.version}")
    if {*claim.data.trained_on} - {roles.train}:
        found.append(f"it was trained on {_named(tuple(claim.data.trained_on))}, protocol {protocol} has {roles.train}")
    if not found:
        found += [line for run in runs for line in _labels(run, suite)]
    return found + _method(claim)


def _different(role: str, stated: object, mine: object) -> bool:
    if role in ("shifts", "extra"):  # in whatever order
        return sorted(stated) != sorted(mine)  # pyright: ignore
    return stated != mine


def _named(names: str | tuple[str, ...]) -> str:
    return names if isinstance(names, str) else ", ".join(names) or "none"


def _labels(run: Bundle, suite: Suite) -> list[str]:
    """Answers that are no class of the suite."""
    found: list[str] = []
    for split, choices in run.choices.items():
        name, _, space = split.partition("@")
        whole = suite.split(name)
        members = whole.also[space].members if space else whole.members
        n = len(suite.classes if members is None else members)
        most = max(int(values.max()) for values in choices.values())
        if most >= n:
            found.append(f"seed {run.seed}, split '{split}': it answers class {most}, the suite has {n}")
    return found


def _method(claim: Claim) -> list[str]:
    """What a registered method says of itself; a method that is not registered here cannot be asked."""
    from robustbench_ft.method import Method  # which imports torch: not needed for an audit of the files alone

    try:
        kind = registry.load("method", claim.identity.method, Method)
    except RbftError:
        return []
    if claim.identity.deterministic == kind.trains:
        return [
            f"it is marked as {'deterministic' if kind.trains else 'random'}, method '{claim.identity.method}' is "
            f"{'trained: every seed is another run' if kind.trains else 'not trained'}"
        ]
    return []
