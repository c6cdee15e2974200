"""Exported files taken apart, and put together with a digest that is valid again."""

from __future__ import annotations

from collections.abc import Iterable

from zoo_ort.container import DIGEST, METADATA_PROPS, delimited, digest, fields, metadata_entry


def sealed(body: bytes) -> bytes:
    """The file with a valid digest."""
    return body + metadata_entry(DIGEST, digest(body))


def unsealed(content: bytes) -> bytes:
    """The file without its digest, which is its last field."""
    *_, seal = fields(memoryview(content))
    return content[: seal.start]


def split(content: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The file without metadata and digest, and the metadata."""
    model, metadata = b"", {}
    for field in fields(memoryview(unsealed(content))):
        if field.number == METADATA_PROPS:
            parts = {part.number: bytes(part.content) for part in fields(field.content)}
            metadata[parts[1]] = parts.get(2, b"")
        else:
            model += content[field.start : field.end]
    return model, metadata


def joined(model: bytes, metadata: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What `split` took apart."""
    for key, value in metadata:
        model += delimited(METADATA_PROPS, delimited(1, key) + delimited(2, value))
    return sealed(model)
