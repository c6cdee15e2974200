"""The sampler, against distributions computed by hand and frequencies of draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from zoo.config import Sampling
from zoo.errors import UsageError
from zoo.inference.sampling import choose, kept_weights, margin

# softmax of these is 0.4, 0.3, 0.2, 0.1
LOGITS = np.log(np.array([0.3, 0.1, 0.4, 0.2], np.float32))


def draw(uniform: float, **settings: float) -> int:
    return int(choose(LOGITS[None], np.array([uniform], np.float32), Sampling(**settings))[0])


def test_greedy_takes_the_first_of_the_most_likely() -> None:
    logits = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    assert choose(logits, np.array([0.9, 0.9]), Sampling()).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("uniform", "token"),
    [(0.0, 0), (0.29, 0), (0.31, 1), (0.39, 1), (0.41, 2), (0.79, 2), (0.81, 3)],
)
def test_a_draw_is_the_first_token_above_it_in_cumulative_probability(
    uniform: float, token: int
) -> None:
    assert draw(uniform, temperature=1.0) == token


def test_temperature_divides_the_logits() -> None:
    # at 0.5 the probabilities are squared and normalised: 9, 1, 16, 4 of 30
    weights = kept_weights(LOGITS[None], Sampling(temperature=0.5))[0]
    assert weights / weights.sum() == pytest.approx([9 / 30, 1 / 30, 16 / 30, 4 / 30], rel=1e-6)


def test_top_k_keeps_the_k_best() -> None:
    weights = kept_weights(LOGITS[None], Sampling(temperature=1.0, top_k=2))[0]
    assert weights / weights.sum() == pytest.approx([3 / 7, 0, 4 / 7, 0], rel=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.35, [2]), (0.5, [0, 2]), (0.75, [0, 2, 3]), (0.95, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_with_that_mass(top_p: float, kept: list[int]) -> None:
    weights = kept_weights(LOGITS[None], Sampling(temperature=1.0, top_p=top_p))[0]
    assert np.flatnonzero(weights).tolist() == kept


def test_frequencies_follow_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    count = 200_000
    logits = np.broadcast_to(LOGITS, (count, 4))
    uniform = rng.random(count, dtype=np.float32)
    found = np.bincount(choose(logits, uniform, Sampling(temperature=1.0)), minlength=4) / count
    wanted = np.array([0.3, 0.1, 0.4, 0.2])
    # five standard errors of a frequency
    assert np.all(np.abs(found - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / count))


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    st.floats(0, 1, exclude_max=True, width=32),
    st.integers(0, 50),
    st.floats(0.01, 1),
    st.floats(0.05, 20),
)
def test_only_kept_tokens_are_drawn(
    logits: list[float], uniform: float, top_k: int, top_p: float, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    row = np.array([logits], np.float32)
    token = choose(row, np.array([uniform], np.float32), sampling)[0]
    assert kept_weights(row, sampling)[0, token] > 0


def test_batch_rows_are_independent() -> None:
    rng = np.random.default_rng(1)
    logits, uniform = rng.normal(size=(9, 30)).astype(np.float32), rng.random(9, np.float32)
    sampling = Sampling(temperature=0.7, top_k=12, top_p=0.8)
    alone = [choose(logits[i : i + 1], uniform[i : i + 1], sampling)[0] for i in range(9)]
    assert choose(logits, uniform, sampling).tolist() == alone


def test_draws_do_not_depend_on_the_chunk_size() -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    at_once = one.random((50, 3), dtype=np.float32)
    step_by_step = [other.random(3, dtype=np.float32) for _ in range(50)]
    assert np.array_equal(at_once, np.stack(step_by_step))


def test_margin_by_hand() -> None:
    assert margin(LOGITS, 0.5, Sampling()) == pytest.approx(np.log(4 / 3), rel=1e-5)
    # boundaries at 0.3, 0.4, 0.8, 1.0
    assert margin(LOGITS, 0.32, Sampling(temperature=1.0)) == pytest.approx(0.02, abs=1e-6)
    # cumulative masses 0.4, 0.7, 0.9, 1.0 against a top_p of 0.69; kept 0.3 and 0.4
    nucleus = Sampling(temperature=1.0, top_p=0.69)
    assert margin(LOGITS, 0.2, nucleus) == pytest.approx(0.01, abs=1e-6)
    # the second and third logit: ln 0.3 - ln 0.2
    best = margin(LOGITS, 0.2, Sampling(temperature=1.0, top_k=2))
    assert best == pytest.approx(min(3 / 7 - 0.2, np.log(1.5)), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1e-46}, "top_p"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_settings_out_of_bounds(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sampling.checked(**settings)
