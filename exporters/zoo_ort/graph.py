"""The nodes and constants of a graph that was inspected (see `zoo_ort.inspection`), as Python data;
and files made of some of its nodes. Field numbers are those of onnx.proto."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo_ort.container import VARINT, delimited, encode_varint, fields, varint

GRAPH, OPSETS, IR_VERSION = 7, 8, 1  # of ModelProto
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12  # of GraphProto
DTYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64,
}  # fmt: skip
ELEMENTS = {np.dtype(dtype): number for number, dtype in DTYPES.items()}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """A node as it is used, and its bytes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    content: bytes

    @property
    def reads(self) -> list[str]:
        return [name for name in self.inputs if name]


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run; constants by name, with their bytes."""

    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    encoded: dict[str, bytes]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    head: bytes  # the versions of the format and of the operators

    def file_of(
        self, nodes: Sequence[Node], dtypes: Mapping[str, np.dtype[Any]], outputs: Iterable[str]
    ) -> bytes:
        """A model of these nodes. Its inputs are what they read and do not compute, of these
        dtypes and any shape."""
        made = {name for node in nodes for name in node.outputs}
        read = dict.fromkeys(name for node in nodes for name in node.reads if name not in made)
        parts = [delimited(NODE, node.content) for node in nodes]
        parts += [delimited(INITIALIZER, self.encoded[n]) for n in read if n in self.encoded]
        for number, names in (
            (INPUT, [n for n in read if n not in self.encoded]),
            (OUTPUT, outputs),
        ):
            for name in names:
                element = _number(1, ELEMENTS[np.dtype(dtypes[name])])
                parts.append(
                    delimited(number, _text(1, name) + delimited(2, delimited(1, element)))
                )
        return self.head + delimited(GRAPH, _text(2, "part") + b"".join(parts))


def parse_graph(content: bytes) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    known: dict[str, bytes] = {}
    names: dict[int, list[str]] = {INPUT: [], OUTPUT: []}
    head = b""
    for part in fields(memoryview(content)):
        if part.number in (OPSETS, IR_VERSION):
            head += content[part.start : part.end]
        if part.number != GRAPH:
            continue
        for field in fields(part.content):
            if field.number == NODE:
                node = _node(field.content)
                if node.op == "Constant" and "value" in node.attributes:
                    (name,) = node.outputs
                    tensor = node.attributes["value"]
                    constants[name] = tensor
                    known[name] = encoded(name, tensor)
                else:
                    nodes.append(node)
            elif field.number == INITIALIZER:
                name, array = _tensor(field.content)
                constants[name], known[name] = array, bytes(field.content)
            elif field.number in names:
                first = next(x for x in fields(field.content) if x.number == 1)
                names[field.number].append(bytes(first.content).decode())
    inputs = tuple(name for name in names[INPUT] if name not in constants)
    return Graph(tuple(nodes), constants, known, inputs, tuple(names[OUTPUT]), head)


def with_outputs(content: bytes, names: Iterable[str]) -> bytes:
    """The model with these values as further outputs: protobuf joins the lists of a message that
    occurs twice."""
    return content + delimited(GRAPH, b"".join(delimited(OUTPUT, _text(1, n)) for n in names))


def _node(content: memoryview) -> Node:
    inputs, outputs, attributes = [], [], {}
    op = name = ""
    for field in fields(content):
        if field.number == 1:
            inputs.append(bytes(field.content).decode())
        elif field.number == 2:
            outputs.append(bytes(field.content).decode())
        elif field.number == 3:
            name = bytes(field.content).decode()
        elif field.number == 4:
            op = bytes(field.content).decode()
        elif field.number == 5:
            key, value = _attribute(field.content)
            attributes[key] = value
        elif field.number == 7 and bytes(field.content) not in (b"", b"ai.onnx"):
            op = f"{bytes(field.content).decode()}.{op}"
    return Node(op, name, tuple(inputs), tuple(outputs), attributes, bytes(content))


def _attribute(content: memoryview) -> tuple[str, Any]:
    name = ""
    value: Any = None
    numbers: list[int] = []
    for field in fields(content):
        if field.number == 1:
            name = bytes(field.content).decode()
        elif field.number == 2:
            value = float(np.frombuffer(field.content, "<f4")[0])
        elif field.number == 3:
            value = _signed(varint(field.content, 0)[0])
        elif field.number == 4:
            value = bytes(field.content)
        elif field.number == 5:
            value = _tensor(field.content)[1]
        elif field.number == 8:
            numbers += _integers(field)
    return name, numbers or value


def _tensor(content: memoryview) -> tuple[str, Array]:
    shape: list[int] = []
    name, element, raw = "", 1, b""
    listed: list[Any] = []
    for field in fields(content):
        if field.number == 1:
            shape += _integers(field)
        elif field.number == 2:
            element = varint(field.content, 0)[0]
        elif field.number == 8:
            name = bytes(field.content).decode()
        elif field.number == 9:
            raw = bytes(field.content)
        elif field.number in (4, 10):
            listed += np.frombuffer(field.content, "<f4" if field.number == 4 else "<f8").tolist()
        elif field.number in (5, 7):
            listed += _integers(field)
    dtype = np.dtype(DTYPES[element])
    flat = np.frombuffer(raw, dtype.newbyteorder("<")) if raw else np.array(listed, dtype)
    return name, flat.astype(dtype).reshape(shape)


def _integers(field: Any) -> list[int]:
    """Of a list that is packed, or of one of its numbers."""
    if field.wire_type == VARINT:
        return [_signed(varint(field.content, 0)[0])]
    found, position = [], 0
    while position < len(field.content):
        value, position = varint(field.content, position)
        found.append(_signed(value))
    return found


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def encoded(name: str, array: Array) -> bytes:
    sizes = b"".join(_number(1, size) for size in array.shape)
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return sizes + _number(2, ELEMENTS[array.dtype]) + _text(8, name) + delimited(9, raw)


def _text(number: int, text: str) -> bytes:
    return delimited(number, text.encode())


def _number(number: int, value: int) -> bytes:
    return encode_varint(number << 3 | VARINT) + encode_varint(value & (2**64 - 1))
