"""Replaces computations that depend on a token alone by lookups.

A token's row of the embedding (or of the identity matrix), its product with the first layer's input
weights, and what follows until the state comes in, are functions of the token, of which there are
finitely many.
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
# Operators that may act on each row by itself; whether one does, is tried.
BY_ROW = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Clip",
        "Concat",
        "Cos",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Gelu",
        "Gemm",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "MatMul",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
TRIED_ROWS = 3
MERGED = 3  # lookups, from which on one that is split takes less time


def tabulate(graph: ir.Graph, merged: bool = True) -> None:
    """Replaces values that depend on a looked-up token alone by lookups of their own, as far as no
    table is larger than both SMALL and the tables and constants it is computed from. Several are
    one lookup, if `merged`: of a single step that is less work, of many it is more."""
    lookups = [node for node in graph if _table(node) is not None]
    for tokens in dict.fromkeys(node.inputs[1] for node in lookups):
        if tokens is not None and tokens.shape is not None:
            _tabulate(graph, tokens, [node for node in lookups if node.inputs[1] is tokens], merged)


def _tabulate(graph: ir.Graph, tokens: ir.Value, lookups: list[ir.Node], merged: bool) -> None:
    axes = tokens.shape.rank() if tokens.shape is not None else 0
    known: dict[ir.Value, Array] = {}  # [tokens, 1, …]: the values for each token
    for node in lookups:
        table = _table(node)
        assert table is not None
        known[node.outputs[0]] = table.reshape(len(table), *[1] * (axes - 1), *table.shape[1:])
    if len({len(rows) for rows in known.values()}) != 1:
        return
    computed: set[ir.Node] = set(lookups)
    for node in graph:
        found = None if node in computed else _by_row(node, known, axes)
        if found is not None:
            known.update(zip(node.outputs, found, strict=True))
            computed.add(node)
    outputs = set(graph.outputs)
    alike: dict[tuple[Any, ...], dict[ir.Value, Array]] = {}
    for value, rows in known.items():
        needed = value in outputs or any(user not in computed for user in value.consumers())
        if value.producer() not in lookups and needed:
            table = rows.reshape(len(rows), *rows.shape[axes:])
            alike.setdefault((table.dtype, table.shape[1:-1], table.ndim), {})[value] = table
    for tables in alike.values():
        if merged and len(tables) >= MERGED and all(table.ndim > 1 for table in tables.values()):
            _look_up_all(graph, tables, tokens)
        else:
            for value, table in tables.items():
                _look_up(graph, value, tokens, table)


def _by_row(node: ir.Node, known: dict[ir.Value, Array], axes: int) -> list[Array] | None:
    """The outputs of a node for each token; None where it needs anything else, mixes the rows, or
    has too large a result."""
    if node.op_type not in BY_ROW or node.domain or not any(x in known for x in node.inputs):
        return None
    given: dict[str, Array] = {}
    for value in node.inputs:
        if value is not None:
            array = known[value] if value in known else constant_of(value)
            if array is None:
                return None
            given[str(value.name)] = array
    rows = next(len(known[x]) for x in node.inputs if x in known)
    replaced = sum(array.size for array in given.values())
    try:
        evaluator = ReferenceEvaluator(_proto(node))
        found = evaluator.run(None, given)
        tried = np.arange(TRIED_ROWS) % rows
        names = {str(x.name) for x in node.inputs if x in known}
        again = evaluator.run(None, {n: x[tried] if n in names else x for n, x in given.items()})
    except Exception:  # an operator, or a form of one, that onnx's reference does not compute
        return None
    for array, some in zip(found, again, strict=True):
        same = array.shape[:axes] == (rows, *[1] * (axes - 1)) and np.allclose(
            array[tried], some, rtol=1e-5, atol=1e-6, equal_nan=True
        )
        if not same or array.size > max(SMALL, replaced):
            return None
    return list(found)


def _look_up(graph: ir.Graph, value: ir.Value, tokens: ir.Value, table: Array) -> None:
    """Replaces a value by a lookup in a table."""
    entries = make_initializer(graph, f"table_{value.name}", table)
    _replace(graph, [value], [ir.node("Gather", [entries, tokens], {"axis": 0})])


def _look_up_all(graph: ir.Graph, tables: dict[ir.Value, Array], tokens: ir.Value) -> None:
    """Replaces several values by one lookup, which is then split."""
    first = next(iter(tables))
    whole = np.concatenate(list(tables.values()), -1)
    sizes = np.array([table.shape[-1] for table in tables.values()], np.int64)
    entries = make_initializer(graph, f"table_{first.name}", whole)
    parts = make_initializer(graph, f"parts_{first.name}", sizes)
    rows = ir.node("Gather", [entries, tokens], {"axis": 0})
    rows.outputs[0].name = f"{first.name}_and_more_of_token"
    split = ir.node("Split", [rows.outputs[0], parts], {"axis": -1}, num_outputs=len(tables))
    _replace(graph, list(tables), [rows, split])


def _replace(graph: ir.Graph, values: list[ir.Value], nodes: list[ir.Node]) -> None:
    """Puts nodes, whose last gives the values, where the first of the values was computed."""
    producers = {value.producer() for value in values}
    first = next(node for node in graph if node in producers)
    graph.insert_after(first, nodes)
    for value, new in zip(values, nodes[-1].outputs, strict=True):
        new.name, new.shape, new.type = f"{value.name}_of_token", value.shape, value.type
        value.replace_all_uses_with(new, replace_graph_outputs=True)


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


def _proto(node: ir.Node) -> onnx.NodeProto:
    proto = ir.to_proto(node)
    assert isinstance(proto, onnx.NodeProto)
    return proto


def make_initializer(graph: ir.Graph, name: str, array: npt.ArrayLike) -> ir.Value:
    tensor = ir.tensor(np.asarray(array), name=name)
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, const_value=tensor, shape=shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value
