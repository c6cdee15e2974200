"""Proof that two engines compute the same model: PyTorch and an exported file, two runtimes, two
kinds of graph. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.config import Sampling
from zoo.data.tokenizer import Ids
from zoo.errors import VerificationError
from zoo.exporting.comparison import (
    Comparison,
    Explain,
    Times,
    largest_difference,
    relative_difference,
)
from zoo.exporting.pairs import (
    Precise,
    begin,
    compare,
    every_input,
    hand_over,
    named,
    precise_steps,
    require_finite,
    results,
    run,
)
from zoo.exporting.text_comparison import ROUNDING_TIE
from zoo.inference.artifact import LOGITS, Proof
from zoo.inference.engine import Arrays, Engine, Logits, Scorer, Stepper
from zoo.inference.sampling import Samplings, choose, margin

STEPS = 256
BATCH_SIZES = (1, 5)
# One step in float32 with sums over some hundreds of terms is right to about 1e-6 of the values'
# size, whatever the order of the sums; a wrong weight, gate or state shows from 1e-3 up.
TOLERANCE = 1e-5
# A chunk that ends in the middle of nothing: neither a power of two nor a divisor of STEPS.
CHUNK = 37
# Lengths of the pieces that a sequence is given in, on both sides of the borders where a graph may
# cut it: powers of two. A model that amplifies rounding error is given short ones only: after many
# steps the two sides would part whatever the graph computes.
PIECES, SHORT_PIECES = (1, 2, 3, 63, 64, 65, 257), (1, 2, 3)
# Of the largest element of logits or of a state's leaf, whose elements are of one kind in a
# language model: its sums have terms of that size, which cancel in a small element.
FLOOR = 1e-6
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
    comparison = Comparison(tolerance, FLOOR if draw is None else 0.0)
    if draw is None:
        draw = every_input(reference)
    if double is not None:
        precise = precise_steps(reference, double)
    for batch_size in batch_sizes:
        rng = np.random.default_rng(seed)
        state = begin(reference, candidate, batch_size)
        free = candidate.init_state(batch_size)
        for step in range(steps):
            inputs = draw(rng, batch_size)
            where = f"at step {step} of {steps}, at batch size {batch_size}"
            found_logits, found = candidate.step(inputs, hand_over(reference, candidate, state))
            logits, after = reference.step(inputs, state)
            wanted = {**named(logits), **reference.state_to_arrays(after)}
            other = {**named(found_logits), **candidate.state_to_arrays(found)}
            if precise is None:
                difference = max(difference, compare(wanted, other, tolerance, where))
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
            wanted, own = named(logits), named(free_logits)
            drift = max([drift, *(relative_difference(wanted[name], own[name]) for name in wanted)])
    comparison.judge()
    return Proof(
        steps=steps,
        batch_sizes=tuple(batch_sizes),
        difference=difference,
        drift=drift,
        ties=comparison.ties,
    )


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
    comparison = Comparison(tolerance, FLOOR)
    for batch_size in batch_sizes:
        rng = np.random.default_rng(seed)
        last = rng.integers(0, reference.vocab_size, batch_size)
        state = begin(reference, candidate, batch_size)
        for step in range(steps):
            sampling = _rules(step, batch_size)
            where = f"at step {step} of {steps}, at batch size {batch_size}"
            uniform = rng.random((1, batch_size), dtype=np.float32)
            same = hand_over(reference, candidate, state)
            written, found = candidate.write(last, same, uniform, sampling)
            logits, after = reference.step(last, state)
            require_finite(logits, where)  # the candidate's are not seen
            wanted, other = reference.state_to_arrays(after), candidate.state_to_arrays(found)
            if double is None:
                difference = max(difference, compare(wanted, other, tolerance, where))
            else:
                comparison.add(
                    wanted,
                    other,
                    precise_steps(reference, double)(last, state),
                    where,
                    before=reference.state_to_arrays(state),
                )
                difference = max([difference, largest_difference(wanted, other)])
            state = after
            last = choose(logits, uniform[0], sampling)
            ties += _judge_tokens(last, written[0], logits, uniform[0], sampling, tolerance, where)
        for every in (*SAMPLINGS, _rules(0, batch_size)):
            uniform = rng.random((CHUNK, batch_size), dtype=np.float32)
            same = hand_over(reference, candidate, state)
            _prove_chunk(candidate, last, same, uniform, every, tolerance)
    comparison.judge()
    return Proof(steps=steps, batch_sizes=tuple(batch_sizes), difference=difference, ties=ties)


def _rules(step: int, batch_size: int) -> list[Sampling]:
    """The rule of each row: another one at each step, and in the next row."""
    return [SAMPLINGS[(step + row) % len(SAMPLINGS)] for row in range(batch_size)]


def _judge_tokens(
    wanted: Ids,
    found: Ids,
    logits: Logits,
    uniform: npt.NDArray[np.float32],
    samplings: Sequence[Sampling],
    tolerance: float,
    where: str,
) -> int:
    """How many tokens differ by rounding; VerificationError for one that differs by more."""
    rows = np.flatnonzero(wanted != found).tolist()
    for row in rows:
        gap = margin(logits[row], float(uniform[row]), samplings[row])
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
    sampling: Samplings,
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
    compare(
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
    draw = every_input(reference)
    comparisons = {
        length: Comparison(tolerance if length in SHORT_PIECES else long, FLOOR)
        for length in PIECES
    }
    for batch_size in batch_sizes:
        rng = np.random.default_rng(seed)
        state = begin(reference, candidate, batch_size)
        done = 0
        while done < steps:
            for length in SHORT_PIECES if Proof.gap_amplifies(gap) else PIECES:
                drawn = draw(rng, length * batch_size)
                tokens = drawn.reshape(length, batch_size, *drawn.shape[1:])
                same = hand_over(reference, candidate, state)
                where = f"over steps {done} to {done + length}, at batch size {batch_size}"
                found = results(candidate, *candidate.logits(tokens, same))
                others = [] if double is None else _other_results(reference, double, tokens, state)
                logits, state = run(reference, tokens, state)
                wanted = results(reference, logits, state)
                if not others:
                    allowed = tolerance if length in SHORT_PIECES else long
                    difference = max(difference, compare(wanted, found, allowed, where))
                else:
                    comparisons[length].add(
                        wanted, found, _farthest(wanted, others), where, times={LOGITS: (1,)}
                    )
                    difference = max(difference, largest_difference(wanted, found))
                done += length
    for comparison in comparisons.values():
        comparison.judge()
    return Proof(steps=done, batch_sizes=tuple(batch_sizes), difference=difference)


def _other_results(reference: Any, double: Any, tokens: Ids, state: Any) -> list[Arrays]:
    """What rounding makes of the reference: in float64, and where it reads the sequence as a
    whole."""
    same = hand_over(reference, double, state)
    found = [results(double, *run(double, tokens, same))]
    if isinstance(reference, Scorer):
        found.append(results(reference, *reference.logits(tokens, state)))
    return found


def _farthest(wanted: Arrays, others: Sequence[Arrays]) -> Arrays:
    """For each element that of the others which differs most."""
    found = dict(others[0])
    for other in others[1:]:
        for name, value in wanted.items():
            with np.errstate(invalid="ignore", over="ignore"):
                gaps = [np.abs(x[name].astype(np.float64) - value) for x in (found, other)]
            farther = np.nan_to_num(gaps[1]) > np.nan_to_num(gaps[0])
            found[name] = np.where(farther, other[name], found[name])
    return found
