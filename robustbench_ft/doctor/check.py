"""One suite's data, examined: every split found or not, counted, looked at and compared, with what follows from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from robustbench_ft import cache, suite_ref
from robustbench_ft.data import Ints, Split
from robustbench_ft.errors import MissingDataError, RbftError, SubsetError
from robustbench_ft.images.roots import Roots
from robustbench_ft.progress import Progress
from robustbench_ft.suite import Suite

from . import manifest, scan
from .look import BIT, KINDS
from .scan import Copies, Seen

OVERLAP = 0.05  # share of a split that may be in another one: official sets have less, a folder put twice has more
AGAIN = "get it again"
PARTIAL = "; get it again, or run with --allow-partial, which makes no claims"


@dataclass(frozen=True)
class Finding:
    """One thing to know about a split."""

    split: str
    kind: str
    stops: bool  # a run would stop, or its numbers would mean something else
    text: str
    step: str = ""  # what to do about it
    indices: tuple[int, ...] = ()  # the images it is about
    details: tuple[str, ...] = ()  # lines that are about no single image
    words: Mapping[int, str] = field(default_factory=dict[int, str])  # on single images, by index


@dataclass(frozen=True)
class Line:
    """One split: what was expected and what is there."""

    split: str
    verdict: str  # 'ok', 'notes', 'WRONG', 'missing'
    expected: int | None  # images, by the card
    of_classes: int
    found: Split | None  # None: it cannot be read
    place: Path | None
    looked: int = 0


@dataclass(frozen=True)
class Examination:
    """All that was found."""

    suite: Suite
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    splits: Mapping[str, Split]
    seen: Mapping[str, Seen]
    copies: tuple[Copies, ...] | None  # None: not looked for
    digest: str | None = None  # of all splits together; None where one is missing
    differences: tuple[manifest.Difference, ...] | None = None  # from another manifest; None: not compared
    compared: tuple[int, int] = (0, 0)  # images whose contents were compared, and that are on both sides

    @property
    def ready(self) -> bool:
        """Runs would work and mean what they say."""
        return not any(finding.stops for finding in self.findings) and not self.differences

    @property
    def once(self) -> list[str]:
        """Splits to count. `published_train` is left out because it is the union of train and val."""
        return [name for name in self.splits if name == self.suite.train or name != self.suite.published_train]

    def of(self, split: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.split == split]


@dataclass(frozen=True)
class Extent:
    """How much is looked at."""

    sample: int | None = scan.SAMPLE  # images per split; None: all
    workers: int = field(default_factory=scan.default_workers)
    copies: bool = True


def examine(text: str, roots: Roots, extent: Extent, progress: Progress, against: Path | None = None) -> Examination:
    """Check the suite that `text` names. Raises `MissingDataError` where none of its splits is there."""
    cache.check()
    suite, lenient, findings = _suites(text, roots)
    theirs = manifest.read(against, suite) if against else None
    splits = _load(suite, lenient, findings, progress)
    seen = _look(suite, splits, extent, progress)
    own = {name: split for name, split in splits.items() if name != suite.published_train or suite.train == name}
    own = {name: split for name, split in own.items() if not hasattr(split.images, "finish")}  # drawn over another's
    copies = scan.same(own, seen, extent.workers, progress) if extent.copies and own else []
    subsets = {finding.split for finding in findings if finding.kind == "subset"}
    for name, split in splits.items():
        findings += [*(() if name in subsets else _counts(suite, split)), *_files(split, seen[name])]
    findings += _copies(suite, splits, copies)
    findings += [Finding(name, "absent classes", False, told) for name, told in suite.remarks.items()]
    lines = tuple(_line(suite, name, splits.get(name), seen.get(name), findings) for name in suite.known)
    digest = _remember(suite, seen, lines)
    found = Examination(
        suite, lines, tuple(findings), splits, seen, tuple(copies) if extent.copies else None, digest
    )  # fmt: skip
    if theirs is None:
        return found
    return replace(
        found, differences=tuple(manifest.differences(splits, seen, theirs)),
        compared=manifest.compared(splits, seen, theirs),
    )  # fmt: skip


def _suites(text: str, roots: Roots) -> tuple[Suite, Suite, list[Finding]]:
    """The suite as a run loads it, and as one with --allow-partial does."""
    try:
        return suite_ref.load(text, roots), suite_ref.load(text, roots, partial=True), []
    except RbftError as error:  # a suite.toml lists its images when it is read
        try:
            lenient = suite_ref.load(text, roots, partial=True)
        except RbftError:
            raise error from error.__cause__
        return lenient, lenient, [Finding(lenient.train, "incomplete", True, str(error), AGAIN)]


def _load(suite: Suite, lenient: Suite, findings: list[Finding], progress: Progress) -> dict[str, Split]:
    """Every split that can be read, if need be with counts that a run would refuse; what a run would say of others."""
    splits: dict[str, Split] = {}
    failures: list[RbftError] = []
    with progress.bar("find splits", len(suite.known), "splits") as advance:
        for name in suite.known:
            try:
                splits[name] = suite.split(name)
            except RbftError as error:
                try:
                    splits[name] = lenient.split(name)
                    if isinstance(error, SubsetError):  # counts would call it broken, which it is not
                        findings.append(Finding(name, "subset", True, str(error), "see below"))
                    elif not lenient.problems_of(splits[name]):
                        findings.append(Finding(name, "incomplete", True, str(error), AGAIN))
                except RbftError as worse:
                    failures.append(worse)
                    findings.append(_unread(suite, name, worse))
            advance(1, name)
    if len(failures) == len(suite.known) and all(finding.kind == "missing" for finding in findings):
        raise failures[0]
    return splits


def _unread(suite: Suite, name: str, error: RbftError) -> Finding:
    where = name if name in suite.places else suite.train  # ID validation is cut from the training images
    try:
        if where in suite.places:
            suite.place(where)
    except MissingDataError as absent:
        text = str(absent).removeprefix(f"suite '{suite.base}', split '{where}': ")
        return Finding(name, "missing", True, text, "get it")
    return Finding(name, "cannot be read", True, str(error), "see below")


def _look(suite: Suite, splits: Mapping[str, Split], extent: Extent, progress: Progress) -> dict[str, Seen]:
    """Read the sizes of all images and examine some. `published_train` reuses what was measured on train and val."""
    later = suite.published_train if suite.published_train != suite.train else ""
    own = [name for name in splits if name != later]
    seen: dict[str, Seen] = {}
    with progress.bar("sizes", sum(len(splits[name]) for name in own), "images") as advance:
        for name in own:
            seen[name] = scan.measure(splits[name], extent.workers, advance)
    chosen = {name: _chosen(splits[name], extent) for name in own}
    with progress.bar("look at images", sum(map(len, chosen.values())), "images") as advance:
        for name, indices in chosen.items():
            scan.look(splits[name], seen[name], indices, extent.workers, lambda n=1, note="", at=name: advance(n, at))
    if later in splits:
        seen[later] = _again(splits[later], {name: splits[name] for name in own}, seen, extent, progress)
    return seen


def _chosen(split: Split, extent: Extent) -> Ints:
    return scan.choose(split, None if split.images.array() is not None else extent.sample)


def _again(
    split: Split, others: Mapping[str, Split], seen: Mapping[str, Seen], extent: Extent, progress: Progress
) -> Seen:
    """Measurements of a split's images that were made in other splits, matched by id."""
    place = {i: (name, k) for name, other in others.items() for k, i in enumerate(other.ids)}
    if any(i not in place for i in split.ids):
        with progress.bar(f"look at {split.name}", 2 * len(split), "images") as advance:
            found = scan.measure(split, extent.workers, advance)
            scan.look(split, found, _chosen(split, extent), extent.workers, advance)
        return found
    where = [place[i] for i in split.ids]
    columns = [np.array([getattr(seen[name], key)[k] for name, k in where])
               for key in ("sizes", "flags", "looked", "read", "sums")]  # fmt: skip
    words = {row: seen[name].words[k] for row, (name, k) in enumerate(where) if k in seen[name].words}
    return Seen(*columns, words=words)


