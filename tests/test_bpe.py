"""Byte pair encoding, from learning the merges to exported files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from tokenizers import Tokenizer, decoders, models

import zoo
from zoo.cli import run as zoo_run
from zoo.config import DataConfig
from zoo.data.cutting import cut
from zoo.data.dataset import read_dataset
from zoo.data.tokenizer import read_tokenizer
from zoo.data.tokenizers import MAX_TOKEN_BYTES, SPELLING, BPETokenizer
from zoo.errors import CorpusError, TokenizerError, UsageError

# The words of the paper that introduced BPE for text (Sennrich, Haddow and Birch, 2016), with its
# frequencies: low 5, lower 2, newest 6, widest 3; all but the first with the space before them.
WORDS = " ".join(["low"] * 5 + ["lower"] * 2 + ["widest"] * 3 + ["newest"] * 6)

# Worked out by hand. The number is the frequency of the pair at that merge. Of equally frequent
# pairs the one of the earlier tokens is merged; "Ġ", the space, comes after the letters.
MERGES = {
    "e s": 9,  # and "s t" 9
    "es t": 9,
    "l o": 7,  # and "o w" 7, which is "lo w" from now on
    "lo w": 7,
    "e w": 6,  # and "n e", "w est", "Ġ n", "Ġ low" 6
    "n ew": 6,  # and "ew est", "Ġ n", "Ġ low" 6
    "Ġ low": 6,  # and "Ġ new", "new est" 6
    "Ġ new": 6,
    "Ġnew est": 6,
    "d est": 3,  # and "i d", "w i", "Ġ w" 3
    "i dest": 3,
    "w idest": 3,
    "Ġ widest": 3,
    "e r": 2,  # and "Ġlow e" 2
    "Ġlow er": 2,
}

TEXT = ["the quick brown fox jumps over the lazy dog, and the dog sleeps on. ", "ëin Gruß 🦊🏽 "]
REGISTRY = zoo.load_registry()
SMALL = {"hidden": 16, "embedding": 64, "epochs": 1, "batch_size": 4, "steps": 8}


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.from_text("".join(TEXT) * 20, 300)


@pytest.fixture(scope="module")
def subword_run(tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    folder = tmp_path_factory.mktemp("subwords")
    (folder / "a.txt").write_text("".join(TEXT) * 100, "utf-8")
    return zoo.train(
        str(folder / "a.txt"), cell="rnn", tokenizer="bpe", vocab=300, out=folder / "run", **SMALL
    )


@pytest.fixture(scope="module")
def subword_files(subword_run: zoo.Run) -> list[Path]:
    return [exported.path for exported in zoo.export_all(subword_run)]


def test_merges_are_those_of_the_hand_worked_example() -> None:
    learned = BPETokenizer.from_text(WORDS, 1000)  # a text too small for so many merges
    assert learned.merges == tuple(MERGES)
    assert learned.vocab_size == 256 + 15
    assert BPETokenizer.from_text(WORDS, 260).merges == tuple(MERGES)[:4]
    # "lowest": es, est, lo, low; " newer": ew, new, then the space, and at last er
    ids = learned.encode("lowest newer").tolist()
    assert ids == [256 + 3, 256 + 1, 256 + 7, 256 + 13]
    assert [learned.tokens[token] for token in ids] == [b"low", b"est", b" new", b"er"]
    assert learned.encode("zß").tolist() == [0x7A, 0xC3, 0x9F]
    assert learned.encode("").tolist() == []
    assert learned.encode("").dtype == np.int64


def test_bytes_have_the_symbols_of_the_library() -> None:
    library = Tokenizer(
        models.BPE({character: byte for byte, character in enumerate(SPELLING)}, [])
    )
    library.decoder = decoders.ByteLevel()
    for byte in range(128):
        assert library.decode([byte]) == chr(byte)
    for first in range(0xC2, 0xF0):  # and so every byte that occurs in UTF-8
        for second in range(0x80, 0xC0):
            ids = [first, second] if first < 0xE0 else [first, 0xA0 - (first == 0xED), second]
            assert library.decode(ids) == bytes(ids).decode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_inverts_encoding_for_any_text(tokenizer: BPETokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert len(ids) <= len(text.encode())
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.unknown(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "\0\x1c\x7f\ufffe\U0010ffff",
        "🧑🏽‍🚀🇪🇺",
        "e\u0301\u0323 é",
        "\u00ad\ufeff\u200b",
        "a\r\n \t\u2028",
    ],
)
def test_decoding_inverts_encoding_for_unusual_characters(
    tokenizer: BPETokenizer, text: str
) -> None:
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_an_unpaired_surrogate_is_encoded_as_a_question_mark(tokenizer: BPETokenizer) -> None:
    assert tokenizer.encode("a\ud800b").tolist() == tokenizer.encode("a?b").tolist()
    assert BPETokenizer.from_text("\ud800\ud800 " * 9).merges[0] == "? ?"


BOUNDED_WORDS = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]{1,32}| ?[0-9]{1,3}| ?[^\t-\r A-Za-z0-9]{1,32}"
    r"|[\t-\r ]{1,32}(?![^\t-\r ])|[\t-\r ]"
)
UNBOUNDED_WORDS = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+"
    r"|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)
ASCII_TEXTS = (
    st.text(st.characters(codec="ascii"))
    | st.text("the dog's 12\n-")
    | st.lists(st.sampled_from(["a" * 31, "1234", "-" * 31, " " * 31, "b", " ", "\n"])).map("".join)
)


@given(ASCII_TEXTS)
def test_tokens_are_those_of_the_documented_rules(tokenizer: BPETokenizer, text: str) -> None:
    """The rules documented with the run folder, by hand, for characters that Python's regular
    expressions have classes for."""
    require_documented_tokens(tokenizer, BOUNDED_WORDS, text)


@given(ASCII_TEXTS)
def test_words_of_an_older_file_are_unbounded(tokenizer: BPETokenizer, text: str) -> None:
    """The description of a tokenizer that says nothing of words."""
    older = read_tokenizer(json.dumps({"kind": "bpe", "merges": tokenizer.merges}), REGISTRY)
    require_documented_tokens(older, UNBOUNDED_WORDS, text)


def require_documented_tokens(tokenizer: BPETokenizer, words: re.Pattern[str], text: str) -> None:
    pairs = [tuple(merge.split(" ")) for merge in tokenizer.merges]
    wanted = []
    for word in words.findall(text):
        parts = [SPELLING[byte] for byte in word.encode()]
        while found := [pair for pair in pairwise(parts) if pair in pairs]:
            index = list(pairwise(parts)).index(min(found, key=pairs.index))
            parts[index : index + 2] = [parts[index] + parts[index + 1]]
        wanted += parts
    spelled = [*SPELLING, *("".join(pair) for pair in pairs)]
    assert tokenizer.encode(text).tolist() == [spelled.index(part) for part in wanted]


@given(st.lists(st.integers(0, 299)))
def test_tokens_decode_as_the_library_decodes_them(tokenizer: BPETokenizer, ids: list[int]) -> None:
    """For any tokens, also bytes that are not valid UTF-8."""
    spelled = ["".join(SPELLING[byte] for byte in token) for token in tokenizer.tokens]
    library = Tokenizer(models.BPE({token: number for number, token in enumerate(spelled)}, []))
    library.decoder = decoders.ByteLevel()
    assert tokenizer.decode(ids) == library.decode(ids)
    assert "" not in tokenizer.stream(ids)


def test_a_character_is_streamed_when_complete() -> None:
    split = BPETokenizer(merges=("Ġ Ã", "a Ġ", "aĠ Ã"))  # 0xC3 begins é
    assert list(split.stream([256, 0xA9, 258, 0xA9])) == [" ", "é", "a ", "é"]
    assert list(split.stream([256, 257])) == [" ", "\ufffda "]
    assert list(split.stream([256])) == [" ", "\ufffd"]


@given(st.text(" \n\t\x1c\xa0\u2028ab'st1.é🦊"))
def test_chunks_of_a_text_have_the_tokens_of_the_whole(tokenizer: BPETokenizer, text: str) -> None:
    parts = list(cut([text], tokenizer.border, 2))
    assert "".join(parts) == text
    assume(all(len(part) < 4 for part in parts[:-1]))  # others have no border, and are cut anyway
    apart = [token for part in parts for token in tokenizer.encode(part).tolist()]
    assert apart == tokenizer.encode(text).tolist()


def test_a_text_is_cut_before_a_space_behind_a_separator(tokenizer: BPETokenizer) -> None:
    """The separators of ASCII are whitespace for Python, and not for the library."""
    assert list(cut(["11 1\x1c 🦊"], tokenizer.border, 2)) == ["11", " 1\x1c", " 🦊"]


def test_encoding_a_long_text_in_chunks_gives_the_same_tokens(tokenizer: BPETokenizer) -> None:
    line = TEXT[0] + "\n"
    once = tokenizer.encode(line).tolist()
    assert len(pieces := list(cut([line * 3000], tokenizer.border))) > 2
    assert all(part[0].isspace() for part in pieces[1:])
    assert tokenizer.encode(line * 3000).tolist() == once * 3000


def test_merges_are_the_same_in_every_process() -> None:
    code = (
        "from zoo.data.corpora import python_docs; from zoo.data.tokenizers import BPETokenizer\n"
        "print(BPETokenizer.from_text(python_docs()[:200_000], 1000).model_dump_json())"
    )
    learned = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
        ).stdout
        for seed, threads in [("1", "1"), ("2", "4")]
    }  # fmt: skip
    (description,) = learned
    assert len(json.loads(description)["merges"]) == 1000 - 256


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        (["ab"], "merges: number 0 is not of two tokens that come before it"),
        (["a b", "ab cd"], "number 1 is not of two"),
        (["a b", "b c d"], "number 1 is not of two"),
        (["字 a"], "number 0 is not of two"),  # which spells no byte
        ([" a"], "number 0 is not of two"),
        (["a b", "a bc", "b c"], "number 1 is not of two"),
        (["a b", "b c", "ab c", "a bc"], "number 3 makes a token that is there already"),
        (["a" * 2**n + " " + "a" * 2**n for n in range(12)], "at most 129 characters"),
        (["a b"] * 65_281, "at most 65280 items"),
        ([7], "must be a valid string"),
        ({}, "must be a valid"),
    ],
)
def test_damaged_merges_are_refused(merges: object, message: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer is damaged: merges") as caught:
        read_tokenizer(json.dumps({"kind": "bpe", "merges": merges}), zoo.load_registry())
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_no_token_is_longer_than_loading_allows() -> None:
    learned = BPETokenizer.from_text(("🦊" * 3000 + "\n") * 4, 1000)
    assert MAX_TOKEN_BYTES / 2 < max(map(len, learned.tokens)) <= MAX_TOKEN_BYTES
    assert read_tokenizer(learned.model_dump_json(), zoo.load_registry()) == learned


def test_merges_are_learned_from_the_training_text_only(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    seen, unseen = "one two three " * 90, "eleven twelve " * 10
    path.write_text(seen + unseen, "utf-8")
    data = read_dataset(DataConfig(corpus=str(path), tokenizer="bpe", held_out=0.1))
    assert data.tokenizer == BPETokenizer.from_text(seen)
    assert data.tokenizer.decode(data.train.tolist()) == seen
    assert data.tokenizer.decode(data.held_out.tolist()) == unseen
    # one, two and three, with and without their space, and the last space
    assert len(data.train) == 3 * 90 + 1
    assert data.train_chars_per_token == pytest.approx(14 * 90 / 271)
    assert data.held_out_chars_per_token == 14 * 10 / len(data.held_out)
    whole = read_dataset(DataConfig(corpus=str(path), tokenizer="bpe", held_out=0))
    assert whole.tokenizer != data.tokenizer
    assert len(whole.held_out) == 0


def test_max_tokens_truncates_the_training_and_the_validation_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one two three " * 100, "utf-8")
    given = {"corpus": str(path), "tokenizer": "bpe", "held_out": 0.2}
    whole, cut = read_dataset(DataConfig(**given)), read_dataset(DataConfig(**given, max_tokens=50))
    assert cut.tokenizer == whole.tokenizer
    assert (len(cut.train), len(cut.held_out)) == (40, 10)
    assert cut.train.tolist() == whole.train[:40].tolist()
    assert cut.held_out.tolist() == whole.held_out[:10].tolist()
    enough = read_dataset(DataConfig(**given, max_tokens=10_000))
    assert enough.train.tolist() == whole.train.tolist()
    with pytest.raises(CorpusError, match="too short to hold out 20% of its 4 tokens"):
        read_dataset(DataConfig(**given, max_tokens=4))


def test_vocab_is_for_learned_tokenizers_only(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "--vocab is for tokenizers that learn, such as bpe; "
    for chosen in ({"tokenizer": "byte"}, {}):
        with pytest.raises(UsageError, match=told) as caught:
            zoo.train(str(text_file), vocab=300, **chosen)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="vocab: bpe needs at least 257 tokens"):
        zoo.train(str(text_file), tokenizer="bpe", vocab=256)
    assert zoo_run(["train", str(text_file), "--vocab", "300"]) == 2
    assert not Path("runs").exists()


def test_the_requested_vocabulary_size_is_saved(text_file: Path, subword_run: zoo.Run) -> None:
    assert subword_run.config.data.vocab == 300
    assert subword_run.tokenizer.vocab_size == 300
    sizes = {**SMALL, "hidden": 4}
    small = zoo.train(str(text_file), tokenizer="bpe", out="small", **sizes)
    written = json.loads(Path("small/config.json").read_text())["data"]
    assert (written["tokenizer"], written["vocab"]) == ("bpe", 4096)
    assert small.tokenizer.vocab_size < 400
    plain = zoo.train(str(text_file), tokenizer="char", out="plain", **sizes)
    assert plain.config.data.vocab is None


def test_a_run_keeps_its_tokenizer(subword_run: zoo.Run) -> None:
    again = zoo.load(subword_run.path)
    assert again.tokenizer == subword_run.tokenizer
    assert read_dataset(again.config.data).tokenizer == again.tokenizer
    assert zoo.resume(subword_run.path).tokenizer == again.tokenizer
    (metrics,) = again.metrics()
    ratio = metrics["held_out_bits_per_token"] / metrics["held_out_bits_per_char"]
    assert ratio == pytest.approx(read_dataset(again.config.data).held_out_chars_per_token)


def test_a_run_and_its_files_generate_the_same_text(
    subword_run: zoo.Run, subword_files: list[Path]
) -> None:
    given = {"length": 80, "temperature": 1.0, "seed": 5}
    sources = [subword_run.path, *subword_files]
    (text,) = {zoo.generate(source, "der Gruß", **given) for source in sources}
    assert text.startswith("der Gruß")
    for source in sources:
        session = zoo.Session(source, seed=5)
        session.feed("der Gruß")
        assert "der Gruß" + session.sample(80, temperature=1.0) == text
        assert "der Gruß" + "".join(zoo.stream(source, "der Gruß", **given)) == text
    assert {zoo.open_source(source).tokenizer for source in sources} == {subword_run.tokenizer}


def test_a_run_and_its_files_have_the_same_scores(
    subword_run: zoo.Run, subword_files: list[Path]
) -> None:
    text = subword_run.config.data.corpus
    wanted = zoo.score(subword_run.path, text, last=0.2)
    chars = wanted.tokens * wanted.bits_per_token / wanted.bits_per_char
    assert chars == pytest.approx(0.2 * len(Path(text).read_text("utf-8")), rel=0.02)
    for file in subword_files:
        if file.name != "generate.onnx":
            found = zoo.score(file, text, last=0.2)
            # float32 sums in another order: differences of 1e-7 per logit
            assert found.bits_per_char == pytest.approx(wanted.bits_per_char, rel=1e-6)


def test_generated_tokens_are_counted(
    subword_run: zoo.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Encoding the text again need not give as many tokens."""
    arguments = ["generate", str(subword_run.path), "--length", "60", "--temperature", "2"]
    assert zoo_run(arguments) == 0
    printed = capsys.readouterr()
    assert "60 tokens" in printed.err
    again = zoo.generate(subword_run.path, length=60, temperature=2)
    assert printed.out == again + "\n"
    assert len(subword_run.tokenizer.encode(again.removeprefix(subword_run.prompt))) != 60


def test_masked_tokens_are_filled_with_subwords(subword_run: zoo.Run) -> None:
    text = subword_run.config.data.corpus
    run = zoo.train(text, cell="bidirectional", tokenizer="bpe", vocab=300, out="seeing", **SMALL)
    file = zoo.export(run, graph="sequence").path
    found, again = (zoo.fill(source, "the _ fox_", top=3) for source in (run.path, file))
    assert found.text == again.text
    assert [token.position for token in found.masked] == [token.position for token in again.masked]
    ids = run.tokenizer.encode
    assert found.masked[0].position == len(ids("the "))
    assert found.masked[1].position == len(ids("the ")) + 1 + len(ids(" fox"))
