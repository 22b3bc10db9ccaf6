"""The files of an exported run: what lies in the record's `model/`, a new card, and its numbers unrounded."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robustbench_ft import __version__, atomic, saved
from robustbench_ft.claims.bundle import portable
from robustbench_ft.compare.text import estimate_json
from robustbench_ft.errors import RbftError, unknown
from robustbench_ft.record import digests
from robustbench_ft.record.store import MODELS, Record, find_records, read_json

from . import card, hub, table
from .hub import Benchmark
from .table import Numbers

Kind = Literal["open-clip", "huggingface"]
CARD, CONFIG, NUMBERS = "README.md", "open_clip_config.json", "rbft.json"
SCHEMA = 1  # of rbft.json
HINT = "free some space, or choose another folder with --out"


@dataclass(frozen=True)
class File:
    """One file of an export: a copy, or content of its own."""

    name: str  # below the folder, with '/'
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def digest(self) -> str:
        """SHA-256"""
        return digests.of_bytes(self.content) if isinstance(self.content, bytes) else digests.of_file(self.content)


@dataclass(frozen=True)
class Export:
    """What a folder will hold."""

    files: tuple[File, ...]

    def write(self, folder: Path) -> None:
        """Write all files, the card last. Raises `RbftError` where the folder holds something already."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RbftError(f"{folder} exists and is not empty; name another with --out, or remove it first")
        for file in sorted(self.files, key=lambda file: file.name == CARD):
            target, content = folder / file.name, file.content
            if isinstance(content, bytes):
                atomic.write_bytes(target, content, HINT)
            else:
                atomic.write(target, lambda temporary, source=content: _copy(source, temporary), HINT)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def export(
    run: Path,
    kind: Kind,
    candidate: str = "",
    licence: str = "",
    benchmarks: Sequence[Benchmark] = (),
    source: str = "",
) -> Export:
    """Prepare the export of one finished cell; nothing is written. Raises `RbftError` where it holds no such model.

    `candidate` is a kept one (`rbft run --save-candidates`), by default the headline; `licence` an id of the hub;
    `source` the address of predictions and claim.
    """
    record = _record(run)
    name = candidate or record.summary.default
    weights = _weights(record, name)
    parts = sorted(p for p in weights.rglob("*") if p.is_file() and not p.name.startswith("."))
    for path in parts:
        digests.check_file(record.folder, path.relative_to(record.folder).as_posix(), record.digests)
    config, numbers = read_json(weights / CONFIG), table.measure(record, name)
    subject = card.Subject(record, name, numbers, config, licence)
    made = {CARD: card.text(subject, kind == "huggingface").encode(), NUMBERS: _numbers(record, name, numbers)}
    if kind == "huggingface":
        made |= hub.eval_results(record, numbers, benchmarks, source)
    elif benchmarks:
        raise RbftError("--benchmark is read by the hub of Hugging Face alone; add --to huggingface")
    copied = {path.relative_to(weights).as_posix(): path for path in parts}
    return Export(tuple(File(path, content) for path, content in sorted({**copied, **made}.items())))


def _record(run: Path) -> Record:
    found = find_records([run])
    if len(found) > 1:
        raise RbftError(f"{run} holds {len(found)} runs, and a folder has one model: name one, e.g. {found[0].folder}")
    return found[0]


def _weights(record: Record, candidate: str) -> Path:
    """The folder of a candidate's weights, which plain open_clip can load."""
    if candidate not in record.summary.candidates:
        raise RbftError(unknown("candidate", candidate, record.summary.candidates))
    default = candidate == record.summary.default
    folder = record.folder / "model" if default else record.folder / MODELS / candidate
    if (folder / saved.NOTE).is_file():
        raise RbftError(
            f"{folder}: '{record.config.method}' answers with several models, and open_clip loads one; name one of its "
            "candidates with --candidate, or load the record with rb.load_model"
        )
    if not (folder / CONFIG).is_file():
        again = "with its weights (without --no-save-model)" if default else "with --save-candidates"
        raise RbftError(f"{record.folder} keeps no weights of '{candidate}'; run it again {again}")
    return folder


def _numbers(record: Record, candidate: str, numbers: Numbers) -> bytes:
    """rbft.json: the configuration without folders of this machine, and every estimate unrounded."""
    columns: list[dict[str, Any]] = [
        {
            "name": c.name, "splits": list(c.splits), "metric": c.metric or None, "images": c.images,
            "this_model": estimate_json(c.own), "fresh_seed": estimate_json(c.fresh) if c.fresh else None,
        }
        for c in numbers.columns
    ]  # fmt: skip
    content = {
        "schema": SCHEMA, "rbft": __version__, "candidate": candidate, "cell": portable(record.cell),
        "seeds": list(numbers.seeds), "columns": columns, "calibration_error": dict(numbers.calibration),
    }  # fmt: skip
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
