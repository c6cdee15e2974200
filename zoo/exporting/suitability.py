"""Whether a language model is one that a file can stand for: batch rows that are independent, and
how far rounding carries it. Needs no torch."""

from __future__ import annotations

import numpy as np

from zoo.config import Interface, Sampling
from zoo.errors import VerificationError
from zoo.exporting.comparison import relative_difference
from zoo.exporting.pairs import require_finite, run
from zoo.inference.engine import Scorer, Stepper, interface_of, random_inputs
from zoo.inference.sampling import choose

AMPLIFYING_STEPS = 1000
FREE_ROWS = 8


def prove_independent_rows(engine: Stepper | Scorer, tolerance: float) -> None:
    """VerificationError where a row of a batch gives something else alone, or in another order,
    than among the others, within the tolerance that another batch size needs."""
    rows, length = 4, 3
    rng = np.random.default_rng(0)
    tokens = random_inputs(engine, rng, (length, rows))
    state = engine.init_state(rows)
    for _ in range(2):
        logits, after = run(engine, tokens, state)
        whole = engine.state_to_arrays(after)
        leaves = engine.state_to_arrays(state)
        for order in (rng.permutation(rows), np.array([0]), np.array([rows - 1])):
            part = engine.state_from_arrays({name: leaf[order] for name, leaf in leaves.items()})
            found, end = run(engine, tokens[:, order], part)
            alone = {"logits": found.swapaxes(0, 1), **engine.state_to_arrays(end)}
            among = {"logits": logits.swapaxes(0, 1), **whole}
            for name, value in among.items():
                if not relative_difference(value[order], alone[name]) <= tolerance:
                    raise VerificationError(
                        f"mixes the rows of a batch: {name} of a row is another without the other "
                        f"rows, and each row is to be a text of its own."
                    )
        state = after


def free_gap(
    single: Stepper, double: Stepper, steps: int = AMPLIFYING_STEPS, seed: int = 0
) -> float:
    """How far the states of two precisions of one model part when both run freely over the same
    tokens. Above 1e-3 within 1,000 steps the model counts as amplifying rounding.

    Half of the rows read what `single` itself draws at temperature 1, which is how a language model
    is used; the other half read random tokens, as a prompt may be anything. A model whose outputs
    are not what it reads gets random inputs alone.

    VerificationError for a model whose logits are not finite.
    """
    rng = np.random.default_rng(seed)
    ends = interface_of(single)
    reads_its_own = ends == Interface.of_text(ends.outputs)
    tokens = random_inputs(single, rng, (2 * FREE_ROWS,))
    states = [single.init_state(len(tokens)), double.init_state(len(tokens))]
    gap = 0.0
    for step in range(steps):
        logits, states[0] = single.step(tokens, states[0])
        require_finite(logits, f"at step {step}")
        _, states[1] = double.step(tokens, states[1])
        found, wanted = single.state_to_arrays(states[0]), double.state_to_arrays(states[1])
        gap = max([gap, *(relative_difference(wanted[name], found[name]) for name in wanted)])
        uniform = rng.random(len(tokens), dtype=np.float32)
        tokens = random_inputs(single, rng, (len(tokens),))
        if reads_its_own:
            own = choose(logits, uniform, Sampling(temperature=1.0))
            tokens[:FREE_ROWS] = own[:FREE_ROWS]
    return gap
