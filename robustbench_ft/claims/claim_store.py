"""Store claims in a leaderboards folder and find them again. A claim is written whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from robustbench_ft import toml
from robustbench_ft.errors import RbftError
from robustbench_ft.record.store import Json, Record, find_records, is_done, read_json, write_json

from . import bundle, claim, differences, digests, staging
from .bundle import Bundle, PublishedRun
from .claim import ClaimPath
from .schema import Claim, Level, SplitData, Trust, read_claim, read_origin

FILES = (bundle.RECORD, bundle.PREDICTIONS)


BOARD = "board.toml"  # beside the claims of a suite version
BOARD_SCHEMA = 1  # of board.toml; a file that states none has this one
Strings = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


@dataclass(frozen=True)
class BoardNotes:
    """What a board's keepers say of it. Claims that other rows are held against are fixed by name, so that no new row
    can take their place; each is a list, as a model has one board per protocol.
    """

    baseline: Strings = ()  # differences are shown to it
    curve: Strings = ()  # gains at equal ID accuracy are measured from its interpolation curve
    notes: Strings = ()  # sentences shown under the table


def read_board(folder: Path, model: str) -> BoardNotes:
    """What FOLDER/board.toml says of a model, e.g. [embedded] baseline = "ft-4f358087". All its tables are checked."""
    path = folder / BOARD
    if not path.exists():
        return BoardNotes()
    content = toml.read(path, "the board's file")
    schema = content.pop("schema", BOARD_SCHEMA)
    if schema != BOARD_SCHEMA:
        raise RbftError(f"{path} has schema {schema!r}, this version reads {BOARD_SCHEMA}: update robustbench_ft")
    found = {name: _board_notes(path, name, table) for name, table in content.items()}
    return found.get(model, BoardNotes())


def _board_notes(path: Path, model: str, table: Any) -> BoardNotes:
    known = [one.name for one in fields(BoardNotes)]
    stray = sorted({*table} - {*known}) if isinstance(table, dict) else [model]
    if stray:
        raise RbftError(f"{path}: unknown key '{stray[0]}'; write [{model}], baseline = \"METHOD-DIGEST\", curve = ...")
    try:
        return TypeAdapter(BoardNotes).validate_python(table)
    except ValidationError as error:
        key = error.errors()[0]["loc"][0]
        raise RbftError(
            f"{path}: [{model}] {key}: baseline and curve are names of claims, e.g. ft-4f358087, notes are sentences"
        ) from error


@dataclass(frozen=True)
class StoredClaim:
    """A claim in a leaderboards folder."""

    root: Path
    place: ClaimPath
    read: dict[int, Bundle] = field(default_factory=dict[int, Bundle], compare=False, repr=False)  # by seed

    @property
    def path(self) -> Path:
        return self.root / self.place.file

    @cached_property
    def raw(self) -> Json:
        """The claim's file as it is."""
        try:
            return read_json(self.path)
        except RbftError as error:
            raise RbftError(f"cannot read the claim {self.path}: it is missing or no JSON; restore it") from error

    @cached_property
    def claim(self) -> Claim:
        """What the file says, typed and checked."""
        return read_claim(self.raw, self.path)

    @property
    def seeds(self) -> list[int]:
        return self.claim.training.seeds

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
            other = next(iter(self.read.values()), None)
            self.read[seed] = bundle.read(self.root / self.place.run(seed), other)
        return self.read[seed]

    @property
    def board(self) -> BoardNotes:
        """What `board.toml` of its suite says of its model."""
        return read_board(self.root / self.place.suite, self.place.model)

    @cached_property
    def records(self) -> list[PublishedRun]:
        """The runs as records, in the order of the listed seeds."""
        folders = [self.root / self.place.run(seed) for seed in self.seeds]
        return [PublishedRun(folder, bundle=run) for folder, run in zip(folders, self.runs, strict=True)]

    def files(self) -> dict[int, dict[str, str]]:
        """Seed -> file -> digest of what is stored now."""
        return {seed: _files(self.root / self.place.run(seed)) for seed in self.seeds}


def _files(folder: Path) -> dict[str, str]:
    return {name: digests.file_digest(folder / name) for name in FILES}


def find_runs(paths: Sequence[Path]) -> list[Record]:
    """Every finished cell, and every run of a claim, under these folders.

    A path may also be the JSON file of a claim. Own runs and published ones are read alike from here on.
    """
    found: list[Record] = []
    for path in paths:
        if path.suffix == ".json" and path.is_file():
            path = path.parent.parent / "predictions" / path.parent.name / path.stem
        staging.recover(path)
        every = (record for record in path.rglob(bundle.RECORD) if not staging.is_on_its_way(record.relative_to(path)))
        folders = sorted(record.parent for record in every)
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


def find(root: Path, suite: str | None = None) -> list[StoredClaim]:
    """Every claim under a leaderboards folder, in path order."""
    if not root.is_dir():
        raise RbftError(f"no leaderboards folder {root}; name one with --root")
    staging.recover(root)
    paths = sorted(path for path in root.glob("[!.]*/*/*.json") if path.parent.parent.name != "predictions")
    found = [StoredClaim(root, ClaimPath(path.parent.parent.name, path.parent.name, path.stem)) for path in paths]
    if suite is not None:
        found = [one for one in found if one.place.suite.rpartition("-v")[0] == suite or one.place.suite == suite]
    return found


