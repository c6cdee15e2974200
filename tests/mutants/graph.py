"""Mutations of a file's graph, after which it is still a model that parses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, helper, numpy_helper

from zoo_ort.rules import ALLOWED_OPERATORS

from .sealing import joined, split

OUTPUTS: dict[str, tuple[str, list[Any], dict[str, int]]] = {
    "no rows": ("Slice", [[0], [0], [0]], {}),
    "nothing on the last axis": ("Slice", [[0], [0], [-1]], {}),
    "one on the last axis": ("Slice", [[0], [1], [-1]], {}),
    "all rows but the first": ("Slice", [[1], [2**31], [0]], {}),
    "one more axis": ("Unsqueeze", [[0]], {}),
    "one axis less": ("ReduceMax", [[0]], {"keepdims": 0}),
    "one axis": ("Reshape", [[-1]], {}),
    "a scalar": ("ReduceMax", [], {"keepdims": 0}),
    "rows twice": ("Concat", [None], {"axis": 0}),
    "transposed": ("Transpose", [], {}),
    "another type": ("Cast", [], {"to": TensorProto.DOUBLE}),
    "truth values": ("Cast", [], {"to": TensorProto.BOOL}),
    "not finite": ("Log", [], {}),
    "large": ("Exp", [], {}),
    "negative": ("Neg", [], {}),
}


def mutate_outputs(content: bytes, rng: Random) -> bytes:
    """An output of another shape, type or value; half of them say nothing of their shape."""
    proto = onnx.ModelProto.FromString(content)
    output, change = rng.choice(proto.graph.output), rng.choice(list(OUTPUTS))
    return with_output(content, output.name, change, declared=rng.random() < 0.5)


def with_output(content: bytes, name: str, change: str, declared: bool = True) -> bytes:
    """The file with an output changed by one of OUTPUTS, after all else. With `declared`, it still
    claims its shape."""
    proto = onnx.ModelProto.FromString(content)
    (output,) = (output for output in proto.graph.output if output.name == name)
    raw = f"{name}_raw"
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [raw if one == name else one for one in names]
    op, constants, attributes = OUTPUTS[change]
    inputs = [raw]
    for constant in constants:  # None is the output once more
        inputs.append(raw if constant is None else f"{name}_{len(inputs)}")
        if constant is not None:
            proto.graph.initializer.append(numpy_helper.from_array(np.array(constant), inputs[-1]))
    proto.graph.node.append(helper.make_node(op, inputs, [name], **attributes))
    if op == "Cast":
        output.type.tensor_type.elem_type = attributes["to"]
    if not declared:
        output.type.tensor_type.ClearField("shape")
    return rejoined(proto, content)


def rejoined(proto: onnx.ModelProto, content: bytes) -> bytes:
    """The model as a file, with the metadata of `content`."""
    del proto.metadata_props[:]
    return joined(proto.SerializeToString(), split(content)[1].items())


def mutate_graph(content: bytes, rng: Random) -> bytes:
    """One part of the graph, or several."""
    proto = onnx.ModelProto.FromString(content)
    some = rng.choices(CHANGES, k=rng.choice((1, 1, 2, 3)))
    for change in sorted(some, key=CHANGES.index):
        change(rng.choice(list(graphs(proto.graph))), rng)
    return rejoined(proto, content)


def graphs(outer: GraphProto) -> Iterator[GraphProto]:
    """The graph and those in it."""
    yield outer
    for node in outer.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def change_weights(graph: GraphProto, rng: Random) -> None:
    """Other numbers, another shape or another type of a tensor, all that fit each other."""
    if not graph.initializer:
        return
    tensor = rng.choice(graph.initializer)
    array = numpy_helper.to_array(tensor)
    number = rng.choice((math.nan, math.inf, 1e30, 0, -1, 100)) if array.dtype.kind == "f" else 3
    sizes = [max(1, size + rng.choice((-1, 0, 1))) for size in array.shape]
    with np.errstate(all="ignore"):
        retyped = array.astype(rng.choice(("f2", "f4", "f8", "i8", "u1", "?")))
        changed = rng.choice((np.full_like(array, number), np.resize(array, sizes), array[None],
                              array.T, array.ravel()[:1], retyped))  # fmt: skip
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), tensor.name))


def change_size(graph: GraphProto, rng: Random) -> None:
    """An axis that the values of a tensor do not fill."""
    if graph.initializer and (dims := rng.choice(graph.initializer).dims):
        dims[rng.randrange(len(dims))] = rng.choice((0, 1, -1, 2**31, 2**40, 2**62, dims[0] + 1))


def change_node(graph: GraphProto, rng: Random) -> None:
    """Another operator, or other inputs or outputs; a node removed, or twice."""
    if not graph.node:
        return
    node, other = rng.choice(graph.node), rng.choice(graph.node)
    change = rng.randrange(5)
    if change == 0:
        node.op_type = rng.choice((other.op_type, rng.choice(sorted(ALLOWED_OPERATORS))))
    elif change == 1 and node.input:
        names = [*other.input, *other.output, *(tensor.name for tensor in graph.initializer), ""]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif change == 2 and node.output and other.output:
        node.output[0], other.output[0] = other.output[0], node.output[0]
    elif change == 3:
        graph.node.remove(node)
    else:
        graph.node.append(node)


def change_attribute(graph: GraphProto, rng: Random) -> None:
    holders = [node for node in graph.node if node.attribute]
    if not holders:
        return
    node = rng.choice(holders)
    attribute = rng.choice(node.attribute)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice((0, 1, -1, 2, 7, 8, 2**31, -(2**63)))
    elif attribute.type == AttributeProto.INTS:
        attribute.ints[:] = rng.choice(([], [0], [1, 0], [-1], [0, 0], [7], [2, 1, 0]))
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice((0.0, -1.0, 1e38, math.nan))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"reverse", b"bidirectional", b"a\nb\nc", b"\xff"))
    else:
        node.attribute.remove(attribute)


def change_name(graph: GraphProto, rng: Random) -> None:
    """Of a node, and perhaps of its output."""
    if graph.node:
        node = rng.choice(graph.node)
        node.name = rng.choice(("a\nb\nc", "\x1b[31m", "\u2028", "x" * 10_000))
        if rng.random() < 0.5 and node.output:
            node.output[0] = node.name


def change_declaration(graph: GraphProto, rng: Random) -> None:
    """Another name, type, size or order of inputs or outputs."""
    values = rng.choice((graph.input, graph.output))
    if not values:
        return
    value = rng.choice(values)
    tensor, change = value.type.tensor_type, rng.randrange(4)
    if change == 0:
        value.name = rng.choice((values[0].name, "a\nb\nc", "x" * 10_000))
    elif change == 1:
        tensor.elem_type = rng.choice((0, 1, 6, 7, 8, 9, 10, 11, 16))
    elif change == 2 and tensor.shape.dim:
        axis = rng.choice(tensor.shape.dim)
        axis.Clear()
        axis.dim_value = rng.choice((0, 1, 2, 17, 2**31 - 1))
    else:
        mixed = [deepcopy(value) for value in values]
        rng.shuffle(mixed)
        del values[:]
        values.extend(mixed)


CHANGES = (
    change_weights, change_weights, change_node, change_node, change_attribute, change_name,
    change_declaration, change_declaration, change_size,
)  # fmt: skip
