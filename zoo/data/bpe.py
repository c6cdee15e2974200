"""Byte pair encoding by the `tokenizers` library: learning merges, and applying them. Imported only
when a text is encoded with them; what comes out of tokens needs none of it.

Texts are divided into words, and no merge reaches over a word's end. A word begins with at most one
space; letters, digits and other signs stand apart. That is GPT-2's division. GPT-4's also bounds
the digits of a word; here everything is bounded, so that a text without spaces (Chinese, DNA, a
line of minus signs) is no single word, in which every merge would have to look everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

# Contractions, letters, digits, other signs, whitespace up to that which begins the next word.
BOUNDED = (
    r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}\p{M}]{1,32}| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]{1,32}"
    r"|\s{1,32}(?!\S)|\s"
)


def learn_merges(pieces: Iterable[str], vocab: int, longest: int) -> list[tuple[str, str]]:
    """The pairs that are merged, in order, spelled as the library spells bytes, until there are
    `vocab` tokens or no pair comes twice. The most frequent pair goes first, of equally frequent
    ones that of the earlier tokens. No token is of more than `longest` bytes."""
    learner = _by_words(models.BPE(), bounded=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=longest,
        show_progress=False,
    )
    learner.train_from_iterator(pieces, trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


class Encoder:
    """Applies merges; `vocabulary` gives the number of each token, all as the library spells it."""

    def __init__(
        self, vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]], bounded: bool
    ) -> None:
        self._library = _by_words(models.BPE(dict(vocabulary), list(merges)), bounded)

    def encode_all(self, pieces: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """The tokens of texts without lone surrogates, which are encoded side by side. The library
        takes 100 bytes for each character."""
        encodings = self._library.encode_batch_fast(list(pieces))
        return [np.array(encoding.ids, np.int64) for encoding in encodings]


def _by_words(model: models.BPE, bounded: bool) -> Tokenizer:
    library = Tokenizer(model)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not bounded)
    words = [pre_tokenizers.Split(Regex(BOUNDED), "isolated")] if bounded else []
    library.pre_tokenizer = pre_tokenizers.Sequence([*words, to_bytes])
    return library
