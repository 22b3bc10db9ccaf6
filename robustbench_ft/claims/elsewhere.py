"""Predictions that lie outside the checkout: a claim names the place, and holds the digest of every file there.

The digest says whether what comes is what the claim was made from, so a place is trusted with nothing but being there.
"""

import hashlib
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from robustbench_ft.errors import RbftError
from robustbench_ft.record.store import write_bytes

from . import bundle
from .claim_store import StoredClaim

HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+?))?/?")
MOST = 512 << 20  # bytes of one file of predictions: far above a run on all of ImageNet's test sets
SECONDS = 60.0  # without a word from the place
IGNORED = ".gitignore"


def check_place(place: str) -> str:
    """`place` itself. Raises `RbftError` where it is neither a folder, an address nor a data set of the hub."""
    schema = place.partition("://")[0] if "://" in place else ""
    known = HUB.fullmatch(place) if schema == "hf" else schema in ("", "http", "https")
    if not place.strip() or not known:
        raise RbftError(
            f"--predictions-at {place}: name a folder, https://HOST/PATH or hf://datasets/ORG/NAME[@REVISION][/PATH]"
        )
    return place


def ignore(one: StoredClaim) -> Path | None:
    """Keep the prediction files of a claim that has them elsewhere out of git; returns the file that says so."""
    if one.claim.trust.predictions is None:
        return None
    path = one.root / IGNORED
    line = f"/{one.place.predictions.as_posix()}/*/{bundle.PREDICTIONS}"
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if line not in before:
        write_bytes(path, "".join(f"{text}\n" for text in (*before, line)).encode())
    return path


def fetch(one: StoredClaim) -> list[Path]:
    """Get the prediction files of a claim that are not here, and nothing that its digests do not know.

    A file that is here stays, also where it is another than the claim's: `verify` names it. Raises `RbftError`.
    """
    place, got = one.claim.trust.predictions, list[Path]()
    for entry in one.claim.runs:
        name = one.place.run(entry.seed) / bundle.PREDICTIONS
        path = one.root / name
        if path.exists() and not bundle.is_pointer(path):
            continue
        if place is None:
            continue  # nobody says where it is: reading it gives the line
        content = _read(place, name.as_posix(), one.root)
        if hashlib.sha256(content).hexdigest() != entry.files.get(bundle.PREDICTIONS):
            raise RbftError(
                f"{place} has another {name.as_posix()} than the claim {one.path} was made from: nothing was kept; "
                "ask whoever made the claim"
            )
        write_bytes(path, content)
        got.append(path)
    return got


def _read(place: str, name: str, root: Path) -> bytes:
    """The bytes of a file at a place. `name` is its path below the leaderboards folder."""
    try:
        if "://" not in place:
            return _limited((root / place / name).open("rb"))
        if place.startswith("hf://"):
            return _limited(_hub(place, name).open("rb"))
        request = urllib.request.Request(f"{place.rstrip('/')}/{name}", headers={"User-Agent": "rbft"})
        return _limited(urllib.request.urlopen(request, timeout=SECONDS))
    except (OSError, ValueError) as error:
        said = str(error.reason if type(error) is urllib.error.URLError else error).splitlines() or ["no word"]
        raise RbftError(f"cannot get {name} from {place}: {said[0]}; try again, or ask for another place") from error


def _hub(place: str, name: str) -> Path:
    """A file of a data set, in the cache of Hugging Face's client."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    found = HUB.fullmatch(place)
    if found is None:
        raise ValueError("it is no hf://datasets/ORG/NAME[@REVISION][/PATH]")
    repository, revision, folder = found.groups()
    try:
        return Path(hf_hub_download(
            repository, f"{folder}/{name}" if folder else name, repo_type="dataset", revision=revision
        ))  # fmt: skip
    except HfHubHTTPError as error:
        raise OSError(str(error)) from error


def _limited(source: IO[bytes]) -> bytes:
    """All of a stream, unless it is endless."""
    with source as stream:
        content = stream.read(MOST + 1)
    if len(content) > MOST:
        raise OSError(f"it has more than {MOST:,} bytes")
    return content
