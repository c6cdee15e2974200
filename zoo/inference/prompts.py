"""How prompts are read: in pieces that depend on nothing but the prompt's length, so that the same
numbers come out whoever else is read beside it, in a batch as on a server or in a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo.data.tokenizer import Ids
from zoo.inference.engine import Engine, join_rows, select_rows

LARGEST_PIECE = 256  # tokens
MOST_LOGITS = 2**22  # that reading computes in a run: 16 MB of float32


def pieces(length: int, vocab_size: int) -> Iterator[int]:
    """The sizes of the pieces, which are powers of two: prompts of all lengths have most of their
    pieces in common, and read them together. What is left after a piece is read in the same pieces
    as a prompt of that length."""
    largest = largest_piece(vocab_size)
    while length:
        size = min(largest, _power_of_two(length))
        yield size
        length -= size


def largest_piece(vocab_size: int) -> int:
    """The most tokens of a piece, whose logits are computed too."""
    return _power_of_two(min(LARGEST_PIECE, max(1, MOST_LOGITS // vocab_size)))


def next_run(left: Sequence[int], vocab_size: int) -> tuple[list[int], int]:
    """Of rows that have so many tokens left to read, the ones to read next and how many of each:
    the first that has any, and those with a piece of the same size."""
    sizes = [next(pieces(length, vocab_size), 0) for length in left]
    size = next(size for size in sizes if size)
    most = max(1, MOST_LOGITS // (size * vocab_size))
    return [row for row, other in enumerate(sizes) if other == size][:most], size


def read_prompts(engine: Engine, prompts: Sequence[Ids]) -> tuple[Any, Ids]:
    """The state of a batch in which each row has read its prompt but for the last token, and those
    last tokens."""
    states = [engine.init_state(1)] * len(prompts)
    left = [len(prompt) - 1 for prompt in prompts]
    while any(left):
        # longer pieces first: those who have read them join the others in the shorter ones
        order = sorted(range(len(left)), key=lambda row: left[row], reverse=True)
        found, size = next_run([left[row] for row in order], engine.vocab_size)
        rows = [order[index] for index in found]
        tokens = [prompts[row][len(prompts[row]) - 1 - left[row] :][:size] for row in rows]
        state = join_rows(engine, [states[row] for row in rows])
        state = engine.read(np.stack(tokens, axis=1), state)
        for index, row in enumerate(rows):
            states[row] = select_rows(engine, state, [index])
            left[row] -= size
    return join_rows(engine, states), np.array([prompt[-1] for prompt in prompts])


def _power_of_two(number: int) -> int:
    """The largest that is not above the number."""
    return 1 << (number.bit_length() - 1)
