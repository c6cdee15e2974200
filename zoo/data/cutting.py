"""Texts as a flow of pieces: joined from documents, cut where a tokenizer allows it, and divided.
Whatever pieces a flow comes in, it leaves in the same ones: the tokens of a text do not depend on
how it was read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

END = None  # of a document, in a flow of those that a token separates
BETWEEN = "\n\n"  # what stands between documents that none separates
PIECE = 2**16  # characters

Flow: TypeAlias = Iterator[str | None]


def joined(documents: Iterable[Iterable[str]], separate: bool) -> Flow:
    """The documents one after the other, with END after each if they are to be kept separate. Empty
    ones do not count."""
    begun = False
    for document in documents:
        empty = True
        for piece in document:
            if not piece:
                continue
            if empty and begun and not separate:
                yield BETWEEN
            empty, begun = False, True
            yield piece
        if separate and not empty:
            yield END


def cut(flow: Iterable[str | None], border: re.Pattern[str] | None, size: int = PIECE) -> Flow:
    """The same text in pieces of about `size` characters, each of which begins where `border`
    matches; one of twice that size without a match is cut where it is. Without a border, each
    document is one piece."""
    rest: list[str] = []  # what has come and is not cut yet
    held = 0
    for piece in flow:
        if piece is END:
            yield from _cut(["".join(rest)], border, size, 0)
            yield END
            rest, held = [], 0
            continue
        rest.append(piece)
        held += len(piece)
        if border is not None and held > 3 * size:
            for part in _cut(rest, border, size, 2 * size):
                yield part
                held -= len(part)
    yield from _cut(rest, border, size, 0)


def _cut(rest: list[str], border: re.Pattern[str] | None, size: int, keep: int) -> Iterator[str]:
    """Pieces from the beginning of what `rest` holds, as long as more than `keep` characters are
    left; `rest` is then what is left."""
    text, start = "".join(rest), 0
    while len(text) - start > keep:
        end = len(text)
        if border is not None and end - start > size:
            latest = min(end, start + 2 * size)
            found = border.search(text, start + size, latest)
            end = found.start() if found else latest
        yield text[start:end]
        start = end
    rest[:] = [text[start:]]


def divided(flow: Iterable[str | None], count: int) -> tuple[Flow, Flow]:
    """The first `count` characters and the rest, to be read in this order."""
    pieces = iter(flow)
    rest: list[str] = []

    def first() -> Flow:
        left = count
        for piece in pieces:
            if piece is not END and len(piece) >= left:
                yield piece[:left]
                rest.append(piece[left:])
                return
            left -= 0 if piece is END else len(piece)
            yield piece

    def second() -> Flow:
        yield from filter(None, rest)
        yield from pieces

    return first(), second()


def texts(flow: Iterable[str | None]) -> Iterator[str]:
    """The text of a flow without the ends of its documents."""
    return (piece for piece in flow if piece is not END)
