"""Proof that two engines compute the same model: PyTorch and an exported file, two runtimes, two
kinds of graph. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.config import Sampling
from zoo.data.tokenizers import Ids
from zoo.errors import VerificationError
from zoo.exporting.comparison import (
    Comparison,
    Explain,
    Times,
    largest_difference,
    relative_difference,
    require_same_form,
)
from zoo.exporting.text_comparison import ROUNDING_TIE
from zoo.inference.artifact import Proof
from zoo.inference.engine import Arrays, Engine, HasState, Logits, Scorer, Stepper
from zoo.inference.sampling import choose, margin

STEPS = 256
BATCH_SIZES = (1, 5)
# One step in float32 with sums over some hundreds of terms is right to about 1e-6 of the values'
# size, whatever the order of the sums; a wrong weight, gate or state shows from 1e-3 up.
TOLERANCE = 1e-5
AMPLIFYING_STEPS = 1000
FREE_ROWS = 8
# A chunk that ends in the middle of nothing: neither a power of two nor a divisor of STEPS.
CHUNK = 37
Precise: TypeAlias = Callable[[Any, Any], Arrays]
# Lengths of the pieces that a sequence is given in. A model that amplifies rounding error is given
# short ones only: after many steps the two sides would part whatever the graph computes.
PIECES, SHORT_PIECES = (1, 2, 3, 50, 200), (1, 2, 3)
# Two float32 runs differ by twice what each differs from float64, and by more over other tokens.
PARTING = 4
# Every rule of choosing a token: greedy; from all; top-k; top-p; both.
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.8),
    Sampling(temperature=0.7, top_k=5),
    Sampling(temperature=1.3, top_p=0.8),
    Sampling(temperature=1.0, top_k=9, top_p=0.6),
)


def prove_step(
    reference: Any,
    candidate: Any,
    *,
    steps: int = STEPS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    draw: Callable[[np.random.Generator, int], Any] | None = None,
    double: Stepper | None = None,
    precise: Precise | None = None,
    explain: Callable[[Any, Any], Explain] | None = None,
    times: Times | None = None,
) -> Proof:
    """Runs both Steppers over random tokens, different in each row, from the initial state on. For
    steps of something else than tokens, `draw` gives their inputs for a batch size; outputs may
    then be a dict of arrays.

    In each step the candidate gets the reference's state, and its logits and next state are
    compared: names, shapes, dtypes, values. With `double`, the reference in float64, or `precise`,
    its step in float64, every element is compared by its own scale (see `zoo.exporting.comparison`,
    also for what `explain` gives for a step, and `times`). Beside that the candidate runs freely,
    for the drift.

    Raises VerificationError naming the output, the step and the difference.
    """
    difference = drift = 0.0
    comparison = Comparison(tolerance)
    if draw is None:
        draw = _every_token(reference.vocab_size)
    if double is not None:
        precise = _steps_of(reference, double)
    for batch_size in batch_sizes:
        rng = np.random.default_rng(seed)
        state = _begin(reference, candidate, batch_size)
        free = candidate.init_state(batch_size)
        for step in range(steps):
            inputs = draw(rng, batch_size)
            where = f"at step {step} of {steps}, at batch size {batch_size}"
            found_logits, found = candidate.step(inputs, _hand_over(reference, candidate, state))
            logits, after = reference.step(inputs, state)
            wanted = {**_named(logits), **reference.state_to_arrays(after)}
            other = {**_named(found_logits), **candidate.state_to_arrays(found)}
            if precise is None:
                difference = max(difference, _compare(wanted, other, tolerance, where))
            else:
                comparison.add(
                    wanted,
                    other,
                    precise(inputs, state),
                    where,
                    times=times,
                    before=reference.state_to_arrays(state),
                    explain=None if explain is None else explain(inputs, state),
                )
                difference = max(difference, largest_difference(wanted, other))
            state = after
            free_logits, free = candidate.step(inputs, free)
            wanted, own = _named(logits), _named(free_logits)
            drift = max([drift, *(relative_difference(wanted[name], own[name]) for name in wanted)])
    comparison.judge()
    return Proof(
        steps=steps,
        batch_sizes=tuple(batch_sizes),
        difference=difference,
        drift=drift,
        ties=comparison.ties,
    )


def _steps_of(reference: HasState, double: Stepper) -> Precise:
    """Steps of the reference in float64, each from a state of its own."""

    def precise(tokens: Ids, state: Any) -> Arrays:
        logits, after = double.step(tokens, _hand_over(reference, double, state))
        return {"logits": logits, **double.state_to_arrays(after)}

    return precise


def _every_token(vocab_size: int) -> Callable[[np.random.Generator, int], Ids]:
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


def _named(outputs: Logits | Arrays) -> Arrays:
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def prove_generate(
    reference: Stepper,
    candidate: Engine,
    *,
    steps: int = STEPS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    double: Stepper | None = None,
) -> Proof:
    """Lets the candidate write one token at a time, each from the reference's state, by every rule
    to choose a token; then many at a time, which must be what it writes one by one.

    Raises VerificationError for a state that differs, or a token that differs by more than
    rounding.
    """
    difference, ties = 0.0, 0
    comparison = Comparison(tolerance)
    for batch_size in batch_sizes:
        rng = np.random.default_rng(seed)
        last = rng.integers(0, reference.vocab_size, batch_size)
        state = _begin(reference, candidate, batch_size)
        for step in range(steps):
            sampling = SAMPLINGS[step % len(SAMPLINGS)]
            where = f"at step {step} of {steps}, at batch size {batch_size}"
            uniform = rng.random((1, batch_size), dtype=np.float32)
            same = _hand_over(reference, candidate, state)
            written, found = candidate.write(last, same, uniform, sampling)
            logits, after = reference.step(last, state)
            _require_finite(logits, where)  # the candidate's are not seen
            wanted, other = reference.state_to_arrays(after), candidate.state_to_arrays(found)
            if double is None:
                difference = max(difference, _compare(wanted, other, tolerance, where))
            else:
                comparison.add(
                    wanted,
                    other,
                    _steps_of(reference, double)(last, state),
                    where,
                    before=reference.state_to_arrays(state),
                )
                difference = max([difference, largest_difference(wanted, other)])
            state = after
            last = choose(logits, uniform[0], sampling)
            ties += _judge_tokens(last, written[0], logits, uniform[0], sampling, tolerance, where)
        for sampling in SAMPLINGS:
            uniform = rng.random((CHUNK, batch_size), dtype=np.float32)
            same = _hand_over(reference, candidate, state)
            _prove_chunk(candidate, last, same, uniform, sampling, tolerance)
    comparison.judge()
    return Proof(steps=steps, batch_sizes=tuple(batch_sizes), difference=difference, ties=ties)


def _require_finite(logits: Logits, where: str) -> None:
    if not np.isfinite(logits).all():
        raise VerificationError(f"the model's logits are not finite {where}.")


def _judge_tokens(
    wanted: Ids,
    found: Ids,
    logits: Logits,
    uniform: npt.NDArray[np.float32],
    sampling: Sampling,
    tolerance: float,
    where: str,
) -> int:
    """How many tokens differ by rounding; VerificationError for one that differs by more."""
    rows = np.flatnonzero(wanted != found)
    for row in rows:
        gap = margin(logits[row], float(uniform[row]), sampling)
        if not gap <= max(tolerance, ROUNDING_TIE):
            raise VerificationError(
                f"tokens has {found[row]} and should have {wanted[row]}, which was clear by "
                f"{gap:.2g}, {where}."
            )
    return len(rows)


def _prove_chunk(
    candidate: Engine,
    last: Ids,
    state: Any,
    uniform: npt.NDArray[np.float32],
    sampling: Sampling,
    tolerance: float,
) -> None:
    """The same graph computes both: all tokens are equal."""
    tokens, end = candidate.write(last, state, uniform, sampling)
    for index, row in enumerate(uniform):
        written, state = candidate.write(last, state, row[None], sampling)
        last = written[-1]
        if (last != tokens[index]).any():
            raise VerificationError(
                f"tokens has {tokens[index].tolist()} at step {index} of a run of {len(uniform)}, "
                f"and {last.tolist()} when written one by one."
            )
    _compare(
        candidate.state_to_arrays(state),
        candidate.state_to_arrays(end),
        tolerance,
        f"after {len(uniform)} steps in one run",
    )


def prove_sequence(
    reference: Stepper | Scorer,
    candidate: Scorer,
    *,
    steps: int = STEPS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    gap: float = 0.0,
    double: Stepper | Scorer | None = None,
) -> Proof:
    """Gives the candidate pieces of random tokens, each from the reference's state, and compares
    its logits and last state with the reference's, which goes step by step where it can.

    `gap` is how far rounding carries the model's own runs apart (see `free_gap`): a long piece may
    differ by some of that, and there are none for a model that amplifies rounding.

    Raises VerificationError naming the output, the piece and the difference.
    """
    difference, done = 0.0, 0
    long = max(tolerance, PARTING * gap)
    comparisons = {length: Comparison(tolerance if length in SHORT_PIECES else long)
                   for length in PIECES}  # fmt: skip
    for batch_size in batch_sizes:
        rng = np.random.default_rng(seed)
        state = _begin(reference, candidate, batch_size)
        done = 0
        while done < steps:
            for length in SHORT_PIECES if Proof.gap_amplifies(gap) else PIECES:
                tokens = rng.integers(0, reference.vocab_size, (length, batch_size))
                same = _hand_over(reference, candidate, state)
                found_logits, found = candidate.logits(tokens, same)
                where = f"over steps {done} to {done + length}, at batch size {batch_size}"
                precise = None
                if double is not None:
                    exact, end = _run(double, tokens, _hand_over(reference, double, state))
                    precise = double.state_to_arrays(end)
                before = reference.state_to_arrays(state)
                logits, state = _run(reference, tokens, state)
                wanted, other = reference.state_to_arrays(state), candidate.state_to_arrays(found)
                if precise is None:
                    allowed = tolerance if length in SHORT_PIECES else long
                    pair = {"logits": logits, **wanted}, {"logits": found_logits, **other}
                    difference = max(difference, _compare(*pair, allowed, where))
                else:
                    comparison = comparisons[length]
                    comparison.add(wanted, other, precise, where, before=before)
                    parts = {"logits": logits}, {"logits": found_logits}, {"logits": exact}
                    comparison.add(*parts, where, times={"logits": (1,)})
                    difference = max(
                        [difference, largest_difference(*parts[:2]),
                         largest_difference(wanted, other)]
                    )  # fmt: skip
                done += length
    for comparison in comparisons.values():
        comparison.judge()
    return Proof(steps=done, batch_sizes=tuple(batch_sizes), difference=difference)


def _run(reference: Stepper | Scorer, tokens: Ids, state: Any) -> tuple[Logits, Any]:
    if not isinstance(reference, Stepper):
        return reference.logits(tokens, state)
    found = []
    for column in tokens:
        logits, state = reference.step(column, state)
        found.append(logits)
    return np.stack(found), state


def _begin(reference: HasState, candidate: HasState, batch_size: int) -> Any:
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


def _hand_over(reference: HasState, candidate: HasState, state: Any) -> Any:
    return candidate.state_from_arrays(reference.state_to_arrays(state))


def prove_independent_rows(engine: Stepper | Scorer, tolerance: float) -> None:
    """VerificationError where a row of a batch gives something else alone, or in another order,
    than among the others, within the tolerance that another batch size needs."""
    rows, length = 4, 3
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, engine.vocab_size, (length, rows))
    state = engine.init_state(rows)
    for _ in range(2):
        logits, after = _run(engine, tokens, state)
        whole = engine.state_to_arrays(after)
        leaves = engine.state_to_arrays(state)
        for order in (rng.permutation(rows), np.array([0]), np.array([rows - 1])):
            part = engine.state_from_arrays({name: leaf[order] for name, leaf in leaves.items()})
            found, end = _run(engine, tokens[:, order], part)
            alone = {"logits": found.swapaxes(0, 1), **engine.state_to_arrays(end)}
            among = {"logits": logits.swapaxes(0, 1), **whole}
            for name, value in among.items():
                if not relative_difference(value[order], alone[name]) <= tolerance:
                    raise VerificationError(
                        f"mixes the rows of a batch: {name} of a row is another without the other "
                        f"rows, and each row is to be a text of its own."
                    )
        state = after


def _compare(wanted: Arrays, found: Arrays, tolerance: float, where: str) -> float:
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


def free_gap(
    single: Stepper, double: Stepper, steps: int = AMPLIFYING_STEPS, seed: int = 0
) -> float:
    """How far the states of two precisions of one model part when both run freely over the same
    tokens. Above 1e-3 within 1,000 steps the model counts as amplifying rounding.

    Half of the rows read what `single` itself draws at temperature 1, which is how the model is
    used; the other half read random tokens, as a prompt may be anything.

    VerificationError for a model whose logits are not finite.
    """
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, single.vocab_size, 2 * FREE_ROWS)
    states = [single.init_state(len(tokens)), double.init_state(len(tokens))]
    gap = 0.0
    for step in range(steps):
        logits, states[0] = single.step(tokens, states[0])
        _require_finite(logits, f"at step {step}")
        _, states[1] = double.step(tokens, states[1])
        found, wanted = single.state_to_arrays(states[0]), double.state_to_arrays(states[1])
        gap = max([gap, *(relative_difference(wanted[name], found[name]) for name in wanted)])
        own = choose(logits, rng.random(len(tokens), dtype=np.float32), Sampling(temperature=1.0))
        tokens = rng.integers(0, single.vocab_size, len(tokens))
        tokens[:FREE_ROWS] = own[:FREE_ROWS]
    return gap
