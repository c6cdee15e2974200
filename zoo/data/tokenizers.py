"""The zoo's own tokenizers."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    Field,
    field_validator,
)

from zoo.config import DEFAULT_VOCAB, MAX_VOCAB
from zoo.data.cutting import END, Flow, cut, texts
from zoo.data.decoding import PlainDecoder, TextDecoder, UTF8Decoder
from zoo.data.tokenizer import Ids, Tokenizer
from zoo.errors import (
    UsageError,
)

if TYPE_CHECKING:
    from zoo.data.bpe import Encoder

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_CODE_POINTS = 0x110000
BYTES = 256
MAX_TOKEN_BYTES = 128  # of a subword: merges that double could otherwise make one of any length


class CharTokenizer(Tokenizer):
    """A token for each character of the text that it was made from.

    Token 0 is `<unk>`, for every other character; `characters` are the tokens from 1 on, in order
    of falling frequency, equally frequent ones in order of first appearance.
    """

    UNKNOWN: ClassVar[int] = 0
    border: ClassVar[re.Pattern[str] | None] = re.compile("")
    ends_documents: ClassVar[bool] = True

    kind: Literal["char"] = "char"
    characters: str = Field(min_length=1, max_length=MAX_CODE_POINTS)

    @field_validator("characters")
    @classmethod
    def _distinct(cls, characters: str) -> str:
        if len(set(characters)) != len(characters):
            raise ValueError("a character stands twice in the vocabulary")
        return characters

    @classmethod
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        """The tokenizer whose vocabulary is that of `text`."""
        return cls.from_pieces([text])

    @classmethod
    def from_pieces(cls, pieces: Iterable[str], vocab: int = DEFAULT_VOCAB) -> Self:
        counts: dict[int, int] = {}  # in order of first appearance
        for piece in pieces:
            text = cls.normalize(piece)
            points, found = np.unique(_code_points(text), return_counts=True)
            new = [point for point in points.tolist() if point not in counts]
            counts |= dict.fromkeys(sorted(new, key=lambda point: text.index(chr(point))), 0)
            for point, count in zip(points.tolist(), found.tolist(), strict=True):
                counts[point] += count
        by_frequency = sorted(counts, key=counts.__getitem__, reverse=True)
        return cls(characters="".join(map(chr, by_frequency)))

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.characters) + self.documents

    @property
    def unknown_token(self) -> int | None:
        return self.UNKNOWN

    def bytes_of(self, token: int) -> bytes | None:
        known = 0 < token <= len(self.characters)
        return self.characters[token - 1].encode("utf-8", "surrogatepass") if known else None

    def encode(self, text: str) -> Ids:
        """Tokens of `text`, one a character."""
        return self._table.take(_code_points(text), mode="clip")

    @cached_property
    def _table(self) -> Ids:
        """The token of each code point; the last entry is for those beyond."""
        known = _code_points(self.characters)
        table = np.full(int(known.max()) + 2, self.UNKNOWN)
        table[known] = np.arange(1, len(known) + 1)
        return table

    def unknown(self, text: str) -> str:
        """The distinct characters of `text` that become `<unk>`, in order of appearance."""
        characters = dict.fromkeys(text)
        return "".join(c for c in characters if self.encode(c)[0] == self.UNKNOWN)

    def extended(self, characters: str) -> Self:
        return self.changed(characters=self.characters + characters)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each token as it comes; `<unk>` is U+FFFD."""
        for token in ids:
            if token != self.end_of_text:
                yield REPLACEMENT if token == self.UNKNOWN else self.characters[token - 1]

    def decoder(self) -> TextDecoder:
        return PlainDecoder(self.stream)


class LettersTokenizer(CharTokenizer):
    """The characters a to z and space: a corpus is put in lower case, and each run of anything else
    becomes one space. A text to encode is put in lower case only."""

    border: ClassVar[re.Pattern[str] | None] = re.compile("(?<=[A-Za-z])[^A-Za-z]")

    kind: Literal["letters"] = "letters"  # type: ignore[assignment]

    @classmethod
    def normalize(cls, text: str) -> str:
        return re.sub("[^a-z]+", " ", text.lower())

    @classmethod
    def simplified(cls, flow: Flow) -> Flow:
        """Normalized, so that a run of anything else is one space, however long it is."""
        spaced = False
        for piece in flow:
            if piece is END:
                spaced = False
                yield END
            elif text := cls.normalize(piece):
                if kept := text[spaced and text[0] == " " :]:
                    yield kept
                spaced = text[-1] == " "

    def encode(self, text: str) -> Ids:
        return super().encode(text.lower())


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8: nothing is unknown."""

    border: ClassVar[re.Pattern[str] | None] = re.compile("")
    ends_documents: ClassVar[bool] = True

    kind: Literal["byte"] = "byte"

    @classmethod
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        return cls()

    @classmethod
    def from_pieces(cls, pieces: Iterable[str], vocab: int = DEFAULT_VOCAB) -> Self:
        return cls()

    @property
    def vocab_size(self) -> int:
        return BYTES + self.documents

    def bytes_of(self, token: int) -> bytes | None:
        return bytes([token]) if token < BYTES else None

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each character as soon as its last byte has come; bytes that are no UTF-8
        become U+FFFD."""
        return _stream_utf8(bytes([token]) for token in ids if token < BYTES)

    def decoder(self) -> TextDecoder:
        return UTF8Decoder(lambda token: bytes([token]) if token < BYTES else b"")


