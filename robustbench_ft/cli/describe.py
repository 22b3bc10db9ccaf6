"""`rbft show`: one method or suite in plain words, from its own declaration."""

import dataclasses
import inspect
from pathlib import Path

from robustbench_ft import model_ref, registry, suite_ref
from robustbench_ft.errors import RbftError, unknown
from robustbench_ft.recipe import EMBEDDED, EMBEDDED_LR_GRID, in_words
from robustbench_ft.suite import Suite


def describe(name: str) -> str:
    """The text for a method or a suite of this name or alias."""
    methods, suites = registry.entries("method"), registry.entries("suite")
    if name.partition("+")[0] in suites or suite_ref.is_file(name):
        return _suite(name)
    try:
        return _method(registry.resolve("method", name))
    except RbftError as error:
        raise RbftError(unknown("method or suite", name, [*methods, *suites])) from error


def _method(entry: registry.Entry) -> str:
    from robustbench_ft.method import Method  # imports torch, which a suite or a slip of the finger needs not

    kind = registry.load("method", entry.name, Method)
    lines = [f"{entry.name}: {entry.summary}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
    lines += [f"{name:<9} {text}" for name in ("equation", "source", "oracle") if (text := vars(kind).get(name))]
    lines += [f"trap      {text}" for text in vars(kind).get("traps", ())]
    if entry.aliases:
        lines.append(f"also called: {', '.join(entry.aliases)}")
    own = [f for f in dataclasses.fields(kind) if f.name != "recipe"]
    if own:
        lines.append("settings (--set NAME=VALUE):")
        lines += [f"  {f.name:<16} {getattr(f.type, '__name__', f.type)!s:<8} default {f.default}" for f in own]
    for setting, space in kind.ranges.items():
        lines.append(f"tuned in  {setting} {space.text} (rbft tune)")
    if not kind.trains:
        lines.append("trains nothing: no recipe, no seeds")
    for suite, published in kind.published.items():
        lines.append(f"own recipe on {suite}: {in_words(dataclasses.asdict(published))}")
    if kind.trains:
        others = "other suites" if kind.published else "every suite"
        lines.append(f"on {others}, the suite's recipe (see `rbft show SUITE`)")
    lines.append(f"file: {Path(inspect.getfile(kind)).name} (version {kind.version})")
    return "\n".join(lines)


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
    for split, where in suite.places.items():
        lines.append(f"{split:<9} under --root: {' or '.join(where)}")
    for option, does in suite.options.items():
        lines.append(f"option    {name}+{option}: {does}")
    if suite.definition:
        lines += [f"classes   {len(suite.classes)}: {', '.join(suite.classes)}"]
        lines += [f"prompts   {len(suite.templates)}, e.g. {suite.templates[0].format(suite.classes[0])}"]
    counts = ", ".join(f"{split} {n:,}" for split, n in card.counts.items())
    lines += [f"images    {counts}"] if counts else []
    lines += [
        f"ID        train {suite.train}, val {suite.val}, test {suite.test}",
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
