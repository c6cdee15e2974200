"""Tokenizers: text to integers and back. They need neither torch nor a plugin, travel as JSON in
run folders and exported files, and are checked against bounds when they are read back."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from zoo.config import Settings, first_problem
from zoo.errors import TokenizerError

Ids: TypeAlias = npt.NDArray[np.int64]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_CODE_POINTS = 0x110000


class CharTokenizer(Settings):
    """A token for each character of the text that it was made from.

    Token 0 is `<unk>`, for every other character; `characters` are the tokens from 1 on, in order
    of falling frequency, equally frequent ones in order of first appearance.
    """

    UNKNOWN: ClassVar[int] = 0

    kind: Literal["char"] = "char"
    characters: str = Field(min_length=1, max_length=MAX_CODE_POINTS)

    @field_validator("characters")
    @classmethod
    def _distinct(cls, characters: str) -> str:
        if len(set(characters)) != len(characters):
            raise ValueError("a character stands twice in the vocabulary")
        return characters

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """The tokenizer whose vocabulary is that of `text`."""
        counts = Counter(cls.normalize(text))
        by_frequency = sorted(counts, key=counts.__getitem__, reverse=True)
        return cls(characters="".join(by_frequency))

    @classmethod
    def normalize(cls, text: str) -> str:
        """A corpus as this tokenizer sees it."""
        return text

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.characters)

    def encode(self, text: str) -> Ids:
        """Tokens of `text`, one a character."""
        points = _code_points(text)
        known = _code_points(self.characters)
        table = np.zeros(max(int(known.max()), int(points.max(initial=0))) + 1, np.int64)
        table[known] = np.arange(1, self.vocab_size)
        return table[points]

    def unknown(self, text: str) -> str:
        """The distinct characters of `text` that become `<unk>`, in order of appearance."""
        characters = dict.fromkeys(text)
        return "".join(c for c in characters if self.encode(c)[0] == self.UNKNOWN)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each token as it comes; `<unk>` is U+FFFD."""
        for token in ids:
            yield REPLACEMENT if token == self.UNKNOWN else self.characters[token - 1]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.stream(ids))


class LettersTokenizer(CharTokenizer):
    """The characters a to z and space: a corpus is put in lower case, and each run of anything else
    becomes one space. A text to encode is put in lower case only."""

    kind: Literal["letters"] = "letters"  # type: ignore[assignment]

    @classmethod
    def normalize(cls, text: str) -> str:
        return re.sub("[^a-z]+", " ", text.lower())

    def encode(self, text: str) -> Ids:
        return super().encode(text.lower())


class ByteTokenizer(Settings):
    """The 256 bytes of UTF-8: nothing is unknown."""

    kind: Literal["byte"] = "byte"

    @classmethod
    def from_text(cls, text: str) -> ByteTokenizer:
        return cls()

    @classmethod
    def normalize(cls, text: str) -> str:
        return text

    @property
    def vocab_size(self) -> int:
        return 256

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64)

    def unknown(self, text: str) -> str:
        return ""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each character as soon as its last byte has come; bytes that are no UTF-8
        become U+FFFD."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in ids:
            if text := decoder.decode(bytes([token])):
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.stream(ids))


Tokenizer: TypeAlias = CharTokenizer | LettersTokenizer | ByteTokenizer
TOKENIZERS: dict[str, type[Tokenizer]] = {
    "letters": LettersTokenizer,
    "char": CharTokenizer,
    "byte": ByteTokenizer,
}
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Annotated[Tokenizer, Field(discriminator="kind")])


def read_tokenizer(description: str | bytes) -> Tokenizer:
    """The tokenizer that `description` (JSON) describes; TokenizerError if it is damaged."""
    try:
        tokenizer: Tokenizer = _ADAPTER.validate_json(description)
    except ValidationError as error:
        raise TokenizerError(f"the tokenizer is damaged: {first_problem(error)}") from None
    return tokenizer


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
