"""Which names may become a file or a folder: every name that is read from a file and ends in a path is checked here.

Suites, splits, methods, models and candidates are named by others: by records, claims, TOML and manifests.
"""

import re

from .errors import RbftError

LONGEST = 200  # bytes; file systems take 255, and names get a suffix
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # files of these names are devices
FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')  # by one system or another


def problem(name: str) -> str:
    """Why `name` cannot name a file on every system; '' where it can."""
    if name in ("", ".", ".."):
        return "is no name of a file"
    if found := FORBIDDEN.search(name):
        return f"holds {found[0]!r}"
    if name[0] in ".- " or name[-1] in ". ":
        return f"{'begins' if name[0] in '.- ' else 'ends'} with {name[0] if name[0] in '.- ' else name[-1]!r}"
    if DEVICES.fullmatch(name):
        return "is the name of a device"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is no text"
    return f"is longer than {LONGEST} bytes" if size > LONGEST else ""


def checked(name: str, what: str) -> str:
    """`name`, which may become a path. Raises `RbftError` where it may not."""
    if why := problem(name):
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise RbftError(f"{what} {shown!r} cannot name a file: it {why}; use letters, digits, _, . and -")
    return name