def _counts(suite: Suite, split: Split) -> Iterator[Finding]:
    """Wrong counts for which a run would stop, with every class that is short."""
    for text in suite.problems_of(split):
        details: tuple[str, ...] = ()
        if "classes without" in text and not suite.shots:
            least, most = suite.card.per_class[split.name]
            span = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            details = tuple(f"{suite.class_name(split, k)}: {n:,} of {span}"
                            for k, n in suite.odd_classes(split).items())  # fmt: skip
        told = text.removeprefix(f"split '{split.name}' ") + PARTIAL
        yield Finding(split.name, "counts", True, told, AGAIN, details=details)


def _files(split: Split, seen: Seen) -> Iterator[Finding]:
    """One finding for each kind of oddity."""
    for kind in KINDS:
        found = np.flatnonzero(seen.flags & BIT[kind.name])
        if len(found):
            noun = "file" if len(found) == 1 else "files"
            every = kind.name in ("empty", "unreadable") or seen.looked.all()  # sizes tell the first two
            among = "" if every else f" among {int(seen.looked.sum()):,} looked at"
            step = f"replace {len(found):,} {noun}" if kind.stops else ""
            yield Finding(
                split.name, kind.name, kind.stops, f"{len(found):,} {kind.name}{among}: {kind.meaning}",
                step.replace("replace", "convert") if kind.name == "16-bit" else step, tuple(found.tolist()),
            )  # fmt: skip


