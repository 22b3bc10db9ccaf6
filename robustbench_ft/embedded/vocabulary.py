"""Words of the embedded model's prompts, as its tokenizer reads them. Torch-free."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

VOCABULARY = Path(__file__).with_name("checkpoint") / "vocab.txt"
WORD = re.compile(r"[a-z0-9]+")
WAY_OUT = "--model ViT-B-16 --pretrained openai"  # also said where another model is asked for


def read(path: str | Path) -> list[str]:
    """Words of a `vocab.txt` in the order of their ids, without the three special tokens."""
    return Path(path).read_text("utf-8").split()[2:-1]


def words(text: str) -> list[str]:
    """Words of a text in lower case; punctuation does not count."""
    return WORD.findall(text.lower())


@lru_cache
def known() -> frozenset[str]:
    """Every word that the embedded model knows."""
    return frozenset(read(VOCABULARY))


def first_unknown(texts: Iterable[str]) -> str:
    """The first word of these texts that the embedded model does not know, else ''."""
    return next((word for text in texts for word in words(text) if word not in known()), "")


def refusal(word: str, text: str, count: int) -> str:
    """One line for a word that a vocabulary of `count` words lacks, with the way out."""
    return (
        f"the embedded model does not know the word '{word}' (in '{text}'): it knows {count} words; yours need a real "
        f"CLIP: add {WAY_OUT}, or --model local-dir:DIR"
    )
