"""A corpus read with a tokenizer, and divided into a part to train on and a part to test on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from zoo.config import DataConfig
from zoo.corpora import Corpus, load_corpus
from zoo.errors import CorpusError, UnknownNameError
from zoo.registry import Registry
from zoo.tokenizers import TOKENIZERS, Ids, Tokenizer


@dataclass(frozen=True)
class Dataset:
    """Tokens to train on and, after them in the text, tokens kept for testing (perhaps none)."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Ids
    held_out: Ids

    @cached_property
    def train_chars_per_token(self) -> float:
        """Characters of the training text for each of its tokens."""
        return len(self.tokenizer.decode(self.train.tolist())) / len(self.train)

    @cached_property
    def held_out_chars_per_token(self) -> float:
        """Characters of the held-out text for each of its tokens."""
        return len(self.tokenizer.decode(self.held_out.tolist())) / len(self.held_out)


def read_dataset(config: DataConfig, registry: Registry | None = None) -> Dataset:
    """Reads the corpus; the vocabulary comes from the whole text, which is then cut to
    `max_tokens`, and the last `held_out` share of that is held out."""
    corpus = load_corpus(config.corpus, registry)
    kind = config.tokenizer or corpus.tokenizer
    if kind not in TOKENIZERS:  # only a plugin's corpus can name one
        raise UnknownNameError("tokenizer", kind, TOKENIZERS, f"corpus {corpus.name!r} names it;")
    tokenizer_type = TOKENIZERS[kind]
    text = tokenizer_type.normalize(corpus.text)
    tokenizer = tokenizer_type.from_text(text)
    tokens = tokenizer.encode(text)[: config.max_tokens]
    kept = round(len(tokens) * config.held_out)
    if config.held_out and kept < 2:
        raise CorpusError(
            f"the text is too short to hold out {config.held_out:.0%} of its {len(tokens)} tokens; "
            f"use --held-out 0 or a longer text."
        )
    cut = len(tokens) - kept
    return Dataset(corpus, tokenizer, tokens[:cut], tokens[cut:])
