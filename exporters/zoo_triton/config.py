"""The file config.pbtxt of a Triton model: protobuf's text format of `inference.ModelConfig`.

The server's scheduler for sequences keeps the state of each between its requests ("implicit
state"). The configuration declares each leaf of the state, with its initial value, as a pair of an
input and an output of the graph. What the choices below rest on:

- Triton pairs state inputs with state outputs by their positions in the order of their names. The
  names of an exported file have the same order on both sides.
- It keeps only the rows that took part in a batch, and it gives a starting sequence its initial
  state itself. So the graph needs no control inputs (START, READY, END, CORRID).
- The strategy `oldest` fills a batch with waiting requests of any sequences. `direct` would keep a
  slot of every batch for each sequence, and compute rows for those that have no request waiting.
  It exists for models that keep state by slot, which these do not: rows are independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from zoo.errors import ArtifactError
from zoo.inference.artifact import AGAIN, ArtifactInfo, StateEntry

MAX_BATCH_SIZE = 64
MAX_SEQUENCES = 1024  # that are open at once; more wait until one ends
IDLE_MICROSECONDS = 60_000_000  # after which a sequence without requests is dropped
ONE_CORES_CACHE = 2**21  # bytes; threads cost more than they bring where the weights fit into it
INITIAL_STATE = "initial_state"  # the folder, by Triton's definition

TYPES = {
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}  # the others are NumPy's own names in capitals: TYPE_INT64


def config(model: onnx.ModelProto, info: ArtifactInfo, size: int) -> str:
    """The text of config.pbtxt for the graph, whose file has `size` bytes."""
    states = {*info.state_names("in"), *info.state_names("out")}
    inputs = [value for value in model.graph.input if value.name not in states]
    outputs = [value for value in model.graph.output if value.name not in states]
    lines = [
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH_SIZE}",
        "version_policy { latest { num_versions: 1 } }",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
    ]
    if size <= ONE_CORES_CACHE:
        lines.append(
            'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }',
        )
    for kind, values in (("input", inputs), ("output", outputs)):
        lines += [f"{kind} [", ",\n".join(f"  {{ {_tensor(value)} }}" for value in values), "]"]
    if info.causal:
        lines += sequence_batching(info)
    else:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def sequence_batching(info: ArtifactInfo) -> list[str]:
    """The scheduler's lines, with each leaf of the state."""
    lines = [
        "sequence_batching {",
        f"  max_sequence_idle_microseconds: {IDLE_MICROSECONDS}",
        f"  oldest {{ max_candidate_sequences: {MAX_SEQUENCES} }}",
    ]
    names = zip(info.state_names("in"), info.state_names("out"), info.state, strict=True)
    for given, returned, leaf in names:
        form = f"data_type: {_type(leaf.dtype)} dims: {_list(state_dims(leaf))}"
        source = "zero_data: true" if initial_bytes(leaf) is None else f'data_file: "{given}"'
        lines += [
            "  state {",
            f'    input_name: "{given}" output_name: "{returned}"',
            f"    {form}",
            f'    initial_state {{ name: "{given}" {form} {source} }}',
            "  }",
        ]
    return [*lines, "}"]


def state_dims(leaf: StateEntry) -> tuple[int, ...]:
    """The leaf's shape without the batch axis, as the rewritten graph has it."""
    return leaf.shape or (1,)


def initial_bytes(leaf: StateEntry) -> bytes | None:
    """The content of the leaf's file in the folder `initial_state`: one row in row-major order,
    little-endian. None where all bytes are zero, for which Triton needs no file."""
    row = leaf.initial_rows(1)
    content = row.astype(row.dtype.newbyteorder("<")).tobytes()
    return content if any(content) else None


def _tensor(value: onnx.ValueInfoProto) -> str:
    """An input or output without the batch axis, which Triton adds.

    Triton accepts no tensor without dims. One of shape `[batch]` is declared as `[batch, 1]`, with
    a reshape to what the graph has.
    """
    tensor = value.type.tensor_type
    first, *others = tensor.shape.dim or [None]
    if first is None or first.HasField("dim_value"):
        raise ArtifactError(
            f"Triton cannot batch the graph: {value.name!r} does not begin with the batch; {AGAIN}."
        )
    dims = [size.dim_value if size.HasField("dim_value") else -1 for size in others]
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    form = f'name: "{value.name}" data_type: {_type(dtype)} '
    return form + (f"dims: {_list(dims)}" if dims else "dims: [ 1 ] reshape { shape: [ ] }")


def _type(dtype: str) -> str:
    return TYPES.get(dtype, f"TYPE_{np.dtype(dtype).name.upper()}")


def _list(numbers: Iterable[int] | Sequence[int]) -> str:
    return f"[ {', '.join(map(str, numbers))} ]"
