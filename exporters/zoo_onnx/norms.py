"""Root mean squares, as ONNX Runtime recognises them: it computes each in one operator then.

PyTorch multiplies by the reciprocal of the root, and lengths are roots of a sum. Both are written
as a quotient by the root of a mean, times one constant for each feature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from zoo_onnx.tables import Array, constant_of, make_initializer


class Norm(NamedTuple):
    """x / √(Σ x² / `parts` + ε), as found in a graph."""

    x: ir.Value
    parts: int
    epsilon: float


def divide_by_roots(graph: ir.Graph) -> None:
    """Rewrites the norms of a graph over the last axis."""
    for node in list(graph):
        if node.op_type == "Mul" and (norm := _norm(node)) is not None:
            _rewrite(graph, node, norm)


def _norm(node: ir.Node) -> Norm | None:
    """The norm whose last operator is this product."""
    for x, factor in (node.inputs, tuple(reversed(node.inputs))):
        root = _only(_only(factor, "Reciprocal"), "Sqrt")
        total, epsilon = _with_constant(root, "Add")
        squares, kind = _reduced(total)
        if x is None or epsilon is None or squares is None or not _is_square(squares, x):
            continue
        size = x.shape[-1] if x.shape is not None else None
        if isinstance(size, int) and epsilon.size == 1:
            parts = size if kind == "ReduceMean" else 1
            return Norm(x, parts, float(epsilon.ravel()[0]))
    return None


def _rewrite(graph: ir.Graph, node: ir.Node, norm: Norm) -> None:
    shape = norm.x.shape
    assert shape is not None
    size = shape[-1]
    assert isinstance(size, int)
    last, output = node, node.outputs[0]
    scale = np.full(size, (norm.parts / size) ** 0.5, np.float32)
    consumers = list(output.consumers())
    if len(consumers) == 1 and output not in graph.outputs and consumers[0].op_type == "Mul":
        (after,) = consumers
        _, constant = _with_constant(after.outputs[0], "Mul")
        if constant is not None and constant.size in (1, size) and constant.ndim <= 1:
            last, scale = after, scale * constant.astype(np.float32)
    result = last.outputs[0]
    if result.type is not None and result.dtype != ir.DataType.FLOAT:
        return
    name = str(result.name)

    def constant_named(kind: str, values: Array) -> ir.Value:
        return make_initializer(graph, f"{name}_{kind}", values)

    square = ir.node("Pow", [norm.x, constant_named("two", np.array(2, np.float32))])
    mean = ir.node(
        "ReduceMean", [square.outputs[0], constant_named("axis", np.array([-1]))], {"keepdims": 1}
    )
    epsilon = np.array(norm.epsilon * norm.parts / size, np.float32)
    sum_ = ir.node("Add", [mean.outputs[0], constant_named("epsilon", epsilon)])
    root = ir.node("Sqrt", [sum_.outputs[0]])
    quotient = ir.node("Div", [norm.x, root.outputs[0]])
    scaled = ir.node("Mul", [quotient.outputs[0], constant_named("scale", scale)])
    new = [square, mean, sum_, root, quotient, scaled]
    for index, each in enumerate(new[:-1]):
        each.outputs[0].name = f"{name}_norm_{index}"
    for index, each in enumerate(new):
        each.name = f"{name}_norm_{each.op_type}_{index}"
    new[-1].outputs[0].type, new[-1].outputs[0].shape = result.type, result.shape
    ir.convenience.replace_nodes_and_values(
        graph, last, [last], new, [result], [new[-1].outputs[0]]
    )


def _only(value: ir.Value | None, kind: str) -> ir.Value | None:
    """The input of the operator of that kind and one input that computes the value."""
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None and node.op_type == kind else None


def _with_constant(value: ir.Value | None, kind: str) -> tuple[ir.Value | None, Array | None]:
    """The two inputs of the operator that computes the value, one of which is a constant."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == kind:
        for x, other in (node.inputs, tuple(reversed(node.inputs))):
            if (constant := constant_of(other)) is not None:
                return x, constant
    return None, None


def _reduced(value: ir.Value | None) -> tuple[ir.Value | None, str]:
    """What the value is the mean or the sum of over the last axis."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("ReduceMean", "ReduceSum") or len(node.inputs) != 2:
        return None, ""
    x, axes, keep = node.inputs[0], constant_of(node.inputs[1]), node.attributes.get("keepdims")
    if x is None or x.shape is None or axes is None or (keep is not None and not keep.as_int()):
        return None, ""
    return (x, node.op_type) if axes.tolist() in ([-1], [x.shape.rank() - 1]) else (None, "")


def _is_square(value: ir.Value, x: ir.Value) -> bool:
    node = value.producer()
    if node is None or node.inputs[0] is not x:
        return False
    exponent = constant_of(node.inputs[1]) if node.op_type == "Pow" else None
    return (node.op_type == "Mul" and node.inputs[1] is x) or (
        exponent is not None and exponent.size == 1 and float(exponent.ravel()[0]) == 2
    )
