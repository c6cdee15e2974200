"""Mutations of the files of a run: of their bytes, of the tensors and the metadata of a safetensors
file whose header stays valid, and of JSON at any depth."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any, NamedTuple

import numpy as np

from . import content
from .metadata import TEXTS, mutate_json, mutate_text

TRAINING, WEIGHTS, METRICS = "training.safetensors", "model.safetensors", "metrics.jsonl"
DOCUMENTS = "config.json", "tokenizer.json", "progress.json"
FILES = (TRAINING, WEIGHTS, METRICS, *DOCUMENTS, "samples.txt")
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1,
         "F8_E4M3": 1, "C64": 8}  # fmt: skip
FLOATS = {"F64": np.float64, "F32": np.float32}
# of a tensor's values; 3e38 overflows as soon as it is multiplied
VALUES = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e20, -1.0, 0.0, 1e-42)

Files = dict[str, bytes]


class Entry(NamedTuple):
    """A tensor of a safetensors file."""

    dtype: str
    shape: list[int]
    data: bytes


Tensors = dict[str, Entry]


def split(file: bytes) -> tuple[dict[str, str], Tensors]:
    """The metadata and the tensors of a safetensors file."""
    (length,) = struct.unpack("<Q", file[:8])
    header, data = json.loads(file[8 : 8 + length]), file[8 + length :]
    metadata = header.pop("__metadata__", {})
    tensors = {
        name: Entry(entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }
    return metadata, tensors


def joined(metadata: dict[str, str], tensors: Tensors) -> bytes:
    """The file of which `split` gives these."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        end = position + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(entry.data for entry in tensors.values())


def mutate_bytes(files: Files, rng: Random) -> Files:
    """The bytes of one file without regard to what they mean, or a file lost or another's."""
    name = rng.choice((TRAINING, *(name for name in files if files[name])))
    if rng.random() < 0.15:
        other = rng.choice((None, b"", files[rng.choice(list(files))]))
        rest = {one: file for one, file in files.items() if one != name}
        return rest if other is None else {**files, name: other}
    # a flipped bit of a number is just another number: three in four are in the header
    end = header_end(files[name]) if rng.random() < 0.75 else len(files[name])
    kind = rng.choice(BYTE_MUTATIONS)
    drawn = np.random.default_rng(rng.randrange(2**32))
    return {**files, name: kind(files[name], drawn, lambda: rng.randrange(max(1, end)))}


BYTE_MUTATIONS = content.flip, content.cut, content.overwrite, content.splice, content.double


def header_end(file: bytes) -> int:
    (length,) = struct.unpack("<Q", file[:8].ljust(8, b"\0"))
    return 8 + length if 8 + length <= len(file) else len(file)


def mutate_tensors(files: Files, rng: Random) -> Files:
    """Names, shapes and types of tensors, under a header that is valid."""
    name = rng.choice((TRAINING, TRAINING, TRAINING, WEIGHTS))
    metadata, tensors = split(files[name])
    for _ in range(rng.choice((1, 1, 1, 2))):
        tensors = rng.choice(TENSOR_MUTATIONS)(tensors, rng)
    return {**files, name: joined(metadata, tensors)}


def renamed(tensors: Tensors, rng: Random) -> Tensors:
    name = rng.choice(list(tensors))
    part, _, rest = name.partition(".")
    other = rng.choice((f"{name}_", rest, part, f"best.{rest}", f"state.{rest}", *TEXTS[:8]))
    return {(other if key == name else key): entry for key, entry in tensors.items()}


def missing(tensors: Tensors, rng: Random) -> Tensors:
    name = rng.choice(list(tensors))
    kind = name.partition(".")[0] if rng.random() < 0.3 else None
    return {
        key: entry for key, entry in tensors.items() if key != name and key.split(".")[0] != kind
    }


def extra(tensors: Tensors, rng: Random) -> Tensors:
    part = rng.choice(("model", "best", "optimizer", "state", "random", "nats", "other"))
    return {**tensors, f"{part}.{rng.choice(TEXTS[:8])}": rng.choice(list(tensors.values()))}


def swapped(tensors: Tensors, rng: Random) -> Tensors:
    """The contents of two tensors, perhaps of equal size: what swapped offsets come to."""
    one, other = rng.sample(list(tensors), 2)
    alike = [key for key in tensors if len(tensors[key].data) == len(tensors[one].data) != key]
    if rng.random() < 0.7:
        other = rng.choice(alike)
    return {**tensors, one: tensors[other], other: tensors[one]}


