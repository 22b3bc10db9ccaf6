"""The first two steps of the ladder: everything a claim says, recomputed from its files and named where it differs.

1 metrics: every number again from the stored predictions. 2 predictions: the digests of files, ids, labels and
predictions, and with `data` the suite's own ids and labels on this machine. Step 3 is in `rescore`.
"""

from collections.abc import Sequence
from pathlib import Path

from robustbench_ft.errors import RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.suite import Suite

from . import bundle, claim, claim_store, differences, digests, plausible, suspicious
from .bundle import Bundle
from .claim_store import StoredClaim

MOST_FIELDS = 6  # that are named: numbers that follow from one edit are many: the first few name it


def audit(one: StoredClaim) -> list[str]:
    """Problems of one claim, a line each; an empty list is a pass."""
    try:
        problems = _place(one) + _seeds(one)
    except RbftError as error:
        return [str(error)]
    listed = [seed for seed in one.seeds if seed in one.stored_seeds]
    runs: list[Bundle] = []
    for seed in listed:
        try:
            runs.append(one.run(seed))
        except RbftError as error:
            problems.append(f"seed {seed}: {error}")
    try:
        problems += [line for run in runs for line in _content(one, run, runs)]
        problems += plausible.problems(runs) + suspicious.copied_splits(runs) if runs else []
        if len(runs) == len(one.seeds):
            fresh = claim.make(runs, one.files(), one.claim.trust).written()
            same = claim.digest(one.raw) == claim.digest(fresh)  # fields are looked at where the whole is another
            told = [] if same else differences.differing(one.raw, fresh)
            # digests were explained above in words
            told = [line for line in told if "_sha256" not in line or not problems]
            problems += told[:MOST_FIELDS]
            if len(told) > MOST_FIELDS:
                problems.append(f"and {len(told) - MOST_FIELDS} more fields differ")
    except RbftError as error:
        problems.append(str(error))
    return problems


def audit_all(root: Path, suite: str | None = None, data: Roots | None = None) -> dict[str, list[str]]:
    """Claim -> problems, for all claims of a folder."""
    return audit_each(select(root, suite), data)


def audit_each(claims: Sequence[StoredClaim], data: Roots | None = None) -> dict[str, list[str]]:
    """Claim -> problems; rows of a board are held against each other too."""
    report = {one.place.file.as_posix(): audit(one) for one in claims}
    sound = [one for one in claims if not report[one.place.file.as_posix()]]
    for problem in claim_store.conflicts(sound):
        report[problem.partition(" and ")[0]].append(problem)
    for name, lines in suspicious.copies(sound)[0].items():
        report[name] += lines
    if data is not None:
        suites: dict[str, Suite] = {}
        for one in sound:
            report[one.place.file.as_posix()] += against_data(one, data, suites)
    return report


def select(root: Path, suite: str | None = None, only: str | None = None) -> list[StoredClaim]:
    """The claims of a folder, or the one whose path is `only` or holds it. Raises `RbftError` where there is none."""
    claims = claim_store.find(root, suite)
    if not claims:
        raise RbftError(f"no claim under {root}; make one with `rbft leaderboard add RUNS...`")
    if only is None:
        return claims
    exact = [one for one in claims if only in (one.place.file.as_posix(), one.path.as_posix(), one.place.name)]
    found = exact or [one for one in claims if only in one.place.file.as_posix()]
    if len(found) != 1:
        names = [one.place.file.as_posix() for one in found or claims]
        what = "no claim is" if not found else f"{len(found)} claims are"
        raise RbftError(f"{what} called '{only}'; known: {', '.join(names)}")
    return found


def remarks(claims: Sequence[StoredClaim]) -> dict[str, list[str]]:
    """Claim -> what a reader should know of it, though it is no problem; claims that cannot be read have none."""
    found: list[StoredClaim] = []
    report: dict[str, list[str]] = {}
    for one in claims:
        try:
            report[one.place.file.as_posix()] = suspicious.remarks(one)
            found.append(one)
        except RbftError:
            continue
    for more in (suspicious.copies(found)[1], suspicious.rates(found)):
        for name, lines in more.items():
            report[name] += lines
    return {name: lines for name, lines in report.items() if lines}


def against_data(one: StoredClaim, root: Roots | None, suites: dict[str, Suite]) -> list[str]:
    """Ids, labels, pixels and roles of the suite as this machine has it. A suite that it lacks is a problem, too."""
    try:
        return _against_data(one, root, suites)
    except RbftError as error:
        return [f"cannot be held against data: {error}"]


