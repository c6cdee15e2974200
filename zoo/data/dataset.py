"""A corpus as tokens, divided into a training part and a validation part."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from pydantic import NonNegativeInt, TypeAdapter

from zoo.config import DEFAULT_VOCAB, DataConfig
from zoo.data.corpora import Corpus, cache_folder, load_corpus
from zoo.data.cutting import Flow, cut, divided, texts
from zoo.data.sources import Reading
from zoo.data.token_store import EncodedText, Tokens, encode, key_of
from zoo.data.tokenizer import Tokenizer, find_tokenizer, parse_tokenizer
from zoo.errors import (
    ContractError,
    CorpusError,
    RunError,
    TokenizerError,
    UsageError,
)
from zoo.files import write_atomically
from zoo.registry.registry import Registry, load_registry

CACHED_TOKENS, CACHED_FACTS = "tokens", "texts"  # folders of the cache
Known = TypeVar("Known")
EXTENT = TypeAdapter(tuple[NonNegativeInt, NonNegativeInt])
DECODED = 1000  # tokens that are decoded to see that they have a text


@dataclass(frozen=True)
class Dataset:
    """Training tokens and, after them in the text, validation tokens (perhaps none): arrays that
    are mapped from a file. `fingerprint` is of the tokens to train on and of what they mean,
    `text_bytes` the size of the whole text in UTF-8, and `seconds` how long reading and encoding
    took."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Tokens
    held_out: Tokens
    fingerprint: str = ""
    train_chars_per_token: float = 1.0
    held_out_chars_per_token: float = 1.0
    text_bytes: int = 0
    seconds: float = field(default=0.0, compare=False)


def read_dataset(
    config: DataConfig,
    registry: Registry | None = None,
    known: Tokenizer | Callable[[Corpus], Tokenizer] | None = None,
) -> Dataset:
    """Reads the corpus, with at most `max_tokens` tokens, of which the last `held_out` share is
    held out. It is encoded once; from then on its tokens are found in the cache.

    The vocabulary comes from the whole text, which is then cut and divided; but where merges are
    learned, they must not know the held-out text. So such a text is divided first, by its
    characters; the tokenizer learns from the training part, each part is encoded on its own,
    and where they have too many tokens, the beginnings of both are used. A `known` tokenizer, that
    of a resumed run, or one that is chosen for the corpus, is used unchanged.
    """
    began = time.monotonic()
    registry = registry or load_registry()
    corpus = load_corpus(config.corpus, registry, reading_of(config))
    if callable(known):
        known = known(corpus)
    kind = config.tokenizer or corpus.tokenizer
    tokenizer_type = type(known) if known else find_tokenizer(kind, registry)
    if config.vocab is not None and not tokenizer_type.learned:
        raise UsageError(
            f"--vocab is for tokenizers that learn, such as bpe; {kind!r} has as many tokens as it "
            f"needs."
        )
    if config.documents and not tokenizer_type.ends_documents:
        raise UsageError(
            f"--documents needs a token for the end of a document, and {kind!r} has none."
        )
    train_characters = None
    if tokenizer_type.learned:
        characters, _ = _extent(corpus, config)
        train_characters = characters - round(characters * config.held_out)
    tokenizer = known or _tokenizer_of(corpus, config, tokenizer_type, train_characters, registry)
    encoded = encode_corpus(corpus, tokenizer, registry, train_characters)
    train, held_out = _divide(encoded, config)
    _require_text(encoded, config, train, held_out, registry)
    return Dataset(
        corpus=corpus,
        tokenizer=tokenizer,
        train=encoded.tokens[train],
        held_out=encoded.tokens[held_out],
        fingerprint=_fingerprint(encoded, train),
        train_chars_per_token=_ratio(encoded, train),
        held_out_chars_per_token=_ratio(encoded, held_out),
        text_bytes=encoded.description.text_bytes,
        seconds=time.monotonic() - began,
    )


def reading_of(config: DataConfig) -> Reading:
    """How the text is read, with those fields set that were given. The settings of a run have all
    fields set; of those, the ones with another value than the default were given."""
    saved = config.model_fields_set == DataConfig.model_fields.keys()
    default = Reading().model_dump()
    values = {name: getattr(config, name) for name in default.keys() & config.model_fields_set}
    return Reading(**{k: v for k, v in values.items() if not saved or v != default[k]})


