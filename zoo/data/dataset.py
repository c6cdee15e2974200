"""A corpus as tokens, divided into a training part and a validation part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.config import DEFAULT_VOCAB, DataConfig
from zoo.data.corpora import Corpus, load_corpus
from zoo.data.tokenizers import Ids, Tokenizer, find_tokenizer
from zoo.errors import ContractError, CorpusError, UsageError
from zoo.registry.registry import Registry, load_registry

DECODED = 1000  # tokens that are decoded to see that they have a text


@dataclass(frozen=True)
class Dataset:
    """Training tokens and, after them in the text, validation tokens (perhaps none)."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Ids
    held_out: Ids

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the tokens to train on."""
        return hashlib.sha256(self.train.tobytes()).hexdigest()

    @cached_property
    def train_chars_per_token(self) -> float:
        """Characters of the training text for each of its tokens."""
        return _chars_per_token(self.tokenizer, self.train)

    @cached_property
    def held_out_chars_per_token(self) -> float:
        """Characters of the held-out text for each of its tokens."""
        return _chars_per_token(self.tokenizer, self.held_out)


def read_dataset(
    config: DataConfig, registry: Registry | None = None, known: Tokenizer | None = None
) -> Dataset:
    """Reads the corpus, with at most `max_tokens` tokens, of which the last `held_out` share is
    held out.

    The vocabulary comes from the whole text, which is then cut and divided; but where merges are
    learned, they must not know the held-out text. So such a text is divided first, by its
    characters; the tokenizer learns from all of the training part, each part is encoded on its own,
    and where they have too many tokens, the beginnings of both are used. A `known` tokenizer, that
    of a resumed run, is used unchanged.
    """
    registry = registry or load_registry()
    corpus = load_corpus(config.corpus, registry)
    kind = config.tokenizer or corpus.tokenizer
    tokenizer_type = type(known) if known else find_tokenizer(kind, registry)
    if tokenizer_type.learned:
        return _checked(_learned(corpus, config, tokenizer_type, known), config, registry)
    if config.vocab is not None:
        raise UsageError(
            f"--vocab is for tokenizers that learn, such as bpe; {kind!r} has as many tokens as it "
            f"needs."
        )
    text = tokenizer_type.normalize(corpus.text)
    tokenizer = known or tokenizer_type.from_text(text)
    tokens = tokenizer.encode(text)[: config.max_tokens]
    cut = len(tokens) - round(len(tokens) * config.held_out)
    data = Dataset(corpus, tokenizer, tokens[:cut], tokens[cut:])
    return _checked(data, config, registry)


def _learned(
    corpus: Corpus, config: DataConfig, tokenizer_type: type[Tokenizer], known: Tokenizer | None
) -> Dataset:
    cut = len(corpus.text) - round(len(corpus.text) * config.held_out)
    vocab = config.vocab or DEFAULT_VOCAB
    parts = [tokenizer_type.normalize(part) for part in (corpus.text[:cut], corpus.text[cut:])]
    tokenizer = known or tokenizer_type.from_text(parts[0], vocab)
    train, held_out = (tokenizer.encode(part) for part in parts)
    if config.max_tokens is not None and len(train) + len(held_out) > config.max_tokens:
        held_out = held_out[: round(config.max_tokens * config.held_out)]
        train = train[: config.max_tokens - len(held_out)]
    return Dataset(corpus, tokenizer, train, held_out)


def _checked(data: Dataset, config: DataConfig, registry: Registry) -> Dataset:
    """The dataset; CorpusError for a text that is too short to divide, ContractError for a
    tokenizer that gives something else than its tokens."""
    for part in (data.train, data.held_out):
        _require_tokens(part, data.tokenizer, registry)
    if config.held_out and len(data.held_out) < 2:
        raise CorpusError(
            f"the text is too short to hold out {config.held_out:.0%} of its "
            f"{len(data.train) + len(data.held_out)} tokens; use --held-out 0 or a longer text."
        )
    return data


def _require_tokens(tokens: Ids, tokenizer: Tokenizer, registry: Registry) -> None:
    called = registry.tokenizers.describe(tokenizer.kind)
    if not isinstance(tokens, np.ndarray) or tokens.dtype != np.int64 or tokens.ndim != 1:
        given = type(tokens).__name__
        if isinstance(tokens, np.ndarray):
            given = f"an array {list(tokens.shape)} of {tokens.dtype}"
        raise ContractError(f"{called}: encode gives {given}; it should give one [T] of int64.")
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocab_size:
        raise ContractError(
            f"{called}: encode gives tokens from {tokens.min()} to {tokens.max()}; with its "
            f"vocab_size of {tokenizer.vocab_size} they should be 0 to {tokenizer.vocab_size - 1}."
        )
    if len(tokens) and not tokenizer.decode(tokens[:DECODED].tolist()):
        raise ContractError(f"{called}: decode gives an empty text for tokens of its own.")


def _chars_per_token(tokenizer: Tokenizer, tokens: Ids) -> float:
    return len(tokenizer.decode(tokens.tolist())) / len(tokens)