def _copies(suite: Suite, splits: Mapping[str, Split], copies: Sequence[Copies]) -> Iterator[Finding]:
    """Copies inside a split, and images of a split that are in an earlier one too."""
    words: dict[str, dict[int, str]] = {name: {} for name in splits}
    inside: dict[str, list[int]] = {}
    torn: dict[str, list[int]] = {}
    shared: dict[tuple[str, str], list[int]] = {}
    for group in copies:
        for name, k in group.members:
            twin = group.members[0] if group.members[0] != (name, k) else group.members[1]
            words[name][k] = f"as {splits[twin[0]].ids[twin[1]]}"
        for name in group.splits:
            mine = [k for split, k in group.members if split == name]
            if len(mine) > 1:
                inside.setdefault(name, []).extend(mine)
                if len(set(splits[name].labels[mine].tolist())) > 1:
                    torn.setdefault(name, []).extend(mine)
            for other in group.splits[: group.splits.index(name)]:
                shared.setdefault((name, other), []).extend(mine)
    for name, rows in inside.items():
        text = f"{len(rows):,} images are in the split more than once, byte for byte"
        if name in torn:
            text += f"; {len(torn[name]):,} of them with different labels"
        yield Finding(name, "copies", False, text, indices=tuple(rows), words=words[name])
    learned = (suite.train, suite.val)
    for (name, other), rows in shared.items():
        share = len(rows) / min(len(splits[name]), len(splits[other]))
        text = f"{len(rows):,} of {len(splits[name]):,} images are in '{other}' too, byte for byte"
        if other in learned and name not in learned:
            text += ", where methods see them before the test"
        if share > OVERLAP:
            text += f"; above {OVERLAP:.0%} one folder probably stands for both: correct the tree or --root"
        step = "see below" if share > OVERLAP else ""
        yield Finding(name, "shared images", share > OVERLAP, text, step, tuple(rows), words=words[name])


def _line(suite: Suite, name: str, split: Split | None, seen: Seen | None, findings: Sequence[Finding]) -> Line:
    own = [finding for finding in findings if finding.split == name]
    verdict = "WRONG" if any(f.stops for f in own) else "notes" if own else "ok"
    if any(finding.kind == "missing" for finding in own):
        verdict = "missing"
    looked = int(seen.looked.sum()) if seen else 0
    classes = suite.n_classes(split) if split else len(suite.classes)
    return Line(name, verdict, suite.counts.get(name), classes, split, split.place if split else None, looked)


def _remember(suite: Suite, seen: Mapping[str, Seen], lines: Sequence[Line]) -> str | None:
    """Keep each split's manifest in the cache; the digest of what a run under the protocol 'clean' would read."""
    digests: dict[str, str] = {}
    for line in lines:
        if line.found is None:
            continue
        try:
            place = manifest.entry(suite, line.found)
        except RbftError:  # a file has gone: the line says so, and there is nothing whole to keep
            continue
        manifest.remember(place, suite, line.found, seen[line.split], line.verdict)
        digests[line.split] = line.found.digest
    wanted = dict.fromkeys((suite.train, *suite.splits))
    return manifest.digest({name: digests[name] for name in wanted}) if wanted.keys() <= digests.keys() else None
