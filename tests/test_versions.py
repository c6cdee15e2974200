"""The oldest versions that a file can declare."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from zoo_onnx.versions import declare_oldest

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\ng (float[2, 4] x, float16[4] w, bool[2, 4] b)'


def opset(body: str) -> int:
    """The opset that a graph from `body` declares, which onnx's checker then accepts."""
    model = parser.parse_model(f"{HEAD} => (float[n, m] y) {body}")
    declare_oldest(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 9
    return int(model.opset_import[0].version)


@pytest.mark.parametrize(
    "body",
    [
        "{ y = Relu(x) }",
        # operators that 20 changed, in types that they had before
        "<int64[1] a = {0}> { y = ReduceMax (x, a) }",
        "{ s = Shape(x) c = ConstantOfShape <value = float[1] {2.0}> (s) y = Add(x, c) }",
        "{ n = IsNaN(x) y = Where(n, x, x) }",
        "{ n = IsInf(x) y = Where(n, x, x) }",
        "{ h = IsNaN(w) y = Where(h, x, x) }",
        # what comes from around a graph
        "<bool t> { y = If (t) <then_branch = one () => (float[p, q] u) "
        "{ n = IsInf(x) u = Where(n, x, x) }, else_branch = two () => (float[p, q] v) "
        "{ v = Relu(x) }> }",
    ],
)  # fmt: skip
def test_opset_19_suffices(body: str) -> None:
    assert opset(body.replace("<bool t>", "<bool t = {1}>")) == 19


@pytest.mark.parametrize(
    "body",
    [
        "{ y = Gelu(x) }",  # a new one
        "{ n = IsInf(w) y = Where(n, x, x) }",  # in types that came with 20
        "<int64[1] a = {0}> { m = ReduceMax (b, a) y = Where(m, x, x) }",
        "{ y = If (t) <then_branch = one () => (float[p, q] u) "
        "{ n = IsInf(w) u = Where(n, x, x) }, else_branch = two () => (float[p, q] v) "
        "{ v = Relu(x) }> }",
        # whose meaning changed: its mode has another default
        "<float[1, 1, 2, 4] f, float[1, 2, 4, 2] g> "
        "{ s = GridSample(f, g) z = Squeeze(s) y = Add(x, z) }",
    ],
)
def test_opset_20_is_kept_where_it_is_needed(body: str) -> None:
    eight, sixteen = ", ".join(["0.0"] * 8), ", ".join(["0.0"] * 16)
    body = body.replace("] f,", f"] f = {{{eight}}},").replace("2] g>", f"2] g = {{{sixteen}}}>")
    if " If (t)" in body:
        body = f"<bool t = {{1}}> {body}"
    assert opset(body) == 20
