"""A sequence in blocks of some steps, whose values stay in a processor's cache: a loop over the
blocks, and what is left, at least one step, after it. Memory does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from zoo_onnx.tables import constant_of
from zoo_onnx.writer import Writer, add_prefix

# By measurement: rows times steps of a block, and the fewest and the most steps.
POSITIONS, LEAST, MOST = 512, 32, 256
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger")


def put_in_blocks(graph: ir.Graph) -> None:
    """Rewrites the graph, whose first input is [B, T] or [B, T, F], and whose first output is
    [B, T, V]; the others are states, in the same order.

    A graph whose steps multiply by weights stays as it is: ONNX Runtime packs weights once, but not
    those of a loop in a loop.
    """
    if any(_has_weight(node) for loop in _loops(graph) for node in loop.all_nodes()):
        return
    given, *states = graph.inputs
    result, *_ = graph.outputs
    originals, features, width = list(graph), _sizes(given)[2:], _sizes(result)[2]
    block = _as_body(graph)
    main = Writer(graph, "blocks_")
    zero, one = main.constant("zero", 0), main.constant("one", 1)
    rows, length = (main.op("Shape", given, start=axis, end=axis + 1) for axis in (0, 1))
    sizes = _steps()
    known = main.op("Min", rows, main.constant("rows", len(sizes) - 1))
    steps = main.op("Gather", main.constant("steps", *sizes), known)
    count = main.op("Div", main.op("Sub", length, one), steps)  # one step or more is left

    many = Writer(graph, "many_")
    done = many.op("Mul", count, steps)
    form = [main.constant("cut", 0, -1), steps, *(main.constant("features", f) for f in features)]
    cut = many.op("Slice", given, zero, done, one)
    cut = many.op("Reshape", cut, many.op("Concat", *form, axis=0))
    cut = many.op("Transpose", cut, perm=[1, 0, 2, 3][: 3 + len(features)])
    *after, found = many.scan(block, states, [cut], len(graph.outputs))
    found = many.op("Transpose", found, perm=[1, 0, 2, 3])
    found = many.op("Reshape", found, main.constant("joined", 0, -1, width))
    left = many.op("Slice", given, done, length, one)
    none = Writer(graph, "none_")
    empty = none.op("Concat", rows, main.constant("nothing", 0, width), axis=0)
    nothing = none.op("ConstantOfShape", empty, value=ir.tensor(np.zeros(1, _dtype(result))))
    same = [none.op("Identity", value) for value in (given, *states)]
    rest, *before, above = main.choose(
        main.op("Greater", count, zero),
        many.graph([left, *after, found]),
        none.graph([*same, nothing]),
    )

    replaced = dict(zip(graph.inputs, [rest, *before], strict=True))
    for node in _all(originals):
        for index, value in enumerate(node.inputs):
            if value in replaced:
                node.replace_input_with(index, replaced[value])
    graph.insert_before(originals[0], main.nodes)
    end = Writer(graph, "ends_")
    joined = end.op("Concat", above, result, axis=1)
    joined.type, joined.shape = result.type, result.shape
    result.name, joined.name = f"{joined.name}_rest", result.name
    result.shape = None
    graph.extend(end.nodes)
    graph.outputs[0] = joined


def _loops(graph: ir.Graph) -> Iterator[ir.Graph]:
    """The bodies of loops."""
    for node in graph.all_nodes():
        if node.op_type == "Scan":
            yield node.attributes["body"].as_graph()


def _has_weight(node: ir.Node) -> bool:
    """Whether the node multiplies by a constant, from the right."""
    return node.op_type in PRODUCTS and constant_of(node.inputs[1]) is not None


def _steps() -> list[int]:
    """The steps of a block for each number of rows, powers of two; the last is for more rows
    too."""
    fitting = [POSITIONS // rows for rows in range(1, POSITIONS // LEAST + 1)]
    return [MOST, *(min(2 ** (steps.bit_length() - 1), MOST) for steps in fitting)]


def _as_body(graph: ir.Graph) -> ir.Graph:
    """A copy of the graph as the body of a loop: its states come first, and its constants are
    around it."""
    constants = list(graph.initializers.values())
    graph.initializers.clear()
    body = graph.clone(allow_outer_scope_values=True)
    for constant in constants:
        graph.register_initializer(constant)
    add_prefix(body, "block_")
    for values in (body.inputs, body.outputs):
        values.append(values.pop(0))
    return body


def _sizes(value: ir.Value) -> list[int]:
    """The value's axes; those that are dynamic as -1."""
    assert value.shape is not None
    return [axis if isinstance(axis, int) else -1 for axis in value.shape]


def _dtype(value: ir.Value) -> Any:
    assert value.dtype is not None
    return value.dtype.numpy()


def _all(nodes: Sequence[ir.Node]) -> Iterator[ir.Node]:
    """The nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from attribute.as_graph().all_nodes()
