"""A lower precision of an exported module, and what it costs its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common as passes

from zoo.errors import VerificationError
from zoo.exporting.parity import BATCH_SIZES, STEPS, prove_step
from zoo.inference.artifact import Proof
from zoo.inference.engine import Arrays
from zoo_onnx.inspected import InspectedModule
from zoo_onnx.precision import PRECISIONS
from zoo_onnx.products import plain_products
from zoo_ort.modules import ModuleStepper

Metric = Callable[[Arrays, Arrays], float]


def lower(graph: ir.Model, precision: str) -> None:
    """Rewrites products with weights, in place."""
    plain_products(graph.graph)
    PRECISIONS[precision](graph.graph, {})
    passes.RemoveUnusedNodesPass()(graph)


def measure(
    reference: InspectedModule, stepper: ModuleStepper, metric: Metric | None, max_cost: float
) -> Proof:
    """How far the file is from the module, step by step from the same state, and its cost: see
    `zoo_onnx.export_step`. VerificationError for one that costs more than `max_cost`."""
    proof = prove_step(
        reference, stepper, draw=reference.draw, tolerance=np.inf, times=reference.output_times
    )
    wanted, found = _run_freely(reference, stepper)
    cost = float((metric or largest_share)(wanted, found))
    measured = "root mean square of the outputs" if metric is None else "the metric given"
    if not cost <= max_cost:
        raise VerificationError(
            f"its precision costs {cost:.3g} by {measured} (allowed: {max_cost:g}); allow more "
            f"with max_cost, or use fp32."
        )
    return proof.model_copy(update={"cost": cost, "cost_measured_on": measured})


def largest_share(wanted: Arrays, found: Arrays) -> float:
    """The largest share of an output's size by which it differs, as root mean squares; of integers
    and booleans the share of values that differ."""
    return max(_share(value, found[name]) for name, value in wanted.items())


def _share(wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    if wanted.dtype.kind != "f":
        return float((wanted != found).mean())
    one, other = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)):
        return np.inf
    size = np.sqrt(np.mean(np.square(one[finite]))) if finite.any() else 0.0
    gap = np.sqrt(np.mean(np.square(one[finite] - other[finite]))) if finite.any() else 0.0
    return float(gap / size) if size else float(gap)


def _run_freely(reference: InspectedModule, stepper: ModuleStepper) -> tuple[Arrays, Arrays]:
    """The outputs of both over the same inputs, [steps, B, …] each, each from its own state."""
    rng, batch = np.random.default_rng(1), BATCH_SIZES[-1]
    state, own = reference.init_state(batch), stepper.init_state(batch)
    pairs = []
    for _ in range(STEPS):
        inputs = reference.draw(rng, batch)
        wanted, state = reference.step(inputs, state)
        found, own = stepper.step(inputs, own)
        pairs.append((wanted, found))
    names = pairs[0][0]
    times = reference.output_times

    def stacked(side: int, name: str) -> npt.NDArray[Any]:
        values = [pair[side][name] for pair in pairs]
        if name not in times:
            return np.stack(values)
        axis = times[name][0]
        return np.concatenate([np.moveaxis(value, axis, 0) for value in values])

    one, other = ({name: stacked(side, name) for name in names} for side in (0, 1))
    return one, other
