"""Where the names of the package live: those that a notebook or a method file needs, and addresses that moved.

Nothing is imported before it is asked for. Loaded with the package; torch-free.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = __name__.rpartition(".")[0]
FACE = "notebook"
HOMES = {
    "Batch": "train", "Candidates": "method", "Choices": "ranges", "Clip": "clip", "Family": "method",
    "Method": "method", "Range": "ranges", "Run": "method", "Scorer": "method", "TrainSet": "method",
    "Comparisons": FACE, "Diagnoses": "diagnose.answer", "Record": "record.store", "Records": FACE,
    "RbftError": "errors", "load": FACE, "load_model": FACE, "run": FACE, "suites": FACE, "tune": FACE,
}  # fmt: skip
CALLED = ("compare", "diagnose", "methods", "suite")  # functions of the face that share their name with a module
MODULES = ("plot", *CALLED)
MOVED = {
    "archives": "images.archives", "augment": "pixels.augment", "autocast": "clip.autocast", "bench_loader":
    "bench.loader", "checkpoint": "train.checkpoint", "cli_bench": "cli.bench", "cli_board": "cli.leaderboard",
    "cli_cache": "cli.cache", "cli_data": "cli.data", "cli_new": "cli.new", "cli_stats": "cli.compare",
    "describe": "cli.describe", "figure": "compare.figure", "loader": "pixels.loader", "pixel_cache": "pixels.kept",
    "places": "images.roots", "report": "compare.report", "rows": "compare.rows", "scores": "compare.scores",
    "store": "record.store", "trees": "images.folders", "compare.beyond": "compare.tradeoffs",
    "compare.claims": "compare.verdicts", "board.standing": "board.ranking", "board.audit": "claims.audit",
    "board.bundle": "claims.bundle", "board.claim": "claims.claim", "board.rescore": "claims.rescore",
    "board.shelf": "claims.claim_store",
}  # fmt: skip


class Called(ModuleType):
    """A module that answers a call as the function of the face that has its name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.__wrapped__(*args, **options)

    @property
    def __wrapped__(self) -> Any:
        """The function; `inspect.signature` and `help` in notebooks find its parameters here."""
        return getattr(import_module(f"{PACKAGE}.{FACE}"), self.__name__.rpartition(".")[2])


class Package(ModuleType):
    """The package: a submodule is set here when it is imported, and those in `CALLED` answer calls from then on."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CALLED and type(value) is ModuleType:
            value.__class__ = Called
        super().__setattr__(name, value)


class Moved(MetaPathFinder, Loader):
    """Finds modules by the address they had one version ago, and says the new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        known = fullname.startswith(f"{PACKAGE}.") and fullname.removeprefix(f"{PACKAGE}.") in MOVED
        return ModuleSpec(fullname, self) if known else None

    def exec_module(self, module: ModuleType) -> None:
        new = f"{PACKAGE}.{MOVED[module.__name__.removeprefix(f'{PACKAGE}.')]}"
        tell(module.__name__, new, 3)
        sys.modules[module.__name__] = import_module(new)  # what an import returns, so both names are one module


def tell(old: str, new: str, level: int) -> None:
    """Warn of an old address, visibly: authors see it when somebody runs their method."""
    warnings.warn(f"{old} is {new} now; the old name goes with the next version", FutureWarning, stacklevel=level)


def find(name: str) -> Any:
    """What the package has under `name`. Raises `AttributeError` where it has nothing."""
    if name in HOMES:
        return getattr(import_module(f"{PACKAGE}.{HOMES[name]}"), name)
    if name in MODULES:
        return import_module(f"{PACKAGE}.{name}")
    raise AttributeError(f"module '{PACKAGE}' has no attribute '{name}'")


def install() -> None:
    """Let the package answer for `CALLED`, and old addresses be found."""
    sys.modules[PACKAGE].__class__ = Package
    sys.meta_path.append(Moved())
