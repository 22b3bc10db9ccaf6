"""Store claims in a leaderboards folder and find them again. A claim is written whole or not at all."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from robustbench_ft import toml
from robustbench_ft.errors import RbftError
from robustbench_ft.record.store import Json, Record, find_records, is_done, read_json, write_json

from . import bundle, claim
from .bundle import Bundle, PublishedRun
from .claim import Place

FILES = (bundle.RECORD, bundle.PREDICTIONS)


BOARD = "board.toml"  # beside the claims of a suite version


@dataclass(frozen=True)
class Named:
    """What a board's keepers say of it. Claims that other rows are held against are fixed by name, so that no new row
    can take their place; each is a list, as a model has one board per protocol.
    """

    baseline: tuple[str, ...] = ()  # differences are shown to it
    curve: tuple[str, ...] = ()  # gains at equal ID accuracy are measured from its interpolation curve
    notes: tuple[str, ...] = ()  # sentences shown under the table


def named(folder: Path, model: str) -> Named:
    """The claims that FOLDER/board.toml names for a model, e.g. [embedded] baseline = "ft-4f358087"."""
    path = folder / BOARD
    if not path.exists():
        return Named()
    content = toml.read(path, "the board's file")
    table = content.get(model, {})
    stray = sorted({*table} - {"baseline", "curve", "notes"}) if isinstance(table, dict) else [model]
    if stray:
        raise RbftError(f"{path}: unknown key '{stray[0]}'; write [{model}], baseline = \"METHOD-DIGEST\", curve = ...")
    values = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
    if not all(isinstance(name, str) for names in values.values() for name in names):
        raise RbftError(f"{path}: baseline and curve are names of claims, e.g. ft-4f358087, notes are sentences")
    return Named(**{key: tuple(names) for key, names in values.items()})


@dataclass(frozen=True)
class Stored:
    """A claim in a leaderboards folder."""

    root: Path
    place: Place
    read: dict[int, Bundle] = field(default_factory=dict[int, Bundle], compare=False, repr=False)  # by seed

    @property
    def path(self) -> Path:
        return self.root / self.place.claim

    @cached_property
    def content(self) -> Json:
        try:
            found = read_json(self.path)
        except RbftError as error:
            raise RbftError(f"cannot read the claim {self.path}: it is missing or no JSON; restore it") from error
        missing = {"schema", "identity", "data", "training", "runs", "results", "trust"} - found.keys()
        if missing:
            raise RbftError(f"{self.path} is no claim: it lacks {', '.join(sorted(missing))}")
        if found["schema"] != claim.SCHEMA:
            raise RbftError(
                f"{self.path} has schema {found['schema']}, this version reads {claim.SCHEMA}; "
                "run `rbft leaderboard refresh`"
            )
        return found

    @property
    def seeds(self) -> list[int]:
        return list(self.content["training"]["seeds"])

    @property
    def stored_seeds(self) -> list[int]:
        folders = (self.root / self.place.predictions).glob("seed-*")
        return sorted(int(folder.name[5:]) for folder in folders if folder.name[5:].isdecimal())

    @property
    def runs(self) -> list[Bundle]:
        """Read from the files; listed seeds only."""
        return [self.run(seed) for seed in self.seeds]

    def run(self, seed: int) -> Bundle:
        """One run, read once."""
        if seed not in self.read:
            self.read[seed] = bundle.read(self.root / self.place.run(seed))
        return self.read[seed]

    @property
    def named(self) -> Named:
        """What `board.toml` of its suite names for its model."""
        return named(self.root / self.place.suite, self.place.model)

    @cached_property
    def records(self) -> list[PublishedRun]:
        """The runs as records, in the order of the listed seeds."""
        folders = [self.root / self.place.run(seed) for seed in self.seeds]
        return [PublishedRun(folder, bundle=run) for folder, run in zip(folders, self.runs, strict=True)]

    def files(self) -> dict[str, dict[str, str]]:
        """Digests of what is stored now."""
        return {
            str(seed): {name: bundle.file_digest(self.root / self.place.run(seed) / name) for name in FILES}
            for seed in self.seeds
        }


def find_runs(paths: Sequence[Path]) -> list[Record]:
    """Every finished cell, and every run of a claim, under these folders.

    A path may also be the JSON file of a claim. Own runs and published ones are read alike from here on.
    """
    found: list[Record] = []
    for path in paths:
        if path.suffix == ".json" and path.is_file():
            path = path.parent.parent / "predictions" / path.parent.name / path.stem
        folders = sorted(record.parent for record in path.rglob(bundle.RECORD))
        found += [PublishedRun(folder, bundle=bundle.read(folder)) for folder in folders]
        if not folders or any(path.rglob("done")):
            found += find_records([path])
    return found


def find_run(folder: Path) -> Record:
    """One finished cell, or one run of a claim."""
    if (folder / bundle.RECORD).exists():
        return PublishedRun(folder, bundle=bundle.read(folder))
    if not (folder / "cell.json").exists() or not is_done(folder):
        raise RbftError(
            f"{folder} is no finished run: name a folder like runs/SUITE/MODEL/METHOD-DIGEST/seed-0 that holds 'done'"
        )
    return Record(folder)


def find(root: Path, suite: str | None = None) -> list[Stored]:
    """Every claim under a leaderboards folder, in path order."""
    if not root.is_dir():
        raise RbftError(f"no leaderboards folder {root}; name one with --root")
    paths = sorted(path for path in root.glob("*/*/*.json") if path.parent.parent.name != "predictions")
    found = [Stored(root, Place(path.parent.parent.name, path.parent.name, path.stem)) for path in paths]
    if suite is not None:
        found = [one for one in found if one.place.suite.rpartition("-v")[0] == suite or one.place.suite == suite]
    return found


def add(records: Sequence[Path], root: Path, trust: Json, replace: bool = False) -> list[Stored]:
    """Make claims of all finished cells under these folders: all of them, or none."""
    groups: dict[str, list[Record]] = {}
    for record in find_records(records):
        groups.setdefault(record.cell["digest"], []).append(record)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".adding-") as staging:
            made = [_stage(group, Path(staging), trust) for group in groups.values()]
            check_boards([*find(root), *made])
            return [_move(one, root, replace) for one in _wanted(made, root, replace)]
    finally:
        if not any(root.iterdir()):
            root.rmdir()


def _stage(records: Sequence[Record], root: Path, trust: Json) -> Stored:
    place = claim.place_of(records[0].cell)
    seeds = [record.seed for record in records]
    for seed in seeds:
        if seeds.count(seed) > 1:
            both = " and ".join(str(r.folder) for r in records if r.seed == seed)
            raise RbftError(f"{place.name}, seed {seed} was given twice: {both}; name each record once")
    for record in records:
        bundle.write(root / place.run(record.seed), bundle.from_record(record))
    runs = [bundle.read(root / place.run(seed)) for seed in seeds]
    files = {str(seed): {name: bundle.file_digest(root / place.run(seed) / name) for name in FILES} for seed in seeds}
    write_json(root / place.claim, claim.make(runs, files, trust))
    return Stored(root, place)


def _wanted(made: Sequence[Stored], root: Path, replace: bool) -> list[Stored]:
    """All checks come before the first move."""
    for one in made:
        there = Stored(root, one.place)
        if there.path.exists() and not replace and _apart_from_trust(there) != _apart_from_trust(one):
            raise RbftError(
                f"{there.path} exists with seeds {there.seeds} and says something else than these records "
                f"(seeds {one.seeds}); pass --replace to put them in its place"
            )
    return list(made)


def _apart_from_trust(one: Stored) -> Json:
    return {key: value for key, value in one.content.items() if key != "trust"}


def _move(one: Stored, root: Path, replace: bool) -> Stored:
    target = Stored(root, one.place)
    if target.path.exists() and not replace:
        return target  # the same claim was added before
    for relative in (one.place.predictions, one.place.claim):
        new, old = one.root / relative, root / relative
        old.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            shutil.rmtree(old)
        new.replace(old)
    return target


def refresh(root: Path, suite: str | None = None) -> dict[str, list[str]]:
    """Make every claim again from its stored files, in the form of this version; returns what changed, by claim.

    A file that is not the one the claim was made from is an error: this command never blesses other predictions.
    """
    changed: dict[str, list[str]] = {}
    for one in find(root, suite):
        stored = read_json(one.path)
        try:
            files = {str(run["seed"]): run["files"] for run in stored["runs"]}
            seeds, trust = sorted(run["seed"] for run in stored["runs"]), stored["trust"]
        except (KeyError, TypeError) as error:
            raise RbftError(f"{one.path} is no claim: it lacks {error}; restore it") from error
        for seed in seeds:
            for name in FILES:
                path = root / one.place.run(seed) / name
                if bundle.file_digest(path) != files[str(seed)].get(name):
                    raise RbftError(f"{path} is not the file that {one.path} was made from; restore it, or add it anew")
        fresh = claim.make([bundle.read(root / one.place.run(seed)) for seed in seeds], files, trust)
        lines = claim.differing(stored, fresh)
        if lines:
            write_json(one.path, fresh)
            changed[one.place.claim.as_posix()] = lines
    return changed


def mark(one: Stored, level: str, name: str) -> None:
    """Note in a claim how far it was verified, and by whom."""
    trust = {**one.content["trust"], "verified": level, "verified_by": name}
    write_json(one.path, {**one.content, "trust": trust})


def check_boards(claims: Sequence[Stored]) -> None:
    """Rows of one suite version are compared example by example: all of them saw the same examples and labels."""
    for problem in conflicts(claims):
        raise RbftError(problem)


def conflicts(claims: Sequence[Stored]) -> list[str]:
    first: dict[tuple[str, str], tuple[Stored, Json]] = {}
    problems: list[str] = []
    for one in claims:
        for split, entry in one.content["data"]["splits"].items():
            other, reference = first.setdefault((one.place.suite, split), (one, entry))
            for key, word in (("ids_sha256", "example ids"), ("labels_sha256", "labels"), ("content_sha256", "data")):
                if entry[key] != reference[key]:
                    problems.append(
                        f"{one.place.claim} and {other.place.claim}: split '{split}' has other {word}; rows of one "
                        "suite version must be evaluated on the same data"
                    )
                    break
    return problems
