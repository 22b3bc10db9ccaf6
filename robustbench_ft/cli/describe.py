"""`rbft show`: one method or suite in plain words, from its own declaration."""

import dataclasses
import inspect
import textwrap
from collections.abc import Sequence

from robustbench_ft import few_shot, model_ref, registry, suite_ref
from robustbench_ft.board import paper
from robustbench_ft.errors import RbftError, unknown
from robustbench_ft.recipe import EMBEDDED, EMBEDDED_LR_GRID, in_words
from robustbench_ft.suite import Suite

WIDTH = 80


def describe(name: str) -> str:
    """The text for a method or a suite of this name or alias."""
    methods, suites = registry.entries("method"), registry.entries("suite")
    if registry.names_a_file(name) and ".py" in name:
        return _method(name, registry.resolve("method", name))
    if name.partition("+")[0] in suites or suite_ref.is_file(name):
        return _suite(name)
    try:
        return _method(name, registry.resolve("method", name))
    except RbftError as error:
        raise RbftError(unknown("method or suite", name, [*methods, *suites])) from error


def _method(name: str, entry: registry.Entry) -> str:
    from . import method_card  # imports torch, which a suite or a slip of the finger needs not

    card = method_card.card(name, entry)
    lines = [*_wrapped(f"{entry.name}: {entry.summary}"), ""]
    for paragraph in card.text.split("\n\n"):
        lines += [*_wrapped(" ".join(paragraph.split())), ""]
    said = [("equation", card.equation), ("source", card.source), ("oracle", card.oracle)]
    said += [("trap", text) for text in card.traps] + [("fact", text) for text in card.facts]
    said += [("cost", card.cost), ("also", ", ".join(entry.aliases)), ("file", card.home)]
    lines += [line for label, text in said if text for line in _wrapped(text, label)]
    for group in card.groups:
        lines += ["", f"settings of {group.owner} (--set NAME=VALUE)"]
        lines += _columns([(s.name, s.type, s.default, s.comment) for s in group.symbols])
    lines += ["", "ranges of rbft tune", *_columns(list(card.ranges.items()))] if card.ranges else []
    recipes = {**card.recipes, **({"other suites": "the suite's own, see `rbft show SUITE`"} if card.trains else {})}
    lines += ["", "recipes by suite", *_columns(list(recipes.items()))] if recipes else []
    published = method_card.published_file()
    papers = method_card.paper_rows(entry, published)
    rows = [(f"{row.suite}, {row.model} {row.pretrained}", _paper(row)) for row in papers]
    if rows:
        lines += ["", f"rows of papers, as printed, in % ({published.name})", *_columns(rows)]
    return "\n".join(lines)


def _paper(row: paper.Row) -> str:
    numbers = ", ".join(f"{name} {cell.text}" for name, cell in row.cells.items())
    return f"{row.method}: {numbers}; {row.source}"


def _wrapped(text: str, label: str = "") -> list[str]:
    """`text` in lines of 80, behind a label where it has one."""
    return _filled(text, f"{label:<9} " if label else "")


def _filled(text: str, start: str) -> list[str]:
    """`text` behind `start`, later lines below its beginning."""
    later = " " * len(start)
    made = textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=later, break_on_hyphens=False)
    return made or [start.rstrip()]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table without rules; the last column is wrapped, and goes below where little room is left for it."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    lines: list[str] = []
    for row in rows:
        start = "  " + "".join(f"{text:<{width}}  " for text, width in zip(row, widths, strict=False))
        if len(start) > WIDTH // 2 and len(start) + len(row[-1]) > WIDTH:
            lines += [start.rstrip(), *_filled(row[-1], " " * 6)]
        else:
            lines += _filled(row[-1], start)
    return lines


def _suite(name: str) -> str:
    suite = suite_ref.load(name)
    card = suite.card
    lines = [
        f"{suite.name} (version {suite.version}): "
        f"{card.title if suite.definition else registry.entries('suite')[suite.base].summary}", "",
        inspect.cleandoc(type(suite).__doc__ or ""), "",
        f"paper     {card.paper}", f"licence   {card.licence}", f"home      {card.home}",
    ]  # fmt: skip
    if card.note:
        lines.append(f"note      {card.note}")
    lines += [f"note      split '{split}' {told}" for split, told in suite.remarks.items()]
    for split, where in suite.places.items():
        lines.append(f"{split:<9} under --root: {' or '.join(where)}")
    for option, does in {**suite.options, **few_shot.OPTIONS}.items():
        lines.append(f"option    {suite.base}+{option}: {does}")
    if suite.definition:
        lines += [f"classes   {len(suite.classes)}: {', '.join(suite.classes)}"]
        lines += [f"prompts   {len(suite.templates)}, e.g. {suite.templates[0].format(suite.classes[0])}"]
    counts = ", ".join(f"{split} {n:,}" for split, n in suite.counts.items())
    roles = {"train": suite.train, "val": suite.val, "test": suite.test}
    lines += [f"images    {counts}"] if counts else []
    lines += [f"shots     {suite.shots.note}"] if suite.shots else []
    lines += [
        f"ID        {', '.join(_role(role, name) for role, name in roles.items())}",
        f"shifts    {', '.join(suite.shifts)}",
    ]
    lines += [f"also      {', '.join(suite.extra)} (in no mean)"] if suite.extra else []
    lines += [f"metric    {split}: {metric} (official)" for split, metric in suite.metrics.items()]
    lines.append(f"recipe    {in_words(dataclasses.asdict(suite.recipe))}")
    lines += _needs(suite)
    if dataclasses.replace(suite.recipe, steps=0, validate_every=0) == dataclasses.replace(
        EMBEDDED, steps=0, validate_every=0
    ):
        lines.append(
            f"lr grid   {', '.join(f'{lr:g}' for lr in EMBEDDED_LR_GRID)} (declared; chosen on ID validation only)"
        )
    return "\n".join(lines)


def _role(role: str, split: str) -> str:
    """'val', or 'test = id_test' where the split has another name."""
    return role if role == split else f"{role} = {split}"


def _needs(suite: Suite) -> list[str]:
    """The model that is taken where `rbft run` names none, and what a cell needs with it."""
    from robustbench_ft import needs

    own = model_ref.default(suite)
    found = [f"model     {own.text}"]
    try:
        ref = model_ref.resolve(own.name, own.pretrained or None)
    except RbftError as error:
        return [*found, f"          which cannot be used: {error}"]
    return found + needs.lines(suite, suite.recipe, ref)
