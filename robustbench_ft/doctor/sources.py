"""Where a suite's data come from and where they are looked for, in words. rbft downloads nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustbench_ft.errors import RbftError
from robustbench_ft.suite import Source, Suite


@dataclass(frozen=True)
class Part:
    """One thing to get: its title, what is known of it, and for each of its splits whether it is there."""

    title: str
    facts: tuple[tuple[str, str], ...]  # (word, text)


def heading(suite: Suite) -> str:
    """One line that says what the user has to do."""
    title = f"{suite.name}: {suite.card.title}"
    if suite.definition:
        return f"{title}\nThis suite is your own: its file names your images, and nothing is to be fetched."
    if not suite.places:
        return f"{title}\nThis suite is embedded: nothing is to be fetched ({suite.card.home})."
    return (
        f"{title}\nrbft downloads nothing. Get each part from its origin, under its licence, and put it under a root "
        f"(--root, RBFT_DATA) at one of the places named here, or name its own with --root {suite.base}/SPLIT=DIR."
    )


def parts(suite: Suite) -> Iterator[Part]:
    """Sources first, then splits that no source names."""
    if not suite.places:
        for name in suite.known if suite.definition else ():
            yield Part(name, (("place", _own_place(suite, name)),))
        return
    named = {split for source in suite.card.sources for split in source.splits}
    for source in suite.card.sources:
        yield Part(f"{source.title}  [{', '.join(source.splits)}]", (*_facts(source), *_places(suite, source.splits)))
    rest = [split for split in suite.places if split not in named]
    if rest:
        yield Part(f"{suite.card.home}  [{', '.join(rest)}]", tuple(_places(suite, rest)))


def _facts(source: Source) -> Iterator[tuple[str, str]]:
    told = {
        "origin": source.origin, "size": source.size, "licence": source.licence, "terms": source.terms,
        "mirrors": "; ".join(source.mirrors), "unpack": source.unpack,
    }  # fmt: skip
    yield from ((word, text) for word, text in told.items() if text)


def _places(suite: Suite, splits: Sequence[str]) -> Iterator[tuple[str, str]]:
    for split in splits:
        if split in suite.places:
            yield f"{split} at", " or ".join(suite.places[split])
            try:
                yield "", f"found: {suite.place(split)}"
            except RbftError as error:
                where = suite.roots.text if suite.roots.folders else "no root was given"
                missing = f"not found ({where})" if "does not exist" not in str(error) else str(error)
                yield "", missing


def _own_place(suite: Suite, name: str) -> str:
    try:
        return str(suite.split(name).place or "held out of another split")
    except RbftError as error:
        return str(error)
