"""The street: a core module imports only those before it, and torch stays where it is needed."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import pytest

REPO = Path(__file__).parent.parent
CORE = REPO / "robustbench_ft"
STREET = (
    "errors", "file_names", "limits", "atomic", "toml", "tabular", "seal", "progress", "trackers", "sweep",
    "checksums", "cache", "images", "data", "few_shot", "ranges", "recipe", "prompts", "suite", "custom", "drawing",
    "embedded", "stats", "metrics", "module_file", "registry", "provenance", "suite_ref", "doctor", "model_ref",
    "clip", "pixels", "memory", "ranks", "method", "saved", "predict", "answers", "train", "settings",
    "recipe_choice", "cell", "plan", "needs", "devices", "environment", "distributed", "record", "reference",
    "palette", "compare", "notebook_tables", "claims", "board", "export", "earlier", "failures", "runner", "canary",
    "reproduce", "launch", "diagnose", "tuning", "notebook", "plot", "watch", "checks", "bench", "cli",
)  # fmt: skip
# the same rule inside: modules of a package in the order in which they may import each other
COURTS = {
    "images": ("files", "overlaid", "copied", "archives", "arrays", "folders", "hub", "roots"),
    "custom": ("form", "listing", "draft", "suite"),
    "drawing": (
        "random_draws", "shapes", "raster", "things", "objects", "classes", "scenery", "scene", "colouring",
        "domains", "captions", "scans",
    ),
    "embedded": ("vocabulary", "corpus", "network", "tokenizer", "zero_shot", "pretrain"),
    "stats": (
        "streams", "proportions", "tails", "limits", "intervals", "best_of", "bootstrap", "multiplicity", "letters",
        "pairs", "power", "ranks", "stability", "seeds", "description", "robustness", "lines", "macro_f1",
        "worst_group", "study_worlds", "study",
    ),
    "metrics": ("calibration", "classes", "across"),
    "doctor": ("look", "scan", "manifest", "check", "report", "sources", "wilds"),
    "clip": ("autocast", "faster", "card", "copies", "heads", "clip", "config", "fetched", "load"),
    "pixels": ("augment", "kept", "loader"),
    "train": ("checkpoint", "batches", "passes", "sums", "readback", "loop"),
    "record": ("summary", "digests", "store"),
    "compare": (
        "rows", "scores", "load", "text", "verdicts", "tradeoffs", "tables", "designs", "advice", "two_runs", "report",
        "factors", "canvas", "figure_many", "figure",
    ),
    "claims": (
        "fields", "schema", "published_schema", "bundle", "digests", "claim", "differences", "staging", "claim_store",
        "elsewhere", "plausible", "suspicious", "audit", "rescore",
    ),
    "board": (
        "paper", "table", "text", "cite", "ranking", "pairs", "by_class", "svg", "figures", "parts", "page", "detail",
        "listing", "build", "formats", "submit",
    ),
    "export": ("table", "hub", "card", "folder", "push"),
    "diagnose": ("points", "measure", "correlate", "report", "figure", "answer"),
    "tuning": ("search", "choose", "winner", "fresh", "report", "figure", "run"),
    "sweep": ("process", "lock", "failure", "planned", "states", "removal"),
    "launch": (
        "launcher", "signals", "together", "attempt", "here", "order", "work", "worker", "local", "view", "run",
        "elsewhere", "on_ray", "on_slurm",
    ),
    "bench": ("flops", "contestant", "step", "profile", "penalties", "loader"),
    "cli": (
        "completion", "options", "launchers", "show", "method_card", "describe", "compare", "bench", "cache",
        "data", "diagnose", "leaderboard", "submit", "export", "predict", "starter", "new", "authors",
        "report", "canary", "reproduce", "run", "tune", "status", "remove", "main",
    ),
    "reference": ("numbers", "verdict", "causes", "report"),
    "canary": ("subset", "variants", "check"),
    "reproduce": ("row", "text"),
}  # fmt: skip
TORCH = {
    "clip", "pixels", "memory", "ranks", "method", "saved", "predict", "answers", "train", "environment",
    "failures", "runner", "launch", "diagnose", "bench", "embedded", "watch", "canary", "devices", "export",
}  # fmt: skip
REPORTING = ("record", "stats", "metrics", "compare", "compare.report", "compare.figure", "claims.audit", "board.build")
PUBLIC = {"Batch", "Candidates", "Choices", "Clip", "Method", "Range", "RbftError", "Run", "Scorer", "TrainSet"}
AUTHORS_MAY = {"errors", "method", "predict", "prompts", "recipe", "train"}
SUITES_MAY = {"cache", "data", "drawing", "errors", "images", "prompts", "recipe", "suite"}
SHELF = "robustbench_ft.benchmarks"
TREES = {f"{SHELF}.imagenet"}  # suites whose data others read in every layout
HEAVY = ("torch", "open_clip", "torchvision", "numpy", "scipy", "pyarrow", "matplotlib", "sklearn", "pydantic")


def imports(path: Path, package: str, top_only: bool = False) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a file, relative ones resolved; `name` is '' for `import module`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def core_imports(path: Path, package: str) -> set[str]:
    """Modules of the core that a file imports; '' stands for the package itself."""
    found = set[str]()
    for module, name in imports(path, package):
        parts = module.split(".")
        if parts[0] == "robustbench_ft":
            found.add(parts[1] if len(parts) > 1 else name if name in STREET else "")
    return found


def house(name: str) -> list[tuple[Path, str]]:
    """Files of a core module, each with the package it is in."""
    if (CORE / name).is_dir():
        return [(path, f"robustbench_ft.{name}") for path in sorted((CORE / name).glob("*.py"))]
    return [(CORE / f"{name}.py", "robustbench_ft")]


def test_the_street_is_the_core() -> None:
    on_disk = {path.stem for path in CORE.glob("[!_]*.py")} | {path.parent.name for path in CORE.glob("*/__init__.py")}
    assert set(STREET) == on_disk


@pytest.mark.parametrize("name", STREET)
def test_core_module_imports_only_earlier_ones(name: str) -> None:
    for path, package in house(name):
        later = core_imports(path, package) - {
            "",
            *STREET[: STREET.index(name)],
            "_names",
            *([name] if path.parent != CORE else []),
        }
        assert not later, f"{path.name} imports {later}"


@pytest.mark.parametrize("name", COURTS)
def test_module_of_a_package_imports_only_earlier_ones(name: str) -> None:
    order = COURTS[name]
    assert {path.stem for path in (CORE / name).glob("[!_]*.py")} == set(order)
    for k, module in enumerate(order):
        found = set[str]()
        for target, imported in imports(CORE / name / f"{module}.py", f"robustbench_ft.{name}"):
            inner = target.removeprefix(f"robustbench_ft.{name}").lstrip(".").partition(".")[0]
            if target == f"robustbench_ft.{name}" or target.startswith(f"robustbench_ft.{name}."):
                found.add(inner or imported)
        assert found <= set(order[:k]), f"{name}/{module}.py imports {found - set(order[:k])}"


def test_every_package_has_its_order() -> None:
    assert set(COURTS) == {path.parent.name for path in CORE.glob("*/__init__.py")}


@pytest.mark.parametrize("name", STREET)
def test_core_never_imports_a_method_or_a_suite(name: str) -> None:
    for path, package in house(name):
        for module, _ in imports(path, package):
            assert not module.startswith(
                ("robustbench_ft.methods", "robustbench_ft.benchmarks", "methods", "benchmarks")
            )


@pytest.mark.parametrize("name", STREET)
def test_torch_is_imported_where_models_are(name: str) -> None:
    found = {
        module.partition(".")[0] for path, package in house(name) for module, _ in imports(path, package, top_only=True)
    }
    assert name in TORCH or not found & {"torch", "torchvision", "open_clip", "timm", "safetensors"}


@pytest.mark.parametrize("path", sorted((REPO / "methods").glob("*.py")), ids=lambda path: path.stem)
def test_method_imports_what_any_author_may(path: Path) -> None:
    for module, name in imports(path, "robustbench_ft.methods"):
        if module == "robustbench_ft":
            assert name in PUBLIC
        elif module == "robustbench_ft.clip":
            assert name in ("State", "interpolate")
        elif module.startswith("robustbench_ft"):
            assert module.removeprefix("robustbench_ft.") in AUTHORS_MAY or module.startswith("robustbench_ft.methods.")


@pytest.mark.parametrize("path", sorted((REPO / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_suite_imports_no_torch_and_little_of_the_core(path: Path) -> None:
    siblings = {module for module, _ in imports(path, SHELF) if module.startswith(SHELF + ".")}
    assert all(module.startswith(f"{SHELF}._") for module in siblings - TREES)  # what several suites share
    assert core_imports(path, SHELF) <= SUITES_MAY | ({"benchmarks"} if siblings else set())
    assert not {module.partition(".")[0] for module, _ in imports(path, SHELF)} & {
        "torch",
        "torchvision",
        "open_clip",
    }


@pytest.mark.parametrize("folder", ["robustbench_ft", "methods", "benchmarks", "tests"])
def test_no_file_is_too_long(folder: str) -> None:
    for path in (REPO / folder).rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def loaded_after(code: str) -> set[str]:
    """Modules in a fresh process once it has run `code`."""
    code = f"import sys\n{code}\nprint('loaded', *sys.modules)"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_reporting_needs_no_torch() -> None:
    modules = loaded_after("\n".join(f"import robustbench_ft.{name}" for name in REPORTING))
    assert {f"robustbench_ft.{name}" for name in REPORTING} <= modules
    assert "torch" not in modules


@pytest.mark.parametrize(
    "words",
    [["--help"], ["list"], ["run", "--help"], ["--version"], ["leaderboard", "build", "--help"]],
    ids=" ".join,
)
def test_help_and_list_load_nothing_heavy(words: list[str]) -> None:
    modules = loaded_after(f"from robustbench_ft.cli import main\nmain({words}, standalone_mode=False)")
    assert "robustbench_ft.cli" in modules
    assert not modules & set(HEAVY)
    assert not {m for m in modules if m.startswith(("robustbench_ft.methods.", "robustbench_ft.benchmarks."))}


def test_importing_the_package_loads_none_of_it() -> None:
    modules = loaded_after("import robustbench_ft")
    assert {module for module in modules if module.startswith("robustbench_ft.")} == {"robustbench_ft._names"}
    assert not modules & set(HEAVY)
