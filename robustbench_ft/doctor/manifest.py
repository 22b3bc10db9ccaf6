"""What a suite's data are, image by image: written for others to compare with, and kept for the records of runs.

A manifest is a Parquet file: split, id, label, size, and the SHA-256 of the stored bytes of those that were read.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_ft import __version__, cache
from robustbench_ft.data import Ints, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.suite import Suite

from .scan import Seen

compute: Any = import_module("pyarrow.compute")  # made at import, unseen by type checkers
SCHEMA = 1
KEY = b"rbft_manifest"
COLUMNS = ("split", "id", "label", "size", "sha256")
VERDICTS = ("ok", "notes", "WRONG")  # from best to worst
Json = dict[str, Any]


def digest(splits: Mapping[str, str]) -> str:
    """One digest for several splits, from each one's own (`Split.digest`), whatever their order."""
    lines = "".join(f"{name}\0{own}\n" for name, own in sorted(splits.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def to_bytes(suite: Suite, splits: Mapping[str, Split], seen: Mapping[str, Seen], extra: Json | None = None) -> bytes:
    """The Parquet file of these splits. Sizes that could not be asked are null, as are digests of what was not read."""
    parts = [_rows(split, seen[name]) for name, split in splits.items()]
    about = {"schema": SCHEMA, "suite": suite.name, "version": suite.version, "rbft": __version__, **(extra or {})}
    whole = pa.concat_tables(parts).replace_schema_metadata({KEY: json.dumps(about, sort_keys=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _rows(split: Split, seen: Seen) -> Any:
    sums = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(split), [None, pa.py_buffer(seen.sums.tobytes())])
    return pa.table({
        "split": pa.repeat(pa.scalar(split.name), len(split)),
        "id": pa.array(split.ids, pa.string()),
        "label": pa.array(split.labels, pa.int32()),
        "size": pa.array(seen.sizes, mask=seen.sizes < 0),
        "sha256": sums.take(pa.array(np.arange(len(split)), mask=~seen.read)),
    })  # fmt: skip


@dataclass(frozen=True)
class Theirs:
    """One split of somebody's manifest."""

    ids: tuple[str, ...]
    labels: Ints
    sizes: tuple[int | None, ...]
    sums: tuple[bytes | None, ...]


def read(path: Path, suite: Suite) -> dict[str, Theirs]:
    """The splits of a manifest, which must be of this suite."""
    try:
        table: Any = pq.read_table(path)
        about: Json = json.loads((table.schema.metadata or {}).get(KEY, b"null")) or {}
        lacking = [name for name in COLUMNS if name not in table.column_names]
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RbftError(f"cannot read the manifest {path}: {reason}; make one with `--manifest FILE`") from error
    if lacking or not about:
        raise RbftError(f"{path} is not a manifest of `rbft data check --manifest FILE`; ask for one of those")
    told, own = (about.get("suite"), about.get("version")), (suite.name, suite.version)
    if told != own:
        raise RbftError(f"{path} is a manifest of {told[0]} v{told[1]}, not of {own[0]} v{own[1]}; check that suite")
    found: dict[str, Theirs] = {}
    for name in table.column("split").unique().to_pylist():
        part = table.filter(compute.equal(table.column("split"), name))
        columns = [part.column(key).to_pylist() for key in COLUMNS[1:]]
        found[name] = Theirs(tuple(columns[0]), np.array(columns[1], np.int64), tuple(columns[2]), tuple(columns[3]))
    return found


@dataclass(frozen=True)
class Difference:
    """Images of one split that are not as in the other manifest."""

    split: str
    what: str
    ids: tuple[str, ...]


def differences(
    splits: Mapping[str, Split], seen: Mapping[str, Seen], theirs: Mapping[str, Theirs]
) -> list[Difference]:
    """Joined by id; contents are compared where both sides have read them."""
    found = [Difference(name, "the split is only there", ()) for name in theirs if name not in splits]
    for name, split in splits.items():
        if name not in theirs:
            found.append(Difference(name, "the split is only here", ()))
            continue
        kinds: dict[str, list[str]] = {}
        for what, example in _pairs(split, seen[name], theirs[name]):
            kinds.setdefault(what, []).append(example)
        found += [Difference(name, what, tuple(ids)) for what, ids in kinds.items()]
    return found


def compared(splits: Mapping[str, Split], seen: Mapping[str, Seen], theirs: Mapping[str, Theirs]) -> tuple[int, int]:
    """(images whose contents were compared, images on both sides)"""
    contents = both = 0
    for name, other in theirs.items():
        if name in splits:
            read = {i for i, own in zip(splits[name].ids, seen[name].read, strict=True) if own}
            ids = set(splits[name].ids)
            contents += sum(i in read for i, own in zip(other.ids, other.sums, strict=True) if own)
            both += sum(i in ids for i in other.ids)
    return contents, both


def _pairs(split: Split, seen: Seen, other: Theirs) -> Iterator[tuple[str, str]]:
    place = {example: k for k, example in enumerate(other.ids)}
    for k, example in enumerate(split.ids):
        row = place.pop(example, None)
        if row is None:
            yield "only here", example
            continue
        if split.labels[k] != other.labels[row]:
            yield "another label", example
        sum_ = other.sums[row]
        if seen.sizes[k] != other.sizes[row] or (sum_ and seen.read[k] and seen.sums[k].tobytes() != sum_):
            yield "other bytes", example
    yield from (("only there", example) for example in place)


def entry(suite: Suite, split: Split) -> Path:
    """Path of the stored check of these files. Another size, time or path of a file gives another entry."""
    key = "\0".join((suite.name, str(suite.version), split.name, split.digest, split.images.fingerprint()))
    return cache.entry("manifest", key, ".parquet")


def remember(path: Path, suite: Suite, split: Split, seen: Seen, verdict: str) -> None:
    """Store the manifest; keep the previous one if it examined more images and its verdict is at least as bad."""
    before = recall(path)
    looked = int(seen.looked.sum())
    if before and before["looked"] > looked and VERDICTS.index(before["verdict"]) >= VERDICTS.index(verdict):
        return
    extra: Json = {"looked": looked, "verdict": verdict}
    cache.write_bytes(path, to_bytes(suite, {split.name: split}, {split.name: seen}, extra))


def recall(path: Path) -> Json | None:
    """`looked` and `verdict` of the last check of the files that an entry is for; None where there was none."""
    if not path.exists():
        return None
    try:
        about = json.loads(pq.read_metadata(path).metadata[KEY])
        return {"looked": int(about["looked"]), "verdict": VERDICTS[VERDICTS.index(about["verdict"])]}
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        path.unlink(missing_ok=True)  # damaged: as if it had never been
        return None


def for_record(suite: Suite, splits: Sequence[Split]) -> Json:
    """The entry of env.json on a run's data: one digest, and the result of the last check of these files."""
    found = [recall(entry(suite, split)) for split in splits]
    checks = [one for one in found if one is not None]
    whole = len(checks) == len(splits)
    looked, n = sum(one["looked"] for one in checks), sum(len(split) for split in splits)
    checked = ("all" if looked == n else f"sample of {looked}") if whole else None
    verdict = VERDICTS[max(VERDICTS.index(one["verdict"]) for one in checks)] if whole else None
    return {"digest": digest({s.name: s.digest for s in splits}), "checked": checked, "verdict": verdict}
