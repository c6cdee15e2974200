"""Tokenizers: text to integers and back. They need no torch, are stored as JSON in run folders and
exported files, and are checked against bounds when they are read back. The zoo's own stand here;
plugins bring theirs through the hook `zoo_tokenizers`."""

from __future__ import annotations

import codecs
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.metadata import entry_points, packages_distributions
from inspect import getattr_static
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from zoo.config import DEFAULT_VOCAB, MAX_VOCAB, FrozenModel, first_problem
from zoo.errors import (
    ContractError,
    TokenizerError,
    UsageError,
    ZooWarning,
    near_names,
    one_line,
)
from zoo.registry.locations import defined_at
from zoo.registry.registry import Registry

if TYPE_CHECKING:
    from zoo.data.bpe import Encoder

Ids: TypeAlias = npt.NDArray[np.int64]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
PACKAGE = "package"  # the key of a description that names what a plugin's tokenizer needs
MAX_NAME = 100  # of a description's words that are shown
MAX_CODE_POINTS = 0x110000
AGAIN = "write it again with `zoo train` or `zoo export`"
BYTES = 256
MAX_TOKEN_BYTES = 128  # of a subword: merges that double could otherwise make one of any length


class Tokenizer(FrozenModel):
    """The base class of tokenizers: a frozen pydantic model. Its fields are its whole content; the
    first, `kind`, is the name that it is registered under. Subclasses write `from_text`,
    `vocab_size`, `encode` and `stream`, and override what else differs.

    `learned` is True for one whose vocabulary is learned: it then sees the training text only, and
    `from_text` gets the largest vocabulary that is wanted.
    """

    learned: ClassVar[bool] = False

    kind: str

    @classmethod
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        """The tokenizer for a text, with a vocabulary of at most `vocab` tokens if it is `learned`;
        others have as many tokens as they need. `text` is normalized."""
        raise NotImplementedError

    @classmethod
    def normalize(cls, text: str) -> str:
        """A corpus as this tokenizer sees it."""
        return text

    @property
    def vocab_size(self) -> int:
        """The number of tokens, which are 0 to vocab_size - 1."""
        raise NotImplementedError

    def encode(self, text: str) -> Ids:
        """The tokens of `text`, an array of int64."""
        raise NotImplementedError

    def unknown(self, text: str) -> str:
        """The distinct characters of `text` that no token stands for, in order of appearance."""
        return ""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of the tokens, piece by piece as they come."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens."""
        return "".join(self.stream(ids))

    @model_serializer(mode="wrap")
    def _with_package(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields, and for a plugin's tokenizer the package that it needs."""
        content: dict[str, Any] = handler(self)
        package = _package_of(type(self))
        return {**content, PACKAGE: package} if package else content


class CharTokenizer(Tokenizer):
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
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        """The tokenizer whose vocabulary is that of `text`."""
        counts = Counter(cls.normalize(text))
        by_frequency = sorted(counts, key=counts.__getitem__, reverse=True)
        return cls(characters="".join(by_frequency))

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


class LettersTokenizer(CharTokenizer):
    """The characters a to z and space: a corpus is put in lower case, and each run of anything else
    becomes one space. A text to encode is put in lower case only."""

    kind: Literal["letters"] = "letters"  # type: ignore[assignment]

    @classmethod
    def normalize(cls, text: str) -> str:
        return re.sub("[^a-z]+", " ", text.lower())

    def encode(self, text: str) -> Ids:
        return super().encode(text.lower())


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8: nothing is unknown."""

    kind: Literal["byte"] = "byte"

    @classmethod
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        return cls()

    @property
    def vocab_size(self) -> int:
        return BYTES

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each character as soon as its last byte has come; bytes that are no UTF-8
        become U+FFFD."""
        return _stream_utf8(bytes([token]) for token in ids)


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
    merge that applies is done first. Bytes are spelled by `SPELLING`, so a space is "Ġ".

    The tokens of a text's beginning need not be those that the whole text begins with: a prompt
    that ends within a word is continued from its own last token.
    """

    learned: ClassVar[bool] = True

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
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        """The tokenizer that learns from `text`: of `vocab` tokens, or fewer where no pair of
        tokens comes twice any more. UsageError for fewer tokens than there are bytes, and one."""
        from zoo.data.bpe import learn_merges

        if vocab <= BYTES:
            raise UsageError(f"vocab: bpe needs at least {BYTES + 1} tokens (got {vocab}).")
        pairs = learn_merges(_without_surrogates(text), vocab, MAX_TOKEN_BYTES)
        return cls(merges=tuple(" ".join(pair) for pair in pairs))

    @property
    def vocab_size(self) -> int:
        return BYTES + len(self.merges)

    @cached_property
    def tokens(self) -> list[bytes]:
        """The bytes that each token stands for."""
        return [bytes(_BYTE_OF[character] for character in token) for token in self._spelled()]

    def encode(self, text: str) -> Ids:
        return self._encoder.encode(_without_surrogates(text))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each token, but for the bytes of a character that is not whole yet; bytes
        that are no UTF-8 become U+FFFD."""
        return _stream_utf8(self.tokens[token] for token in ids)

    @cached_property
    def _encoder(self) -> Encoder:
        from zoo.data.bpe import Encoder

        vocabulary = {token: number for number, token in enumerate(self._spelled())}
        pairs = [merge.partition(" ") for merge in self.merges]
        return Encoder(vocabulary, [(left, right) for left, _, right in pairs])

    def _spelled(self) -> list[str]:
        return [*SPELLING, *(merge.replace(" ", "") for merge in self.merges)]


def read_tokenizer(description: str | bytes, registry: Registry) -> Tokenizer:
    """The tokenizer that `description` (JSON) describes. TokenizerError if it is damaged, or of a
    kind that no installed plugin supplies; the message names the package that does."""
    try:
        content = json.loads(description)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"the tokenizer is damaged: {one_line(error)}; {AGAIN}.") from None
    return parse_tokenizer(content, registry)


