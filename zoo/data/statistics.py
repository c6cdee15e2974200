"""What the tokens of a text are like."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from zoo.config import DataConfig
from zoo.data.dataset import read_dataset
from zoo.data.token_store import Tokens, forget_pages
from zoo.data.tokenizer import Tokenizer
from zoo.data.tokenizers import REPLACEMENT
from zoo.registry.registry import Registry
from zoo.validation import FrozenModel

COUNTED_AT_ONCE = 2**22
SHOWN, BEGINNING = 12, 24  # tokens
END, UNKNOWN = "<end>", "<unk>"  # as which these tokens are shown
UNDECODED = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes 128 to 255


class Statistics(FrozenModel):
    """Counts of a text, as the tokenizer normalizes it, and of its tokens, those that training
    holds out among them. `used` tokens of the vocabulary occur, `unknown` are characters that no
    token stands for; `documents` is None where no token ends them.

    Tokens are shown as their text. A byte that is no whole character is `<0xE7>`."""

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
    """The statistics of a corpus that is read, and divided, as `config` says: a training with these
    settings finds its tokens in the cache."""
    data = read_dataset(config, registry)
    tokenizer, parts = data.tokenizer, (data.train, data.held_out)
    counts = np.add(*(_counts(tokens, tokenizer.vocab_size) for tokens in parts))
    order = np.argsort(-counts, kind="stable")[:SHOWN].tolist()
    beginning = np.concatenate([tokens[:BEGINNING] for tokens in parts])[:BEGINNING].tolist()
    end, unknown = tokenizer.end_of_text, tokenizer.unknown_token
    characters = round(data.train_chars_per_token * len(data.train))
    characters += round(data.held_out_chars_per_token * len(data.held_out))
    count = int(counts.sum())
    return Statistics(
        tokenizer=tokenizer.kind,
        characters=characters,
        bytes=data.text_bytes,
        tokens=count,
        vocabulary=tokenizer.vocab_size,
        documents=None if end is None else int(counts[end]),
        characters_per_token=characters / count,
        bytes_per_token=data.text_bytes / count,
        used=int((counts > 0).sum()),
        unknown=0 if unknown is None else int(counts[unknown]),
        most_frequent=[(_shown(tokenizer, t), int(counts[t])) for t in order if counts[t]],
        beginning=[_shown(tokenizer, token) for token in beginning],
    )


def _counts(tokens: Tokens, vocab_size: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(tokens), COUNTED_AT_ONCE):
        counts += np.bincount(tokens[start : start + COUNTED_AT_ONCE], minlength=vocab_size)
        forget_pages(tokens)
    return counts


def _shown(tokenizer: Tokenizer, token: int) -> str:
    if token == tokenizer.end_of_text:
        return END
    if token == tokenizer.unknown_token:
        return UNKNOWN
    if (raw := tokenizer.bytes_of(token)) is not None:
        return _of_bytes(raw)
    text = tokenizer.decode([token])
    return f"<{token}>" if not text or REPLACEMENT in text else text  # a plugin's: a part of a text


def _of_bytes(raw: bytes) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    return UNDECODED.sub(lambda byte: f"<0x{ord(byte[0]) - 0xDC00:02X}>", text)
