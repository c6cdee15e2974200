"""The operator of ONNX Runtime's own that computes a whole linear recurrence: LinearAttention, on
CPUs, on CUDA and on WebGPU, from version 1.26 on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from onnxruntime.capi import onnxruntime_pybind11_state

from zoo_ort.rules import MAX_WINDOW, WITHOUT, Attribute, Refusal, integers, quoted

FUSED, FUSED_DOMAIN, LINEAR_ATTENTION = "fused", "com.microsoft", "LinearAttention"
NEEDED_INPUTS = {  # of LinearAttention, by its rule: the decay is input 4, the rate input 5
    b"linear": set(),
    b"gated": {4},
    b"delta": {5},
    b"gated_delta": {4, 5},
}
COUNTS, OPTIONAL = range(4, 7), 4  # inputs, and the one that may be missing
ATTRIBUTES = {b"update_rule", b"q_num_heads", b"kv_num_heads", b"scale"}


@cache
def has_fused_operators() -> bool:
    """Whether the installed ONNX Runtime has it."""
    schemas = onnxruntime_pybind11_state.get_all_operator_schema()
    return any((each.domain, each.name) == (FUSED_DOMAIN, LINEAR_ATTENTION) for each in schemas)


def check_fused(
    op: str,
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    attributes: Mapping[bytes, Attribute],
) -> None:
    """Refuses any other operator of ONNX Runtime's own, and this one in forms that the zoo does not
    write: its kernel uses what it is given unchecked."""
    if op != LINEAR_ATTENTION:
        raise Refusal(f"uses the operator {op[:40]!r} of {FUSED_DOMAIN!r}", WITHOUT)
    given = {index for index, name in enumerate(inputs) if name}
    missing = {*range(len(inputs))} - given
    if len(inputs) not in COUNTS or missing - {OPTIONAL} or len(outputs) != 2 or not all(outputs):
        raise Refusal(f"has an operator {op} with other inputs or outputs than it takes")
    if unknown := attributes.keys() - ATTRIBUTES:
        raise Refusal(f"has an operator {op} with an attribute {quoted(min(unknown))}")
    if not NEEDED_INPUTS.get(_text(attributes, b"update_rule"), {-1}) <= given:
        raise Refusal(f"has an operator {op} without what its rule needs")
    heads = _integer(attributes, b"q_num_heads")
    if heads not in range(1, MAX_WINDOW) or heads != _integer(attributes, b"kv_num_heads"):
        raise Refusal(f"has an operator {op} with other heads than it takes")


def _text(attributes: Mapping[bytes, Attribute], name: bytes) -> bytes:
    attribute = attributes.get(name)
    return bytes(attribute.content[0]) if attribute and attribute.field == "s" else b""


def _integer(attributes: Mapping[bytes, Attribute], name: bytes) -> int:
    attribute = attributes.get(name)
    return next(integers(attribute.content)) if attribute and attribute.field == "i" else -1
