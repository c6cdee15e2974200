"""Texts as tokens on disk: encoded once, piece by piece, and mapped into memory from then on.

A text's tokens are a folder of the cache: `tokens.bin`, the tokens as the smallest unsigned type
that holds them, and `description.json`, a `Description`. The folder's name is a digest of all that
the tokens depend on, so a changed text or another tokenizer has a folder of its own. Any of them
may be deleted at any time. numpy.memmap is all that reading needs: the tokens are one flat array.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from zoo.data.cutting import END, Flow, cut
from zoo.data.tokenizer import Ids, Tokenizer
from zoo.errors import ContractError, CorpusError
from zoo.registry.registry import Registry
from zoo.validation import FrozenModel

Tokens: TypeAlias = npt.NDArray[np.integer[Any]]

VERSION = 1
ENCODED_AT_ONCE = 32  # pieces: a tokenizer may encode them side by side
TOKENS, DESCRIPTION = "tokens.bin", "description.json"


class Description(FrozenModel):
    """What is known of a text's tokens: how many each part has, the SHA-256 and the bytes of the
    normalized text in UTF-8, and how many tokens and characters there are up to the end of each
    piece."""

    dtype: Literal["uint8", "uint16", "uint32"]
    parts: tuple[int, ...]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    text_bytes: int
    marks: list[tuple[int, int]] = Field(min_length=1)

    @property
    def count(self) -> int:
        return sum(self.parts)


@dataclass(frozen=True)
class EncodedText:
    """The tokens of a text, and what was counted while they were made."""

    tokens: Tokens
    tokenizer: Tokenizer
    description: Description

    @cached_property
    def _marks(self) -> npt.NDArray[np.int64]:
        return np.array([(0, 0), *self.description.marks], np.int64)

    @property
    def characters(self) -> int:
        return self.description.marks[-1][1]

    def characters_of(self, part: slice) -> int:
        """How many characters the tokens from `part.start` to `part.stop` stand for."""
        return self._characters_until(part.stop) - self._characters_until(part.start)

    def _characters_until(self, index: int) -> int:
        mark = int(np.searchsorted(self._marks[:, 0], index, "right")) - 1
        start, characters = self._marks[mark].tolist()
        if start == index:
            return int(characters)
        rest = self.tokenizer.decode(self.tokens[start:index].tolist())
        return min(int(characters) + len(rest), int(self._marks[mark + 1, 1]))


def encode(
    read: Callable[[], Iterable[Flow]],
    tokenizer: Tokenizer,
    registry: Registry,
    key: str | None,
    cache: Path,
) -> EncodedText:
    """The tokens of a text in one or more parts, which `read` gives from the beginning: those in
    the folder `key` of the cache, which is written if it is not there. Without a key, or where the
    cache cannot be written, they are in a file that goes away with the process. CorpusError where
    there is no room for that either."""
    if key is not None:
        if (known := _find(cache / key, tokenizer)) is not None:
            return known
        with suppress(OSError):
            _store(read(), tokenizer, registry, cache / key)
            if (stored := _find(cache / key, tokenizer)) is not None:
                return stored
    try:
        with tempfile.TemporaryFile() as file:
            description = _write(read(), tokenizer, registry, file)
            return EncodedText(_mapped(file, description), tokenizer, description)
    except OSError as error:
        raise CorpusError(
            f"the tokens of the text can be written neither to {cache} nor to "
            f"{tempfile.gettempdir()}: {error.strerror}."
        ) from None


def key_of(*depends_on: Any) -> str:
    """The name of a folder for what is determined by these values."""
    return hashlib.sha256(json.dumps([VERSION, *depends_on]).encode()).hexdigest()[:40]


def _find(folder: Path, tokenizer: Tokenizer) -> EncodedText | None:
    """The tokens in a folder; None where there are none, or they are not whole."""
    try:
        description = Description.model_validate_json((folder / DESCRIPTION).read_bytes())
        with (folder / TOKENS).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == description.count * np.dtype(description.dtype).itemsize:
                return EncodedText(_mapped(file, description), tokenizer, description)
    except (OSError, ValidationError):
        pass
    return None


def _store(parts: Iterable[Flow], tokenizer: Tokenizer, registry: Registry, folder: Path) -> None:
    """Writes the folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        with (staging / TOKENS).open("wb") as file:
            description = _write(parts, tokenizer, registry, file)
        (staging / DESCRIPTION).write_text(description.model_dump_json())
        staging.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # it was not whole
        staging.rename(folder)  # OSError where another process was first, with the same tokens
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(
    parts: Iterable[Flow], tokenizer: Tokenizer, registry: Registry, file: IO[bytes]
) -> Description:
    """Appends the tokens of each part to the file."""
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    digest, text_bytes, characters = hashlib.sha256(), 0, 0
    counts: list[int] = []
    marks: list[tuple[int, int]] = []
    for part in parts:
        before = sum(counts)
        count = before
        for piece, ids in _encoded(part, tokenizer, registry):
            raw = b"\0" if piece is END else piece.encode("utf-8", "surrogatepass")
            digest.update(raw)
            text_bytes += 0 if piece is END else len(raw)
            characters += 0 if piece is END else len(piece)
            count += len(ids)
            marks.append((count, characters))
            file.write(ids.astype(dtype).data)
        counts.append(count - before)
    file.flush()
    return Description(
        dtype=dtype.name,
        parts=tuple(counts),
        sha256=digest.hexdigest(),
        text_bytes=text_bytes,
        marks=marks or [(0, 0)],
    )


def _encoded(
    flow: Flow, tokenizer: Tokenizer, registry: Registry
) -> Iterator[tuple[str | None, Ids]]:
    """Each piece of the text, normalized, with its tokens; each END with the token for it."""
    pieces = cut(tokenizer.simplified(flow), tokenizer.border)
    normalize = tokenizer.normalize
    while some := [p if p is END else normalize(p) for p in islice(pieces, ENCODED_AT_ONCE)]:
        encoded = iter(tokenizer.encode_all([piece for piece in some if piece is not END]))
        for piece in some:
            if piece is END:
                yield END, np.array([tokenizer.end_of_text], np.int64)
            else:
                yield piece, require_tokens(next(encoded, None), tokenizer, registry)


def _mapped(file: IO[bytes], description: Description) -> Tokens:
    if description.count == 0:
        return np.empty(0, description.dtype)
    return np.memmap(file, description.dtype, "r", shape=(description.count,))


def forget_pages(tokens: Tokens) -> None:
    """Takes what was read of mapped tokens out of the process' memory; it stays in the system's
    cache. Without this a text that is read once counts as if the process held it."""
    mapped = getattr(tokens, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def require_tokens(tokens: Any, tokenizer: Tokenizer, registry: Registry) -> Ids:
    """The tokens; ContractError for a tokenizer that gives something else than its tokens."""
    called = registry.tokenizers.describe(tokenizer.kind)
    if not isinstance(tokens, np.ndarray) or tokens.dtype != np.int64 or tokens.ndim != 1:
        given = type(tokens).__name__
        if isinstance(tokens, np.ndarray):
            given = f"an array {list(tokens.shape)} of {tokens.dtype}"
        raise ContractError(f"{called}: encode gives {given}; it should give one [T] of int64.")
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocab_size:
        raise ContractError(
            f"{called}: encode gives tokens from {tokens.min()} to {tokens.max()}; with its "
            f"vocab_size of {tokenizer.vocab_size} they should be 0 to {tokenizer.vocab_size - 1}."
        )
    return tokens
