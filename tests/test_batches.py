"""Windows of tokens, against the textbook's definition, by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from zoo.data.batches import BATCHES, random_windows, sequential, windows_per_epoch
from zoo.errors import CorpusError


class FixedOffset:
    """A generator whose offset is chosen by the test."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def integers(self, low: int, high: int) -> int:
        assert low <= self.offset < high
        return self.offset

    def permutation(self, count: int) -> np.ndarray:
        return np.arange(count)[::-1].copy()


def test_sequential_windows_by_hand() -> None:
    """Section 9.3's example: 35 tokens, 2 rows, 5 steps; offset 0 leaves 34 = 2 × 17."""
    windows = list(sequential(torch.arange(35), 2, 5, FixedOffset(0)))
    assert len(windows) == 3
    assert windows[0].inputs.T.tolist() == [[0, 1, 2, 3, 4], [17, 18, 19, 20, 21]]
    assert windows[0].targets.T.tolist() == [[1, 2, 3, 4, 5], [18, 19, 20, 21, 22]]
    assert windows[2].inputs.T.tolist() == [[10, 11, 12, 13, 14], [27, 28, 29, 30, 31]]
    assert [window.fresh for window in windows] == [True, False, False]


def test_random_windows_by_hand() -> None:
    windows = list(random_windows(torch.arange(35), 2, 5, FixedOffset(3)))
    # 31 usable inputs make 6 windows, from 3, 8, …, 28; the order is reversed
    assert [window.inputs[0].tolist() for window in windows] == [[28, 23], [18, 13], [8, 3]]
    assert windows[0].targets.T.tolist() == [[29, 30, 31, 32, 33], [24, 25, 26, 27, 28]]
    assert all(window.fresh for window in windows)


@given(
    kind=st.sampled_from(sorted(BATCHES)),
    count=st.integers(2, 400),
    batch_size=st.integers(1, 6),
    steps=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_every_window_is_a_slice_of_the_text(
    kind: str, count: int, batch_size: int, steps: int, seed: int
) -> None:
    cut = BATCHES[kind](torch.arange(count), batch_size, steps, np.random.default_rng(seed))
    if count < batch_size * steps + steps + 1:
        with pytest.raises(CorpusError):
            next(cut)
        return
    windows = list(cut)
    used: list[int] = []
    for window in windows:
        assert window.inputs.shape == window.targets.shape == (steps, batch_size)
        assert torch.equal(window.targets, window.inputs + 1)
        assert torch.equal(window.inputs[1:], window.inputs[:-1] + 1)
        used += window.inputs.flatten().tolist()
    assert len(set(used)) == len(used)
    if kind == "sequential":
        for one, following in pairwise(windows):
            assert torch.equal(following.inputs[0], one.targets[-1])
    assert len(windows) >= windows_per_epoch(count, batch_size, steps) >= 1


def test_offsets_differ_from_epoch_to_epoch() -> None:
    rng = np.random.default_rng(0)
    starts = {int(next(sequential(torch.arange(99), 2, 9, rng)).inputs[0, 0]) for _ in range(60)}
    assert starts == set(range(10))


def test_a_text_that_is_too_short_is_an_error_with_the_needed_length() -> None:
    with pytest.raises(CorpusError, match="75 tokens to train on, and 2 rows of 25 steps need 76"):
        windows_per_epoch(75, 2, 25)
    assert windows_per_epoch(76, 2, 25) == 1
