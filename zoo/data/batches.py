"""Windows of a token sequence, cut as a recurrent language model is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.errors import CorpusError


class Window(NamedTuple):
    """Inputs [T, B] and, one step later in the text, targets [T, B]. `fresh` says that the rows
    do not continue those of the window before, so that each row starts from the initial state."""

    inputs: Tensor
    targets: Tensor
    fresh: bool


def sequential(
    tokens: Tensor, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[Window]:
    """One epoch of windows that continue from batch to batch: the text, from a random offset of at
    most `steps`, is cut into `batch_size` equal rows, and the rows are read side by side."""
    windows_per_epoch(len(tokens), batch_size, steps)
    offset = int(rng.integers(0, steps + 1))
    row_length = (len(tokens) - offset - 1) // batch_size
    end = offset + row_length * batch_size
    inputs = tokens[offset:end].view(batch_size, row_length).t().contiguous()
    targets = tokens[offset + 1 : end + 1].view(batch_size, row_length).t().contiguous()
    for start in range(0, row_length - steps + 1, steps):
        part = slice(start, start + steps)
        yield Window(inputs[part], targets[part], fresh=start == 0)


def random_windows(
    tokens: Tensor, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[Window]:
    """One epoch of windows in random order, each with a fresh state: the text, from a random
    offset of less than `steps`, is cut into pieces of `steps`, and the pieces are shuffled."""
    windows_per_epoch(len(tokens), batch_size, steps)
    offset = int(rng.integers(0, steps))
    pieces = (len(tokens) - offset - 1) // steps
    starts = torch.from_numpy(offset + steps * rng.permutation(pieces)).to(tokens.device)
    times = torch.arange(steps, device=tokens.device).unsqueeze(1)
    for first in range(0, pieces - batch_size + 1, batch_size):
        where = times + starts[first : first + batch_size]
        yield Window(tokens[where], tokens[where + 1], fresh=True)


BATCHES: dict[str, Callable[[Tensor, int, int, np.random.Generator], Iterator[Window]]] = {
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
