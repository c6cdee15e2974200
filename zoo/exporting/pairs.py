"""Two engines side by side, over the same tokens and from the same states. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from zoo.data.tokenizer import Ids
from zoo.errors import VerificationError
from zoo.exporting.comparison import relative_difference, require_same_form
from zoo.inference.artifact import LOGITS
from zoo.inference.engine import (
    Arrays,
    HasState,
    Logits,
    Scorer,
    Stepper,
    interface_of,
    random_inputs,
)

Precise: TypeAlias = Callable[[Any, Any], Arrays]


def precise_steps(reference: HasState, double: Stepper) -> Precise:
    """Steps of the reference in float64, each from a state of its own."""

    def precise(tokens: Ids, state: Any) -> Arrays:
        logits, after = double.step(tokens, hand_over(reference, double, state))
        return results(double, logits, after)

    return precise


def every_token(vocab_size: int) -> Callable[[np.random.Generator, int], Ids]:
    """Draws tokens so that each comes once before one comes again, the first and the last at once:
    a wrong row of a table is seen."""
    left = np.array([], np.int64)

    def draw(rng: np.random.Generator, batch_size: int) -> Ids:
        nonlocal left
        if not len(left):
            ends = [0, vocab_size - 1] if vocab_size > 1 else [0]
            left = np.concatenate([ends, 1 + rng.permutation(max(vocab_size - 2, 0))])
        while len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(vocab_size)])
        tokens, left = left[:batch_size], left[batch_size:]
        return tokens

    return draw


def every_input(engine: HasState) -> Callable[[np.random.Generator, int], Any]:
    """Draws what the model of the engine reads: `every_token`, or features."""
    interface = interface_of(engine)
    if interface.reads == "tokens":
        return every_token(interface.inputs)
    return lambda rng, batch_size: random_inputs(engine, rng, (batch_size,))


def named(outputs: Logits | Arrays) -> Arrays:
    return outputs if isinstance(outputs, dict) else {LOGITS: outputs}


def require_finite(logits: Logits, where: str) -> None:
    if not np.isfinite(logits).all():
        raise VerificationError(f"the model's logits are not finite {where}.")


def results(engine: HasState, logits: Logits, state: Any) -> Arrays:
    return {LOGITS: logits, **engine.state_to_arrays(state)}


def run(reference: Stepper | Scorer, tokens: Ids, state: Any) -> tuple[Logits, Any]:
    if not isinstance(reference, Stepper):
        return reference.logits(tokens, state)
    found = []
    for column in tokens:
        logits, state = reference.step(column, state)
        found.append(logits)
    return np.stack(found), state


def begin(reference: HasState, candidate: HasState, batch_size: int) -> Any:
    """The reference's initial state, after the candidate's was found to be the same."""
    state = reference.init_state(batch_size)
    wanted = reference.state_to_arrays(state)
    found = candidate.state_to_arrays(candidate.init_state(batch_size))
    where = f"before the first step, at batch size {batch_size}"
    require_same_form(wanted, found, where)
    for name, value in wanted.items():
        if value.tobytes() != found[name].tobytes():
            raise VerificationError(f"{name} is not the initial state that was given, {where}.")
    return state


def hand_over(reference: HasState, candidate: HasState, state: Any) -> Any:
    return candidate.state_from_arrays(reference.state_to_arrays(state))


def compare(wanted: Arrays, found: Arrays, tolerance: float, where: str) -> float:
    require_same_form(wanted, found, where)
    largest = 0.0
    for name, reference in wanted.items():
        gap = relative_difference(reference, found[name])
        if not gap <= tolerance:
            raise VerificationError(
                f"{name} differs by {gap:.2g} (allowed: {tolerance:.0e}) {where}."
            )
        largest = max(largest, gap)
    return largest