def add(records: Sequence[Path], root: Path, trust: Trust, overwrite: bool = False) -> list[StoredClaim]:
    """Make claims of all finished cells under these folders: all of them, or none."""
    groups: dict[str, list[Record]] = {}
    for record in find_records(records):
        groups.setdefault(record.config.digest, []).append(record)
    with staging.stage(root) as new:
        made = [_stage(group, new.folder, trust) for group in groups.values()]
        check_boards([*find(root), *made])
        wanted = _wanted(made, root, overwrite)
        for one in made:
            if one not in wanted:  # the same claim was added before
                one.path.unlink()
        new.move()
    return [StoredClaim(root, one.place) for one in made]


def _stage(records: Sequence[Record], root: Path, trust: Trust) -> StoredClaim:
    place = claim.place_of(records[0].config)
    seeds = [record.seed for record in records]
    for seed in seeds:
        if seeds.count(seed) > 1:
            both = " and ".join(str(r.folder) for r in records if r.seed == seed)
            raise RbftError(f"{place.name}, seed {seed} was given twice: {both}; name each record once")
    for record in records:
        bundle.write(root / place.run(record.seed), bundle.from_record(record))
    runs = [bundle.read(root / place.run(seed)) for seed in seeds]
    files = {seed: _files(root / place.run(seed)) for seed in seeds}
    write_json(root / place.file, claim.make(runs, files, trust).written())
    return StoredClaim(root, place)


def _wanted(made: Sequence[StoredClaim], root: Path, overwrite: bool) -> list[StoredClaim]:
    """The claims that are to be moved. All checks come before the first move."""
    for one in made:
        there = StoredClaim(root, one.place)
        if there.path.exists() and not overwrite and _apart_from_trust(there) != _apart_from_trust(one):
            raise RbftError(
                f"{there.path} exists with seeds {there.seeds} and says something else than these records "
                f"(seeds {one.seeds}); pass --replace to put them in its place"
            )
    return [one for one in made if overwrite or not (root / one.place.file).exists()]


def _apart_from_trust(one: StoredClaim) -> Json:
    return {key: value for key, value in one.raw.items() if key != "trust"}


def refresh(root: Path, suite: str | None = None) -> dict[str, list[str]]:
    """Make every claim again from its stored files, in the form of this version; returns what changed, by claim.

    A file that is not the one the claim was made from is an error: this command never blesses other predictions.
    """
    changed: dict[str, list[str]] = {}
    for one in find(root, suite):
        origin = read_origin(one.raw, one.path)
        for seed, files in origin.files.items():
            for name in FILES:
                path = root / one.place.run(seed) / name
                if digests.file_digest(path) != files.get(name):
                    raise RbftError(f"{path} is not the file that {one.path} was made from; restore it, or add it anew")
        runs = [bundle.read(root / one.place.run(seed)) for seed in sorted(origin.files)]
        fresh = claim.make(runs, origin.files, origin.trust).written()
        lines = differences.differing(one.raw, fresh)
        if lines:
            write_json(one.path, fresh)
            changed[one.place.file.as_posix()] = lines
    return changed


def mark(one: StoredClaim, level: Level, name: str) -> None:
    """Note in a claim how far it was verified, and by whom."""
    trust = replace(one.claim.trust, verified=level, verified_by=name)
    write_json(one.path, replace(one.claim, trust=trust).written())


def check_boards(claims: Sequence[StoredClaim]) -> None:
    """Rows of one suite version are compared example by example: all of them saw the same examples and labels."""
    for problem in conflicts(claims):
        raise RbftError(problem)


def conflicts(claims: Sequence[StoredClaim]) -> list[str]:
    first: dict[tuple[str, str], tuple[StoredClaim, SplitData]] = {}
    problems = _other_splits(claims)
    for one in claims:
        for split, entry in one.claim.data.splits.items():
            other, reference = first.setdefault((one.place.suite, split), (one, entry))
            pairs = (
                ("example ids", entry.ids_sha256, reference.ids_sha256),
                ("labels", entry.labels_sha256, reference.labels_sha256),
                ("data", entry.content_sha256, reference.content_sha256),
            )
            for word, mine, theirs in pairs:
                if mine != theirs:
                    problems.append(
                        f"{one.place.file} and {other.place.file}: split '{split}' has other {word}; rows of one "
                        "suite version must be evaluated on the same data"
                    )
                    break
    return problems


def _other_splits(claims: Sequence[StoredClaim]) -> list[str]:
    """Rows of one suite version and protocol have the same columns: none leaves out a shift."""
    first: dict[tuple[str, str], StoredClaim] = {}
    problems: list[str] = []
    for one in claims:
        other = first.setdefault((one.place.suite, one.claim.identity.protocol), one)
        mine, theirs = one.claim.data.roles, other.claim.data.roles
        if mine != theirs:
            told = f"{', '.join(mine.columns)} and {', '.join(theirs.columns)}"
            problems.append(
                f"{one.place.file} and {other.place.file}: their splits are {told}; rows of one suite version have the "
                "same splits in the same roles"
            )
    return problems
