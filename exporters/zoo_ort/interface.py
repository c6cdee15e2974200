"""The inputs and outputs that a file's metadata promises, and whether its graph has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
import onnxruntime as ort

from zoo.errors import ArtifactError
from zoo.inference.artifact import (
    AGAIN,
    GENERATE,
    SAMPLING_INPUTS,
    SEQUENCE,
    STEP,
    TOKENS,
    UNIFORM,
    ArtifactInfo,
    SelfDescription,
)
from zoo_ort.rules import quoted

GRAPHS = (STEP, GENERATE, SEQUENCE)  # of language models
DTYPES = {
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}  # the others have NumPy's own names: "tensor(int64)"


class Value(NamedTuple):
    """An input or an output; an axis is None where each run determines its size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{quoted(self.name.encode('utf-8', 'replace'))}, {self.dtype} {_shown(self.shape)}"


def language_interface(info: ArtifactInfo) -> tuple[list[Value], list[Value]]:
    """The inputs and the outputs of a language model's graph, or of a task's, in order."""
    batch = time = steps = None
    ends, after = info.ends, []
    rows: tuple[int | None, ...] = (batch, time) if info.graph == SEQUENCE else (batch,)
    before = Value(info.input_name, "int64", rows)
    if ends.reads == "features":
        before = Value(info.input_name, "float32", (*rows, ends.inputs))
    result = Value(info.output_name, "float32", (*rows, ends.outputs))
    if info.graph == GENERATE:
        dtypes = "float32", "int64", "float32"
        after = [Value(UNIFORM, "float32", (steps, batch))]
        each: tuple[int | None, ...] = () if info.format == "1" else (batch,)
        after += [Value(n, t, each) for n, t in zip(SAMPLING_INPUTS, dtypes, strict=True)]
        result = Value(TOKENS, "int64", (steps, batch))
    return [before, *state_values(info, "in"), *after], [result, *state_values(info, "out")]


def state_values(info: SelfDescription, side: Literal["in", "out"]) -> list[Value]:
    """The state as inputs or outputs of the graph."""
    return [
        Value(name, entry.dtype, (None, *entry.shape))
        for name, entry in zip(info.state_names(side), info.state, strict=True)
    ]


def check_interface(
    path: Path, session: ort.InferenceSession, inputs: Sequence[Value], outputs: Sequence[Value]
) -> None:
    """ArtifactError for a graph whose inputs and outputs are others, or declared as others. An
    output's shape may be left open: `require_shapes` tells of it when it is there."""
    for kind, declared, wanted in (
        ("input", session.get_inputs(), inputs),
        ("output", session.get_outputs(), outputs),
    ):
        for found, promised in zip_longest(map(_value, declared), wanted):
            if found != promised and not (kind == "output" and _may_be(found, promised)):
                raise ArtifactError(
                    f"{path} has {_called(kind, found)} where its metadata says "
                    f"{_called(kind, promised)}; {AGAIN}."
                )


def require_shapes(
    names: Iterable[str],
    arrays: Iterable[npt.NDArray[Any]],
    shapes: Iterable[tuple[int | None, ...]],
) -> None:
    """ArtifactError for outputs of other shapes, which ONNX Runtime returns though the graph
    declares these."""
    for name, array, shape in zip(names, arrays, shapes, strict=True):
        if array.shape != shape and not fits(array.shape, shape):
            raise ArtifactError(
                f"the graph's output {name!r} has shape {_shown(array.shape)} instead of "
                f"{_shown(shape)}; {AGAIN}."
            )


def fits(found: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether the shape is the wanted one, whose sizes are None where any is right."""
    return len(found) == len(wanted) and all(
        size in (None, own) for own, size in zip(found, wanted, strict=True)
    )


def _shown(shape: Iterable[int | None]) -> str:
    return f"[{', '.join('any' if size is None else f'{size:,}' for size in shape)}]"


def _value(declared: Any) -> Value:
    inner = declared.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in declared.shape)
    return Value(declared.name, DTYPES.get(declared.type, inner), shape)


def _may_be(found: Value | None, promised: Value | None) -> bool:
    """Whether an output as declared, with axes or the whole shape open, may be the one promised."""
    if found is None or promised is None or found[:2] != promised[:2]:
        return False
    return not found.shape or fits(promised.shape, found.shape)


def _called(kind: str, value: Value | None) -> str:
    return f"no {kind}" if value is None else f"the {kind} {value}"