def _against_data(one: StoredClaim, root: Roots | None, suites: dict[str, Suite]) -> list[str]:
    from robustbench_ft import suite_ref  # which reads custom suites too: not needed for an audit of the files alone

    identity = one.claim.identity
    called = identity.suite
    if suite_ref.is_file(called):
        return [f"'{called}' is a file and no registered suite"]
    key = f"{called}-v{identity.suite_version}"
    if key not in suites:
        suites[key] = suite_ref.load(called, root, version=identity.suite_version)
    suite = suites[key]
    problems = plausible.against_suite(one.claim, one.runs, suite)
    differing: dict[str, list[str]] = {}
    for split, entry in one.claim.data.splits.items():
        name, _, space = split.partition("@")
        if name not in suite.known:
            problems.append(f"split '{name}' is none of {called} v{suite.version}")
            continue
        whole = suite.split(name)
        if space and space not in whole.also:
            problems.append(f"split '{name}' of {called} v{suite.version} has no label space '{space}'")
            continue
        labels = whole.also[space].labels if space else whole.labels
        kept = labels >= 0
        ids = tuple(example for example, own in zip(whole.ids, kept, strict=True) if own)
        pairs = {
            "example ids": (entry.ids_sha256, digests.ids_digest(ids)),
            "labels": (entry.labels_sha256, digests.labels_digest(labels[kept])),
            "images": (entry.content_sha256, whole.digest),
        }
        for word, (told, found) in pairs.items():
            if told != found:
                differing.setdefault(word, []).append(split)
    for name, entry in one.claim.data.trained_on.items():
        if suite.split(name).digest != entry.digest:
            differing.setdefault("images or labels learnt from, those", []).append(name)
    return problems + [
        f"{word} of {', '.join(splits)} are not those of {called} v{suite.version} on this machine"
        for word, splits in differing.items()
    ]


def _place(one: StoredClaim) -> list[str]:
    identity = one.claim.identity
    suite = f"{identity.suite}-v{identity.suite_version}"
    name = f"{identity.method}-{one.claim.training.config_sha256[:8]}"
    problems: list[str] = []
    if suite != one.place.suite:
        problems.append(f"the claim is about {suite} and lies in {one.place.suite}: suite versions never mix")
    if name != one.place.name:
        problems.append(f"the claim is about {name} and its file is called {one.place.name}")
    return problems


def _seeds(one: StoredClaim) -> list[str]:
    listed, stored = one.seeds, one.stored_seeds
    problems = [f"seed {seed} is listed and not stored" for seed in listed if seed not in stored]
    problems += [f"seed {seed} is stored and not listed" for seed in stored if seed not in listed]
    problems += [f"seed {seed} is listed twice" for seed in sorted(set(listed)) if listed.count(seed) > 1]
    return problems


def _content(one: StoredClaim, run: Bundle, runs: Sequence[Bundle]) -> list[str]:
    """Which part of a run's files is not what the claim was made from."""
    told = one.claim.run(run.seed)
    if told is None:
        return [f"seed {run.seed} has no entry under 'runs'"]
    problems: list[str] = []
    digest = claim.config_digest(run.record["cell"])
    if digest is not None and digest != run.config.digest:
        problems.append(f"seed {run.seed}: {bundle.RECORD}: the configuration does not match its digest")
    for split, entry in one.claim.data.splits.items():
        where = f"seed {run.seed}, split '{split}'"
        shown = run.any(split)
        if digests.ids_digest(shown.ids) != entry.ids_sha256:
            problems.append(f"{where}: example ids changed{_first(one, split, run, runs, 'ids')}")
        if digests.labels_digest(shown.label) != entry.labels_sha256:
            problems.append(f"{where}: labels changed{_first(one, split, run, runs, 'label')}")
        sums = told.content.get(split)
        if problems and problems[-1].startswith(f"{where}: example ids"):
            continue  # the other digests are keyed by id
        if digests.predictions_digest(run, split) != (sums and sums.predictions_sha256):
            problems.append(f"{where}: predictions changed")
        if digests.probabilities_digest(run, split) != (sums and sums.probabilities_sha256):
            problems.append(f"{where}: probabilities changed")
    for name, told_digest in told.files.items():
        if digests.file_digest(one.root / one.place.run(run.seed) / name) != told_digest:
            problems.append(f"seed {run.seed}: file {name} is not the one the claim was made from")
    return problems


def _first(one: StoredClaim, split: str, run: Bundle, runs: Sequence[Bundle], field: str) -> str:
    """The first example that changed, where another seed still has the right ones."""
    entry = one.claim.data.splits[split]
    for other in runs:
        good = other.any(split)
        if digests.ids_digest(good.ids) == entry.ids_sha256 and (
            digests.labels_digest(good.label) == entry.labels_sha256
        ):
            mine, theirs = getattr(run.any(split), field), getattr(good, field)
            row = next((k for k, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
            if row is None:
                return f": {len(mine)} rows, seed {other.seed} has {len(theirs)}"
            return f": row {row} has {mine[row]}, seed {other.seed} has {theirs[row]}"
    return ""
