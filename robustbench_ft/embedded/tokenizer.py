"""The embedded model's tokenizer: one id per word, nothing smaller."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from robustbench_ft.errors import RbftError

from . import vocabulary

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"


class Words:
    """Texts to ids: pad is 0, then BOS, the words, and EOS last (open_clip pools at the highest id)."""

    def __init__(self, words: Iterable[str], context_length: int = 16) -> None:
        self.tokens = (PAD, BOS, *words, EOS)
        self.context_length = context_length
        self._ids = {token: i for i, token in enumerate(self.tokens)}

    @classmethod
    def load(cls, path: str | Path, context_length: int = 16) -> "Words":
        """Read `vocab.txt`: one token per line, the line number is its id."""
        return cls(vocabulary.read(path), context_length)

    def save(self, path: str | Path) -> None:
        Path(path).write_text("\n".join(self.tokens) + "\n", "utf-8")

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def word_ids(self) -> tuple[int, int]:
        """The range [lo, hi) of ids that are words."""
        return 2, len(self.tokens) - 1

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a text, without BOS and EOS; case and punctuation do not count."""
        words = vocabulary.words(text)
        for word in words:
            if word not in self._ids:
                raise RbftError(vocabulary.refusal(word, text, self.vocab_size - 3))
        return [self._ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.tokens[i] for i in ids if self.tokens[i] not in (PAD, BOS, EOS))

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Ids with BOS and EOS, padded, or cut before EOS, to the context.  # [n, L] int64"""
        length = context_length or self.context_length
        rows = [self.encode(text)[: length - 2] for text in ([texts] if isinstance(texts, str) else texts)]
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row) + 2] = torch.tensor([1, *row, self.vocab_size - 1])
        return ids