def retyped(tensors: Tensors, rng: Random) -> Tensors:
    """The same bytes as another type."""
    name = rng.choice(list(tensors))
    _, shape, data = tensors[name]
    dtype = rng.choice(list(SIZES))
    if shape and len(data) != SIZES[dtype] * int(np.prod(shape)):
        shape = [len(data) // SIZES[dtype]]
    data = data[: SIZES[dtype] * int(np.prod(shape))].ljust(SIZES[dtype], b"\0")
    return {**tensors, name: Entry(dtype, shape, data)}


def reshaped(tensors: Tensors, rng: Random) -> Tensors:
    """Another shape, of as many elements, more, fewer, or none."""
    name = rng.choice(list(tensors))
    dtype, shape, data = tensors[name]
    count = len(data) // SIZES[dtype]
    shape = rng.choice(
        (shape[::-1], [*shape, 1], [1, *shape], [count], shape[1:], [], [0], [0, *shape],
         [*shape[:-1], 1 + sum(shape[-1:])], [2 * size for size in shape], [count // 2, 2],
         [*shape[:-1], max(0, sum(shape[-1:]) - 1)], [100_000])
    )  # fmt: skip
    needed = SIZES[dtype] * int(np.prod(shape))
    data = (data or b"\0") * (1 + needed // max(1, len(data)))
    return {**tensors, name: Entry(dtype, shape, data[:needed])}


TENSOR_MUTATIONS: tuple[Callable[[Tensors, Random], Tensors], ...] = (
    renamed, missing, extra, swapped, retyped, reshaped, reshaped,
)  # fmt: skip


def mutate_values(files: Files, rng: Random) -> Files:
    """Numbers of tensors: not finite, huge, of another sign; and the random generators' states."""
    name = rng.choice((TRAINING, TRAINING, TRAINING, WEIGHTS))
    metadata, tensors = split(files[name])
    candidates = [key for key in tensors if key.startswith("random.")] if rng.random() < 0.3 else []
    key = rng.choice(candidates or list(tensors))
    entry = tensors[key]
    mutate = mutate_floats if entry.dtype in FLOATS else mutate_random_state
    return {**files, name: joined(metadata, {**tensors, key: mutate(entry, rng)})}


def mutate_floats(entry: Entry, rng: Random) -> Entry:
    values = np.frombuffer(entry.data, FLOATS[entry.dtype]).copy()
    if len(values):
        some = slice(None) if rng.random() < 0.3 else rng.randrange(len(values))
        values[some] = rng.choice(VALUES)
    return entry._replace(data=values.tobytes())


def mutate_random_state(entry: Entry, rng: Random) -> Entry:
    """Of another length, or with other bytes in its first words, which say where it stands."""
    data = bytearray(entry.data)
    change = rng.random()
    if change < 0.3:
        length = rng.choice((0, 1, 8, 624, 5048, 5055, 5057, 2 * len(data)))
        data = (data * (1 + length // max(1, len(data))))[:length]
        return entry._replace(shape=[*[1 for _ in entry.shape[1:]], length], data=bytes(data))
    if change < 0.8:
        at, words = rng.randrange(8, 24, 4), (0, 1, 2, 600, 624, 625, 2**31 - 1, 2**32 - 1)
        data[at : at + 4] = struct.pack("<I", rng.choice(words))
    else:
        at = rng.randrange(len(data))
        data[at:] = rng.randbytes(len(data) - at)
    return entry._replace(data=bytes(data))


def mutate_metadata(files: Files, rng: Random) -> Files:
    """What stands beside the tensors: one value at any depth, also of the optimizer's."""
    metadata, tensors = split(files[TRAINING])
    if rng.random() < 0.1:
        text = mutate_text(metadata["zoo"].encode(), rng).decode("utf-8", "replace")
        return {**files, TRAINING: joined({"zoo": text}, tensors)}
    saved = json.loads(metadata["zoo"])
    part = rng.choice((None, "position", "optimizer", "optimizer", "metrics", "best", "sizes"))
    if part is None:
        saved = mutate_json(saved, rng)
    elif part == "optimizer":
        saved[part] = json.dumps(mutate_json(json.loads(saved[part]), rng))
    else:
        saved[part] = mutate_json(deepcopy(saved[part]), rng)
    return {**files, TRAINING: joined({"zoo": json.dumps(saved)}, tensors)}


def mutate_documents(files: Files, rng: Random) -> Files:
    """One value of a JSON file, or of a line of the metrics; or a line twice, lost, or moved."""
    name = rng.choice((*DOCUMENTS, DOCUMENTS[0], METRICS))
    if name != METRICS:
        document = mutate_json(json.loads(files[name]), rng)
        return {**files, name: json.dumps(document).encode("utf-8", "surrogatepass")}
    lines = files[name].splitlines(keepends=True)
    at, change = rng.randrange(len(lines)), rng.random()
    if change < 0.6:
        line = json.dumps(mutate_json(json.loads(lines[at]), rng))
        lines[at] = line.encode("utf-8", "surrogatepass") + b"\n"
    elif change < 0.9:
        others = b"", b"\n", lines[at] * 2, b"{}\n", b"1\n", lines[0], lines[at][:-1]
        lines[at] = rng.choice(others)
    else:
        rng.shuffle(lines)
    return {**files, name: b"".join(lines)}


REGIMES: dict[str, Callable[[Files, Random], Files]] = {
    "bytes": mutate_bytes,
    "tensors": mutate_tensors,
    "values": mutate_values,
    "metadata": mutate_metadata,
    "documents": mutate_documents,
}
