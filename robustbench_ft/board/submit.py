"""A row to hand in: made and verified aside, then put on a branch of the checkout with a text. Nothing is pushed."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustbench_ft import __version__, atomic
from robustbench_ft.claims import audit, claim_store, elsewhere
from robustbench_ft.claims.claim_store import StoredClaim
from robustbench_ft.claims.schema import Trust
from robustbench_ft.compare.load import OFFICIAL
from robustbench_ft.compare.text import grid, points
from robustbench_ft.errors import PlanError, RbftError
from robustbench_ft.images.roots import Roots
from robustbench_ft.metrics import ACCURACY

from . import build

TEXT = "rbft-pull-request.md"  # in git's own folder: it is in no commit
HINT = "free some space; the branch and its commit are made"


@dataclass(frozen=True)
class Submission:
    """Claims that hold, and the text of their pull request."""

    names: tuple[str, ...]  # of the claims' files
    remarks: tuple[str, ...]
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def branch(self) -> str:
        return f"claim/{Path(self.names[0]).stem}"


def prepare(runs: Sequence[Path], root: Path, trust: Trust, data: Roots | None) -> Submission:
    """Make the claims in a copy of the boards and verify them as CI does. Raises `PlanError` with all that fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "boards"
        if root.is_dir():
            shutil.copytree(root, copy, ignore=shutil.ignore_patterns("site"))
        made = claim_store.add(runs, copy, trust)
        names = tuple(one.place.file.as_posix() for one in made)
        claims = audit.select(copy)
        report = audit.audit_each(claims, data)
        if problems := [f"{name}: {line}" for name in names for line in report[name]]:
            raise PlanError(problems)
        told = audit.remarks(claims)
        remarks = tuple(f"{name}: {line}" for name in names for line in told.get(name, ()))
        return Submission(names, remarks, _text(made, remarks))


def commit(runs: Sequence[Path], root: Path, trust: Trust, found: Submission) -> Path:
    """Put claims and pages on a new branch of the checkout around `root`; returns the file with the text."""
    git = _git(root)
    if git("status", "--porcelain", "--untracked-files=no"):
        raise RbftError(f"the checkout around {root} has changes: commit or stash them first")
    if git("branch", "--list", found.branch):
        raise RbftError(f"branch {found.branch} exists: remove it with `git branch -D {found.branch}`, or push it")
    git("switch", "-q", "-c", found.branch)
    made = claim_store.add(runs, root, trust)
    pages = build.write(root, build.files(root))
    paths = [path for one in made for path in (one.place.file, one.place.predictions)]
    paths += [path.relative_to(root) for one in made if (path := elsewhere.ignore(one)) is not None]
    git("add", "--", *map(str, paths), *pages)
    git("commit", "-q", "-m", found.title)
    target = root.resolve() / git("rev-parse", "--git-path", TEXT)
    atomic.write_bytes(target, found.text.encode(), HINT)
    return target


def _git(root: Path) -> Callable[..., str]:
    """Run git in `root`. Raises `RbftError` with what it says."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RbftError(f"cannot run git in {root}: {error.strerror}") from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no word"])[0]
            raise RbftError(f"git {words[0]} in {root}: {said}; name a folder of a checkout with --boards")
        return done.stdout.strip()

    return git


def _text(made: Sequence[StoredClaim], remarks: Sequence[str]) -> str:
    first = made[0].claim.identity
    methods = ", ".join(dict.fromkeys(one.claim.identity.method for one in made))
    header = ["claim", "rule", "seeds", "ID", "mean OOD"]
    body = [
        [one.place.name, row.selection, str(len(one.seeds))]
        + [points(row.estimates.get(OFFICIAL, row.estimates[ACCURACY])[column]) for column in ("ID", "mean OOD")]
        for one in made
        for row in one.claim.results.rows
    ]
    lines = [
        f"# {methods} on {first.suite} v{first.suite_version}", "", grid(header, body, words=(0, 1)), "",
        "In %, ± half-width of the 95 % interval over seeds and images.", "", "## What was verified", "",
        f"By `rbft leaderboard submit`, rbft {__version__}, in a copy of the boards, as CI does: every number again "
        "from the stored predictions, digests, and ids, labels, images and roles against the suite's own data.",
        "Not verified: that these weights give these answers (`verify --rescore`), and that no run was left out.",
    ]  # fmt: skip
    if remarks:
        lines += ["", "## Remarks of `verify`", "", *(f"- {line}" for line in remarks)]
    return "\n".join(lines) + "\n"
