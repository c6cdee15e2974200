"""A corpus as tokens, divided into a training part and a validation part."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import ValidationError

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
from zoo.validation import FrozenModel

CACHED_TOKENS, CACHED_TOKENIZERS = "tokens", "tokenizers"  # folders of the cache
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
    config: DataConfig, registry: Registry | None = None, known: Tokenizer | None = None
) -> Dataset:
    """Reads the corpus, with at most `max_tokens` tokens, of which the last `held_out` share is
    held out. It is encoded once; from then on its tokens are found in the cache.

    The vocabulary comes from the whole text, which is then cut and divided; but where merges are
    learned, they must not know the held-out text. So such a text is divided first, by its
    characters; the tokenizer learns from the training part, each part is encoded on its own,
    and where they have too many tokens, the beginnings of both are used. A `known` tokenizer, that
    of a resumed run, is used unchanged.
    """
    began = time.monotonic()
    registry = registry or load_registry()
    corpus = load_corpus(config.corpus, registry, reading_of(config))
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
    prepared = _prepare(corpus, config, tokenizer_type, registry)
    tokenizer = known or parse_tokenizer(prepared.tokenizer, registry)
    encoded = encode_corpus(corpus, tokenizer, registry, prepared.train_characters)
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
    return Reading(glob=config.glob, field=config.field, encoding=config.encoding)


def unknown_characters(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """The distinct characters of a corpus that no token stands for, in order of appearance."""
    seen: dict[str, None] = {}
    for piece in texts(cut(corpus.flow(tokenizer.documents), tokenizer.border)):
        text = tokenizer.normalize(piece)
        seen |= dict.fromkeys(sorted(set(text) - seen.keys(), key=text.index))
    return tokenizer.unknown("".join(seen))


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


class Prepared(FrozenModel):
    """What is known of a corpus before it is encoded: its tokenizer as JSON and, where that must
    not know the held-out text, how many characters it was made from."""

    tokenizer: dict[str, Any]
    train_characters: int | None


def _prepare(
    corpus: Corpus, config: DataConfig, tokenizer_type: type[Tokenizer], registry: Registry
) -> Prepared:
    """From the cache, or by reading the text."""
    if (identity := corpus.source.identity) is None:
        return _learn(corpus, config, tokenizer_type)
    chosen: list[Any] = [config.documents]
    if tokenizer_type.learned:
        chosen += [config.vocab, config.bpe_sample, config.held_out]
    kind = tokenizer_type.model_fields["kind"].default
    path = cache_folder() / CACHED_TOKENIZERS / f"{key_of(identity, kind, chosen)}.json"
    with suppress(OSError, ValidationError, TokenizerError):
        prepared = Prepared.model_validate_json(path.read_bytes())
        parse_tokenizer(prepared.tokenizer, registry)
        return prepared
    prepared = _learn(corpus, config, tokenizer_type)
    with suppress(OSError, RunError):  # it is then found anew each time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, prepared.model_dump_json().encode())
    return prepared


def _learn(corpus: Corpus, config: DataConfig, tokenizer_type: type[Tokenizer]) -> Prepared:
    if tokenizer_type.learned:
        characters = size = 0
        for piece in texts(corpus.flow(config.documents)):
            characters += len(piece)
            size += len(piece.encode("utf-8", "replace"))
        train_characters = characters - round(characters * config.held_out)
        flow, _ = divided(corpus.flow(config.documents), train_characters)
        every = math.ceil(size * (1 - config.held_out) / config.bpe_sample) or 1
        pieces: Iterator[str] = islice(texts(cut(flow, tokenizer_type.border)), 0, None, every)
    else:
        train_characters = None
        pieces = texts(cut(corpus.flow(config.documents), tokenizer_type.border))
    tokenizer = tokenizer_type.from_pieces(pieces, config.vocab or DEFAULT_VOCAB)
    if config.documents:
        tokenizer = tokenizer.changed(documents=True)
    return Prepared(tokenizer=tokenizer.model_dump(mode="json"), train_characters=train_characters)


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
