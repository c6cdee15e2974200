"""Texts cut into pieces and kept as tokens, against the tokens of the whole text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pytest
from hypothesis import given, strategies as st

import zoo
from zoo.config import DataConfig
from zoo.data import BPETokenizer, ByteTokenizer, CharTokenizer, LettersTokenizer, Tokenizer
from zoo.data.corpora import Corpus
from zoo.data.cutting import END, cut, divided, joined
from zoo.data.dataset import encode_corpus, read_dataset
from zoo.data.sources import Files
from zoo.data.token_store import EncodedText, encode
from zoo.errors import CorpusError
from zoo.registry import TokenizerSpec

ALPHABET = " \n\tab'S1.éΣKß你🦊\x1c\u2028"
# a word that ends where every tokenizer's text can be cut, within 8 characters
WORDS = st.tuples(
    st.text("abstß", max_size=2), st.sampled_from("aetS"), st.sampled_from([" ", "   é", " .\x1c."])
).map("".join)
DOCUMENTS = st.lists(st.lists(st.text(ALPHABET, max_size=5), max_size=4), max_size=4)


class PairTokenizer(Tokenizer):
    """A plugin's, which has no border: a token is two characters of the text in lower case."""

    kind: Literal["mine"] = "mine"

    @classmethod
    def from_text(cls, text: str, vocab: int = 0) -> Self:
        return cls()

    @classmethod
    def normalize(cls, text: str) -> str:
        return text.lower()

    @property
    def vocab_size(self) -> int:
        return 257 * 257

    def encode(self, text: str) -> np.ndarray:
        codes = [1 + ord(c) % 256 for c in text] + [0] * (len(text) % 2)
        return np.array(codes, np.int64).reshape(-1, 2) @ [257, 1]

    def stream(self, ids: Any) -> Iterator[str]:
        for token in ids:
            yield "".join(chr(code - 1) for code in divmod(token, 257) if code)


class Plugin:
    @zoo.hookimpl
    def zoo_tokenizers(self) -> list[TokenizerSpec]:
        return [TokenizerSpec("mine", f"{PairTokenizer.__module__}:PairTokenizer")]


REGISTRY = zoo.load_registry(Plugin())
TOKENIZERS: dict[str, Tokenizer] = {
    "char": CharTokenizer(characters="ab tS1.é🦊"),
    "letters": LettersTokenizer(characters="abst klu"),
    "byte": ByteTokenizer(),
    "bpe": BPETokenizer.from_text("tab sta\n ab's   é你 .\x1c. 你 ßt at " * 30, 300),
    "mine": PairTokenizer(),
}


@dataclass
class Counted:
    """A source that counts how often it is read."""

    text: str
    identity: str | None = "a"
    read: int = 0

    def documents(self) -> Iterator[Iterator[str]]:
        self.read += 1
        yield iter([self.text])

    def encoded(self, tokenizer: Tokenizer = TOKENIZERS["char"]) -> EncodedText:
        return encode_corpus(Corpus("a", self), tokenizer, REGISTRY)


def tokens_of(
    parts: Sequence[Sequence[str | None]], tokenizer: Tokenizer, size: int | None = None
) -> EncodedText:
    """Texts that come in pieces, as tokens in a temporary file; cut at `size`."""
    with pytest.MonkeyPatch.context() as patch:
        if size is not None:
            patch.setattr("zoo.data.token_store.cut", partial(cut, size=size))
        return encode(lambda: map(iter, parts), tokenizer, REGISTRY, None, Path("none"))


# cutting


def plainly_cut(text: str, border: re.Pattern[str] | None, size: int) -> list[str]:
    pieces, begin = [], 0
    for end in range(len(text) + 1):
        long_enough = border is not None and len(text) - begin > size and end >= begin + size
        if end == len(text) > begin or (
            long_enough and (border.match(text, end) or end == begin + 2 * size)
        ):
            pieces.append(text[begin:end])
            begin = end
    return pieces


