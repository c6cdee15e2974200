"""Words as tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, Self

import numpy as np
from zoo.data import Ids, Tokenizer

PIECES = re.compile(r"\w+|\W")


class WordTokenizer(Tokenizer):
    """A token for each of the most frequent words and signs of the training text; token 0 stands
    for every other."""

    learned: ClassVar[bool] = True

    kind: Literal["words"] = "words"
    words: tuple[str, ...]

    @classmethod
    def from_text(cls, text: str, vocab: int = 1000) -> Self:
        counts = Counter(PIECES.findall(text))
        return cls(words=tuple(word for word, _ in counts.most_common(vocab - 1)))

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.words)

    def encode(self, text: str) -> Ids:
        numbers = {word: number for number, word in enumerate(self.words, 1)}
        return np.array([numbers.get(word, 0) for word in PIECES.findall(text)], np.int64)

    def unknown(self, text: str) -> str:
        known = set(self.words)
        others = "".join(word for word in PIECES.findall(text) if word not in known)
        return "".join(dict.fromkeys(others))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        for token in ids:
            yield self.words[token - 1] if token else "\N{REPLACEMENT CHARACTER}"
