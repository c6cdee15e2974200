"""Inspects a file before ONNX Runtime reads it, since files come from third parties.

The whole structure is parsed, down to the attributes of every node. An unknown field (see
`zoo_ort.messages`) is refused rather than skipped, as is a repeated field that onnx.proto has once:
ONNX Runtime uses nothing of the file that is not checked here. Only the operators in
`zoo_ort.rules` are allowed. Sizes of tensors are checked, and the values of those that give the
size of another tensor.

Inspection does not bound the time and memory that a graph takes, since small tensors can be
multiplied into large ones. Nor does it check shapes that the graph computes: an Einsum or a Conv of
the wrong rank ends the process.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import ArtifactError
from zoo.inference.artifact import MAX_FILE_BYTES
from zoo_ort.container import NOT_ONNX, fields
from zoo_ort.fused import FUSED_DOMAIN, check_fused
from zoo_ort.messages import (
    ATTRIBUTE,
    ATTRIBUTE_FIELDS,
    DIMENSION,
    GRAPH,
    LISTS,
    MODEL,
    NODE,
    OPSET_IMPORT,
    SHAPE,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE,
    Layout,
    Message,
)
from zoo_ort.rules import (
    ALLOWED_OPERATORS,
    BODIES,
    CONSTANT_TYPES,
    DATA_FIELDS,
    ELEMENT_TYPES,
    OPTIONAL_INPUTS,
    RANGES,
    WITHOUT,
    Attribute,
    Refusal,
    Tensor,
    axis_numbers,
    check_einsum,
    check_scales,
    check_scan,
    check_shape,
    check_sizes,
    check_split,
    element_type,
    integers,
    quoted,
)

OPSETS = range(13, 21)  # before 13, sizes were attributes; the zoo writes 20
FUSED_VERSIONS = range(1, 2)
IR_VERSIONS = range(7, 11)  # 7 came with opset 13; the layouts are those of 10
STANDARD_DOMAINS = frozenset({b"", b"ai.onnx"})  # two names of the standard operators
DOMAINS = STANDARD_DOMAINS | {FUSED_DOMAIN.encode()}
MAX_NODES = 100_000  # a hundred times those of a large cell; inspected in two seconds
MAX_FIELDS = 20 * MAX_NODES  # of all messages; a node of two attributes has 16
MAX_DEPTH = 5  # a sequence graph: If (blocks) > Scan > If (chunks) > If (what is left) > Scan
ORT_FORMAT = b"ORTM"  # at byte 4, it makes ONNX Runtime read the file as another format


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most MAX_FILE_BYTES; ArtifactError for anything else."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device might never end
            raise ArtifactError(f"{path} is not a regular file; give the path of an exported file.")
        _check_size(path, found.st_size)
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from None


def inspect(path: Path, content: bytes, unlisted: str | None = WITHOUT) -> None:
    """Raises ArtifactError where `content`, the file at `path`, is not a model as the zoo writes
    it. `unlisted` is the advice where it has an operator of ONNX that is not on the list; None
    admits those. Takes about a microsecond for each field; weights are skipped."""
    _check_size(path, len(content))
    try:
        _Inspector(unlisted).model(memoryview(content))
    except Refusal as refusal:
        raise ArtifactError(f"{path} {refusal}.") from None
    except (ValueError, IndexError):
        raise ArtifactError(f"{path} {NOT_ONNX}.") from None


def _check_size(path: Path, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"{path} is {size:,} bytes; a model is at most {MAX_FILE_BYTES:,}.")


class _Scope:
    """The names that the nodes of a graph can read, and the tensors of those that are constant."""

    def __init__(self, outer: _Scope | None) -> None:
        self.own: dict[bytes, Tensor | None] = {}
        self.outer = outer

    def define(self, name: bytes, tensor: Tensor | None = None) -> None:
        if name in self.own:
            raise Refusal(f"has two values named {quoted(name)}")
        self.own[_text(name)] = tensor

    def find(self, name: bytes) -> Tensor | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.own:
                return scope.own[name]
            scope = scope.outer
        raise Refusal(f"reads {quoted(name)} before anything computes it")


class _Inspector:
    """Inspects one model, and counts its nodes and fields."""

    def __init__(self, unlisted: str | None) -> None:
        self.unlisted = unlisted
        self.nodes = 0
        self.fields = 0

    def model(self, content: memoryview) -> None:
        if content[4:8] == ORT_FORMAT:
            raise Refusal("is in ONNX Runtime's own format instead of ONNX")
        model = self._read(content, MODEL)
        if not {"ir_version", "graph"} <= model.keys():
            raise ValueError("not a model")
        _check_version("IR version", _number(model, "ir_version"), IR_VERSIONS)
        if "functions" in model:
            raise Refusal("defines operators of its own", WITHOUT)
        if "training_info" in model:
            raise Refusal("holds a graph for training")
        opsets = [self._read(message, OPSET_IMPORT) for message in model.get("opset_import", ())]
        for opset in opsets:
            if (domain := _name(opset, "domain")) not in DOMAINS:
                raise Refusal(f"imports the operators of {quoted(domain)}", WITHOUT)
            versions = OPSETS if domain in STANDARD_DOMAINS else FUSED_VERSIONS
            _check_version("opset", _number(opset, "version"), versions)
        standard = [opset for opset in opsets if _name(opset, "domain") in STANDARD_DOMAINS]
        if len(standard) != 1 or len(opsets) > len(DOMAINS - STANDARD_DOMAINS) + 1:
            raise Refusal(f"imports {len(opsets)} opsets instead of one")
        self._graph(model["graph"][0], None, 0)

    def _read(self, message: memoryview, layout: Layout) -> Message:
        found: Message = {}
        for number, wire_type, _, _, content in fields(message):
            name = layout.names.get((number, wire_type))
            if name is None:
                raise Refusal(f"has a field {number} in {layout.title} that the zoo does not know")
            if name not in found:
                found[name] = [content]
            elif name not in layout.once:
                found[name].append(content)
            else:  # protobuf would take the last, or merge them
                raise Refusal(f"has two fields {name!r} in {layout.title}")
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise Refusal(f"has more than {MAX_FIELDS:,} fields", WITHOUT)
        return found

    def _graph(self, message: memoryview, outer: _Scope | None, depth: int) -> tuple[int, int]:
        """The numbers of inputs and outputs of the graph."""
        if depth > MAX_DEPTH:
            raise Refusal(f"nests graphs more than {MAX_DEPTH} deep", WITHOUT)
        graph = self._read(message, GRAPH)
        if "sparse_initializer" in graph:
            raise Refusal("holds a sparse tensor", WITHOUT)
        nodes = graph.get("node", ())
        self.nodes += len(nodes)
        if self.nodes > MAX_NODES:
            raise Refusal(f"has more than {MAX_NODES:,} nodes", WITHOUT)
        inputs = [self._value(value, complete=depth == 0) for value in graph.get("input", ())]
        outputs = [self._value(value) for value in graph.get("output", ())]
        for value in graph.get("value_info", ()):
            self._value(value)
        scope = _Scope(outer)
        for initializer in graph.get("initializer", ()):
            scope.define(*self._tensor(initializer))
        for name in inputs:
            scope.define(name)
        for node in nodes:
            self._node(node, scope, depth)
        for name in outputs:
            if name not in scope.own:
                raise Refusal(f"has an output {quoted(name)} that nothing computes")
        return len(inputs), len(outputs)

    def _value(self, message: memoryview, complete: bool = False) -> bytes:
        """The name of the value, which must be a tensor if it has a type. `complete`: its shape
        must be given, so that ONNX Runtime checks its inputs against it."""
        value = self._read(message, VALUE)
        name = _name(value, "name")
        types = [self._read(part, TYPE) for part in value.get("type", ())]
        if any("sequence_type" in t for t in types) and (complete or self.unlisted is not None):
            raise Refusal(f"has a sequence {quoted(name)} in place of a tensor", WITHOUT)
        tensors = [
            self._read(part, TENSOR_TYPE) for t in types for part in t.get("tensor_type", ())
        ]
        shapes = [self._read(part, SHAPE) for t in tensors for part in t.get("shape", ())]
        for tensor in tensors:
            element_type(_number(tensor, "elem_type"))
        for shape in shapes:
            axes = [self._read(axis, DIMENSION) for axis in shape.get("dim", ())]
            for axis in axes:
                _name(axis, "dim_param")
            check_shape([_number(axis, "dim_value") for axis in axes])
        if complete and not shapes:
            raise Refusal(f"does not declare the shape of {quoted(name)}")
        return name

    def _tensor(self, message: memoryview) -> tuple[bytes, Tensor]:
        tensor = self._read(message, TENSOR)
        name = _name(tensor, "name")
        shown = quoted(name)
        if "external_data" in tensor or _number(tensor, "data_location") != 0:
            raise Refusal(f"keeps the tensor {shown} in another file")
        element = element_type(_number(tensor, "data_type"))
        shape = axis_numbers(tensor.get("dims", ()))
        check_shape(shape)
        if 0 in shape[1:]:  # an empty list has a meaning, such as the shape of a scalar
            raise Refusal(f"holds an empty tensor {shown} of several axes")
        holders = [field for field in tensor if field in DATA_FIELDS]
        if len(holders) > 1 or not {*holders} <= {"raw_data", element.typed}:
            raise Refusal(f"keeps the tensor {shown} in {' and '.join(sorted(holders))}")
        field = holders[0] if holders else "raw_data"
        found = Tensor(element, field, tensor.get(field, ()))
        count, wanted = found.value_count(), math.prod(shape)
        if count != wanted:
            raise Refusal(f"has {count:,} values for the {wanted:,} elements of {shown}")
        return name, found

    def _node(self, message: memoryview, scope: _Scope, depth: int) -> None:
        node = self._read(message, NODE)
        op = _name(node, "op_type").decode("ascii", "replace")
        domain = _name(node, "domain")
        if domain not in (b"", FUSED_DOMAIN.encode()):
            raise Refusal(f"uses an operator of {quoted(domain)}", WITHOUT)
        if op not in ALLOWED_OPERATORS and not domain and self.unlisted is not None:
            raise Refusal(
                f"uses the operator {op[:40]!r}, which the zoo does not run", self.unlisted
            )
        inputs = [bytes(name) for name in node.get("input", ())]
        outputs = [bytes(name) for name in node.get("output", ())]
        known = op in ALLOWED_OPERATORS and not domain  # what others take is not
        for index, name in enumerate(inputs):
            if not name and known and index not in OPTIONAL_INPUTS.get(op, ()):
                raise Refusal(f"has an operator {op} without its input {index}")
        check_sizes(op, [scope.find(name) if name else None for name in inputs])
        attributes: dict[bytes, Attribute] = {}
        for part in node.get("attribute", ()):
            name, attribute = self._attribute(part)
            if name in attributes:
                raise Refusal(f"has an operator {op} with two attributes {quoted(name)}")
            attributes[name] = attribute
        if domain:
            check_fused(op, inputs, outputs, attributes)
        graphs = [name for name, attribute in attributes.items() if attribute.field == "g"]
        if known and {*graphs} != BODIES.get(op, set()):
            raise Refusal(f"has an operator {op} with other subgraphs than it takes")
        for name in graphs:
            arity = self._graph(attributes[name].content[0], scope, depth + 1)
            if known and arity != (0 if op == "If" else len(inputs), len(outputs)):
                raise Refusal(f"has an operator {op} whose graph has other inputs or outputs")
        if domain and graphs:
            raise Refusal(f"has an operator {op} with other subgraphs than it takes")
        if op in ("ConvTranspose", "Resize"):
            scales = inputs[2] if op == "Resize" and len(inputs) > 2 else b""
            check_scales(op, attributes, scope.find(scales) if scales else None)
        elif op == "Scan":
            check_scan(attributes, len(inputs), len(outputs))
        elif op == "Split":
            check_split(attributes, len(outputs))
        elif op == "Einsum":
            check_einsum(attributes, len(inputs))
        constant = self._constant(attributes) if op == "Constant" else None
        for name in outputs:
            if name:
                scope.define(name, constant)

    def _attribute(self, message: memoryview) -> tuple[bytes, Attribute]:
        attribute = self._read(message, ATTRIBUTE)
        name = _name(attribute, "name")
        field = ATTRIBUTE_FIELDS.get(_number(attribute, "type"))
        holders = ATTRIBUTE_FIELDS.values() & attribute.keys()
        if field is None or not holders <= {field} or not (holders or field in LISTS):
            raise Refusal(f"has an attribute {quoted(name)} that is not of its type")
        content: Sequence[memoryview] = attribute.get(field, ())
        if field == "t":
            self._tensor(content[0])
        if name in RANGES and not all(number in RANGES[name] for number in axis_numbers(content)):
            raise Refusal(f"has an attribute {quoted(name)} that is out of range")
        return name, Attribute(field, content)

    def _constant(self, attributes: dict[bytes, Attribute]) -> Tensor:
        """The output of a Constant."""
        for name, (field, content) in attributes.items():
            if name == b"value" and field == "t":
                return self._tensor(content[0])[1]
            if name in CONSTANT_TYPES:
                return Tensor(ELEMENT_TYPES[CONSTANT_TYPES[name]], field, content)
        raise Refusal("has an operator Constant without a value")


def _check_version(kind: str, version: int, known: range) -> None:
    if version not in known:
        raise Refusal(f"has {kind} {version}, and the zoo reads {known[0]} to {known[-1]}")


def _name(message: Message, field: str) -> bytes:
    return _text(bytes(message[field][0])) if field in message else b""


def _text(name: bytes) -> bytes:
    """The name, which must be UTF-8: ONNX Runtime's Python fails on any other."""
    try:
        name.decode()
    except UnicodeDecodeError:
        raise Refusal(f"has a name {quoted(name)} that is not UTF-8") from None
    return name


def _number(message: Message, field: str) -> int:
    """The field as a signed number; zero if it is absent, which is protobuf's default."""
    return next(integers(message[field])) if field in message else 0