def parse_tokenizer(content: Any, registry: Registry) -> Tokenizer:
    """`read_tokenizer` of JSON that has been parsed."""
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise TokenizerError(f"the tokenizer is damaged: it has no field 'kind'; {AGAIN}.")
    fields = {name: value for name, value in content.items() if name != PACKAGE}
    kind, package = content["kind"][:MAX_NAME], str(content.get(PACKAGE, ""))[:MAX_NAME]
    if kind not in registry.tokenizers:
        near = near_names(kind, registry.tokenizers)
        hint = f"install the package {package!r}" if package else f"did you mean {near}?"
        if not (package or near):
            hint = "install the package that supplies it"
        raise TokenizerError(f"the tokenizer {kind!r} is not installed; {hint}.")
    try:
        tokenizer: Tokenizer = find_tokenizer(kind, registry).model_validate(fields)
    except ValidationError as error:
        problem = first_problem(error)
        raise TokenizerError(f"the tokenizer is damaged: {problem}; {AGAIN}.") from None
    return tokenizer


def find_tokenizer(name: str, registry: Registry) -> type[Tokenizer]:
    """The class registered as `name`. UnknownNameError if there is none, ContractError for one that
    is no tokenizer, lacks a method, or is of another kind."""
    spec = registry.tokenizers[name]
    found, called = spec.load_factory(), registry.tokenizers.describe(name)
    if not (isinstance(found, type) and issubclass(found, Tokenizer)):
        raise ContractError(f"{called}: {spec.factory} is no subclass of zoo.data.Tokenizer.")
    for method in ("from_text", "vocab_size", "encode", "stream"):
        if getattr_static(found, method) is getattr_static(Tokenizer, method):
            raise ContractError(
                f"{called} has no {method}; it should define it. See {defined_at(found)}."
            )
    if (kind := found.model_fields["kind"].default) != name:
        raise ContractError(
            f"{called}: {found.__name__} has kind {kind!r}; its kind should be the name that it is "
            f"registered under. See {defined_at(found)}."
        )
    return found


def _package_of(tokenizer: type[Tokenizer]) -> str:
    """The installed package that the class is from; empty for the zoo's own, and for a class that
    no package has."""
    top = tokenizer.__module__.partition(".")[0]
    if top == "zoo":
        return ""
    for point in entry_points(group="zoo"):  # an editable install is known by nothing else
        if point.module.partition(".")[0] == top and point.dist is not None:
            return point.dist.name
    return packages_distributions().get(top, [""])[0]


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
