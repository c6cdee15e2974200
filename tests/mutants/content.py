"""Mutations of a file's bytes, without regard to what they mean. Seven in eight are outside the
weights, where a mutation is just another number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from zoo_ort.container import LENGTH_DELIMITED, VARINT, delimited, fields

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto and TensorProto

Choose = Callable[[], int]


def mutations(content: bytes, seed: int) -> Iterator[bytes]:
    """Mutated contents, without end."""
    rng = np.random.default_rng(seed)
    everywhere, structure = np.arange(len(content)), structural_positions(content)
    while True:
        focus = structure if rng.random() < 7 / 8 else everywhere
        kind = MUTATIONS[rng.integers(len(MUTATIONS))]
        yield kind(content, rng, lambda focus=focus: int(rng.choice(focus)))


def structural_positions(content: bytes) -> np.ndarray:
    structural = np.ones(len(content), bool)
    for graph in fields(memoryview(content)):
        for tensor in fields(graph.content) if graph.number == GRAPH else ():
            for data in fields(tensor.content) if tensor.number == INITIALIZER else ():
                if data.number == RAW_DATA:
                    start = graph.end - len(graph.content) + tensor.end - len(tensor.content)
                    structural[start + data.start : start + data.end] = False
    return np.flatnonzero(structural)


def flip(content: bytes, rng: np.random.Generator, position: Choose) -> bytes:
    """Flips a few bits."""
    mutated = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        mutated[position()] ^= 1 << rng.integers(8)
    return bytes(mutated)


def cut(content: bytes, rng: np.random.Generator, position: Choose) -> bytes:
    """Truncates the file."""
    return content[: position()]


def overwrite(content: bytes, rng: np.random.Generator, position: Choose) -> bytes:
    """Overwrites a run of bytes with zeros or ones."""
    start, length = position(), run_length(rng)
    fill = (b"\0", b"\xff")[rng.integers(2)]
    return content[:start] + fill * min(length, len(content) - start) + content[start + length :]


def splice(content: bytes, rng: np.random.Generator, position: Choose) -> bytes:
    """Overwrites bytes with a chunk from elsewhere."""
    source, target = position(), position()
    chunk = content[source : source + run_length(rng)]
    return content[:target] + chunk + content[target + len(chunk) :]


def double(content: bytes, rng: np.random.Generator, position: Choose) -> bytes:
    """Inserts a copy of a chunk elsewhere."""
    source, target = position(), position()
    return content[:target] + content[source : source + run_length(rng)] + content[target:]


def mutate_field(content: bytes, rng: np.random.Generator, position: Choose) -> bytes:
    """Drops or doubles a field of a message in the graph, or gives it another's content, and
    corrects the lengths of the messages around it, so that the file parses."""
    (graph,) = (field for field in fields(memoryview(content)) if field.number == GRAPH)
    return (
        content[: graph.start]
        + delimited(GRAPH, mutate_message(graph.content, rng))
        + content[graph.end :]
    )


def mutate_message(message: memoryview, rng: np.random.Generator) -> bytes:
    parts = list(fields(message))
    part = parts[rng.integers(len(parts))]
    if part.wire_type == LENGTH_DELIMITED and is_message(part.content) and rng.random() < 0.8:
        new = delimited(part.number, mutate_message(part.content, rng))
    elif part.wire_type == VARINT and rng.random() < 0.8:
        key = message[part.start : part.end - len(part.content)]
        new = bytes(key) + NUMBERS[rng.integers(len(NUMBERS))]
    elif part.wire_type == LENGTH_DELIMITED and rng.random() < 0.6:
        new = delimited(part.number, bytes(parts[rng.integers(len(parts))].content))
    else:
        new = bytes(message[part.start : part.end]) * int(rng.choice([0, 2]))
    return bytes(message[: part.start]) + new + bytes(message[part.end :])


def is_message(content: memoryview) -> bool:
    try:
        return bool(list(fields(content)))
    except (ValueError, IndexError):
        return False


def run_length(rng: np.random.Generator) -> int:
    return int(2 ** rng.uniform(0, 8))


# 0, 1, 2, 7, 8, 127, 2**31, 2**63 - 1 and -1
NUMBERS = (b"\0", b"\1", b"\2", b"\7", b"\10", b"\x7f", b"\x80\x80\x80\x80\x08",
           b"\xff" * 8 + b"\x7f", b"\xff" * 9 + b"\x01")  # fmt: skip
MUTATIONS = (flip, cut, overwrite, splice, double, mutate_field, mutate_field, mutate_field)
