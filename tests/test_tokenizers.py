"""Tokenizers, against examples worked by hand and for arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

import zoo
from zoo.data.tokenizer import read_tokenizer
from zoo.data.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, LettersTokenizer
from zoo.errors import TokenizerError

REGISTRY = zoo.load_registry()


def test_char_orders_by_frequency_then_appearance() -> None:
    tokenizer = CharTokenizer.from_text("banana x")
    assert tokenizer.characters == "anb x"
    assert tokenizer.vocab_size == 6
    assert tokenizer.encode("nab?").tolist() == [2, 1, 3, 0]
    assert tokenizer.decode([2, 1, 3, 0]) == "nab\ufffd"


def test_letters_reads_a_corpus_as_letters_and_spaces() -> None:
    tokenizer = LettersTokenizer.from_text("One, two -- THREE!")
    assert LettersTokenizer.normalize("One, two -- THREE!") == "one two three "
    assert set(tokenizer.characters) == set("one two three")
    assert tokenizer.decode(tokenizer.encode("Two")) == "two"
    assert tokenizer.unknown("Tzo?!") == "z?!"


def test_byte_streams_a_character_with_its_last_byte() -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("aé€").tolist()
    assert ids == [0x61, 0xC3, 0xA9, 0xE2, 0x82, 0xAC]
    assert list(tokenizer.stream(ids)) == ["a", "é", "€"]
    assert list(tokenizer.stream(ids[:-1])) == ["a", "é", "\ufffd"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_all_tokenizers_but_letters_are_lossless(text: str) -> None:
    for kind in (CharTokenizer, ByteTokenizer, BPETokenizer):
        tokenizer = kind.from_text(text)
        ids = tokenizer.encode(text)
        assert ids.min() >= 0
        assert ids.max() < tokenizer.vocab_size
        assert tokenizer.decode(ids.tolist()) == text
        assert tokenizer.unknown(text) == ""


@pytest.mark.parametrize("kind", [CharTokenizer, LettersTokenizer, ByteTokenizer, BPETokenizer])
def test_tokenizers_convert_to_json_and_back(kind: type[CharTokenizer]) -> None:
    tokenizer = kind.from_text("some text")
    assert read_tokenizer(tokenizer.model_dump_json(), REGISTRY) == tokenizer
    assert type(read_tokenizer(tokenizer.model_dump_json(), REGISTRY)) is kind


@pytest.mark.parametrize(
    "description",
    ["", "{}", '{"kind": "char"}', '{"kind": "char", "characters": ""}', '{"kind": "bpe"}',
     '{"kind": "char", "characters": "aba"}', '{"kind": "byte", "import": "os"}'],
)  # fmt: skip
def test_damaged_descriptions_are_refused(description: str) -> None:
    with pytest.raises(TokenizerError, match="the tokenizer is damaged"):
        read_tokenizer(description, REGISTRY)
