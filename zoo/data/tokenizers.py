"""Tokenizers: text to integers and back. They need neither torch nor a plugin, travel as JSON in
run folders and exported files, and are checked against bounds when they are read back."""

from __future__ import annotations

import codecs
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from zoo.config import DEFAULT_VOCAB, MAX_VOCAB, FrozenModel, first_problem
from zoo.errors import TokenizerError, UsageError, ZooWarning

if TYPE_CHECKING:
    from zoo.data.bpe import Encoder

Ids: TypeAlias = npt.NDArray[np.int64]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_CODE_POINTS = 0x110000
BYTES = 256
MAX_TOKEN_BYTES = 128  # of a subword: merges that double could otherwise make one of any length


class CharTokenizer(FrozenModel):
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


class ByteTokenizer(FrozenModel):
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
        return BYTES

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64)

    def unknown(self, text: str) -> str:
        return ""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each character as soon as its last byte has come; bytes that are no UTF-8
        become U+FFFD."""
        return _stream_utf8(bytes([token]) for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.stream(ids))


def _spelling() -> str:
    """A printable character for each byte, as byte-level BPE has it everywhere: that of the same
    number in Latin-1, or where that cannot be seen, the next from U+0100 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    unseen = [byte for byte in range(BYTES) if byte not in seen]
    return "".join(chr(b if b in seen else 0x100 + unseen.index(b)) for b in range(BYTES))


SPELLING = _spelling()
_BYTE_OF = {character: byte for byte, character in enumerate(SPELLING)}


class BPETokenizer(FrozenModel):
    """Subwords by byte pair encoding: nothing is unknown, and every text comes back as it was.

    Tokens 0 to 255 are the bytes of UTF-8. Each of `merges` names two tokens before it, "left
    right", and makes the next token of them; a word of the text is its bytes, in which the earliest
    merge that applies is done first. Bytes are spelled by `SPELLING`, so a space is "Ġ".

    The tokens of a text's beginning need not be those that the whole text begins with: a prompt
    that ends within a word is continued from its own last token.
    """

    kind: Literal["bpe"] = "bpe"
    merges: tuple[Annotated[str, Field(max_length=MAX_TOKEN_BYTES + 1)], ...] = Field(
        max_length=MAX_VOCAB - BYTES
    )

    @field_validator("merges")
    @classmethod
    def _sound(cls, merges: tuple[str, ...]) -> tuple[str, ...]:
        known = set(SPELLING)
        for number, merge in enumerate(merges):
            left, _, right = merge.partition(" ")
            if left not in known or right not in known:
                raise ValueError(f"number {number} is not of two tokens that come before it")
            if left + right in known:
                raise ValueError(f"number {number} makes a token that is there already")
            known.add(left + right)
        return merges

    @classmethod
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> BPETokenizer:
        """The tokenizer that learns from `text`: of `vocab` tokens, or fewer where no pair of
        tokens comes twice any more."""
        from zoo.data.bpe import learn_merges

        pairs = learn_merges(_without_surrogates(text), vocab, MAX_TOKEN_BYTES)
        return cls(merges=tuple(" ".join(pair) for pair in pairs))

    @classmethod
    def normalize(cls, text: str) -> str:
        return text

    @property
    def vocab_size(self) -> int:
        return BYTES + len(self.merges)

    @cached_property
    def tokens(self) -> list[bytes]:
        """The bytes that each token stands for."""
        return [bytes(_BYTE_OF[character] for character in token) for token in self._spelled()]

    def encode(self, text: str) -> Ids:
        return self._encoder.encode(_without_surrogates(text))

    def unknown(self, text: str) -> str:
        return ""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each token, but for the bytes of a character that is not whole yet; bytes
        that are no UTF-8 become U+FFFD."""
        return _stream_utf8(self.tokens[token] for token in ids)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.stream(ids))

    @cached_property
    def _encoder(self) -> Encoder:
        from zoo.data.bpe import Encoder

        vocabulary = {token: number for number, token in enumerate(self._spelled())}
        pairs = [merge.partition(" ") for merge in self.merges]
        return Encoder(vocabulary, [(left, right) for left, _, right in pairs])

    def _spelled(self) -> list[str]:
        return [*SPELLING, *(merge.replace(" ", "") for merge in self.merges)]


Tokenizer: TypeAlias = CharTokenizer | LettersTokenizer | ByteTokenizer | BPETokenizer
TOKENIZERS: dict[str, type[Tokenizer]] = {
    "letters": LettersTokenizer,
    "char": CharTokenizer,
    "byte": ByteTokenizer,
    "bpe": BPETokenizer,
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


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _stream_utf8(parts: Iterable[bytes]) -> Iterator[str]:
    """The characters of UTF-8 that comes in parts, each as soon as it is whole."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        if text := decoder.decode(part):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> Ids:
    """The tokens of a prompt; UsageError if it is empty, one warning if a part is unknown."""
    if not prompt:
        raise UsageError("the prompt is empty; give at least one character to continue from.")
    if unknown := tokenizer.unknown(prompt):
        shown = unknown if len(unknown) <= 10 else unknown[:10] + "…"
        warnings.warn(
            f"the prompt has characters that the model never saw, read as <unk>: {shown!r}",
            ZooWarning,
            stacklevel=3,
        )
    return tokenizer.encode(prompt)