def _spelling() -> str:
    """A printable character for each byte, as byte-level BPE has it everywhere: that of the same
    number in Latin-1, or where that cannot be seen, the next from U+0100 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    unseen = [byte for byte in range(BYTES) if byte not in seen]
    return "".join(chr(b if b in seen else 0x100 + unseen.index(b)) for b in range(BYTES))


SPELLING = _spelling()
_BYTE_OF = {character: byte for byte, character in enumerate(SPELLING)}


class BPETokenizer(Tokenizer):
    """Subwords by byte pair encoding: nothing is unknown, and every text comes back as it was.

    Tokens 0 to 255 are the bytes of UTF-8. Each of `merges` names two tokens before it, "left
    right", and makes the next token of them; a word of the text is its bytes, in which the earliest
    merge that applies is done first. Bytes are spelled by `SPELLING`, so a space is "Ġ". `words`
    says what a word is: "bounded" ones have at most 32 characters (see `zoo.data.bpe`), "unbounded"
    ones are those of GPT-2.

    The tokens of a text's beginning need not be those that the whole text begins with: a prompt
    that ends within a word is continued from its own last token.
    """

    learned: ClassVar[bool] = True
    # a word may begin with whitespace, and none continues with it after anything else; the four
    # separators of ASCII are whitespace for Python alone
    border: ClassVar[re.Pattern[str] | None] = re.compile(r"(?<=[\S\x1c-\x1f])[^\S\x1c-\x1f]")
    ends_documents: ClassVar[bool] = True
    UNWRITTEN: ClassVar[Mapping[str, Any]] = {**Tokenizer.UNWRITTEN, "words": "unbounded"}

    kind: Literal["bpe"] = "bpe"
    merges: tuple[Annotated[str, Field(max_length=MAX_TOKEN_BYTES + 1)], ...] = Field(
        max_length=MAX_VOCAB - BYTES
    )
    words: Literal["unbounded", "bounded"] = "unbounded"

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
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        """The tokenizer that learns from `text`: of `vocab` tokens, or fewer where no pair of
        tokens comes twice any more. UsageError for fewer tokens than there are bytes, and one."""
        return cls.from_pieces(texts(cut([text], cls.border)), vocab)

    @classmethod
    def from_pieces(cls, pieces: Iterable[str], vocab: int = DEFAULT_VOCAB) -> Self:
        from zoo.data.bpe import learn_merges

        if vocab <= BYTES:
            raise UsageError(f"vocab: bpe needs at least {BYTES + 1} tokens (got {vocab}).")
        pairs = learn_merges(map(_without_surrogates, pieces), vocab, MAX_TOKEN_BYTES)
        return cls(merges=tuple(" ".join(pair) for pair in pairs), words="bounded")

    @property
    def vocab_size(self) -> int:
        return BYTES + len(self.merges) + self.documents

    @cached_property
    def tokens(self) -> list[bytes]:
        """The bytes that each token stands for; none for the end of a text."""
        spelled = [*self._spelled(), *([""] if self.documents else [])]
        return [bytes(_BYTE_OF[character] for character in token) for token in spelled]

    def bytes_of(self, token: int) -> bytes | None:
        return self.tokens[token] or None

    def encode(self, text: str) -> Ids:
        encoded = self.encode_all(list(texts(cut([text], self.border))))
        return np.concatenate([np.empty(0, np.int64), *encoded])

    def encode_all(self, pieces: Sequence[str]) -> Iterable[Ids]:
        return self._encoder.encode_all([_without_surrogates(piece) for piece in pieces])

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each token, but for the bytes of a character that is not whole yet; bytes
        that are no UTF-8 become U+FFFD."""
        return _stream_utf8(self.tokens[token] for token in ids)

    def decoder(self) -> TextDecoder:
        return UTF8Decoder(self.tokens.__getitem__)

    @cached_property
    def _encoder(self) -> Encoder:
        from zoo.data.bpe import Encoder

        vocabulary = {token: number for number, token in enumerate(self._spelled())}
        pairs = [merge.partition(" ") for merge in self.merges]
        merges = [(left, right) for left, _, right in pairs]
        return Encoder(vocabulary, merges, bounded=self.words == "bounded")

    def _spelled(self) -> list[str]:
        return [*SPELLING, *(merge.replace(" ", "") for merge in self.merges)]


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
