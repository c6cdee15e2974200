"""The exporter's graph transformations, against the same products in NumPy."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from zoo_onnx.bounds import find_bounds
from zoo_onnx.norms import divide_by_roots
from zoo_onnx.precision import to_fp16, to_int8
from zoo_onnx.products import join_products, plain_products
from zoo_onnx.tables import SMALL, tabulate
from zoo_onnx.tracing import trace


class Step(nn.Module):
    """A step in plain PyTorch: torch.nn.Linear, an embedding, a cell of torch.nn."""

    def __init__(self, vocab: int = 9, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.first, self.bare = nn.Linear(width, 6), nn.Linear(width, 6, bias=False)
        self.cell, self.head = nn.GRUCell(6, 5), nn.Linear(5, vocab)

    def forward(self, token: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(token)
        h = self.cell(torch.tanh(self.first(x)) + self.bare(x), h)
        return self.head(h), h.clone()


def traced(**sizes: int) -> tuple[Step, ir.Model]:
    torch.manual_seed(0)
    module = Step(**sizes)
    batch = torch.export.Dim("batch")
    example = (torch.zeros(3, dtype=torch.int64), torch.zeros(3, 5))
    model = trace(module, example, ["token", "h"], ["logits", "h_out"], ({0: batch},) * 2, "it")
    return module, model


def evaluate(model: ir.Model, steps: int = 20) -> tuple[list[np.ndarray], list[str]]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    evaluator, rng = ReferenceEvaluator(proto), np.random.default_rng(0)
    h, found = np.zeros((2, 5), np.float32), []
    for _ in range(steps):
        logits, h = evaluator.run(None, {"token": rng.integers(0, 9, 2), "h": h})
        found.append(logits)
    return found, [node.op_type for node in proto.graph.node]


def test_gemm_becomes_a_product_and_a_sum() -> None:
    _, model = traced()
    wanted, before = evaluate(model)
    plain_products(model.graph)
    found, after = evaluate(model)
    assert "Gemm" in before
    assert "Gemm" not in after
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_values_that_depend_on_the_token_alone_are_looked_up() -> None:
    module, model = traced()
    wanted, _ = evaluate(model)
    plain_products(model.graph)
    tabulate(model.graph)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    found, operators = evaluate(model)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    # the input's product with the cell's weights is a table; those of the state and the head remain
    assert operators.count("Gather") == 1
    assert operators.count("MatMul") == 2
    x = module.embedding.weight
    with torch.no_grad():
        x = torch.tanh(module.first(x)) + module.bare(x)
        wanted = x @ module.cell.weight_ih.T + module.cell.bias_ih
    (table,) = [
        value.const_value.numpy()
        for value in model.graph.initializers.values()
        if list(value.shape) == [9, 15]
    ]
    np.testing.assert_allclose(table, wanted, rtol=0, atol=1e-6)


class Parts(nn.Module):
    """Three parts of a step that depend on the token alone, of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.wide, self.narrow = nn.Linear(4, 5), nn.Linear(4, 2)

    def forward(self, token: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(token)
        gate = torch.sigmoid(self.wide(x))
        h = gate * h + torch.tanh(self.wide(x) * 2) + self.narrow(x).sum(-1, keepdim=True)
        return h * 3, h.clone()


@pytest.mark.parametrize("merged", [True, False])
def test_lookups_of_one_token_are_one_lookup(merged: bool) -> None:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch")
    example = (torch.zeros(3, dtype=torch.int64), torch.zeros(3, 5))
    model = trace(Parts(), example, ["token", "h"], ["y", "h_out"], ({0: batch},) * 2, "it")
    wanted, _ = evaluate(model)
    plain_products(model.graph)
    tabulate(model.graph, merged)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    found, operators = evaluate(model)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert operators.count("Gather") == (1 if merged else 3)
    assert operators.count("Split") == merged
    assert "MatMul" not in operators


class Normed(nn.Module):
    """Norms as PyTorch writes them, and one that is none: over another axis."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.norm = kind, nn.RMSNorm(6, eps=1e-5)
        nn.init.uniform_(self.norm.weight, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "rms":
            return self.norm(x)
        if self.kind == "length":
            return x * (x.square().sum(-1, keepdim=True) + 1e-5).rsqrt()
        return x * (x.square().mean(0, keepdim=True) + 1e-5).rsqrt()


@pytest.mark.parametrize("kind", ["rms", "length", "over the batch"])
def test_norms_become_one_operator(kind: str) -> None:
    """ONNX Runtime fuses what is written; the values are PyTorch's."""
    torch.manual_seed(0)
    module, x = Normed(kind), torch.randn(5, 3, 6) * 4
    axes = ({0: torch.export.Dim("batch")},)
    model = trace(module, (x[:3],), ["x"], ["y"], axes, "it")
    divide_by_roots(model.graph)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 4
        session = ort.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"]
        )
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    (found,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    fused = [node.op_type for node in nodes].count("SimplifiedLayerNormalization")
    assert fused == (kind != "over the batch")


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_two_products_in_a_row(joined: bool, bias: bool) -> None:
    """They are one where it is not larger: a bottleneck stays."""
    torch.manual_seed(0)
    inner, outer = (40, 6) if joined else (2, 40)
    module = nn.Sequential(nn.Linear(8, inner, bias), nn.Linear(inner, outer))
    x = torch.randn(5, 8)
    axes = ({0: torch.export.Dim("batch")},)
    model = trace(module, (x[:3],), ["x"], ["y"], axes, "it")
    plain_products(model.graph)
    join_products(model.graph)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    (found,) = ReferenceEvaluator(proto).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=0, atol=1e-5)
    products = [node.op_type for node in proto.graph.node].count("MatMul")
    assert products == (1 if joined else 2)


