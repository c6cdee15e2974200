"""Tokens that come a few at a time, as text."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from zoo.data.decoding import ReplayingDecoder
from zoo.data.tokenizer import Tokenizer
from zoo.data.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, LettersTokenizer

TEXT = "Größe: 5 €, 漢字 und 👩‍🚀!\n" * 3
TOKENIZERS = [
    CharTokenizer.from_text(TEXT),
    LettersTokenizer.from_text("a zebra quickly jumps"),
    ByteTokenizer(),
    ByteTokenizer(documents=True),
    BPETokenizer.from_text(TEXT * 3, 300),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda each: each.kind)
@pytest.mark.parametrize("seed", range(5))
def test_any_pieces_of_the_tokens_give_the_whole_text(tokenizer: Tokenizer, seed: int) -> None:
    """The whole is what Python's own decoder gives for the bytes, or the text itself. A prefix is
    never taken back, and does not end inside a character."""
    rng = random.Random(seed)
    ids = tokenizer.encode(TEXT).tolist()
    for decoder in (tokenizer.decoder(), ReplayingDecoder(tokenizer.stream)):
        text, start = "", 0
        while start < len(ids):
            size = rng.randint(0, 3)
            text += decoder.push(ids[start : start + size])
            start += size
            assert tokenizer.decode(ids).startswith(text)
        assert text + decoder.finish() == tokenizer.decode(ids)
    if tokenizer.kind != "letters":
        assert text == TEXT


@pytest.mark.parametrize("tokenizer", TOKENIZERS[2:4], ids=("byte", "documents"))
def test_bytes_that_are_no_text_come_out_as_python_decodes_them(tokenizer: Tokenizer) -> None:
    raw = b"a\xe2\x82" + b"b\xff" + "é".encode()[:1]
    decoder = tokenizer.decoder()
    parts = [decoder.push([byte]) for byte in raw]
    assert parts[:3] == ["a", "", ""]
    assert "".join(parts) + decoder.finish() == raw.decode("utf-8", "replace")


class Spaced(Tokenizer):
    """A plugin's tokenizer whose text depends on what comes next: words with spaces between."""

    kind: str = "spaced"

    @property
    def vocab_size(self) -> int:
        return 3

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        held = ""
        for token in ids:
            if held:
                yield held + " "
            held = "abc"[token]
        yield held


def test_a_plugins_tokenizer_needs_only_its_stream() -> None:
    decoder = Spaced().decoder()
    assert [decoder.push([0]), decoder.push([1, 2]), decoder.push([])] == ["", "a b ", ""]
    assert decoder.finish() == "c"
