"""What a file may hold, seen to before ONNX Runtime reads it: files come from strangers.

The whole structure is walked, down to the attributes of every node. A field that is not expected
is refused rather than skipped, and so is one that is given twice where onnx.proto has it once: what
ONNX Runtime makes of a file rests on nothing that was not looked at here. Of tensors the sizes are
looked at, and the values of those that say how large another tensor will be.

What looking cannot find is how long a graph runs and how much memory it takes, since small tensors
can be multiplied into large ones, nor what ONNX Runtime makes of shapes that the graph computes: an
Einsum or a Conv of the wrong rank ends the process.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from zoo.errors import ArtifactError
from zoo_ort.container import (
    FIXED32,
    FIXED64,
    LENGTH_DELIMITED,
    MAX_VARINT_BYTES,
    NOT_ONNX,
    VARINT,
    fields,
    varint,
)

MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit
OPSETS = range(13, 21)  # before 13 sizes were attributes; the zoo writes 20
IR_VERSIONS = range(7, 11)  # 7 came with opset 13; the layouts below are those of 10
DOMAINS = frozenset({b"", b"ai.onnx"})  # two names of the standard operators
MAX_NODES = 100_000  # a hundred times what a large cell has; they are walked in two seconds
MAX_FIELDS = 20 * MAX_NODES  # in all messages together; a node of two attributes takes 16
MAX_DEPTH = 4  # a generate graph nests three: Scan > If (top-p) > If (top-k)
MAX_RANK = 8  # as in `zoo.artifact.StateEntry`
MAX_WINDOW = 2**16  # of a convolution over time, and for the numbers of channels and groups
MAX_CONSTANT_ELEMENTS = 2**28  # as MAX_STATE_ELEMENTS there: a gigabyte of float32

# What PyTorch writes for recurrent cells. Loop is not here: a number in the file says how often it
# runs, where Scan runs once for each row of a tensor. Nothing is random (draws come from outside),
# and nothing touches strings, sequences or files. ReverseSequence is not here because ONNX Runtime
# does not check the rank of what it reverses, and PyTorch never writes it.
OPERATORS = """
Abs Acos Acosh Add Asin Asinh Atan Atanh Ceil Cos Cosh Div Erf Exp Floor Log Max Mean Min Mod
Mul Neg Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan Tanh
Celu Clip Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu
Shrink Sigmoid Softmax Softplus Softsign ThresholdedRelu
And BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Equal Greater GreaterOrEqual IsInf IsNaN Less
LessOrEqual Not Or Where Xor
Conv CumSum Einsum Gemm MatMul
GRU LSTM RNN
DequantizeLinear DynamicQuantizeLinear MatMulInteger QuantizeLinear
ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare TopK
BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LpNormalization
Cast CastLike Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements
GatherND Identity OneHot Pad Range Reshape ScatterElements ScatterND Shape Size
Slice Split Squeeze Tile Transpose Trilu Unsqueeze
If Scan
"""
ALLOWED_OPERATORS = frozenset(OPERATORS.split())

ORT_FORMAT = b"ORTM"  # at byte 4, it makes ONNX Runtime read the bytes as another format altogether

AGAIN = "export the run again with `zoo export`"
WITHOUT = "write the cell without it and export again"


class _Refusal(Exception):
    """What is wrong with the file, as the end of a sentence that begins with its path, and what to
    do about it."""

    def __init__(self, wrong: str, advice: str = AGAIN) -> None:
        super().__init__(f"{wrong}; {advice}")


Message: TypeAlias = dict[str, list[memoryview]]  # the contents of the fields, by name


class _Layout:
    """The fields that a message may have, by name: `once` and `often` hold bytes, `scalars` and
    `lists` numbers of a wire type."""

    def __init__(
        self,
        title: str,
        once: dict[str, int] | None = None,
        often: dict[str, int] | None = None,
        scalars: dict[str, tuple[int, int]] | None = None,
        lists: dict[str, tuple[int, int]] | None = None,
    ) -> None:
        once, often, scalars, lists = once or {}, often or {}, scalars or {}, lists or {}
        self.title = title
        self.once = frozenset({*once, *scalars})
        self.names: dict[tuple[int, int], str] = {
            **{(number, LENGTH_DELIMITED): name for name, number in {**once, **often}.items()},
            **{key: name for name, key in {**scalars, **lists}.items()},
            # a list of numbers is packed or it is not, as its writer likes
            **{(number, LENGTH_DELIMITED): name for name, (number, _) in lists.items()},
        }


MODEL = _Layout(
    "the model",
    once={"producer_name": 2, "producer_version": 3, "domain": 4, "doc_string": 6, "graph": 7},
    often={"opset_import": 8, "metadata_props": 14, "training_info": 20, "functions": 25},
    scalars={"ir_version": (1, VARINT), "model_version": (5, VARINT)},
)
OPSET_IMPORT = _Layout("an opset import", once={"domain": 1}, scalars={"version": (2, VARINT)})
GRAPH = _Layout(
    "a graph",
    once={"name": 2, "doc_string": 10},
    often={
        "node": 1,
        "initializer": 5,
        "input": 11,
        "output": 12,
        "value_info": 13,
        "quantization_annotation": 14,
        "sparse_initializer": 15,
        "metadata_props": 16,
    },
)
NODE = _Layout(
    "a node",
    once={"name": 3, "op_type": 4, "doc_string": 6, "domain": 7},
    often={"input": 1, "output": 2, "attribute": 5, "metadata_props": 9},
)
ATTRIBUTE = _Layout(
    "an attribute",
    once={"name": 1, "s": 4, "t": 5, "g": 6, "doc_string": 13},
    often={"strings": 9},
    scalars={"f": (2, FIXED32), "i": (3, VARINT), "type": (20, VARINT)},
    lists={"floats": (7, FIXED32), "ints": (8, VARINT)},
)
TENSOR = _Layout(
    "a tensor",
    once={"name": 8, "raw_data": 9, "doc_string": 12},
    often={"string_data": 6, "external_data": 13, "metadata_props": 16},
    scalars={"data_type": (2, VARINT), "data_location": (14, VARINT)},
    lists={
        "dims": (1, VARINT),
        "float_data": (4, FIXED32),
        "int32_data": (5, VARINT),
        "int64_data": (7, VARINT),
        "double_data": (10, FIXED64),
    },
)
VALUE = _Layout(
    "a value", once={"name": 1, "type": 2, "doc_string": 3}, often={"metadata_props": 4}
)
TYPE = _Layout("a type", once={"tensor_type": 1, "denotation": 6})
TENSOR_TYPE = _Layout("a tensor's type", once={"shape": 2}, scalars={"elem_type": (1, VARINT)})
SHAPE = _Layout("a shape", often={"dim": 1})
DIMENSION = _Layout(
    "an axis", once={"dim_param": 2, "denotation": 3}, scalars={"dim_value": (1, VARINT)}
)

ATTRIBUTE_FIELDS = dict(enumerate(("f", "i", "s", "t", "g", "floats", "ints", "strings"), 1))
LISTS = frozenset({"floats", "ints", "strings"})  # an empty one is no field at all

STRINGS = 8
TERM = rb"[A-Za-z]*(?:\.\.\.[A-Za-z]*)?"
EQUATION = re.compile(rb"%b(?:,%b)*(?:->%b)?" % (TERM, TERM, TERM))
TOO_MANY_AXES = f"has a tensor of more than {MAX_RANK} axes"


class _ElementType(NamedTuple):
    dtype: np.dtype[Any]
    typed: str  # the field for its values where they are not in raw_data


ELEMENT_TYPES = {
    1: _ElementType(np.dtype("<f4"), "float_data"),
    2: _ElementType(np.dtype("u1"), "int32_data"),
    3: _ElementType(np.dtype("i1"), "int32_data"),
    6: _ElementType(np.dtype("<i4"), "int32_data"),
    7: _ElementType(np.dtype("<i8"), "int64_data"),
    9: _ElementType(np.dtype("?"), "int32_data"),
    10: _ElementType(np.dtype("<f2"), "int32_data"),
    11: _ElementType(np.dtype("<f8"), "double_data"),
}
DATA_FIELDS = frozenset({"raw_data", "string_data", *(e.typed for e in ELEMENT_TYPES.values())})
VARINT_FIELDS = frozenset({"int32_data", "int64_data", "i", "ints"})

# Constant has its value in one of these; the types that are not ELEMENT_TYPES are missing.
CONSTANT_TYPES = {b"value_int": 7, b"value_ints": 7, b"value_float": 1, b"value_floats": 1}

# The input that says how large the output will be, counted from zero; Range takes all of its own.
SIZE_INPUTS = {"ConstantOfShape": 0, "Expand": 1, "OneHot": 1, "Pad": 1, "Tile": 1}

# The inputs that may be left out though another follows. ONNX Runtime takes it for granted that the
# rest are there: an empty name has made Sum and LayerNormalization read through a null pointer.
OPTIONAL_INPUTS = {
    "Clip": {1},
    "GRU": {3, 4},
    "LSTM": {3, 4, 5, 6},
    "MatMulInteger": {2},
    "Pad": {2},
    "RNN": {3, 4},
    "Slice": {3},
}

# Numbers that ONNX Runtime's kernels use unchecked, and what they can mean.
AXES = range(-MAX_RANK, MAX_RANK + 1)
RANGES = {
    b"axis": AXES,
    b"batch_dims": range(MAX_RANK),
    b"dilations": range(1, MAX_WINDOW),
    b"group": range(1, MAX_WINDOW),
    b"kernel_shape": range(1, MAX_WINDOW),
    b"num_groups": range(1, MAX_WINDOW),
    b"pads": range(MAX_WINDOW),
    b"perm": range(MAX_RANK),
    b"scan_input_axes": AXES,
    b"scan_input_directions": range(2),
    b"scan_output_axes": AXES,
    b"scan_output_directions": range(2),
    b"strides": range(1, MAX_WINDOW),
}

# The attributes that hold graphs; no other operator has any.
BODIES = {"If": {b"then_branch", b"else_branch"}, "Scan": {b"body"}}


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


def inspect(path: Path, content: bytes) -> None:
    """Raises ArtifactError where `content`, the file at `path`, is not a model such as the zoo
    writes. Takes about a microsecond for each field; weights are passed over."""
    _check_size(path, len(content))
    try:
        _Walk().model(memoryview(content))
    except _Refusal as refusal:
        raise ArtifactError(f"{path} {refusal}.") from None
    except (ValueError, IndexError):
        raise ArtifactError(f"{path} {NOT_ONNX}.") from None


def _check_size(path: Path, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"{path} is {size:,} bytes; a model is at most {MAX_FILE_BYTES:,}.")


class _Tensor(NamedTuple):
    """A tensor that stands in the file; `field` is the one that holds its values."""

    element: _ElementType
    field: str
    content: Sequence[memoryview]

    def held(self) -> int:
        """How many values there are; ValueError for a part of one."""
        if self.field in VARINT_FIELDS:  # the last byte of each has no high bit
            return sum(int((np.frombuffer(c, np.uint8) < 0x80).sum()) for c in self.content)
        count, rest = divmod(sum(map(len, self.content)), self.element.dtype.itemsize)
        if rest:
            raise ValueError("a part of a number")
        return count

    def values(self) -> list[float]:
        if self.field in VARINT_FIELDS:
            return list(_integers(self.content))
        values: list[float] = np.frombuffer(b"".join(self.content), self.element.dtype).tolist()
        return values


class _Attribute(NamedTuple):
    """`field` is the one that holds the value."""

    field: str
    content: Sequence[memoryview]


class _Scope:
    """The names that the nodes of a graph can read, and the tensors of those that are constant."""

    def __init__(self, outer: _Scope | None) -> None:
        self.own: dict[bytes, _Tensor | None] = {}
        self.outer = outer

    def define(self, name: bytes, tensor: _Tensor | None = None) -> None:
        if name in self.own:
            raise _Refusal(f"has two values named {_shown(name)}")
        self.own[name] = tensor

    def find(self, name: bytes) -> _Tensor | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.own:
                return scope.own[name]
            scope = scope.outer
        raise _Refusal(f"reads {_shown(name)} before anything computes it")


class _Walk:
    """One walk through one model, and what was counted on the way."""

    def __init__(self) -> None:
        self.nodes = 0
        self.fields = 0

    def model(self, content: memoryview) -> None:
        if content[4:8] == ORT_FORMAT:
            raise _Refusal("is in ONNX Runtime's own format instead of ONNX")
        model = self._read(content, MODEL)
        if not {"ir_version", "graph"} <= model.keys():
            raise ValueError("not a model")
        _check_version("IR version", _number(model, "ir_version"), IR_VERSIONS)
        if "functions" in model:
            raise _Refusal("defines operators of its own", WITHOUT)
        if "training_info" in model:
            raise _Refusal("holds a graph for training")
        opsets = [self._read(message, OPSET_IMPORT) for message in model.get("opset_import", ())]
        for opset in opsets:
            if (domain := _name(opset, "domain")) not in DOMAINS:
                raise _Refusal(f"imports the operators of {_shown(domain)}", WITHOUT)
            _check_version("opset", _number(opset, "version"), OPSETS)
        if len(opsets) != 1:
            raise _Refusal(f"imports {len(opsets)} opsets instead of one")
        self._graph(model["graph"][0], None, 0)

    def _read(self, message: memoryview, layout: _Layout) -> Message:
        found: Message = {}
        for number, wire_type, _, _, content in fields(message):
            name = layout.names.get((number, wire_type))
            if name is None:
                raise _Refusal(f"has a field {number} in {layout.title} that the zoo does not know")
            if name not in found:
                found[name] = [content]
            elif name not in layout.once:
                found[name].append(content)
            else:  # protobuf would take the last, or merge them
                raise _Refusal(f"has two fields {name!r} in {layout.title}")
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise _Refusal(f"has more than {MAX_FIELDS:,} fields", WITHOUT)
        return found

    def _graph(self, message: memoryview, outer: _Scope | None, depth: int) -> tuple[int, int]:
        """How many inputs and outputs the graph has."""
        if depth > MAX_DEPTH:
            raise _Refusal(f"nests graphs more than {MAX_DEPTH} deep", WITHOUT)
        graph = self._read(message, GRAPH)
        if "sparse_initializer" in graph:
            raise _Refusal("holds a sparse tensor", WITHOUT)
        nodes = graph.get("node", ())
        self.nodes += len(nodes)
        if self.nodes > MAX_NODES:
            raise _Refusal(f"has more than {MAX_NODES:,} nodes", WITHOUT)
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
                raise _Refusal(f"hands out {_shown(name)}, which nothing computes")
        return len(inputs), len(outputs)

    def _value(self, message: memoryview, complete: bool = False) -> bytes:
        """The name of the value, which is a tensor if anything is said of it. `complete`: its shape
        must be given, so that ONNX Runtime compares it with what it is fed."""
        value = self._read(message, VALUE)
        name = _name(value, "name")
        types = [self._read(part, TYPE) for part in value.get("type", ())]
        tensors = [
            self._read(part, TENSOR_TYPE) for t in types for part in t.get("tensor_type", ())
        ]
        shapes = [self._read(part, SHAPE) for t in tensors for part in t.get("shape", ())]
        for tensor in tensors:
            _element_type(_number(tensor, "elem_type"))
        for shape in shapes:
            axes = [self._read(axis, DIMENSION) for axis in shape.get("dim", ())]
            _check_shape([_number(axis, "dim_value") for axis in axes])
        if complete and not shapes:
            raise _Refusal(f"does not say what shape {_shown(name)} has")
        return name

    def _tensor(self, message: memoryview) -> tuple[bytes, _Tensor]:
        tensor = self._read(message, TENSOR)
        name = _name(tensor, "name")
        shown = _shown(name)
        if "external_data" in tensor or _number(tensor, "data_location") != 0:
            raise _Refusal(f"keeps the tensor {shown} in another file")
        element = _element_type(_number(tensor, "data_type"))
        shape = _axes(tensor.get("dims", ()))
        _check_shape(shape)
        if 0 in shape[1:]:  # an empty list says something, such as the shape of a number
            raise _Refusal(f"holds an empty tensor {shown} of several axes")
        holders = [field for field in tensor if field in DATA_FIELDS]
        if len(holders) > 1 or not {*holders} <= {"raw_data", element.typed}:
            raise _Refusal(f"keeps the tensor {shown} in {' and '.join(sorted(holders))}")
        field = holders[0] if holders else "raw_data"
        found = _Tensor(element, field, tensor.get(field, ()))
        held, wanted = found.held(), math.prod(shape)
        if held != wanted:
            raise _Refusal(f"has {held:,} values for the {wanted:,} elements of {shown}")
        return name, found

    def _node(self, message: memoryview, scope: _Scope, depth: int) -> None:
        node = self._read(message, NODE)
        op = _name(node, "op_type").decode("ascii", "replace")
        if domain := _name(node, "domain"):
            raise _Refusal(f"uses an operator of {_shown(domain)}", WITHOUT)
        if op not in ALLOWED_OPERATORS:
            raise _Refusal(f"uses the operator {op[:40]!r}, which the zoo does not run", WITHOUT)
        inputs = [bytes(name) for name in node.get("input", ())]
        outputs = [bytes(name) for name in node.get("output", ())]
        for index, name in enumerate(inputs):
            if not name and index not in OPTIONAL_INPUTS.get(op, ()):
                raise _Refusal(f"has an operator {op} without its input {index}")
        _check_sizes(op, [scope.find(name) if name else None for name in inputs])
        attributes: dict[bytes, _Attribute] = {}
        for part in node.get("attribute", ()):
            name, attribute = self._attribute(part)
            if name in attributes:
                raise _Refusal(f"has an operator {op} with two attributes {_shown(name)}")
            attributes[name] = attribute
        graphs = [name for name, attribute in attributes.items() if attribute.field == "g"]
        if {*graphs} != BODIES.get(op, set()):
            raise _Refusal(f"has an operator {op} without its graphs, or with others")
        for name in graphs:
            sides = self._graph(attributes[name].content[0], scope, depth + 1)
            if sides != (0 if op == "If" else len(inputs), len(outputs)):
                raise _Refusal(f"has an operator {op} whose graph has other inputs or outputs")
        if op == "Scan":
            _check_scan(attributes, len(inputs), len(outputs))
        elif op == "Split":
            _check_split(attributes, len(outputs))
        elif op == "Einsum":
            _check_einsum(attributes, len(inputs))
        constant = self._constant(attributes) if op == "Constant" else None
        for name in outputs:
            if name:
                scope.define(name, constant)

    def _attribute(self, message: memoryview) -> tuple[bytes, _Attribute]:
        attribute = self._read(message, ATTRIBUTE)
        name = _name(attribute, "name")
        field = ATTRIBUTE_FIELDS.get(_number(attribute, "type"))
        holders = ATTRIBUTE_FIELDS.values() & attribute.keys()
        if field is None or not holders <= {field} or not (holders or field in LISTS):
            raise _Refusal(f"has an attribute {_shown(name)} that is not of its type")
        content: Sequence[memoryview] = attribute.get(field, ())
        if field == "t":
            self._tensor(content[0])
        if name in RANGES and not all(number in RANGES[name] for number in _axes(content)):
            raise _Refusal(f"has an attribute {_shown(name)} that is out of range")
        return name, _Attribute(field, content)

    def _constant(self, attributes: dict[bytes, _Attribute]) -> _Tensor:
        """The output of a Constant."""
        for name, (field, content) in attributes.items():
            if name == b"value" and field == "t":
                return self._tensor(content[0])[1]
            if name in CONSTANT_TYPES:
                return _Tensor(ELEMENT_TYPES[CONSTANT_TYPES[name]], field, content)
        raise _Refusal("has an operator Constant without a value")


def _check_version(kind: str, version: int, known: range) -> None:
    if version not in known:
        raise _Refusal(f"has {kind} {version}, and the zoo reads {known[0]} to {known[-1]}")


def _element_type(number: int) -> _ElementType:
    if number not in ELEMENT_TYPES:
        kind = "strings" if number == STRINGS else f"type {number}"
        raise _Refusal(f"has a tensor of {kind}, which the zoo does not know", WITHOUT)
    return ELEMENT_TYPES[number]


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) > MAX_RANK:
        raise _Refusal(TOO_MANY_AXES, WITHOUT)
    if not all(0 <= size <= MAX_FILE_BYTES for size in shape):
        raise _Refusal(f"has a tensor of shape {shape}")


def _check_sizes(op: str, inputs: Sequence[_Tensor | None]) -> None:
    """Refuses an output that is large because constants say so."""
    if op == "Range":
        constants = [tensor.values() for tensor in inputs if tensor and tensor.held() == 1]
        if len(constants) != 3:
            return
        (start,), (limit,), (delta,) = constants
        large = abs(limit - start) > MAX_CONSTANT_ELEMENTS * abs(delta)
    else:
        index = SIZE_INPUTS.get(op, len(inputs))
        if index >= len(inputs) or (tensor := inputs[index]) is None:
            return
        if tensor.held() > 2 * MAX_RANK:
            raise _Refusal(TOO_MANY_AXES, WITHOUT)
        if op == "OneHot" and tensor.held() != 1:  # ONNX Runtime reads the first all the same
            raise _Refusal("has an operator OneHot whose depth is not one number")
        large = math.prod(abs(n) + (op == "Pad") for n in tensor.values()) > MAX_CONSTANT_ELEMENTS
    if large:
        raise _Refusal(f"asks {op} for more than {MAX_CONSTANT_ELEMENTS:,} elements", WITHOUT)


def _check_scan(attributes: dict[bytes, _Attribute], inputs: int, outputs: int) -> None:
    scanned = _integer(attributes, b"num_scan_inputs", 0)
    if not 1 <= scanned <= inputs or inputs - scanned > outputs:
        raise _Refusal(f"has an operator Scan over {scanned} of its {inputs} inputs")


def _check_split(attributes: dict[bytes, _Attribute], outputs: int) -> None:
    if (parts := _integer(attributes, b"num_outputs", outputs)) != outputs:
        raise _Refusal(f"has an operator Split into {parts} parts with {outputs} outputs")


def _check_einsum(attributes: dict[bytes, _Attribute], inputs: int) -> None:
    """Unchecked, ONNX Runtime reads past its inputs for an operand that only the equation has, and
    past their axes for a letter that only the result has."""
    equation = attributes.get(b"equation")
    text = bytes(equation.content[0]) if equation and equation.field == "s" else b""
    text = text.replace(b" ", b"")
    operands, _, result = text.partition(b"->")
    known = EQUATION.fullmatch(text) and {*result} <= {*operands}
    if not known or operands.count(b",") != inputs - 1:
        raise _Refusal(f"has an operator Einsum of {inputs} inputs for {_shown(text)}")


def _integer(attributes: dict[bytes, _Attribute], name: bytes, default: int) -> int:
    attribute = attributes.get(name)
    return next(_integers(attribute.content)) if attribute and attribute.field == "i" else default


def _name(message: Message, field: str) -> bytes:
    return bytes(message[field][0]) if field in message else b""


def _number(message: Message, field: str) -> int:
    """The field as a signed number; zero if it is absent, which is protobuf's default."""
    return next(_integers(message[field])) if field in message else 0


def _integers(contents: Iterable[memoryview]) -> Iterator[int]:
    for content in contents:
        position = 0
        while position < len(content):
            value, position = varint(content, position)
            if value >= 2**64:  # protobuf would drop the upper bits
                raise ValueError("a number is too large")
            yield value - 2**64 if value >= 2**63 else value


def _axes(contents: Sequence[memoryview]) -> list[int]:
    """One number for each axis, or two as in `pads`; more are refused unread."""
    if sum(map(len, contents)) > 2 * MAX_RANK * MAX_VARINT_BYTES:
        raise _Refusal(TOO_MANY_AXES, WITHOUT)
    return list(_integers(contents))


def _shown(name: bytes) -> str:
    return repr(name[:40].decode(errors="replace"))