def test_a_large_table_is_not_built() -> None:
    """A narrow embedding of many tokens is kept."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.wide = nn.Embedding(SMALL // 64, 2), nn.Linear(2, 128, bias=False)

        def forward(self, token: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            h = h + self.wide(self.embedding(token))
            return h * 2, h.clone()

    batch = torch.export.Dim("batch")
    example = (torch.zeros(3, dtype=torch.int64), torch.zeros(3, 128))
    model = trace(Narrow(), example, ["token", "h"], ["y", "h_out"], ({0: batch},) * 2, "it")
    plain_products(model.graph)
    tabulate(model.graph)
    assert [node.op_type for node in model.graph].count("MatMul") == 1


def by_hand(x: np.ndarray, weight: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """x W with W quantised in steps of a 64th of each column's largest value, x in steps of
    `scale`."""
    step = np.abs(weight).max(-2, keepdims=True) / 64
    return np.rint(x / scale) * scale @ (np.rint(weight / step) * step)


@pytest.mark.parametrize("bound", [None, 1.0])
@pytest.mark.parametrize(("stack", "rows"), [((), (5,)), ((3,), (5, 3, 1))])
def test_integers_by_hand(
    bound: float | None, stack: tuple[int, ...], rows: tuple[int, ...]
) -> None:
    """A matrix, and a stack of three, like the recurrent weights of heads."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(*stack, 40, 24)).astype(np.float32)
    weight[..., 3] = 0  # a column of zeros
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [value("x", onnx.TensorProto.FLOAT, ["b", *rows[1:], 40])],
        [value("y", onnx.TensorProto.FLOAT, ["b", *rows[1:], 24])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 20)]
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10))
    to_int8(model.graph, {} if bound is None else {"x": bound})
    x = np.tanh(rng.normal(size=(*rows, 40))).astype(np.float32)
    x[2] = 0  # a row of zeros
    (found,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    largest = np.abs(x).max(-1, keepdims=True) if bound is None else bound
    with np.errstate(invalid="ignore"):
        wanted = np.nan_to_num(by_hand(x.astype(np.float64), weight, largest / 127))
    wanted[..., 3] = 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert np.abs(found - x @ weight).max() < 0.2  # of values up to 15


def test_half_precision_by_hand() -> None:
    _, model = traced()
    wanted, _ = evaluate(model)
    plain_products(model.graph)
    to_fp16(model.graph)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    found, _ = evaluate(model)
    difference = np.abs(np.array(found) - np.array(wanted)).max()
    assert 1e-7 < difference < 5e-3


def test_bounds_are_propagated_through_operations() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[b,4] h, float[b,4] c, float[b,4] x)
        => (float[b,4] h_out, float[b,4] c_out, float[b,8] y)
    <float half = {0.5}>
    {
        i = Sigmoid (x)
        gated = Mul (i, h)
        c_new = Add (gated, c)
        t = Tanh (c_new)
        both = Add (gated, t)
        lower = Mul (both, half)
        pair = Concat <axis = 1> (lower, t)
        y = Identity (pair)
        h_out = Identity (both)
        c_out = Identity (c_new)
    }
    """
    graph = ir.from_onnx_text(text).graph
    bounds = {str(v.name): b for v, b in find_bounds(graph, {"h": 1.0, "h_out": 1.0}).items()}
    assert bounds["gated"] == 1.0
    assert bounds["t"] == 1.0
    assert bounds["both"] == 1.0  # declared; propagated, it would be 2
    assert bounds["lower"] == 0.5
    assert bounds["y"] == 1.0
    assert "c_new" not in bounds
