"""Windows of a token sequence, cut as a recurrent language model is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.token_store import Tokens, forget_pages
from zoo.errors import CorpusError

READ_BEFORE_FORGETTING = 2**26  # bytes
READ_AT_ONCE = 2**16  # bytes that the system maps where one is read


class Window(NamedTuple):
    """Inputs [T, B] and, one step later in the text, targets [T, B]. `fresh` says that the rows
    do not continue those of the window before, so that each row starts from the initial state. Of a
    task they may be features [T, B, F] and numbers [T, B, N], and `counted` [T, B] says which
    positions are asked."""

    inputs: Tensor
    targets: Tensor
    fresh: bool
    counted: Tensor | None = None

    @property
    def tokens(self) -> int:
        """How many positions it has, in all rows."""
        return self.targets.shape[:2].numel()

    def to(self, device: torch.device) -> Window:
        counted = None if self.counted is None else self.counted.to(device)
        return Window(self.inputs.to(device), self.targets.to(device), self.fresh, counted)


class Reader:
    """Reads windows of tokens that may be mapped from a file, and keeps them out of memory."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._read = 0

    def window(self, starts: npt.NDArray[Any], steps: int, fresh: bool) -> Window:
        """The window whose rows begin at these tokens."""
        where = np.arange(steps + 1)[:, None] + starts
        # int64, whatever they are stored as; the copy is all that stays
        tokens = torch.from_numpy(np.asarray(self._tokens[where], np.int64))
        self._read += len(starts) * max(READ_AT_ONCE, steps * self._tokens.itemsize)
        if self._read > READ_BEFORE_FORGETTING:
            forget_pages(self._tokens)
            self._read = 0
        return Window(tokens[:-1], tokens[1:], fresh)


def sequential(
    tokens: Tokens, batch_size: int, steps: int, rng: np.random.Generator, first: int = 0
) -> Iterator[Window]:
    """One epoch of windows that continue from batch to batch: the text, from a random offset of at
    most `steps`, is cut into `batch_size` equal rows, and the rows are read side by side. The
    `first` windows are left out."""
    windows_per_epoch(len(tokens), batch_size, steps)
    offset = int(rng.integers(0, steps + 1))
    row_length = (len(tokens) - offset - 1) // batch_size
    rows = offset + row_length * np.arange(batch_size)
    reader = Reader(tokens)
    for start in range(first * steps, row_length - steps + 1, steps):
        yield reader.window(rows + start, steps, fresh=start == 0)


def random_windows(
    tokens: Tokens, batch_size: int, steps: int, rng: np.random.Generator, first: int = 0
) -> Iterator[Window]:
    """One epoch of windows in random order, each with a fresh state: the text, from a random
    offset of less than `steps`, is cut into pieces of `steps`, and the pieces are shuffled. The
    `first` windows are left out."""
    windows_per_epoch(len(tokens), batch_size, steps)
    offset = int(rng.integers(0, steps))
    pieces = (len(tokens) - offset - 1) // steps
    starts = offset + steps * rng.permutation(pieces)
    reader = Reader(tokens)
    for start in range(first * batch_size, pieces - batch_size + 1, batch_size):
        yield reader.window(starts[start : start + batch_size], steps, fresh=True)


BATCHES: dict[str, Callable[[Tokens, int, int, np.random.Generator, int], Iterator[Window]]] = {
    "sequential": sequential,
    "random": random_windows,
}


def windows_per_epoch(token_count: int, batch_size: int, steps: int) -> int:
    """How many windows an epoch has at least: from some offsets it has one more. Both kinds of
    batches agree on it.

    Raises CorpusError for a text too short to give one window from every offset; so do both kinds.
    """
    needed = batch_size * steps + steps + 1
    if token_count < needed:
        raise CorpusError(
            f"the text is too short: {token_count} tokens to train on, and {batch_size} rows of "
            f"{steps} steps need {needed}; lower --batch-size or --steps."
        )
    return (token_count - 1 - steps) // batch_size // steps


def most_windows(token_count: int, batch_size: int, steps: int) -> int:
    """How many windows an epoch has at most, which is from an offset of 0."""
    return (token_count - 1) // batch_size // steps
