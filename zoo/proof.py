"""Proof that two steppers compute the same model: PyTorch and an exported file, two runtimes, two
precisions. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zoo.config import Sampling, Settings
from zoo.errors import VerificationError
from zoo.generator import Arrays, Stepper
from zoo.sampling import choose, margin
from zoo.tokenizers import Ids

STEPS = 256
BATCH_SIZES = (1, 5)
# One step in float32 with sums over some hundreds of terms is right to about 1e-6 of the values'
# size, whatever the order of the sums; a wrong weight, gate or state shows from 1e-3 up.
TOLERANCE = 1e-5
AMPLIFYING = 1e-3
AMPLIFYING_STEPS = 1000
FREE_ROWS = 8
ROUNDING_TIE = 1e-5


class Proof(Settings):
    """What was measured before a file was published. Differences are the largest absolute ones,
    divided by the largest value of that output where it exceeds 1."""

    steps: int = Field(ge=1)
    batch_sizes: tuple[int, ...]
    difference: float = Field(description="Of logits and states, each step from the same state.")
    drift: float = Field(description="Of the logits, both sides running freely.")
    float64_gap: float | None = Field(
        None, description="Of the model's own float32 and float64 runs over the same 1,000 tokens."
    )

    @property
    def amplifies(self) -> bool:
        """Whether the model magnifies rounding, so that equal texts cannot be asked of it."""
        return self.float64_gap is not None and self.float64_gap > AMPLIFYING


def prove(
    reference: Stepper,
    candidate: Stepper,
    *,
    steps: int = STEPS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Proof:
    """Runs both over random tokens, different in each row, from the initial state on.

    In each step the candidate gets the reference's state, and its logits and next state are
    compared: names, shapes, dtypes, values. Beside that it runs freely, for the drift. Raises
    VerificationError naming the output, the step and the difference.
    """
    difference = drift = 0.0
    for batch_size in batch_sizes:
        tokens = np.random.default_rng(seed).integers(0, reference.vocab_size, (steps, batch_size))
        state, free = reference.init_state(batch_size), candidate.init_state(batch_size)
        _compare(
            reference.state_to_arrays(state),
            candidate.state_to_arrays(free),
            tolerance,
            f"before the first step, at batch size {batch_size}",
        )
        for step, column in enumerate(tokens):
            same = candidate.state_from_arrays(reference.state_to_arrays(state))
            found_logits, found = candidate.step(column, same)
            logits, state = reference.step(column, state)
            difference = max(
                difference,
                _compare(
                    {"logits": logits, **reference.state_to_arrays(state)},
                    {"logits": found_logits, **candidate.state_to_arrays(found)},
                    tolerance,
                    f"at step {step} of {steps}, at batch size {batch_size}",
                ),
            )
            free_logits, free = candidate.step(column, free)
            drift = max(drift, relative_difference(logits, free_logits))
    return Proof(steps=steps, batch_sizes=tuple(batch_sizes), difference=difference, drift=drift)


def relative_difference(
    reference: npt.NDArray[np.generic], found: npt.NDArray[np.generic]
) -> float:
    """The largest absolute difference, divided by the largest reference value where that exceeds
    1; the largest float there is if either side has a value that is not finite."""
    wanted = reference.astype(np.float64)
    gap = np.abs(wanted - found.astype(np.float64)).max(initial=0.0)
    size = max(1.0, np.abs(wanted).max(initial=0.0))
    finite = np.isfinite(gap) and np.isfinite(size)
    return float(gap / size) if finite else sys.float_info.max


def _compare(wanted: Arrays, found: Arrays, tolerance: float, where: str) -> float:
    if list(wanted) != list(found):
        raise VerificationError(f"outputs are {list(found)} and should be {list(wanted)}, {where}.")
    largest = 0.0
    for name, reference in wanted.items():
        value = found[name]
        if value.shape != reference.shape:
            raise VerificationError(
                f"{name} has shape {value.shape} and should have {reference.shape}, {where}."
            )
        if value.dtype != reference.dtype:
            raise VerificationError(
                f"{name} is {value.dtype} and should be {reference.dtype}, {where}."
            )
        gap = relative_difference(reference, value)
        if not gap <= tolerance:
            raise VerificationError(
                f"{name} differs by {gap:.2g} (allowed: {tolerance:.0e}) {where}."
            )
        largest = max(largest, gap)
    return largest


def free_gap(
    single: Stepper, double: Stepper, steps: int = AMPLIFYING_STEPS, seed: int = 0
) -> float:
    """How far the states of two precisions of one model part when both run freely over the same
    tokens. Above 1e-3 within 1,000 steps the model counts as amplifying rounding.

    Half of the rows read what `single` itself draws at temperature 1, which is how the model is
    used; the other half read random tokens, as a prompt may be anything.
    """
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, single.vocab_size, 2 * FREE_ROWS)
    states = [single.init_state(len(tokens)), double.init_state(len(tokens))]
    gap = 0.0
    for _ in range(steps):
        logits, states[0] = single.step(tokens, states[0])
        _, states[1] = double.step(tokens, states[1])
        found, wanted = single.state_to_arrays(states[0]), double.state_to_arrays(states[1])
        gap = max([gap, *(relative_difference(wanted[name], found[name]) for name in wanted)])
        own = choose(logits, rng.random(len(tokens), dtype=np.float32), Sampling(temperature=1.0))
        tokens = rng.integers(0, single.vocab_size, len(tokens))
        tokens[:FREE_ROWS] = own[:FREE_ROWS]
    return gap


class Difference(Settings):
    """A token that two sides chose differently: its place (from 0) in the generated tokens, and how
    far the reference's choice was from another. See `zoo.sampling.margin`."""

    token: int
    margin: float

    @property
    def is_tie(self) -> bool:
        """Whether rounding alone explains it."""
        return self.margin <= ROUNDING_TIE


def compare_texts(
    reference: Stepper,
    candidate: Stepper,
    prompt: Ids,
    length: int,
    sampling: Sampling,
    seed: int = 0,
) -> Iterator[Difference]:
    """The differences between the tokens that both sides generate, each from its own state. After
    a difference both go on from the reference's token."""
    rng = np.random.default_rng(seed)
    states = [reference.init_state(1), candidate.init_state(1)]
    for token in prompt[:-1]:
        _, states[0] = reference.step(np.array([token]), states[0])
        _, states[1] = candidate.step(np.array([token]), states[1])
    last = prompt[-1:]
    for index in range(length):
        logits, states[0] = reference.step(last, states[0])
        found_logits, states[1] = candidate.step(last, states[1])
        uniform = rng.random(1, dtype=np.float32)
        last, found = choose(logits, uniform, sampling), choose(found_logits, uniform, sampling)
        if last[0] != found[0]:
            yield Difference(token=index, margin=margin(logits[0], float(uniform[0]), sampling))
