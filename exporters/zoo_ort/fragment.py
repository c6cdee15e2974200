"""Adds nodes to a serialised graph, without the onnx package.

Protobuf merges a message that occurs twice, and concatenates its lists: nodes can therefore be
added to a graph by appending a second graph to the file. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zoo_ort.container import VARINT, delimited, encode_varint

FLOAT, INT64, DOUBLE = 1, 7, 11  # TensorProto.DataType
DTYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}
INT = 2  # AttributeProto.AttributeType
GRAPH = 7  # ModelProto.graph

ValueType = tuple[int, tuple[int | str, ...]]  # element type, and sizes or names of axes


@dataclass(frozen=True)
class Node:
    """A node of the standard domain with integer attributes."""

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, int] = field(default_factory=dict)

    def __init__(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int
    ) -> None:
        for name, value in zip(
            ("op", "inputs", "outputs", "attributes"),
            (op, inputs, outputs, attributes),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    def encode(self) -> bytes:
        parts = [_text(1, name) for name in self.inputs]
        parts += [_text(2, name) for name in self.outputs]
        parts.append(_text(4, self.op))
        for name, value in self.attributes.items():
            attribute = _text(1, name) + _number(3, value) + _number(20, INT)
            parts.append(delimited(5, attribute))
        return b"".join(parts)


def add_to_graph(
    model: bytes,
    nodes: Sequence[Node],
    constants: Mapping[str, np.ndarray],
    inputs: Mapping[str, ValueType],
    outputs: Mapping[str, ValueType],
) -> bytes:
    """The model with these nodes appended, which may read any of its values, and with these
    constants, inputs and outputs."""
    parts = [delimited(1, node.encode()) for node in nodes]
    parts += [delimited(5, _tensor(name, array)) for name, array in constants.items()]
    parts += [delimited(11, _value(name, kind)) for name, kind in inputs.items()]
    parts += [delimited(12, _value(name, kind)) for name, kind in outputs.items()]
    return model + delimited(GRAPH, b"".join(parts))


def _tensor(name: str, array: np.ndarray) -> bytes:
    sizes = b"".join(_number(1, size) for size in array.shape)
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return sizes + _number(2, DTYPES[array.dtype]) + _text(8, name) + delimited(9, raw)


def _value(name: str, kind: ValueType) -> bytes:
    element, axes = kind
    sizes = [_number(1, axis) if isinstance(axis, int) else _text(2, axis) for axis in axes]
    shape = b"".join(delimited(1, size) for size in sizes)
    tensor = _number(1, element) + delimited(2, shape)
    return _text(1, name) + delimited(2, delimited(1, tensor))


def _text(number: int, text: str) -> bytes:
    return delimited(number, text.encode())


def _number(number: int, value: int) -> bytes:
    # negative numbers are written as their 64-bit two's complement
    return encode_varint(number << 3 | VARINT) + encode_varint(value & (2**64 - 1))
