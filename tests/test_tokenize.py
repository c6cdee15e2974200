"""`zoo tokenize`: its figures against counts of Python and of the tokenizers library, and its cache
against that of a training."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from tokenizers import Regex, Tokenizer as Library, models, pre_tokenizers, trainers

import zoo
from zoo.cli import run as zoo_command
from zoo.config import DataConfig
from zoo.data import CharTokenizer
from zoo.data.corpora import cache_folder
from zoo.data.statistics import Statistics, count_tokens
from zoo.registry import TokenizerSpec

WORDS = ["the", "cat", "sat", "naïve", "道可道", "“mat”", "1905", "back\\slash", "tab\t"]
# the words of bpe, as docs/reference/run-folder.md has them
PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}\p{M}]{1,32}| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]{1,32}"
    r"|\s{1,32}(?!\S)|\s"
)


@pytest.fixture
def text() -> str:
    """Its last tenth has words of its own, whose merges training must not know."""
    rng = random.Random(0)
    ending = " ".join("zyx" for _ in range(40))
    text = " ".join(rng.choices(WORDS, k=300)) + "\n" + ending
    Path("words.txt").write_text(text, "utf-8")
    return text


def counted(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert zoo_command(["tokenize", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_characters_are_counted_as_python_counts_them(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    counts = Counter(text)
    found = counted(capsys, "words.txt")
    assert found["characters"] == found["tokens"] == len(text)
    assert found["bytes"] == Path("words.txt").stat().st_size
    assert found["used"] == len(counts)
    assert found["vocabulary"] == len(counts) + 1  # <unk>
    assert found["unknown"] == 0
    assert found["most_frequent"] == [list(pair) for pair in counts.most_common(12)]
    assert found["beginning"] == list(text[:24])


def test_bytes_are_counted_as_python_counts_them(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    raw = text.encode()
    found = counted(capsys, "words.txt", "--tokenizer", "byte")
    assert (found["tokens"], found["used"]) == (len(raw), len(set(raw)))
    assert found["beginning"] == [
        chr(byte) if byte < 128 else f"<0x{byte:02X}>" for byte in raw[:24]
    ]
    shown = {chr(b) if b < 128 else f"<0x{b:02X}>": n for b, n in Counter(raw).items()}
    assert [shown[token] for token, _ in found["most_frequent"]] == [
        count for _, count in found["most_frequent"]
    ]
    assert found["most_frequent"][0][1] == max(shown.values())


def test_subwords_are_counted_as_the_library_counts_them(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """The library learns from the first nine tenths, and each part is encoded on its own."""
    start = len(text) - round(len(text) / 10)
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        [text[:start]],
        trainers.BpeTrainer(vocab_size=300, min_frequency=2, initial_alphabet=alphabet),
    )
    tokens: Counter[str] = Counter()
    for part in (text[:start], text[start:]):
        encoding = library.encode(part)
        tokens.update(part[left:right] for left, right in encoding.offsets)
    found = counted(capsys, "words.txt", "--tokenizer", "bpe", "--vocab", "300")
    assert found["tokens"] == sum(tokens.values())
    assert found["vocabulary"] == library.get_vocab_size()
    assert found["characters_per_token"] == len(text) / sum(tokens.values())
    whole = {token: n for token, n in found["most_frequent"] if "<" not in token}
    assert len(whole) > 6
    assert whole == {token: tokens[token] for token in whole}
    assert "zyx" not in whole


def test_a_training_finds_the_tokens_in_the_cache(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    def kept() -> dict[Path, int]:
        files = [path for path in cache_folder().rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files}

    before = kept().keys()
    given = ["words.txt", "--tokenizer", "bpe", "--vocab", "270"]
    vocabulary = counted(capsys, *given)["vocabulary"]
    after = kept()
    assert len(after.keys() - before) >= 2
    run = zoo.train(
        "words.txt", tokenizer="bpe", vocab=270, cell="rnn", hidden=4, epochs=1, batch_size=2,
        steps=8, out="run",
    )  # fmt: skip
    assert kept() == after
    assert run.tokenizer.vocab_size == vocabulary


def test_parts_of_characters_are_shown_as_bytes_and_a_backslash_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("tao.txt").write_text("玄\\." + "x" * 40, "utf-8")
    assert zoo_command(["tokenize", "tao.txt", "--tokenizer", "bpe", "--vocab", "257"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(r"begins: '<0xE7>' '<0x8E>' '<0x84>' '\\' '.' 'xx'")


def test_what_does_not_occur_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ab.txt").write_text("ab" * 10 + "a")
    assert zoo_command(["tokenize", "ab.txt"]) == 0
    assert capsys.readouterr().out == (
        "21 characters, 21 bytes in UTF-8\n"
        "21 tokens; tokenizer char, vocabulary 3\n"
        "1 character and 1 byte a token\n"
        "2 of the 3 tokens of the vocabulary occur\n"
        "most frequent: 'a' 11, 'b' 10\n"
        f"begins: {' '.join(map(repr, ('ab' * 10 + 'a')))}\n"
    )


def test_ends_of_documents_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.jsonl").write_text("".join(json.dumps({"text": "ab" * n}) + "\n" for n in (9, 0, 4)))
    found = counted(capsys, "a.jsonl", "--documents")
    assert (found["documents"], found["characters"], found["tokens"]) == (2, 26, 28)
    assert found["beginning"][17:20] == ["b", "<end>", "a"]
    assert zoo_command(["tokenize", "a.jsonl", "--documents"]) == 0
    assert "28 tokens in 2 documents, ends included;" in capsys.readouterr().out


class VowelTokenizer(CharTokenizer):
    """A plugin's, to which all other characters are unknown."""

    kind: Literal["vowels"] = "vowels"  # type: ignore[assignment]

    @classmethod
    def from_pieces(cls, pieces: Any, vocab: int = 0) -> Self:
        return cls(characters="aeiou\N{REPLACEMENT CHARACTER}")


class Plugin:
    @zoo.hookimpl
    def zoo_tokenizers(self) -> list[TokenizerSpec]:
        return [TokenizerSpec("vowels", f"{__name__}:VowelTokenizer")]


def test_unknown_characters_are_counted_and_shown_as_such() -> None:
    """And a replacement character that is in the text is none."""
    Path("s.txt").write_text("ba\ufffdna" * 9, "utf-8")
    config = DataConfig(corpus="s.txt", tokenizer="vowels")
    found: Statistics = count_tokens(config, zoo.load_registry(Plugin()))
    assert found.unknown == 18
    assert found.most_frequent == [("<unk>", 18), ("a", 18), ("\ufffd", 9)]
    assert found.beginning[:3] == ["<unk>", "a", "\ufffd"]


def test_a_text_that_training_cannot_divide_is_read_with_nothing_held_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("x.txt").write_text("x")
    assert zoo_command(["tokenize", "x.txt"]) == 1
    assert "use --held-out 0 or a longer text" in capsys.readouterr().err
    assert counted(capsys, "x.txt", "--held-out", "0")["tokens"] == 1
