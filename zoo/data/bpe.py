"""Byte pair encoding by the `tokenizers` library: learning merges, and applying them. Imported only
when a text is encoded with them; what comes out of tokens needs none of it.

Texts are divided into words by the library's pattern for byte-level BPE: a word begins with at most
one space, letters, digits and other signs stand apart, and no merge reaches over a word's end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

PIECE = 2**16  # characters: the library takes 100 bytes for each that it is given at once
PIECES = 64  # that it encodes side by side

# Where the library always begins a new word: a word may begin with whitespace, and none continues
# with it after anything else. Python's \S is whitespace to nobody.
_BORDER = re.compile(r"(?<=\S)\s")


def learn_merges(text: str, vocab: int, longest: int) -> list[tuple[str, str]]:
    """The pairs that are merged, in order, spelled as the library spells bytes, until there are
    `vocab` tokens or no pair comes twice. The most frequent pair goes first, of equally frequent
    ones that of the earlier tokens. No token is of more than `longest` bytes."""
    learner = _by_words(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=longest,
        show_progress=False,
    )
    learner.train_from_iterator(pieces(text), trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


class Encoder:
    """Applies merges; `vocabulary` gives the number of each token, all as the library spells it."""

    def __init__(self, vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> None:
        self._library = _by_words(models.BPE(dict(vocabulary), list(merges)))

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """The tokens of a text without lone surrogates."""
        found = [np.empty(0, np.int64)]
        rest = pieces(text)
        while some := list(islice(rest, PIECES)):
            encodings = self._library.encode_batch_fast(some)
            found += [np.array(encoding.ids, np.int64) for encoding in encodings]
        return np.concatenate(found)


def _by_words(model: models.BPE) -> Tokenizer:
    library = Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """The text in pieces of about `size` characters that are the same words as the whole."""
    start = 0
    while start < len(text):
        border = _BORDER.search(text, start + size)
        end = border.start() if border else len(text)
        yield text[start:end]
        start = end
