"""Loops with less in them write what NumPy writes, one step after another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common as passes

from zoo_onnx import loops
from zoo_onnx.loops import tighten_loops

# A step multiplies its state in integers and chooses a token from the new one; `first` is the scale
# of the state before, `second` of the state after.
TEXT = """
<ir_version: 9, opset_import: ["" : 19]>
g (int64[b] token, float[b, 4] h, float[n, b] u) => (int64[n, b] tokens, float[b, 4] h_out)
<float first = {0.01}, float second = {0.01}, uint8 zero = {128}>
{
    end, h_out, tokens = Scan <num_scan_inputs = 1, body = step (token_in, h_in, draw)
        => (int64[b] token_out, float[b, 4] h_next, int64[b] chosen)
        {
            row = Gather (table, token_in)
            q = QuantizeLinear (h_in, first, zero)
            product = MatMulInteger (q, weights, zero)
            float_product = Cast <to = 1> (product)
            scaled = Mul (float_product, first)
            sum = Add (row, scaled)
            h_next = Tanh (sum)
            q_next = QuantizeLinear (h_next, second, zero)
            logits = MatMulInteger (q_next, head, zero)
            float_logits = Cast <to = 1> (logits)
            minus_one = Constant <value_ints = [-1]> ()
            column = Unsqueeze (draw, minus_one)
            moved = Add (float_logits, column)
            chosen = ArgMax <axis = -1, keepdims = 0> (moved)
            token_out = Identity (chosen)
        }> (token, h, u)
}
"""
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(20, 4)).astype(np.float32)
WEIGHTS, HEAD = (RNG.integers(-64, 65, (4, 4)).astype(np.int8) for _ in range(2))


CHAIN = {
    "q = QuantizeLinear (h_in,": "m = Neg (h_in) q = QuantizeLinear (m,",
    "q_next = QuantizeLinear (h_next,": "m_next = Neg (h_next) q_next = QuantizeLinear (m_next,",
}


def model(changes: Mapping[str, str] = {}) -> ir.Model:
    """The model with parts of its text replaced."""
    text = TEXT
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    proto = onnx.parser.parse_model(text)
    half = WEIGHTS // 2
    arrays = {"table": TABLE, "weights": WEIGHTS, "head": HEAD, "half": half}
    arrays["other_half"] = WEIGHTS - half
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def by_hand(feeds: dict[str, np.ndarray], second: float, sign: int) -> list[np.ndarray]:
    (token, h, u), tokens = feeds.values(), []

    def product(scale: float, weights: np.ndarray) -> np.ndarray:
        q = np.clip(np.rint(sign * h / np.float32(scale)), -128, 127)
        return q.astype(np.int32) @ weights.astype(np.int32)

    for draw in u:
        h = np.tanh(TABLE[token] + product(0.01, WEIGHTS) * np.float32(0.01))
        token = (product(second, HEAD) + draw[:, None]).argmax(-1)
        tokens.append(token)
    return [np.array(tokens), h]


def tightened(before: ir.Model, second: float = 0.01, sign: int = 1) -> onnx.GraphProto:
    """The graph after the pass, which writes what it should."""
    tighten_loops(before.graph)
    passes.RemoveUnusedNodesPass()(before)
    proto = ir.to_proto(before)
    onnx.checker.check_model(proto, full_check=True)
    feeds = {
        "token": np.array([1, 3]),
        "h": RNG.uniform(-1, 1, (2, 4)).astype(np.float32),
        "u": RNG.random((30, 2)).astype(np.float32),
    }
    wanted = by_hand(feeds, second, sign)
    runtime = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for found in (ReferenceEvaluator(proto).run(None, feeds), runtime.run(None, feeds)):
        assert found[0].tolist() == wanted[0].tolist()
        np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=1e-5)
    return proto.graph


def operators(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


def body_of(graph: onnx.GraphProto) -> onnx.GraphProto:
    (loop,) = (node for node in graph.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
    return body


def names(graph: onnx.GraphProto) -> set[str]:
    return {tensor.name for tensor in graph.initializer}


def test_what_the_step_before_has_computed_is_carried() -> None:
    graph = tightened(model())
    assert operators(graph).count("QuantizeLinear") == 1  # of the first state
    assert operators(body_of(graph)).count("QuantizeLinear") == 1


def test_a_value_that_two_products_read_is_carried_once() -> None:
    again = {
        "product = MatMulInteger (q, weights, zero)": "again = QuantizeLinear (h_in, first, zero) "
        "one = MatMulInteger (q, half, zero) two = MatMulInteger (again, other_half, zero) "
        "product = Add (one, two)"
    }
    graph = tightened(model(again))
    assert operators(body_of(graph)).count("QuantizeLinear") == 1
    assert operators(graph).count("QuantizeLinear") == 1


def test_other_scales_are_other_values() -> None:
    graph = tightened(model({"second = {0.01}": "second = {0.02}"}), second=0.02)
    assert operators(body_of(graph)).count("QuantizeLinear") == 2
    assert "QuantizeLinear" not in operators(graph)


def test_chains_are_carried() -> None:
    """What is quantised is carried itself, and then read no more."""
    graph = tightened(model(CHAIN), sign=-1)
    assert operators(body_of(graph)).count("QuantizeLinear") == 1
    assert operators(body_of(graph)).count("Neg") == 1
    assert len(body_of(graph).input) == 4  # h, what is quantised, the row, the draw


def test_a_state_that_is_only_looked_up_is_looked_up_by_the_step_before() -> None:
    graph = tightened(model())
    assert operators(graph)[:-1].count("Gather") == 1
    body = body_of(graph)
    assert operators(body)[-1] == "Gather"
    assert "Identity" not in operators(body)
    assert "token_in" not in {value.name for value in body.input}


@pytest.mark.parametrize(
    "changes",
    [
        {"chosen = ArgMax": "other = Neg (token_in) chosen = ArgMax"},
        {"h_out)\n": "h_out, int64[b] end)\n"},
    ],
    ids=["a node", "an output"],
)
def test_a_state_that_others_read_is_kept(changes: dict[str, str]) -> None:
    before = model(changes)
    tighten_loops(before.graph)
    body = body_of(ir.to_proto(before).graph)
    assert [value.name for value in body.input][:2] == ["token_in", "h_in"]
    assert operators(body).count("Gather") == 1


def test_constants_stand_in_the_loop_that_reads_them() -> None:
    graph = tightened(model())
    # the table is read before the loop too; of small constants the loop has copies
    assert names(graph) == {"table", "first", "zero"}
    assert names(body_of(graph)) >= {"weights", "head", "second", "first_inside", "zero_inside"}


def test_large_constants_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would keep them twice."""
    monkeypatch.setattr(loops, "MOST", 10)
    graph = tightened(model())
    assert names(graph) >= {"table", "weights", "head"}
    assert not names(body_of(graph)) & names(graph)
