"""Rewrites Gemm, which torch.nn.Linear is traced to, for the passes that expect MatMul."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from zoo_onnx.tables import constant_of, make_initializer


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


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()
