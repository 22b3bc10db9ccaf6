"""What honest runs seldom or never do, although every digest agrees: copies, agreement beyond chance, gaps in seeds.

`copied_splits` and `copies` are certain and fail an audit. `remarks` are what a reader should know: honest rows can
show them, too. docs/trust.md says what none of them sees.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from robustbench_ft import metrics
from robustbench_ft.compare.rows import selection_metric
from robustbench_ft.record.digests import of_bytes

from . import digests
from .bundle import Bundle
from .claim_store import StoredClaim

FEW = 100  # images on which two runs may be the same by chance
# of the images that one of two seeds gets wrong, the share on which they differ; seeds of `shapes` have .10 and more
LEAST_DISAGREEMENT = 0.02


def copied_splits(runs: Sequence[Bundle]) -> list[str]:
    """Splits on which two seeds of a trained method are one run, where they are two on others."""
    if runs[0].config.deterministic:
        return []
    found: list[str] = []
    for one, other in combinations(runs, 2):
        same = [split for split in one.scored if _same(one, other, split)]
        large = [split for split in same if len(one.any(split)) >= FEW]
        if large and len(same) < len(one.scored):
            found.append(
                f"seeds {one.seed} and {other.seed} give the same probabilities on {', '.join(large)} and not "
                "elsewhere: one was copied"
            )
    return found


def _same(one: Bundle, other: Bundle, split: str) -> bool:
    return digests.probabilities_digest(one, split) == digests.probabilities_digest(other, split)


def copies(claims: Sequence[StoredClaim]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(problems, remarks) by claim: headline probabilities that are those of another claim's run, on every split.

    A setting of 0 or 1 may make one method the other, so that it is a remark there.
    """
    seen: dict[tuple[str, ...], tuple[StoredClaim, int]] = {}
    problems, remarks = dict[str, list[str]](), dict[str, list[str]]()
    for one in claims:
        name = one.place.file.as_posix()
        for run in one.runs:
            first, seed = seen.setdefault((one.place.suite, *_headline(run)), (one, run.seed))
            if first is one or (run.config.deterministic and first.claim.identity.deterministic):
                continue
            weak = any(_may_reduce(c.claim.training.settings) for c in (one, first))
            told, end = (remarks, ", or their settings make them one method") if weak else (problems, "")
            told.setdefault(name, []).append(
                f"seed {run.seed} gives the probabilities of {first.place.file}, seed {seed}: one is a copy{end}"
            )
    return problems, remarks


def _headline(run: Bundle) -> tuple[str, ...]:
    """A digest for each split, equal for runs whose headlines give the same probabilities."""
    parts: list[str] = []
    for split in sorted(run.scored):
        answers = run.scored[split][run.summary.default]
        columns = np.stack([answers.log_prob, answers.confidence, answers.sum_sq]).astype(np.float64)
        parts.append(digests.ids_digest(answers.ids) + of_bytes(np.rint(columns * 1e4).astype("<i4").tobytes()))
    return tuple(parts)


def _may_reduce(settings: Mapping[str, object]) -> bool:
    return any(value in (0, 1) for value in settings.values() if isinstance(value, int | float))


def remarks(one: StoredClaim) -> list[str]:
    """What an honest row can show, too, and a reader should know."""
    if one.claim.identity.deterministic:
        return []
    return _gaps(sorted(one.seeds)) + _agreement(one.runs) + [line for run in one.runs for line in _beyond(run)]


def _gaps(seeds: Sequence[int]) -> list[str]:
    missing = [seed for seed in range(seeds[-1]) if seed not in seeds] if len(seeds) > 1 else []
    if not missing:
        return []
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return [f"its seeds are {', '.join(map(str, seeds))}: what {shown} gave is not told"]


def _agreement(runs: Sequence[Bundle]) -> list[str]:
    """Pairs of seeds that make the same errors far more often than training from other draws does."""
    found: list[str] = []
    for one, other in combinations(runs, 2):
        wrong = differ = 0
        for split, choices in one.choices.items():
            label = one.any(split).label
            mine, theirs = choices[one.summary.default], other.choices[split][other.summary.default]
            wrong += int(((mine != label) | (theirs != label)).sum())
            differ += int((mine != theirs).sum())
        if wrong >= FEW and differ < LEAST_DISAGREEMENT * wrong:
            found.append(
                f"seeds {one.seed} and {other.seed} differ on {differ} of the {wrong} images that one of them gets "
                "wrong: seeds of a method that trains the image tower agree less"
            )
    return found


def _beyond(run: Bundle) -> list[str]:
    """Splits on which a headline beside a family is right more often than any choice among its members could be."""
    default, axis = run.summary.default, run.summary.axis
    if not axis or default in axis:
        return []
    found: list[str] = []
    for split, choices in run.choices.items():
        label = run.any(split).label
        most = float(np.any([choices[name] == label for name in axis], axis=0).mean())
        if float((choices[default] == label).mean()) > most:
            found.append(
                f"seed {run.seed}, split '{split}': its headline '{default}' is right on more images than all members "
                "of its family together"
            )
    return found


def rates(claims: Sequence[StoredClaim]) -> dict[str, list[str]]:
    """Remarks by claim: rows of one method that differ in their learning rate, and ID validation prefers another."""
    groups: dict[str, list[StoredClaim]] = {}
    for one in claims:
        recipe = one.claim.training.recipe
        if recipe is not None and one.claim.identity.protocol == "clean":
            rest = sorted((key, repr(value)) for key, value in recipe.items() if key != "lr")
            settings = sorted((key, repr(value)) for key, value in one.claim.training.settings.items())
            key = repr((one.place.suite, one.place.model, one.claim.identity.method, settings, rest))
            groups.setdefault(key, []).append(one)
    found: dict[str, list[str]] = {}
    for group in groups.values():
        best = max(group, key=_id_val)
        for one in group:
            if _id_val(one) < _id_val(best):
                rate = (best.claim.training.recipe or {}).get("lr")
                line = f"ID validation prefers the learning rate {rate} of {best.place.name} to the one of this row"
                found[one.place.file.as_posix()] = [line]
    return found


def _id_val(one: StoredClaim) -> float:
    """The selecting metric on ID validation, as higher is better, of the headline; a mean over seeds."""
    summary = one.runs[0].summary
    metric = selection_metric(summary)
    value = one.claim.results.rows[0].mean.get(metric, {}).get("ID val", 0.0)
    return metrics.sign_of(metric) * value
