"""Errors a user can cause. Each says in one line what was asked, what is known and what to do next."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

LONGEST = 1000  # characters of a line that the command line prints
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """The text with line ends and control characters spelt out: what a user named may hold any."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class RbftError(Exception):
    """An error the user can act on; the command line prints it as `rbft: ...` and exits with code 2."""

    def __init__(self, line: str = "") -> None:
        super().__init__(one_line(line))


class StoppedError(RbftError):
    """Ctrl-C or SIGTERM ended a command in good order; the command line exits with code 130."""


class PlanError(RbftError):
    """Everything that is wrong with a request, found in one go: `problems` holds one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(one_line, problems))
        Exception.__init__(self, "\n".join(self.problems))


class FailedError(RbftError):
    """Some cells of a sweep failed, and the others went on; the command line exits with code 1.

    `problems` holds one line each, `done` the folders of the cells that have a result.
    """

    def __init__(self, problems: Iterable[str], done: Iterable[Path] = (), failed: Iterable[Path] = ()) -> None:
        self.problems, self.done, self.failed = tuple(map(one_line, problems)), tuple(done), tuple(failed)
        Exception.__init__(self, "\n".join(self.problems))


class DiedError(RbftError):
    """A worker ended in the middle; the command line exits with code 1."""


class MissingDataError(RbftError):
    """A suite's files are not where they should be."""


class SubsetError(MissingDataError):
    """The files are those of a known subset, which is a suite of its own; the line says which and how."""


class SealedError(RbftError):
    """A method asked for data that `fit` must not see."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that is not known: close matches first, then all that is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    ratios = [difflib.SequenceMatcher(None, other, name).ratio() for other in close]
    # the nearest, and what is hardly farther
    close = [other for other, ratio in zip(close, ratios, strict=True) if ratio > ratios[0] - 0.15]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"unknown {kind} '{name}': {hint}known: {', '.join(names) if len(names) < 40 else f'{len(names)} names'}"


def shortened(line: str) -> str:
    """A line whose middle is left out where it quotes more than anybody reads."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 210]} [...] {line[-200:]}"
