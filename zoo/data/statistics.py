"""What the tokens of a text are like."""

from __future__ import annotations

import numpy as np

from zoo.config import DataConfig
from zoo.data.dataset import read_dataset
from zoo.data.token_store import Tokens, forget_pages
from zoo.data.tokenizer import Tokenizer
from zoo.data.tokenizers import REPLACEMENT
from zoo.registry.registry import Registry
from zoo.validation import FrozenModel

COUNTED_AT_ONCE = 2**22
SHOWN, BEGINNING = 12, 24  # tokens
END = "<end>"  # as which the end of a text is shown


class Statistics(FrozenModel):
    """Counts of a text and its tokens. `used` tokens of the vocabulary occur, `unknown` are
    characters that no token stands for; `documents` is None where no token ends them."""

    tokenizer: str
    characters: int
    bytes: int
    tokens: int
    vocabulary: int
    documents: int | None
    characters_per_token: float
    bytes_per_token: float
    used: int
    unknown: int
    most_frequent: list[tuple[str, int]]
    beginning: list[str]


def count_tokens(config: DataConfig, registry: Registry | None = None) -> Statistics:
    """The statistics of a corpus that is read as `config` says."""
    data = read_dataset(config, registry)
    tokenizer, tokens = data.tokenizer, data.train
    counts = _counts(tokens, tokenizer.vocab_size)
    order = np.argsort(-counts, kind="stable")[:SHOWN].tolist()
    end = tokenizer.end_of_text
    unknown = getattr(tokenizer, "UNKNOWN", None)
    characters = round(data.train_chars_per_token * len(tokens))
    return Statistics(
        tokenizer=tokenizer.kind,
        characters=characters,
        bytes=data.text_bytes,
        tokens=len(tokens),
        vocabulary=tokenizer.vocab_size,
        documents=None if end is None else int(counts[end]),
        characters_per_token=characters / len(tokens),
        bytes_per_token=data.text_bytes / len(tokens),
        used=int((counts > 0).sum()),
        unknown=0 if unknown is None else int(counts[unknown]),
        most_frequent=[(_shown(tokenizer, token), int(counts[token])) for token in order],
        beginning=[_shown(tokenizer, token) for token in tokens[:BEGINNING].tolist()],
    )


def _counts(tokens: Tokens, vocab_size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(tokens), COUNTED_AT_ONCE):
        counts += np.bincount(tokens[start : start + COUNTED_AT_ONCE], minlength=vocab_size)
        forget_pages(tokens)
    return counts


def _shown(tokenizer: Tokenizer, token: int) -> str:
    """The token's text; a part of a character is shown as its byte."""
    if token == tokenizer.end_of_text:
        return END
    text = tokenizer.decode([token])
    own = getattr(tokenizer, "tokens", None)
    if REPLACEMENT in text and own is not None:
        return str(own[token])[2:-1]
    return f"<{token}>" if REPLACEMENT in text else text
