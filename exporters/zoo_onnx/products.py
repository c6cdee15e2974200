"""Products with weights: Gemm, which torch.nn.Linear is traced to, as the MatMul that other passes
expect; and two products in a row as one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from zoo_onnx.tables import Array, constant_of, make_initializer


def plain_products(graph: ir.Graph) -> None:
    """Replaces each Gemm with constant weights by MatMul and Add, in all subgraphs too."""
    for node in list(graph.all_nodes()):
        if node.op_type != "Gemm":
            continue
        x, weight, *bias = node.inputs
        matrix = constant_of(weight)
        if matrix is None or _integer(node, "transA", 0):
            continue
        if _integer(node, "transB", 0):
            matrix = matrix.T
        matrix = np.ascontiguousarray(matrix * _number(node, "alpha", 1.0), matrix.dtype)
        name = str(node.outputs[0].name)
        product = ir.Value(name=f"{name}.product")
        new = [
            ir.node(
                "MatMul",
                [x, make_initializer(graph, f"{name}_weight", matrix)],
                outputs=[product],
            )
        ]
        if bias and bias[0] is not None:
            addend, beta = bias[0], _number(node, "beta", 1.0)
            if beta != 1.0:
                scaled = ir.Value(name=f"{name}.bias")
                factor = make_initializer(graph, f"{name}_beta", np.array(beta, matrix.dtype))
                new.append(ir.node("Mul", [addend, factor], outputs=[scaled]))
                addend = scaled
            new.append(ir.node("Add", [product, addend]))
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(
            node.graph, node, [node], new, [node.outputs[0]], [new[-1].outputs[0]]
        )


def join_products(graph: ir.Graph) -> None:
    """Multiplies the weights of two products in a row, and the bias between them, where the product
    of the weights is not larger than they are."""
    for node in list(graph):
        between = node.inputs[0] if node.op_type == "MatMul" else None
        added = between.producer() if between is not None else None
        bias = None
        if between is not None and added is not None and added.op_type == "Add":
            product, bias = _with_constant(added)
        else:
            product, added = between, None
        first = product.producer() if product is not None else None
        if first is None or first.op_type != "MatMul" or first.graph is not graph:
            continue
        one, other = constant_of(first.inputs[1]), constant_of(node.inputs[1])
        values = [product] if added is None else [product, between]
        if (
            one is None
            or other is None
            or one.ndim != 2
            or other.ndim != 2
            or one.shape[0] * other.shape[1] > one.size + other.size
            or any(len(list(v.uses())) > 1 or v in graph.outputs for v in values if v is not None)
        ):
            continue
        name = str(node.outputs[0].name)
        wide = other.astype(np.float64)
        joined = (one.astype(np.float64) @ wide).astype(one.dtype)
        node.replace_input_with(0, first.inputs[0])
        node.replace_input_with(1, make_initializer(graph, f"{name}_joined", joined))
        if bias is not None:
            moved = (bias.astype(np.float64) @ wide).astype(one.dtype)
            output = node.outputs[0]
            sum_ = ir.node("Add", [output, make_initializer(graph, f"{name}_moved", moved)])
            sum_.outputs[0].type, sum_.outputs[0].shape = output.type, output.shape
            graph.insert_after(node, sum_)
            output.replace_all_uses_with(sum_.outputs[0], replace_graph_outputs=True)
            sum_.replace_input_with(0, output)
            sum_.outputs[0].name, output.name = name, f"{name}_unmoved"


def _with_constant(added: ir.Node) -> tuple[ir.Value | None, Array | None]:
    """The value and the constant vector that are added."""
    for value, other in (added.inputs, tuple(reversed(added.inputs))):
        constant = constant_of(other)
        if constant is not None and constant.ndim == 1:
            return value, constant
    return None, None


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()
