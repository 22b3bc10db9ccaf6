"""Texts that a setting names: a file of one per line, and which of them a model can read."""

from collections.abc import Sequence
from pathlib import Path

from robustbench_ft import Clip
from robustbench_ft.errors import RbftError


def lines(file: str, what: str) -> tuple[str, ...]:
    """The lines of a text file that are not empty, stripped. Raises `RbftError` in one line, which names `what`."""
    try:
        found = tuple(line.strip() for line in Path(file).expanduser().read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise RbftError(f"cannot read {what} from {file}: {error}; name a text file with one per line") from error
    if not any(found):
        raise RbftError(f"{file} is empty; write {what} into it, one per line")
    return tuple(line for line in found if line)


def known(clip: Clip, texts: Sequence[str]) -> tuple[str, ...]:
    """Those that the model's tokenizer can read. Some tokenizers, such as the embedded model's, hold few words."""
    return tuple(text for text in texts if not refusal(clip, [text]))


def refusal(clip: Clip, texts: Sequence[str]) -> str:
    """Why the tokenizer cannot read these texts; empty when it can."""
    try:
        clip.tokenize(texts)
    except RbftError as error:
        return str(error)
    return ""
