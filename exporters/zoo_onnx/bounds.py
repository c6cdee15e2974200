"""Bounds on the values in a graph, valid for any inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from zoo_onnx.tables import constant_of

Bounds = dict[ir.Value, float]

BOUNDED = {"Tanh": 1.0, "Sigmoid": 1.0, "Softmax": 1.0, "HardSigmoid": 1.0, "Sin": 1.0, "Cos": 1.0,
           "Erf": 1.0, "Softsign": 1.0, "Sign": 1.0}  # fmt: skip
# Operators whose output is bounded by their first input.
PASSING = frozenset(
    ["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice",
     "Gather", "Expand", "Relu", "Neg", "Abs", "Cast"]
)  # fmt: skip


def find_bounds(graph: ir.Graph, declared: Mapping[str, float]) -> Bounds:
    """Bounds on the absolute value of each value that has one. `declared` are those of inputs and
    outputs, by name, as a cell's equations guarantee them for its state."""
    bounds: Bounds = {}
    for value in [*graph.inputs, *graph.outputs]:
        if (bound := declared.get(str(value.name), math.inf)) < math.inf:
            _declare(bounds, value, bound)
    _propagate(graph, bounds)
    return bounds


def _declare(bounds: Bounds, value: ir.Value, bound: float) -> None:
    """Records the bound of a value, and of the values that it is an alias of."""
    bounds[value] = bound
    producer = value.producer()
    if producer is None:
        return
    if producer.op_type == "Identity":
        (source,) = producer.inputs
        assert source is not None
        _declare(bounds, source, bound)
    elif producer.op_type == "Scan":  # a state's last value: the body's output has the same bound
        body = producer.attributes["body"].as_graph()
        index = list(producer.outputs).index(value)
        _declare(bounds, body.outputs[index], bound)


def _propagate(graph: ir.Graph, bounds: Bounds) -> None:
    for node in graph:
        if node.op_type == "Scan":
            body = node.attributes["body"].as_graph()
            states = len(node.inputs) - node.attributes["num_scan_inputs"].as_int()
            for index, (outer, inner) in enumerate(zip(node.inputs, body.inputs, strict=True)):
                # the initial state's bound holds in the loop only if the next state has a bound
                holds = index >= states or body.outputs[index] in bounds
                if holds and outer in bounds:
                    bounds[inner] = bounds[outer]
            _propagate(body, bounds)
            for outer, inner in zip(node.outputs, body.outputs, strict=True):
                if inner in bounds:
                    bounds.setdefault(outer, bounds[inner])
            continue
        if len(node.outputs) and (bound := _of_output(node, bounds)) < math.inf:
            for output in node.outputs:
                bounds.setdefault(output, bound)


def _of_output(node: ir.Node, bounds: Bounds) -> float:
    if node.op_type in BOUNDED:
        return BOUNDED[node.op_type]
    inputs = [_of_input(value, bounds) for value in node.inputs if value is not None]
    if node.op_type in PASSING:
        return inputs[0]
    if node.op_type in ("Concat", "Max", "Min"):
        return max(inputs)
    if node.op_type == "Mul":
        return math.prod(inputs) if math.inf not in inputs else math.inf
    if node.op_type in ("Add", "Sub", "Sum"):
        return sum(inputs)
    return math.inf


def _of_input(value: ir.Value, bounds: Bounds) -> float:
    if value in bounds:
        return bounds[value]
    constant = constant_of(value)
    if constant is None or constant.dtype.kind != "f":
        return math.inf
    return float(np.abs(constant).max(initial=0.0))