def unknown_characters(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """The distinct characters of a corpus that no token stands for, in order of appearance."""

    def find() -> str:
        seen: dict[str, None] = {}
        for piece in texts(cut(corpus.flow(tokenizer.documents), tokenizer.border)):
            text = tokenizer.normalize(piece)
            seen |= dict.fromkeys(sorted(set(text) - seen.keys(), key=text.index))
        return tokenizer.unknown("".join(seen))

    asked = ["unknown", tokenizer.model_dump_json()]
    return _remembered(corpus, asked, find, TypeAdapter(str).validate_python)


def encode_corpus(
    corpus: Corpus, tokenizer: Tokenizer, registry: Registry, train_characters: int | None = None
) -> EncodedText:
    """The tokens of a corpus, from the cache where they are there; in two parts that are encoded
    apart, if the first is to have `train_characters`."""
    cache, identity = cache_folder() / CACHED_TOKENS, corpus.source.identity
    described = tokenizer.model_dump_json()

    def read() -> tuple[Flow, ...]:
        flow = corpus.flow(tokenizer.documents)
        return (flow,) if train_characters is None else divided(flow, train_characters)

    key = None if identity is None else key_of(identity, described, train_characters)
    return encode(read, tokenizer, registry, key, cache)


def _extent(corpus: Corpus, config: DataConfig) -> tuple[int, int]:
    """How many characters the text has, and how many bytes in UTF-8."""

    def find() -> list[int]:
        characters = size = 0
        for piece in texts(corpus.flow(config.documents)):
            characters += len(piece)
            size += len(piece.encode("utf-8", "replace"))
        return [characters, size]

    asked = ["extent", config.documents]
    return _remembered(corpus, asked, find, EXTENT.validate_python)


def _tokenizer_of(
    corpus: Corpus,
    config: DataConfig,
    kind: type[Tokenizer],
    train_characters: int | None,
    registry: Registry,
) -> Tokenizer:
    """The tokenizer of that class for the corpus; a learned one knows the training part alone, or,
    where that is large, a sample of it."""
    asked: list[Any] = ["tokenizer", kind.model_fields["kind"].default, config.documents]
    if kind.learned:
        asked += [config.vocab, config.bpe_sample, config.held_out]

    def find() -> dict[str, Any]:
        flow, every = corpus.flow(config.documents), 1
        if train_characters is not None:
            _, size = _extent(corpus, config)
            every = math.ceil(size * (1 - config.held_out) / config.bpe_sample) or 1
            flow, _ = divided(flow, train_characters)
        pieces = islice(texts(cut(kind.simplified(flow), kind.border)), 0, None, every)
        tokenizer = kind.from_pieces(pieces, config.vocab or DEFAULT_VOCAB)
        if config.documents:
            tokenizer = tokenizer.changed(documents=True)
        return tokenizer.model_dump(mode="json")

    return _remembered(corpus, asked, find, lambda found: parse_tokenizer(found, registry))


def _remembered(
    corpus: Corpus, asked: list[Any], find: Callable[[], Any], parse: Callable[[Any], Known]
) -> Known:
    """What `find` says, as JSON, about the text of a corpus, parsed: from the cache if the same was
    `asked` of the same text before."""
    if (identity := corpus.source.identity) is None:
        return parse(find())
    what, *rest = asked
    path = cache_folder() / CACHED_FACTS / f"{key_of(identity, what, rest)}.json"
    with suppress(OSError, ValueError, RecursionError, TokenizerError):
        return parse(json.loads(path.read_bytes()))
    found = find()
    with suppress(OSError, RunError):  # it is then found anew each time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found).encode())
    return parse(found)


def _divide(encoded: EncodedText, config: DataConfig) -> tuple[slice, slice]:
    """The tokens to train on and those that are held out."""
    parts, most = encoded.description.parts, config.max_tokens
    if len(parts) == 1:
        count = min(parts[0], most or parts[0])
        cut = count - round(count * config.held_out)
        return slice(0, cut), slice(cut, count)
    train, held_out = parts
    if most is not None and train + held_out > most:
        held_out = min(held_out, round(most * config.held_out))
        train = min(train, most - held_out)
    return slice(0, train), slice(parts[0], parts[0] + held_out)


def _require_text(
    encoded: EncodedText, config: DataConfig, train: slice, held_out: slice, registry: Registry
) -> None:
    """CorpusError for a text that is too short to divide, ContractError for a tokenizer whose
    tokens have no text."""
    for part in (train, held_out):
        some = encoded.tokens[part][:DECODED].tolist()
        if some and not encoded.tokenizer.decode(some):
            called = registry.tokenizers.describe(encoded.tokenizer.kind)
            raise ContractError(f"{called}: decode gives an empty text for tokens of its own.")
    kept = held_out.stop - held_out.start
    if config.held_out and kept < 2:
        raise CorpusError(
            f"the text is too short to hold out {config.held_out:.0%} of its "
            f"{train.stop + kept} tokens; use --held-out 0 or a longer text."
        )


def _fingerprint(encoded: EncodedText, train: slice) -> str:
    text, tokenizer = encoded.description, encoded.tokenizer.model_dump(mode="json")
    described = [text.sha256, text.parts[0], train.stop, tokenizer]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _ratio(encoded: EncodedText, part: slice) -> float:
    """Characters of the text for each of its tokens."""
    return encoded.characters_of(part) / max(1, int(part.stop - part.start))