@given(st.text(ALPHABET, max_size=60), st.lists(st.integers(0, 60)), st.integers(1, 9), st.data())
def test_a_text_is_cut_alike_whatever_pieces_it_comes_in(
    text: str, places: list[int], size: int, data: st.DataObject
) -> None:
    border = data.draw(st.sampled_from([tokenizer.border for tokenizer in TOKENIZERS.values()]))
    bounds = [0, *sorted(places), len(text)]
    flow = [text[a:b] for a, b in pairwise(bounds)]
    pieces = list(cut(flow, border, size))
    assert pieces == plainly_cut(text, border, size)
    documents = [*cut([*flow, END, text, END, END], border, size)]
    assert documents == [*pieces, END, *pieces, END, END]


@given(DOCUMENTS)
def test_documents_are_joined_by_an_empty_line_or_ended_by_a_token(docs: list[list[str]]) -> None:
    whole = [text for text in map("".join, docs) if text]
    assert "".join(joined(docs, separate=False)) == "\n\n".join(whole)
    assert merged(joined(docs, separate=True)) == [item for text in whole for item in (text, END)]


def merged(flow: Any) -> list[str | None]:
    """A flow with neighbouring pieces joined, and no empty ones."""
    found: list[str | None] = []
    for item in flow:
        if item and found and found[-1] is not END:
            found[-1] += item
        elif item is END or item:
            found.append(item)
    return found


@given(DOCUMENTS, st.booleans(), st.integers(0, 50))
def test_a_flow_is_divided_by_its_characters(
    docs: list[list[str]], separate: bool, count: int
) -> None:
    whole = list(joined(docs, separate))
    first, second = divided(iter(whole), count)
    beginning, rest = list(first), list(second)
    characters = [sum(len(item or "") for item in flow) for flow in (beginning, whole)]
    assert characters[0] == min(count, characters[1])
    assert merged([*beginning, *rest]) == merged(whole)
    again = [list(part) for part in divided(merged(whole), count)]  # in other pieces
    assert [merged(part) for part in again] == [merged(beginning), merged(rest)]


# tokens


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(pieces=st.lists(st.text(ALPHABET, max_size=9)))
def test_tokens_are_those_of_the_whole_text(kind: str, pieces: list[str]) -> None:
    tokenizer = TOKENIZERS[kind]
    found = tokens_of([pieces], tokenizer)
    text = tokenizer.normalize("".join(pieces))
    assert found.tokens.tolist() == tokenizer.encode(text).tolist()
    assert found.characters == found.characters_of(slice(0, len(found.tokens))) == len(text)
    assert found.description.text_bytes == len(text.encode())


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(words=st.lists(WORDS), size=st.integers(8, 20), every=st.integers(1, 30))
def test_tokens_do_not_depend_on_where_the_text_is_cut(
    kind: str, words: list[str], size: int, every: int
) -> None:
    text, tokenizer = "".join(words), TOKENIZERS[kind]
    flow = [text[start : start + every] for start in range(0, len(text), every)]
    found = tokens_of([flow], tokenizer, size)
    assert found.tokens.tolist() == tokenizer.encode(tokenizer.normalize(text)).tolist()
    assert found.description.sha256 == tokens_of([[text]], tokenizer).description.sha256


@given(DOCUMENTS, DOCUMENTS)
def test_parts_and_documents_are_encoded_apart(
    first: list[list[str]], second: list[list[str]]
) -> None:
    for kind in ("char", "letters", "byte", "bpe"):
        tokenizer = TOKENIZERS[kind].changed(documents=True)
        assert tokenizer.end_of_text == tokenizer.vocab_size - 1 == TOKENIZERS[kind].vocab_size
        flows = [list(joined(docs, separate=True)) for docs in (first, second)]
        texts = [[text for text in map("".join, docs) if text] for docs in (first, second)]
        apart = [[*map(tokenizer.encode, map(tokenizer.normalize, part))] for part in texts]
        found = tokens_of(flows, tokenizer, 3 if kind in ("char", "byte") else None)
        wanted = [[*ids.tolist(), tokenizer.end_of_text] for part in apart for ids in part]
        assert found.tokens.tolist() == [*chain.from_iterable(wanted)]
        assert found.characters == sum(map(len, map(tokenizer.normalize, chain(*texts))))
        assert found.description.parts == tuple(sum(map(len, ids)) + len(ids) for ids in apart)


