"""All that a method says of itself, gathered for `rbft show` and for its page in docs/methods."""

import ast
import dataclasses
import inspect
import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import robustbench_ft
from robustbench_ft import provenance, registry
from robustbench_ft.board import paper
from robustbench_ft.method import Method
from robustbench_ft.recipe import in_words
from robustbench_ft.registry import Entry

BOARDS = "leaderboards"


@dataclass(frozen=True)
class Symbol:
    """One field of a method."""

    name: str
    type: str
    default: str
    comment: str  # beside it in the source, '' where none is


@dataclass(frozen=True)
class Group:
    """The fields that one class declares."""

    owner: str  # the method that the class is, or the class's name
    symbols: tuple[Symbol, ...]


@dataclass(frozen=True)
class Card:
    """One method in words."""

    entry: Entry
    trains: bool
    text: str  # docstring of the class
    equation: str
    source: str
    oracle: str
    traps: tuple[str, ...]
    groups: tuple[Group, ...]  # its own fields first, then those of the classes it builds on
    ranges: Mapping[str, str]  # setting -> what `rbft tune` draws it from
    recipes: Mapping[str, str]  # suite -> the authors' recipe
    facts: tuple[str, ...]  # what is declared of it, one sentence each
    cost: str
    home: str  # file, module, package and version


def card(name: str, entry: Entry) -> Card:
    """The card of a method that is called `name`, or is named by the path of its file."""
    kind = registry.load("method", name, Method)
    own = vars(kind)
    first = own if "equation" in own or "+" not in entry.name else {}
    return Card(
        entry=entry,
        trains=kind.trains,
        text=inspect.cleandoc(kind.__doc__ or ""),
        **{key: str(first.get(key, "")) for key in ("equation", "source", "oracle")},
        traps=tuple(first.get("traps", ())),
        groups=tuple(_groups(kind, entry, _outer(name))),
        ranges={setting: space.text for setting, space in kind.ranges.items()},
        recipes={suite: in_words(dataclasses.asdict(recipe)) for suite, recipe in kind.published.items()},
        facts=tuple(_facts(kind)),
        cost=_cost(kind),
        home=_home(kind, entry),
    )


def paper_rows(entry: Entry, path: Path) -> list[paper.Row]:
    """Rows of papers for this method, as far as names tell: 'WiSE-FT (0.5)' is one of 'wise-ft'."""
    names = {_plain(name) for name in (entry.name, *entry.aliases)}
    rows = paper.load(path)
    return [row for row in rows if _plain(row.method) in names or paper.METHODS.get(row.method) == entry.name]


def published_file() -> Path:
    """Where rows of papers are: in the boards of this folder, else in those of the repository around the package."""
    here = Path(BOARDS) / paper.FILE
    return here if here.exists() else Path(robustbench_ft.__file__).parent.parent / here


def _plain(name: str) -> str:
    """'WiSE-FT (0.5)' -> 'wiseft'."""
    return re.sub(r"[^a-z0-9]", "", name.partition(" (")[0].lower())


def _outer(name: str) -> type[Method] | None:
    """The last part of 'A+B'."""
    parts = registry.parts(name)
    return registry.load("method", parts[-1], Method) if len(parts) > 1 else None


def _groups(kind: type[Method], entry: Entry, outer: type[Method] | None) -> Iterable[Group]:
    """Fields by the class that declares them; `outer` is asked for those that a composition took over."""
    left = {f.name: f for f in dataclasses.fields(kind) if f.name != "recipe"}
    for owner in (*kind.__mro__, *(outer.__mro__ if outer else ())):
        written = _written(owner) if owner.__module__ != "builtins" else {}
        found = [Symbol(name, *_typed(left.pop(name), written[name])) for name in written if name in left]
        if found:
            yield Group(entry.name if owner is kind else _owner(owner), tuple(found))


def _typed(found: "dataclasses.Field[Any]", written: tuple[str, str]) -> tuple[str, str, str]:
    """Type, default and comment in words."""
    kind, comment = written
    choices = re.fullmatch(r"Literal\[(.*)\]", kind)
    default = "needed" if found.default is dataclasses.MISSING else str(found.default)
    return (choices[1].replace("'", "").replace(", ", "|") if choices else kind), default or "''", comment


def _owner(kind: type[Any]) -> str:
    names = {entry.module: entry.name for entry in registry.entries("method").values()}
    return names.get(kind.__module__, kind.__name__)


@cache
def _written(kind: type[Any]) -> Mapping[str, tuple[str, str]]:
    """Field -> its annotation and the comment beside it (or above it), as the class's source has them."""
    try:
        text = inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):  # made by code, as compositions are
        return {}
    body = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {t.start[0]: t for t in tokens if t.type == tokenize.COMMENT}
    found: dict[str, tuple[str, str]] = {}
    for node in (node for part in body for node in part.body if isinstance(node, ast.AnnAssign)):
        if isinstance(node.target, ast.Name) and not ast.unparse(node.annotation).startswith("ClassVar"):
            beside = [n for n in range(node.lineno, (node.end_lineno or node.lineno) + 1) if n in comments]
            lines = beside or _above(node.lineno, comments)
            words = " ".join(comments[n].string.lstrip("# ") for n in lines)
            found[node.target.id] = (ast.unparse(node.annotation), re.sub(r"\s*(noqa|pyright|type):.*", "", words))
    return found


def _above(line: int, comments: Mapping[int, tokenize.TokenInfo]) -> list[int]:
    """Lines of the comment that ends just above a line, and stands alone."""
    found: list[int] = []
    while (above := comments.get(line - 1)) and not above.line[: above.start[1]].strip():
        line -= 1
        found.insert(0, line)
    return found


def _facts(kind: type[Method]) -> Iterable[str]:
    """What is declared of a method beside its numbers."""
    if not kind.trains:
        yield "trains nothing: no recipe, no seeds"
    for candidate, (setting, value, other) in kind.reduces_to.items():
        ours = "it" if candidate == "final" else f"its candidate {candidate}"
        given = "" if value == getattr(kind, setting, None) else f"with {setting}={value} "
        yield f"{given}{ours} equals {other}, to the bit"
    if kind.transductive:
        yield "transductive: a prediction depends on the other images of its split, so it is not ranked"
    if not kind.separable:
        yield "its loss sees the whole batch: parts of it are encoded twice with `micro_batch`"
    if not kind.single_model:
        yield "its headline answers with several models: nothing can follow it, as in NAME+wise-ft"
    if kind.averages and kind.around is Method.around:
        yield "an average of its weights is a model: NAME+ema works"


def _cost(kind: type[Method]) -> str:
    passes = f"{kind.passes:g} forward pass{'es' * (kind.passes != 1)} of the image tower"
    return f"{passes} for each image predicted"


def _home(kind: type[Method], entry: Entry) -> str:
    package = provenance.code_of(kind).distribution
    where = f"{entry.source.name}, {kind.__module__} of {package}" if entry.module else str(entry.source)
    return f"{where} (method version {kind.version})"
