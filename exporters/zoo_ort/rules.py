"""The operators and tensors that a file may have: checks that ONNX Runtime does not make."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.inference.artifact import AGAIN, MAX_FILE_BYTES
from zoo_ort.container import MAX_VARINT_BYTES, varint

MAX_RANK = 8  # as in `zoo.inference.artifact.StateEntry`
MAX_WINDOW = 2**16  # of a convolution over time, and for the numbers of channels and groups
MAX_CONSTANT_ELEMENTS = 2**28  # as MAX_STATE_ELEMENTS there: a gigabyte of float32

# Operators that PyTorch writes for recurrent cells and modules, whose outputs are bounded by their
# inputs and constants. Loop is excluded: a number in the file says how
# often it runs, where Scan runs once for each row of a tensor. No operator is random (random
# numbers are inputs) or uses strings, sequences or files. ReverseSequence is excluded: ONNX Runtime
# does not check the rank of its input, and PyTorch never writes it.
OPERATORS = """
Abs Acos Acosh Add Asin Asinh Atan Atanh Ceil Cos Cosh Div Erf Exp Floor Log Max Mean Min Mod
Mul Neg Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan Tanh
Celu Clip Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu
Shrink Sigmoid Softmax Softplus Softsign ThresholdedRelu
And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Equal Greater GreaterOrEqual IsInf IsNaN
Less LessOrEqual Not Or Where Xor
Conv ConvTranspose CumSum DFT Det Einsum Gemm MatMul
AveragePool DepthToSpace GlobalAveragePool GlobalMaxPool GridSample LRN LpPool MaxPool Resize
SpaceToDepth
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

STRINGS = 8
TERM = rb"[A-Za-z]*(?:\.\.\.[A-Za-z]*)?"
EQUATION = re.compile(rb"%b(?:,%b)*(?:->%b)?" % (TERM, TERM, TERM))
TOO_MANY_AXES = f"has a tensor of more than {MAX_RANK} axes"

WITHOUT = "write the model without it and export it again"


class Refusal(Exception):
    """The reason why a file is refused, as the end of a sentence that begins with its path, and
    what to do about it."""

    def __init__(self, wrong: str, advice: str = AGAIN) -> None:
        super().__init__(f"{wrong}; {advice}")


class ElementType(NamedTuple):
    dtype: np.dtype[Any]
    typed: str  # the field for its values where they are not in raw_data


ELEMENT_TYPES = {
    1: ElementType(np.dtype("<f4"), "float_data"),
    2: ElementType(np.dtype("u1"), "int32_data"),
    3: ElementType(np.dtype("i1"), "int32_data"),
    4: ElementType(np.dtype("<u2"), "int32_data"),
    5: ElementType(np.dtype("<i2"), "int32_data"),
    6: ElementType(np.dtype("<i4"), "int32_data"),
    7: ElementType(np.dtype("<i8"), "int64_data"),
    9: ElementType(np.dtype("?"), "int32_data"),
    10: ElementType(np.dtype("<f2"), "int32_data"),
    11: ElementType(np.dtype("<f8"), "double_data"),
    12: ElementType(np.dtype("<u4"), "uint64_data"),
    13: ElementType(np.dtype("<u8"), "uint64_data"),
    16: ElementType(np.dtype("<u2"), "int32_data"),  # bfloat16, by its bits: NumPy has none
}
DATA_FIELDS = frozenset({"raw_data", "string_data", *(e.typed for e in ELEMENT_TYPES.values())})
VARINT_FIELDS = frozenset({"int32_data", "int64_data", "uint64_data", "i", "ints"})

# Constant has its value in one of these; the types that are not ELEMENT_TYPES are missing.
CONSTANT_TYPES = {b"value_int": 7, b"value_ints": 7, b"value_float": 1, b"value_floats": 1}

# The input that says how large the output will be, counted from zero; Range takes all of its own.
SIZE_INPUTS = {
    "ConstantOfShape": 0, "DFT": 1, "Expand": 1, "OneHot": 1, "Pad": 1, "Resize": 3, "Tile": 1,
}  # fmt: skip
MAX_SCALE = 2**12  # of all axes of a Resize, or of a transposed convolution

# The inputs that may be omitted though another follows. ONNX Runtime assumes that the rest are
# present: an empty name has made Sum and LayerNormalization read through a null pointer.
OPTIONAL_INPUTS = {
    "Clip": {1},
    "DFT": {1},
    "GRU": {3, 4},
    "LSTM": {3, 4, 5, 6},
    "MatMulInteger": {2},
    "Pad": {2},
    "Resize": {1, 2},
    "RNN": {3, 4},
    "Slice": {3},
}

