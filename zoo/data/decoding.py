"""Turning tokens into text as they come, a few at a time: what a server needs, which cannot wait in
`Tokenizer.stream` for the next token."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol


class TextDecoder(Protocol):
    """The text of one stream of tokens."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that these tokens complete; what may still become another is held back."""

    def finish(self) -> str:
        """What was held back, as it is at the end of the text."""


class ReplayingDecoder:
    """For any tokenizer, by its `stream`, which is run over all tokens at each push."""

    def __init__(self, stream: Callable[[Iterable[int]], Iterator[str]]) -> None:
        self._stream, self._ids, self._given = stream, list[int](), 0

    def push(self, ids: Sequence[int]) -> str:
        self._ids += ids
        ended = False

        def source() -> Iterator[int]:
            nonlocal ended
            yield from self._ids
            ended = True

        text = ""
        for piece in self._stream(source()):
            if ended:  # it would say something else if more tokens came
                break
            text += piece
        new, self._given = text[self._given :], len(text)
        return new

    def finish(self) -> str:
        return "".join(self._stream(self._ids))[self._given :]


class PlainDecoder:
    """For a tokenizer whose tokens each have a text of their own."""

    def __init__(self, stream: Callable[[Iterable[int]], Iterator[str]]) -> None:
        self._stream = stream

    def push(self, ids: Sequence[int]) -> str:
        return "".join(self._stream(ids))

    def finish(self) -> str:
        return ""


class UTF8Decoder:
    """For a tokenizer whose tokens are bytes of UTF-8; others become U+FFFD."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int]) -> str:
        return self._decoder.decode(b"".join(map(self._bytes_of, ids)))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)
