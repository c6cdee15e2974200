"""What a tokenizer is: text to integers and back. It needs no torch, is stored as JSON in runs and
in exported files, and is checked against bounds when it is read back. Plugins bring theirs through
the hook `zoo_tokenizers`."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points, packages_distributions
from inspect import getattr_static
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import (
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from zoo.config import DEFAULT_VOCAB
from zoo.data.cutting import Flow
from zoo.data.decoding import ReplayingDecoder, TextDecoder
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
from zoo.validation import FrozenModel, first_problem

Ids: TypeAlias = npt.NDArray[np.int64]

PACKAGE = "package"  # the key of a description that names what a plugin's tokenizer needs
MAX_NAME = 100  # of a description's words that are shown
AGAIN = "write it again with `zoo train` or `zoo export`"


class Tokenizer(FrozenModel):
    """The base class of tokenizers: a frozen pydantic model. Its fields are its whole content; the
    first, `kind`, is the name that it is registered under. Subclasses write `from_text`,
    `vocab_size`, `encode` and `stream`, and override what else differs.

    `learned` is True for one whose vocabulary is learned: it then sees the training text only, and
    `from_text` gets the largest vocabulary that is wanted.

    `border` is a regular expression for the places where a text can be cut, so that its parts,
    normalized and encoded apart, have the tokens of the whole; a long text is then never in memory.
    Without it, each text is encoded at once. `ends_documents` is True for a tokenizer whose last
    token, if its `documents` is True, is the end of a text; its `vocab_size` counts that token, and
    its `stream` gives nothing for it.
    """

    learned: ClassVar[bool] = False
    border: ClassVar[re.Pattern[str] | None] = None
    ends_documents: ClassVar[bool] = False
    UNWRITTEN: ClassVar[Mapping[str, Any]] = {"documents": False}  # in descriptions

    kind: str
    documents: bool = False

    @classmethod
    def from_text(cls, text: str, vocab: int = DEFAULT_VOCAB) -> Self:
        """The tokenizer for a text, with a vocabulary of at most `vocab` tokens if it is `learned`;
        others have as many tokens as they need. `text` is normalized."""
        raise NotImplementedError

    @classmethod
    def from_pieces(cls, pieces: Iterable[str], vocab: int = DEFAULT_VOCAB) -> Self:
        """`from_text` of a text that comes in pieces, which are not normalized."""
        return cls.from_text("".join(map(cls.normalize, pieces)), vocab)

    @classmethod
    def normalize(cls, text: str) -> str:
        """A corpus as this tokenizer sees it."""
        return text

    @classmethod
    def simplified(cls, flow: Flow) -> Flow:
        """A corpus without what `normalize` would change anyway, where a text may have no border
        for so long that it is cut elsewhere and `normalize` would then see only a part."""
        return flow

    @property
    def vocab_size(self) -> int:
        """The number of tokens, which are 0 to vocab_size - 1."""
        raise NotImplementedError

    def encode(self, text: str) -> Ids:
        """The tokens of `text`, an array of int64."""
        raise NotImplementedError

    def encode_all(self, pieces: Sequence[str]) -> Iterable[Ids]:
        """The tokens of each piece."""
        return map(self.encode, pieces)

    @property
    def end_of_text(self) -> int | None:
        """The token at the end of each document; None where documents have none."""
        return self.vocab_size - 1 if self.documents else None

    @property
    def unknown_token(self) -> int | None:
        """The token of characters that have none of their own; None without one."""
        return None

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes in UTF-8 that a token stands for, which may be a part of a character; None for
        one without a text, and for tokenizers that do not say it."""
        return None

    def unknown(self, text: str) -> str:
        """The distinct characters of `text` that no token stands for, in order of appearance."""
        return ""

    def extended(self, characters: str) -> Self:
        """A tokenizer that has these characters too, whose other tokens are the same; only the end
        of a text is always the last. UsageError for one that cannot be extended."""
        raise UsageError(f"the vocabulary of a {self.kind!r} tokenizer cannot be extended.")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of the tokens, piece by piece as they come."""
        raise NotImplementedError

    def decoder(self) -> TextDecoder:
        """For a text whose tokens come a few at a time."""
        return ReplayingDecoder(self.stream)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens."""
        return "".join(self.stream(ids))

    def changed(self, **changes: Any) -> Self:
        """One with these fields changed; what is cached on this one does not go over."""
        return type(self)(
            **{name: getattr(self, name) for name in type(self).model_fields} | changes
        )

    def __eq__(self, other: object) -> bool:
        """By the fields alone: what is cached may be arrays, which have no truth value."""
        fields = type(self).model_fields
        return type(self) is type(other) and all(
            getattr(self, name) == getattr(other, name) for name in fields
        )

    @model_serializer(mode="wrap")
    def _with_package(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields, but for those that have their default, and for a plugin's tokenizer the
        package that it needs."""
        content: dict[str, Any] = handler(self)
        for name, default in self.UNWRITTEN.items():
            if content[name] == default:
                del content[name]
        package = _package_of(type(self))
        return {**content, PACKAGE: package} if package else content

    @model_validator(mode="after")
    def _can_end_documents(self) -> Self:
        if self.documents and not self.ends_documents:
            raise ValueError(f"{self.kind!r} has no token for the end of a document")
        return self


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