# Numbers that ONNX Runtime's kernels use unchecked, and their valid ranges.
AXES = range(-MAX_RANK, MAX_RANK + 1)
RANGES = {
    b"axis": AXES,
    b"batch_dims": range(MAX_RANK),
    b"blocksize": range(1, MAX_WINDOW),
    b"dilations": range(1, MAX_WINDOW),
    b"group": range(1, MAX_WINDOW),
    b"kernel_shape": range(1, MAX_WINDOW),
    b"num_groups": range(1, MAX_WINDOW),
    b"output_padding": range(MAX_WINDOW),
    b"output_shape": range(1, MAX_WINDOW),
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


class Tensor(NamedTuple):
    """A tensor stored in the file; `field` is the field with its values."""

    element: ElementType
    field: str
    content: Sequence[memoryview]

    def value_count(self) -> int:
        """The number of values; ValueError for an incomplete one."""
        if self.field in VARINT_FIELDS:  # only the last byte of each has no high bit
            return sum(int((np.frombuffer(c, np.uint8) < 0x80).sum()) for c in self.content)
        count, rest = divmod(sum(map(len, self.content)), self.element.dtype.itemsize)
        if rest:
            raise ValueError("an incomplete number")
        return count

    def values(self) -> list[float]:
        if self.field in VARINT_FIELDS:
            return list(integers(self.content))
        values: list[float] = np.frombuffer(b"".join(self.content), self.element.dtype).tolist()
        return values


class Attribute(NamedTuple):
    """`field` is the field with the value."""

    field: str
    content: Sequence[memoryview]


def element_type(number: int) -> ElementType:
    """The element type of that number in onnx.proto."""
    if number not in ELEMENT_TYPES:
        kind = "strings" if number == STRINGS else f"type {number}"
        raise Refusal(f"has a tensor of {kind}, which the zoo does not know", WITHOUT)
    return ELEMENT_TYPES[number]


def check_shape(shape: Sequence[int]) -> None:
    """Refuses too many axes, and sizes larger than any file."""
    if len(shape) > MAX_RANK:
        raise Refusal(TOO_MANY_AXES, WITHOUT)
    if not all(0 <= size <= MAX_FILE_BYTES for size in shape):
        raise Refusal(f"has a tensor of shape {shape}")


def check_sizes(op: str, inputs: Sequence[Tensor | None]) -> None:
    """Refuses a large output whose size is a constant."""
    if op == "Range":
        constants = [tensor.values() for tensor in inputs if tensor and tensor.value_count() == 1]
        if len(constants) != 3:
            return
        (start,), (limit,), (delta,) = constants
        large = abs(limit - start) > MAX_CONSTANT_ELEMENTS * abs(delta)
    else:
        index = SIZE_INPUTS.get(op, len(inputs))
        if index >= len(inputs) or (tensor := inputs[index]) is None:
            return
        if tensor.value_count() > 2 * MAX_RANK:
            raise Refusal(TOO_MANY_AXES, WITHOUT)
        if op == "OneHot" and tensor.value_count() != 1:  # ONNX Runtime reads the first regardless
            raise Refusal("has an operator OneHot whose depth is not one number")
        large = math.prod(abs(n) + (op == "Pad") for n in tensor.values()) > MAX_CONSTANT_ELEMENTS
    if large:
        raise Refusal(f"asks {op} for more than {MAX_CONSTANT_ELEMENTS:,} elements", WITHOUT)


def check_scales(op: str, attributes: dict[bytes, Attribute], scales: Tensor | None) -> None:
    """Refuses a Resize or a transposed convolution whose output is much larger than its input."""
    if op == "Resize":
        factors = scales.values() if scales else []
    else:
        factors = [
            factor
            for name in (b"strides", b"output_shape")
            if name in attributes
            for factor in axis_numbers(attributes[name].content)
        ]
    large = math.prod(max(abs(factor), 1) for factor in factors) if factors else 1
    if not large <= MAX_SCALE:  # also where it is no number
        raise Refusal(f"asks {op} for an output {MAX_SCALE:,} times as large", WITHOUT)


def check_scan(attributes: dict[bytes, Attribute], inputs: int, outputs: int) -> None:
    """Refuses a number of scanned inputs that does not match its inputs and outputs."""
    scanned = _integer(attributes, b"num_scan_inputs", 0)
    if not 1 <= scanned <= inputs or inputs - scanned > outputs:
        raise Refusal(f"has an operator Scan over {scanned} of its {inputs} inputs")


def check_split(attributes: dict[bytes, Attribute], outputs: int) -> None:
    """Refuses a number of parts that differs from the number of outputs."""
    if (parts := _integer(attributes, b"num_outputs", outputs)) != outputs:
        raise Refusal(f"has an operator Split into {parts} parts with {outputs} outputs")


def check_einsum(attributes: dict[bytes, Attribute], inputs: int) -> None:
    """Refuses an equation that does not match its inputs. ONNX Runtime would read past its inputs
    for an operand that only the equation has, and past their axes for a letter that only the result
    has."""
    equation = attributes.get(b"equation")
    text = bytes(equation.content[0]) if equation and equation.field == "s" else b""
    text = text.replace(b" ", b"")
    operands, _, result = text.partition(b"->")
    known = EQUATION.fullmatch(text) and {*result} <= {*operands}
    if not known or operands.count(b",") != inputs - 1:
        raise Refusal(f"has an operator Einsum of {inputs} inputs for {quoted(text)}")


def _integer(attributes: dict[bytes, Attribute], name: bytes, default: int) -> int:
    attribute = attributes.get(name)
    return next(integers(attribute.content)) if attribute and attribute.field == "i" else default


def integers(contents: Iterable[memoryview]) -> Iterator[int]:
    """Signed numbers from varints; ValueError for one of more than 64 bits."""
    for content in contents:
        position = 0
        while position < len(content):
            value, position = varint(content, position)
            if value >= 2**64:  # protobuf would drop the upper bits
                raise ValueError("a number is too large")
            yield value - 2**64 if value >= 2**63 else value


def axis_numbers(contents: Sequence[memoryview]) -> list[int]:
    """One number for each axis, or two as in `pads`; more are refused unread."""
    if sum(map(len, contents)) > 2 * MAX_RANK * MAX_VARINT_BYTES:
        raise Refusal(TOO_MANY_AXES, WITHOUT)
    return list(integers(contents))


def quoted(name: bytes) -> str:
    """The name for an error message."""
    return repr(name[:40].decode(errors="replace"))
