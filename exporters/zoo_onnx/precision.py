"""Matrix products in int8 or float16.

Only products with weights change; all else stays in float32, as does the state. The graphs use
standard ONNX operators only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zoo_onnx.bounds import Bounds, find_bounds
from zoo_onnx.tables import constant_of, make_initializer

# Inputs are unsigned around 128, weights signed: the pair that x86 and ARM multiply directly.
# Weights use seven bits, since processors without VNNI add two products in 16 bits: 2 * 255 * 64
# is the most that fits.
ZERO, INPUT_STEPS, WEIGHT_STEPS = np.uint8(128), 127, 64
TINY = 1e-20  # keeps the scale of a zero row above 0


def to_fp16(graph: ir.Graph) -> None:
    """Computes products with weights in half precision, and stores lookup tables in it."""
    for node in list(graph.all_nodes()):
        build = _Builder(graph, node)
        if node.op_type == "MatMul" and (weight := _weights(node.inputs[1])) is not None:
            half = build.constant("half", weight.astype(np.float16))
            narrow = build("Cast", [node.inputs[0]], to=ir.DataType.FLOAT16)
            build.finish("Cast", [build("MatMul", [narrow, half])], to=ir.DataType.FLOAT)
        elif node.op_type == "Gather" and (table := _weights(node.inputs[0])) is not None:
            axis = node.attributes.get_int("axis", 0)
            half = build.constant("half", table.astype(np.float16))
            rows = build("Gather", [half, node.inputs[1]], axis=axis)
            build.finish("Cast", [rows], to=ir.DataType.FLOAT)


def to_int8(graph: ir.Graph, declared: Mapping[str, float]) -> None:
    """Computes products with weights in integers: a scale for each column of weights, and one for
    each row of inputs, so that batch rows are independent. Where inputs are bounded by construction
    (`declared`, and the bounds derived from it) the scale is a constant, and the row's maximum is
    not computed."""
    bounds = find_bounds(graph, declared)
    for node in list(graph.all_nodes()):
        if node.op_type == "MatMul" and (weight := _weights(node.inputs[1])) is not None:
            _to_integers(_Builder(graph, node), weight, bounds)


def _to_integers(build: _Builder, weight: npt.NDArray[np.float32], bounds: Bounds) -> None:
    (x, _) = build.node.inputs
    assert x is not None
    # in a stack of matrices, such as one for each head, each has its own scales
    largest = np.abs(weight).max(axis=-2, keepdims=weight.ndim > 2)
    step = np.where(largest > 0, largest, 1.0) / WEIGHT_STEPS
    integers = build.constant("integers", np.rint(weight / step).astype(np.int8))
    zero = build.constant("zero", ZERO)
    bound = bounds.get(x, math.inf)
    if bound < 2:  # larger bounds are sums of bounds, and seldom reached
        scale = build.constant("scale", np.float32(bound / INPUT_STEPS))
        quantized = build("QuantizeLinear", [x, scale, zero])
        product = build("MatMulInteger", [quantized, integers, zero])
        columns = build.constant("columns", (step * bound / INPUT_STEPS).astype(np.float32))
        build.finish("Mul", [build("Cast", [product], to=ir.DataType.FLOAT), columns])
        return
    last = build.constant("last", np.array([-1]))
    row = build("ReduceMax", [build("Abs", [x]), last], keepdims=1)
    above = build("Max", [row, build.constant("tiny", np.float32(TINY))])
    scale = build("Mul", [above, build.constant("share", np.float32(1 / INPUT_STEPS))])
    one = build.constant("one", np.float32(1))
    quantized = build("QuantizeLinear", [build("Div", [x, scale]), one, zero])
    product = build("MatMulInteger", [quantized, integers, zero])
    columns = build.constant("columns", step.astype(np.float32))
    in_columns = build("Mul", [build("Cast", [product], to=ir.DataType.FLOAT), columns])
    build.finish("Mul", [in_columns, scale])


def _weights(value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    """The value as a constant float32 matrix, or stack of matrices; None if it is not one."""
    constant = constant_of(value)
    is_matrix = constant is not None and constant.dtype == np.float32 and constant.ndim >= 2
    return constant if is_matrix else None


class _Builder:
    """Replaces `node` by new nodes; constants go to the outermost graph."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.node = node
        self._graph = graph
        self._name, self._count = str(node.outputs[0].name), 0

    def __call__(self, op: str, inputs: list[ir.Value | None], **attributes: int) -> ir.Value:
        assert self.node.graph is not None
        self._count += 1
        output = ir.Value(name=f"{self._name}.{self._count}")
        self.node.graph.insert_before(self.node, ir.node(op, inputs, attributes, outputs=[output]))
        return output

    def constant(self, name: str, array: npt.ArrayLike) -> ir.Value:
        return make_initializer(self._graph, f"{self._name}_{name}", array)

    def finish(self, op: str, inputs: list[ir.Value | None], **attributes: int) -> None:
        """Adds the node whose output replaces that of the old one."""
        assert self.node.graph is not None
        new = ir.node(op, inputs, attributes)
        old = self.node.outputs[0]
        ir.convenience.replace_nodes_and_values(
            self.node.graph, self.node, [self.node], [new], [old], [new.outputs[0]]
        )


Rewriting = Callable[[ir.Graph, Mapping[str, float]], None]

PRECISIONS: dict[str, Rewriting] = {
    "fp32": lambda graph, declared: None,
    "fp16": lambda graph, declared: to_fp16(graph),
    "int8": to_int8,
}
