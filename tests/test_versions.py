"""The oldest versions that a file can declare."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from zoo_onnx.versions import declare_oldest

INPUTS = (
    "float[2, 4] x, float16[4] w, bool[2, 4] b, bool t, float[1, 1, 2, 4] f, float[1, 2, 4, 2] g"
)
HEAD = f'<ir_version: 10, opset_import: ["" : 20]>\ngraph ({INPUTS}) => (float[n, m] y)'
# within another graph, of values around it
IF = (
    "{{ y = If (t) <then_branch = one () => (float[p, q] u) "
    "{{ n = IsInf({}) u = Where(n, x, x) }}, "
    "else_branch = two () => (float[p, q] v) {{ v = Relu(x) }}> }}"
)


def opset(body: str) -> int:
    """The opset that a graph from `body` declares, which onnx's checker then accepts."""
    model = parser.parse_model(f"{HEAD} {body}")
    declare_oldest(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 9
    return int(model.opset_import[0].version)


@pytest.mark.parametrize(
    "body",
    [
        "{ y = Relu(x) }",
        # operators that 20 changed, in types that they had before
        "<int64[1] a = {0}> { y = ReduceMax(x, a) }",
        "{ s = Shape(x) c = ConstantOfShape <value = float[1] {2.0}> (s) y = Add(x, c) }",
        "{ n = IsNaN(x) y = Where(n, x, x) }",
        "{ n = IsInf(x) y = Where(n, x, x) }",
        "{ n = IsNaN(w) y = Where(n, x, x) }",
        IF.format("x"),
    ],
)
def test_opset_19_suffices(body: str) -> None:
    assert opset(body) == 19


@pytest.mark.parametrize(
    "body",
    [
        "{ y = Gelu(x) }",  # a new one
        "{ n = IsInf(w) y = Where(n, x, x) }",  # in types that came with 20
        "<int64[1] a = {0}> { m = ReduceMax(b, a) y = Where(m, x, x) }",
        IF.format("w"),
        # its mode has other names
        "{ s = GridSample(f, g) z = Squeeze(s) y = Add(x, z) }",
    ],
)
def test_opset_20_is_kept_where_it_is_needed(body: str) -> None:
    assert opset(body) == 20