@pytest.mark.parametrize(
    ("characters", "documents", "dtype"),
    [(255, False, "uint8"), (255, True, "uint16"), (65_535, False, "uint16"),
     (65_535, True, "uint32")],
)  # fmt: skip
def test_tokens_are_stored_as_the_smallest_type(
    characters: int, documents: bool, dtype: str
) -> None:
    alphabet = "".join(map(chr, [*range(0xD800), *range(0xE000, 0xE000 + characters)]))
    tokenizer = CharTokenizer(characters=alphabet[-characters:], documents=documents)
    found = tokens_of([[alphabet[-1], END] if documents else [alphabet[-1]]], tokenizer)
    assert found.tokens.dtype == dtype
    assert found.tokens.tolist() == [characters, characters + 1][: 1 + documents]


@given(st.lists(WORDS | st.sampled_from("你🦊"), min_size=1), st.integers(8, 20), st.data())
def test_characters_of_tokens_are_counted(words: list[str], size: int, data: st.DataObject) -> None:
    """To the character, but within one."""
    text = "".join(words)
    for tokenizer in (TOKENIZERS["byte"], TOKENIZERS["bpe"]):
        found = tokens_of([[text]], tokenizer, size)
        index = data.draw(st.integers(0, len(found.tokens)))
        spelled = getattr(tokenizer, "tokens", [bytes([byte]) for byte in range(256)])
        raw = b"".join(spelled[token] for token in found.tokens[:index])
        whole = len(raw.decode("utf-8", "ignore"))
        count = found.characters_of(slice(0, index))
        begun = len(raw.decode("utf-8", "replace")) - whole
        assert whole <= count <= whole + begun
        assert count + found.characters_of(slice(index, len(found.tokens))) == len(text)


# the cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_text_is_encoded_once(cache: Path) -> None:
    source = Counted("tab a\n" * 100)
    first, again = source.encoded(), source.encoded()
    assert source.read == 1
    wanted = TOKENIZERS["char"].encode(source.text).tolist()
    assert first.tokens.tolist() == again.tokens.tolist() == wanted
    (folder,) = (cache / "tokens").iterdir()
    assert np.fromfile(folder / "tokens.bin", "uint8").tolist() == wanted
    assert json.loads((folder / "description.json").read_text())["parts"] == [600]
    source.encoded(TOKENIZERS["byte"])  # of another tokenizer
    assert source.read == 2
    changed = Counted("bats", identity="b")  # another text
    assert changed.encoded().tokens.tolist() == TOKENIZERS["char"].encode("bats").tolist()
    assert len(list((cache / "tokens").iterdir())) == 3
    unknown = Counted("bats", identity=None)  # which may be another every time
    unknown.encoded()
    unknown.encoded()
    assert unknown.read == 2
    assert len(list((cache / "tokens").iterdir())) == 3


