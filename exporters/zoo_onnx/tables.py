"""Replaces computations that depend on a token alone by lookups.

A token's row of the embedding (or of the identity matrix), its product with the first layer's input
weights, and the bias are functions of the token, of which there are finitely many.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

Array: TypeAlias = npt.NDArray[Any]

# Elements of a table that may be larger than the constants it replaces: 2**18 are one megabyte, the
# inputs of four gates of 512 units for 128 tokens.
SMALL = 2**18
ELEMENTWISE = frozenset(
    ["Add", "Sub", "Mul", "Div", "Neg", "Abs", "Exp", "Sqrt", "Sigmoid", "Tanh", "Relu", "Softplus"]
)


def tabulate(graph: ir.Graph) -> None:
    """Moves products and elementwise operations on looked-up rows into the lookup table, unless the
    new table is larger than both SMALL and the constants it replaces."""
    pending = [node for node in graph if _table(node) is not None]
    while pending:
        lookup = pending.pop()
        rows, table = lookup.outputs[0], _table(lookup)
        assert table is not None
        for consumer in list(rows.consumers()):
            constants = _constants(consumer, rows)
            if constants is None or consumer.graph is not graph:
                continue
            (result,) = ReferenceEvaluator(_proto(consumer)).run(
                None, {str(rows.name): table, **constants}
            )
            assert isinstance(result, np.ndarray)
            replaced = table.size + sum(constant.size for constant in constants.values())
            if result.size <= max(SMALL, replaced):
                pending.append(_replace(graph, consumer, lookup, result))


def constant_of(value: ir.Value | None) -> Array | None:
    """The values of an initializer; None for a computed value."""
    if value is None or value.const_value is None:
        return None
    array: Array = value.const_value.numpy()
    return array


def _table(node: ir.Node) -> Array | None:
    """The matrix whose rows the node looks up; None for any other node."""
    axis = node.attributes.get("axis")
    if node.op_type != "Gather" or (axis is not None and axis.as_int() != 0):
        return None
    data = constant_of(node.inputs[0])
    return data if data is not None and data.ndim == 2 else None


def _constants(node: ir.Node, rows: ir.Value) -> dict[str, Array] | None:
    """The other inputs of a node that acts on each row independently; None for any other node."""
    if list(node.inputs).count(rows) != 1 or len(node.outputs) != 1:
        return None
    constants: dict[str, Array] = {}
    for value in node.inputs:
        if value is not rows:
            constant = constant_of(value)
            if value is None or constant is None:
                return None
            constants[str(value.name)] = constant
    if node.op_type == "MatMul":
        weight = constant_of(node.inputs[1])
        return constants if weight is not None and weight.ndim == 2 else None
    if node.op_type in ELEMENTWISE and all(c.ndim <= 1 for c in constants.values()):
        return constants
    return None


def _proto(node: ir.Node) -> onnx.NodeProto:
    proto = ir.to_proto(node)
    assert isinstance(proto, onnx.NodeProto)
    return proto


def _replace(graph: ir.Graph, node: ir.Node, lookup: ir.Node, result: Array) -> ir.Node:
    """Replaces `node` by a lookup in `result`."""
    output = node.outputs[0]
    table = make_initializer(graph, f"table_{output.name}", result)
    new = ir.node("Gather", [table, lookup.inputs[1]], {"axis": 0})
    ir.convenience.replace_nodes_and_values(graph, node, [node], [new], [output], [new.outputs[0]])
    return new


def make_initializer(graph: ir.Graph, name: str, array: npt.ArrayLike) -> ir.Value:
    tensor = ir.tensor(np.asarray(array), name=name)
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, const_value=tensor, shape=shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value
