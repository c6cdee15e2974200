"""The outermost layer of an .onnx file, read and written without the onnx package.

A file is a protobuf message, ModelProto: a sequence of fields, each a key (number and wire type)
and a value. Only the fields numbered `metadata_props` are parsed here. Everything else is opaque
bytes, which the digest covers and `zoo_ort.inspection` parses. The message's definition is
onnx.proto, the encoding is protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo.errors import ArtifactError
from zoo.inference.artifact import AGAIN

METADATA_PROPS = 14
DIGEST = "zoo.digest"
NOT_ONNX = f"is not an ONNX file, or is truncated; {AGAIN}"
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
MAX_VARINT_BYTES = 10


class Field(NamedTuple):
    """A field of a message, at `start` to `end` with its key."""

    number: int
    wire_type: int
    start: int
    end: int
    content: memoryview


def digest(content: bytes | memoryview) -> str:
    """SHA-256, in hexadecimal, of a file without its digest entry."""
    return hashlib.sha256(content).hexdigest()


def metadata_entry(key: str, value: str) -> bytes:
    """A `metadata_props` field; appended to a serialised model, it becomes part of it."""
    entry = delimited(1, key.encode()) + delimited(2, value.encode())
    return delimited(METADATA_PROPS, entry)


def read_metadata(path: Path, content: bytes) -> dict[str, str]:
    """The metadata of the file, once its digest is verified.

    Raises ArtifactError for bytes that are not a message, for a file without a digest, and for one
    that was changed after its digest was added.
    """
    view = memoryview(content)
    metadata: dict[str, str] = {}
    sealed: Field | None = None
    try:
        for field in fields(view):
            if field.number == METADATA_PROPS:
                parts = {
                    part.number: bytes(part.content).decode() for part in fields(field.content)
                }
                key = parts.get(1, "")
                metadata[key] = parts.get(2, "")
                if key == DIGEST:
                    sealed = field
    except (ValueError, IndexError):
        raise ArtifactError(f"{path} {NOT_ONNX}.") from None
    if sealed is None:
        raise ArtifactError(
            f"{path} was not exported by the zoo; export the run with `zoo export`."
        )
    if view[sealed.end :] or digest(view[: sealed.start]) != metadata[DIGEST]:
        raise ArtifactError(f"{path} is damaged: it changed after it was exported; {AGAIN}.")
    return metadata


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in order, without a copy of their contents. Raises ValueError or
    IndexError where the bytes are not a message."""
    position = 0
    while position < len(message):
        start = position
        key, position = varint(message, position)
        number, wire_type = key >> 3, key & 7
        length = 0
        if wire_type == LENGTH_DELIMITED:
            length, position = varint(message, position)
        elif wire_type == VARINT:
            end = varint(message, position)[1]
            length = end - position
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError("unknown wire type")
        end = position + length
        if end > len(message) or number == 0:
            raise ValueError("a field runs past the end")
        yield Field(number, wire_type, start, end, message[position:end])
        position = end


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """A base-128 number, and the position after it."""
    value = message[position]
    if value < 0x80:  # as nearly all are
        return value, position + 1
    value = 0
    for index in range(MAX_VARINT_BYTES):
        byte = message[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("a number is too long")


def delimited(number: int, content: bytes) -> bytes:
    return encode_varint(number << 3 | LENGTH_DELIMITED) + encode_varint(len(content)) + content


def encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
