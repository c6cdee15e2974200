"""Kernels for the pointwise part of a step graph: what computes each element of its result from a
few elements of its inputs, wherever those stand.

Such operators are a few hundredths of a microsecond of work each, and a microsecond to start. A
kernel computes all of them between two products at once. It is written backwards: from the index of
an element of a result to the elements that it is made of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from zoo_ort.graph import Array, Graph, Node
from zoo_ort.products import Product, Shapes

TYPES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.int64): "long long",
    np.dtype(np.int32): "int",
    np.dtype(np.bool_): "bool",
}
MAX_ELEMENTS = 2**31 - 1  # indices are ints
MAX_REDUCED = 16  # elements that a reduction adds up one after the other
BINARY = {
    "Add": "{} + {}", "Sub": "{} - {}", "Mul": "{} * {}", "Div": "{} / {}",
    "Less": "{} < {}", "Greater": "{} > {}", "Equal": "{} == {}",
    "LessOrEqual": "{} <= {}", "GreaterOrEqual": "{} >= {}", "And": "{} && {}", "Or": "{} || {}",
}  # fmt: skip
# with F for the suffix of the functions of float; NaN stays NaN
UNARY = {
    "Identity": "{x}", "Neg": "-{x}", "Not": "!{x}", "Abs": "fabsF({x})",
    "Exp": "expF({x})", "Log": "logF({x})", "Sqrt": "sqrtF({x})", "Tanh": "tanhF({x})",
    "Sin": "sinF({x})", "Cos": "cosF({x})", "Erf": "erfF({x})", "Floor": "floorF({x})",
    "Reciprocal": "({T})1 / {x}", "Sigmoid": "({T})1 / (({T})1 + expF(-{x}))",
    "Relu": "{x} < ({T})0 ? ({T})0 : {x}",
    "Softplus": "{x} > ({T})0 ? {x} + log1pF(expF(-{x})) : log1pF(expF({x}))",
}  # fmt: skip
COSTLY = {"Exp", "Log", "Sqrt", "Tanh", "Sin", "Cos", "Erf", "Sigmoid", "Softplus", "Pow", "Div"}
MOVING = {
    "Split", "Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand",
    "Gather",
}  # fmt: skip
REDUCING = {"ReduceSum": "", "ReduceMean": " / ({T}){count}"}
OTHERS = {"Where", "Cast", "Clip", "Pow", "Min", "Max", "ConstantOfShape"}
OPERATORS = {*BINARY, *UNARY, *MOVING, *REDUCING, *OTHERS}
PARAMETERS = {  # the inputs that are numbers for the operator, rather than data
    "Split": (1,), "Slice": (1, 2, 3, 4), "Unsqueeze": (1,), "Squeeze": (1,), "Reshape": (1,),
    "Expand": (1,), "ReduceSum": (1,), "ReduceMean": (1,), "ConstantOfShape": (0,),
}  # fmt: skip
WORDS = re.compile(r"[A-Za-z_]\w*")
Index = tuple[str, ...]


def is_pointwise(node: Node, graph: Graph, shapes: Shapes, dtypes: Mapping[str, np.dtype]) -> bool:
    """Whether a kernel can compute the node."""
    if node.op not in OPERATORS:
        return False
    numbers = PARAMETERS.get(node.op, ())
    read = [name for i, name in enumerate(node.inputs) if name and i not in numbers]
    if not all(dtypes[name] in TYPES for name in (*read, *node.outputs)):
        return False
    if not all(name in graph.constants for name in node.reads if name not in read):
        return False
    if node.op == "Slice":
        steps = _parameter(node, graph, 4)
        return steps is None or set(steps) == {1}
    if node.op in REDUCING:
        before, after = prod(shapes[node.inputs[0]]), prod(shapes[node.outputs[0]])
        return before <= MAX_REDUCED * after and bool(_axes(node, graph, shapes))
    return True


class Kernel:
    """The C++ of one kernel that computes the values `made`, all of one shape. What `loads` names
    is read from memory; everything else is computed from that. `buffers` are the kernel's
    arguments."""

    def __init__(
        self,
        name: str,
        made: Sequence[str],
        graph: Graph,
        producers: Mapping[str, Node],
        shapes: Shapes,
        dtypes: Mapping[str, np.dtype],
        loads: Callable[[str], bool],
        products: Mapping[str, Product],
    ) -> None:
        self._products, self._made = products, frozenset(made)
        self.name, self.shape = name, shapes[made[0]]
        self.elements = prod(self.shape)
        self.buffers: dict[str, str] = {}
        self._graph, self._producers, self._loads = graph, producers, loads
        self._shapes, self._dtypes = shapes, dtypes
        self._lines: list[str] = []
        self._early: list[str] = []  # what needs nothing that is loaded, but products
        self._still = {"at", "min", "max"}  # names of integers that need nothing that is loaded
        self._known: dict[tuple[str, Index], str] = {}
        index = self._unflattened("at", self.shape)
        results = [self._value(value, index) for value in made]
        for value, result in zip(made, results, strict=True):
            self._lines.append(f"{self._buffer(value)}[at] = {result};")

    @property
    def source(self) -> str:
        """`name(at, p0, …)`, for the threads 0 to `elements`."""
        arguments = "".join(f", void* p{number}" for number in range(len(self.buffers)))
        kinds = [TYPES[self._dtypes.get(v, np.dtype(np.float32))] for v in self.buffers]
        body = [
            f"{kind}* __restrict__ {name} = ({kind}*)p{number};"
            if value in self._made
            else f"const {kind}* __restrict__ {name} = (const {kind}*)p{number};"
            for number, (kind, (value, name)) in enumerate(
                zip(kinds, self.buffers.items(), strict=True)
            )
        ]
        lines = "\n  ".join([*body, *self._early, *self._lines])
        return f"__device__ void {self.name}(const int at{arguments}) {{\n  {lines}\n}}\n"

    def _buffer(self, value: str) -> str:
        return self.buffers.setdefault(value, f"b{len(self.buffers)}")

    def _value(self, value: str, index: Index) -> str:
        """The variable that holds one element of a value."""
        index = tuple(
            "0" if size == 1 else i for size, i in zip(self._shapes[value], index, strict=True)
        )
        key = (value, index)
        if key not in self._known:
            self._known[key] = self._written(value, index)
        return self._known[key]

    def _written(self, value: str, index: Index) -> str:
        constant = self._graph.constants.get(value)
        if constant is not None and constant.size == 1:
            return _literal(constant)
        if value in self._products and not self._loads(value):
            return self._summed(self._products[value], self._flat(value, index))
        if constant is not None or self._loads(value):
            return self._variable(value, f"{self._buffer(value)}[{self._flat(value, index)}]")
        node = self._producers[value]
        return self._variable(value, self._expression(node, value, index))

    def _variable(self, value: str, expression: str) -> str:
        name = f"v{len(self._known)}_{len(self._early) + len(self._lines)}"
        self._lines.append(f"const {TYPES[self._dtypes[value]]} {name} = {expression};")
        return name

    def _summed(self, product: Product, flat: str) -> str:
        """An element of a product, from its parts. Its loads come before all functions, some of
        which branch, so that they wait together."""
        name, parts = f"s{len(self._early) + len(self._lines)}", self._buffer(product.parts)
        step = product.rows * product.columns
        lines = self._early if flat in self._still else self._lines
        lines.append(f"float {name} = {parts}[{flat}];")
        lines.append("#pragma unroll")
        lines.append(
            f"for (int s = 1; s < {product.slices}; s++) {name} += {parts}[{flat} + s * {step}];"
        )
        return name

    def _integer(self, expression: str) -> str:
        if expression.isidentifier() or expression.isdigit():
            if expression.isdigit():
                self._still.add(expression)
            return expression
        name = f"i{len(self._early) + len(self._lines)}"
        still = all(word in self._still for word in WORDS.findall(expression))
        (self._early if still else self._lines).append(f"const int {name} = {expression};")
        if still:
            self._still.add(name)
        return name

    def _expression(self, node: Node, value: str, index: Index) -> str:
        if node.op in MOVING:
            return self._moved(node, value, index)
        if node.op in REDUCING:
            return self._reduced(node, index)
        kind = TYPES[self._dtypes[value]]
        if node.op == "ConstantOfShape":
            return _literal(node.attributes.get("value", np.zeros(1, np.float32)))
        read = [self._broadcast(name, index) for name in node.reads]
        if node.op in BINARY:
            return BINARY[node.op].format(*read)
        if node.op in UNARY:
            return self._function(UNARY[node.op], kind).format(x=read[0], T=kind)
        if node.op == "Where":
            return f"{read[0]} ? {read[1]} : {read[2]}"
        if node.op == "Cast":
            return f"{read[0]} != 0" if kind == "bool" else f"({kind}){read[0]}"
        if node.op == "Pow":
            return self._function("powF", kind) + f"(({kind}){read[0]}, ({kind}){read[1]})"
        if node.op == "Clip":
            return self._clipped(node, read, kind)
        sign = "<" if node.op == "Min" else ">"
        found = read[0]
        for other in read[1:]:
            found = self._variable(value, f"{other} {sign} {found} ? {other} : {found}")
        return found

    @staticmethod
    def _function(text: str, kind: str) -> str:
        return text.replace("F(", "f(" if kind == "float" else "(").replace(
            "powF", "powf" if kind == "float" else "pow"
        )

    @staticmethod
    def _clipped(node: Node, read: Sequence[str], kind: str) -> str:
        x, *limits = read
        text = x
        names = [position for position in (1, 2) if len(node.inputs) > position]
        for position, limit in zip((p for p in names if node.inputs[p]), limits, strict=True):
            sign = "<" if position == 1 else ">"
            text = f"({text} {sign} {limit} ? {limit} : {text})"
        return text

    def _broadcast(self, name: str, index: Index) -> str:
        """The element that takes part in that of a result with as many axes or more."""
        axes = len(self._shapes[name])
        return self._value(name, index[len(index) - axes :])

    def _moved(self, node: Node, value: str, index: Index) -> str:
        source, shape = node.inputs[0], self._shapes[node.inputs[0]]
        if node.op == "Concat":
            return self._joined(node, index)
        if node.op == "Gather":
            return self._gathered(node, index)
        if node.op == "Expand":
            return self._broadcast(source, index)
        if node.op == "Transpose":
            order = node.attributes.get("perm", list(range(len(shape)))[::-1])
            return self._value(source, tuple(index[order.index(a)] for a in range(len(shape))))
        if node.op in ("Split", "Slice"):
            starts = self._starts(node, value)
            moved = [
                self._integer(f"{i} + {s}") if s else i for i, s in zip(index, starts, strict=True)
            ]
            return self._value(source, tuple(moved))
        kept = [i for i, size in zip(index, self._shapes[value], strict=True) if size > 1]
        if [size for size in shape if size > 1] == [s for s in self._shapes[value] if s > 1]:
            left = iter(kept)  # only axes of one element come or go
            return self._value(source, tuple("0" if size == 1 else next(left) for size in shape))
        return self._value(source, self._unflattened(self._flat(value, index), shape))

    def _starts(self, node: Node, value: str) -> list[int]:
        """Where the result begins along each axis of the input."""
        shape, starts = self._shapes[node.inputs[0]], [0] * len(self._shapes[node.inputs[0]])
        if node.op == "Split":
            axis = node.attributes.get("axis", 0) % len(shape)
            before = node.outputs[: node.outputs.index(value)]
            starts[axis] = sum(self._shapes[name][axis] for name in before)
            return starts
        begin = _parameter(node, self._graph, 1) or []
        axes = _parameter(node, self._graph, 3) or list(range(len(begin)))
        for axis, start in zip(axes, begin, strict=True):
            size = shape[axis]
            starts[axis % len(shape)] = max(0, start + size) if start < 0 else min(start, size)
        return starts

    def _joined(self, node: Node, index: Index) -> str:
        axis = node.attributes["axis"] % len(index)
        found, start = "", 0
        for name in node.inputs:
            size = self._shapes[name][axis]
            if not size:
                continue
            # the index stays within the part, as it is read even where another part is taken
            inside = self._integer(
                f"min(max({index[axis]} - {start}, 0), {size - 1})" if size > 1 else "0"
            )
            part = self._value(name, (*index[:axis], inside, *index[axis + 1 :]))
            found = f"({index[axis]} < {start} ? {found} : {part})" if found else part
            start += size
        return found

    def _gathered(self, node: Node, index: Index) -> str:
        data, indices = node.inputs
        shape, axis = self._shapes[data], node.attributes.get("axis", 0)
        axis, inner = axis % len(shape), len(self._shapes[indices])
        chosen = self._value(indices, index[axis : axis + inner])
        # a token of a row that was added is -1, and negative indices count from the end
        wrapped = f"(int)({chosen} < 0 ? {chosen} + {shape[axis]} : {chosen})"
        place = self._integer(f"min(max({wrapped}, 0), {shape[axis] - 1})")
        return self._value(data, (*index[:axis], place, *index[axis + inner :]))

    def _reduced(self, node: Node, index: Index) -> str:
        source = node.inputs[0]
        shape, axes = self._shapes[source], _axes(node, self._graph, self._shapes)
        if node.attributes.get("keepdims", 1):
            outer = list(index)
        else:
            left = iter(index)
            outer = ["0" if axis in axes else next(left) for axis in range(len(shape))]
        kind = TYPES[self._dtypes[source]]
        terms = []
        for inner in np.ndindex(*(shape[axis] for axis in axes)):
            place = list(outer)
            for axis, i in zip(axes, inner, strict=True):
                place[axis] = str(i)
            terms.append(self._value(source, tuple(place)))
        scale = REDUCING[node.op].format(T=kind, count=len(terms))
        return f"({' + '.join(terms)}){scale}"

    def _flat(self, value: str, index: Index) -> str:
        """An index as one number."""
        terms, stride = [], 1
        for size, i in reversed(list(zip(self._shapes[value], index, strict=True))):
            if i != "0":
                terms.append(i if stride == 1 else f"{i} * {stride}")
            stride *= size
        return self._integer(" + ".join(reversed(terms)) or "0")

    def _unflattened(self, flat: str, shape: Sequence[int]) -> Index:
        found, stride = [], prod(shape)
        for position, size in enumerate(shape):
            stride //= size
            text = flat if stride == 1 else f"{flat} / {stride}"
            found.append("0" if size == 1 else text if position == 0 else f"({text}) % {size}")
        return tuple(self._integer(text) for text in found)


def _parameter(node: Node, graph: Graph, position: int) -> list[int] | None:
    """The numbers of an input that is none of the data; None where it is left out."""
    if len(node.inputs) <= position or not node.inputs[position]:
        return None
    found: list[int] = graph.constants[node.inputs[position]].reshape(-1).tolist()
    return found


def _axes(node: Node, graph: Graph, shapes: Shapes) -> list[int]:
    """What a reduction reduces, in order."""
    axes = _parameter(node, graph, 1) or node.attributes.get("axes") or []
    return sorted(axis % len(shapes[node.inputs[0]]) for axis in axes)


def _literal(array: Array) -> str:
    """One number of C++."""
    value = array.reshape(-1)[0]
    if array.dtype.kind != "f":
        return f"({TYPES[array.dtype]}){int(value)}"
    kind = TYPES[array.dtype]
    if math.isnan(value):
        return f"({kind})(0.0 / 0.0)"
    if math.isinf(value):
        return f"({kind})({'-' if value < 0 else ''}1e300 * 1e300)"
    return f"({kind}){float(value)!r}"