def test_a_dataset_is_read_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """But for its beginning, which every reading looks at."""
    read, original = [], Files.documents

    def documents(self: Files) -> Iterator[Iterator[str]]:
        yield from original(self)
        read.append(1)

    monkeypatch.setattr(Files, "documents", documents)
    Path("a.txt").write_text("a tab, a bat. " * 9000)
    for kind in ("char", "bpe"):
        config = DataConfig(corpus="a.txt", tokenizer=kind)
        first, times = read_dataset(config), len(read)
        again = read_dataset(config)
        assert len(read) == times > 0
        assert again == first or again.train.tolist() == first.train.tolist()
        assert (again.tokenizer, again.fingerprint) == (first.tokenizer, first.fingerprint)
    for damage in ('{"kind": "char"', "null", "[]", "[1, -1]", '{"kind": 3}', "[" * 9999):
        for path in (cache / "texts").iterdir():
            path.write_text(damage)
        assert read_dataset(config).tokenizer == first.tokenizer
    Path("a.txt").write_text("a bat, a tab. " * 9000)
    changed = read_dataset(config)
    assert changed.fingerprint != first.fingerprint
    assert changed.tokenizer.decode(changed.train[:6].tolist()).startswith("a bat")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "shorter": lambda folder: (folder / "tokens.bin").write_bytes(b"\1" * 599),
    "longer": lambda folder: (folder / "tokens.bin").write_bytes(b"\1" * 601),
    "no tokens": lambda folder: (folder / "tokens.bin").unlink(),
    "no description": lambda folder: (folder / "description.json").unlink(),
    "garbage": lambda folder: (folder / "description.json").write_bytes(b"\xff{"),
    "half": lambda folder: (folder / "description.json").write_text('{"dtype": "uint8", '),
    "another type": lambda folder: (folder / "description.json").write_text(
        (folder / "description.json").read_text().replace("uint8", "float64")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tokens_are_written_anew(damage: str, cache: Path) -> None:
    source = Counted("tab a\n" * 100)
    wanted = source.encoded().tokens.tolist()
    (folder,) = (cache / "tokens").iterdir()
    DAMAGES[damage](folder)
    assert source.encoded().tokens.tolist() == wanted
    assert source.read == 2
    assert source.encoded().tokens.tolist() == wanted
    assert source.read == 2
    assert [*(cache / "tokens").iterdir()] == [folder]


def test_without_a_cache_tokens_are_in_a_temporary_file(cache: Path) -> None:
    cache.write_text("a file")
    source = Counted("tab a\n" * 100)
    assert source.encoded().tokens.tolist() == TOKENIZERS["char"].encode(source.text).tolist()
    Path("a.txt").write_text(source.text)
    assert len(read_dataset(DataConfig(corpus="a.txt")).train) == 540
    assert cache.read_text() == "a file"


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of a file's size")
def test_a_full_disk_is_an_error_of_one_line(cache: Path) -> None:
    import resource

    source, before = Counted("tab a\n" * 100_000), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, before[1]))  # Python ignores the signal
    try:
        with pytest.raises(CorpusError) as caught:
            source.encoded()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        f"the tokens of the text can be written neither to {cache / 'tokens'} nor to "
        f"{tempfile.gettempdir()}: File too large."
    )
    assert [*(cache / "tokens").iterdir()] == []


ENCODES = """
import sys, time
from pathlib import Path
from zoo.config import DataConfig
from zoo.data.dataset import read_dataset
Path(sys.argv[1]).touch()
while not (Path("1").exists() and Path("2").exists()):
    time.sleep(0.001)
print(read_dataset(DataConfig(corpus="a.txt", tokenizer="byte")).fingerprint)
"""


def test_two_processes_encode_a_text_at_once(cache: Path) -> None:
    Path("a.txt").write_text("a tab, a bat. " * 100_000)
    processes = [
        subprocess.Popen([sys.executable, "-c", ENCODES, name], stdout=subprocess.PIPE, text=True)
        for name in "12"
    ]
    first, second = (process.communicate(timeout=60)[0] for process in processes)
    assert first == second != ""
    assert [path.stat().st_size for path in cache.glob("*/*/tokens.bin")] == [1_400_000]


MEASURES = """
import resource, sys
from zoo.config import DataConfig
from zoo.data.dataset import read_dataset
from zoo.registry import load_registry
registry, peaks = load_registry(), []
for kind, corpus in [(None, ""), ("char", "long.txt"), ("byte", "long.txt"), ("bpe", "short.txt")]:
    if kind:
        read_dataset(DataConfig(corpus=corpus, tokenizer=kind), registry)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*(peak - peaks[0] for peak in peaks[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the unit is another")
def test_a_long_text_is_not_held_in_memory() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice([*"abcdefghijklmnoé"], n)) for n in rng.integers(1, 10, 2000)]
    megabyte = " ".join(rng.choice(words, 180_000)).encode()[: 2**20].decode("utf-8", "ignore")
    for name, size in (("long.txt", 60), ("short.txt", 6)):
        Path(name).write_text(megabyte * size, "utf-8")
    result = subprocess.run(
        [sys.executable, "-c", MEASURES], check=True, capture_output=True, text=True
    )
    kilobytes = [int(word) for word in result.stdout.split()]
    assert max(kilobytes) < 150_000
