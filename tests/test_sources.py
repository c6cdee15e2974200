"""Texts from files of every kind and place, against what Python and the libraries that wrote them
read in them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import re
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

import zoo
from zoo.cli import run as zoo_command
from zoo.data.corpora import load_corpus
from zoo.data.cutting import END
from zoo.data.formats import decoded
from zoo.data.sources import Reading
from zoo.errors import CorpusError, UsageError, ZooWarning

TINY = {"cell": "rnn", "hidden": 4, "epochs": 1, "batch_size": 2, "steps": 4}
WORDS = "the quick brown fox jumps over the lazy dog\n"
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": partial(pa.Codec("zstd").compress, asbytes=True),
}
LANGUAGES = {  # the beginnings of well-known books
    "cp1252": "Maître Corbeau, sur un arbre perché, tenait en son bec un fromage. Maître Renard, "
    "par l'odeur alléché, lui tint à peu près ce langage : « Et bonjour, Monsieur du Corbeau. » ",
    "latin-1": "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo "
    "que vivía un hidalgo de los de lanza en astillero, rocín flaco y algún palomino de añadidura ",
    "cp1251": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива ",
    "gb18030": "道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。故常无欲，以观其妙。",
    "big5": "道可道，非常道。名可名，非常名。無名天地之始；有名萬物之母。故常無欲，以觀其妙。",
    "utf-16": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива ",
}


def written(**files: str | bytes) -> list[str]:
    """Files of these contents, by their names with "__" for "/" and "_" for "."."""
    names = []
    for name, content in files.items():
        path = Path(name.replace("__", "/").replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        names.append(str(path))
    return names


def text(name: str | Sequence[str], **reading: str) -> str:
    return load_corpus(name, reading=Reading(**reading)).text


def documents(name: str | Sequence[str], **reading: str) -> list[str]:
    corpus = load_corpus(name, reading=Reading(**reading))
    return ["".join(pieces) for pieces in corpus.source.documents()]


def told(name: str | Sequence[str], kind: type[zoo.ZooError] = CorpusError, **reading: str) -> str:
    """The message of the error that reading gives, which has one or two lines."""
    with pytest.raises(kind) as caught:
        text(name, **reading)
    assert 1 <= len(str(caught.value).splitlines()) <= 2
    assert type(caught.value) is kind
    return str(caught.value)


# files, folders and patterns


def test_several_files_are_one_text_in_their_order() -> None:
    names = written(b_txt="one", a_txt="two\n", empty_txt="", c_txt="three")
    assert text(names[0]) == "one"
    assert text(names[0:2] + names[3:]) == "one\n\ntwo\n\n\nthree"
    assert [*load_corpus(names[0:2]).flow(separate=True)] == ["one", END, "two\n", END]
    assert load_corpus(names[0:2]).prompt == "one"
    with pytest.raises(CorpusError, match=r"empty\.txt is empty; there is nothing to learn from"):
        load_corpus(names)


def test_a_folder_is_its_texts_in_order_of_their_paths() -> None:
    written(
        f__b_txt="b", f__a__z_txt="z", f__a__c_md="c", f__Z_py="Z", f__none_txt="",
        f___hidden="no", f___git__config="no", f__a___cache__x_txt="no",
    )  # fmt: skip
    assert Path("f/.hidden").exists()
    assert Path("f/a/.cache/x.txt").exists()
    assert documents("f") == ["Z", "c", "z", "b", ""]
    assert text("f") == "Z\n\nc\n\nz\n\nb"
    assert [piece for piece in load_corpus("f").flow(separate=True) if piece is END] == [END] * 4
    assert text("f", glob="*.txt") == text("f/", glob="[bz].*") == "z\n\nb"
    assert text("f", glob="a/*") == "c\n\nz"
    assert text(["f/a", "f/b.txt"]) == "c\n\nz\n\nb"
    assert told("f", glob="*.rst") == "f has no text file like '*.rst'."
    Path("void/within").mkdir(parents=True)
    assert told("void") == "void has no text file."


def test_files_that_are_no_text_are_left_out_of_a_folder_with_one_warning() -> None:
    written(f__a_txt="text", f__b_png=b"\x89PNG\r\n\x1a\n\0\0", f__c_bin=b"a\0b")
    written(f__d_xz=b"\xfd7zXZ\0damaged", f__e_txt_gz=gzip.compress(WORDS.encode())[:20])
    written(f__f_txt=("é" * 10_000))  # the beginning that is looked at ends within a character
    with pytest.warns(ZooWarning) as caught:
        assert text("f") == "text\n\n" + "é" * 10_000
    assert [str(warning.message) for warning in caught] == [
        "left out of f, as no text in utf-8 (4 of 6 files): b.png, c.bin, d.xz, …"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text("f", glob="a.*") == "text"


def test_a_pattern_is_the_files_like_it() -> None:
    written(books__b_txt="b", books__a_txt="a", books__c_md="c", books__more__d_txt="d")
    assert documents("books/*.txt") == ["a", "b"]
    assert documents("books/[bc].*") == ["b", "c"]
    assert documents("books/**/*.txt") == ["a", "b", "d"]
    assert "is neither a corpus nor a file" in told("books/*.rst", UsageError)
    written(**{"odd[1]*_txt": "odd"})
    assert text("odd[1]*.txt") == "odd"


@pytest.mark.parametrize("ending", COMPRESSED)
def test_compressed_files(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(fsspec.utils.compressions, "zst", raising=False)  # of other packages
    compress, content = COMPRESSED[ending], "grüße\r\n🦊" * 5000
    path = Path(f"a.txt{ending}")
    path.write_bytes(compress(content.encode()))
    assert text(str(path)) == content.replace("\r\n", "\n")
    path.write_bytes(compress(b"one ") + compress(b"two"))  # as `cat` joins them
    assert text(str(path)) == "one two"
    Path(f"a.jsonl{ending}").write_bytes(compress(b'{"text": "a"}\n{"text": "b"}'))
    assert documents(f"a.jsonl{ending}") == ["a", "b"]
    random.seed(0)
    whole = compress("".join(map(chr, random.choices(range(0x4E00, 0x9FFF), k=50_000))).encode())
    for kept in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert re.fullmatch(r"\S*/a\.txt\S* cannot be read: [^\n]+\.", told(str(path)))
    path.write_bytes(b"not compressed at all")
    assert "cannot be read" in told(str(path))


def zipped(name: str, **files: str) -> str:
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr("folder/", "")
        for inner, content in files.items():
            archive.writestr(f"folder/{inner.replace('_', '.')}", content)
    return name


def test_archives_of_several_files_are_refused() -> None:
    assert text(zipped("a.zip", a_txt="one")) == "one"
    assert documents(zipped("b.zip", b_jsonl='{"a": "one"}\n{"a": "two"}'), field="a") == [
        "one",
        "two",
    ]
    assert told(zipped("c.zip", a_txt="one", b_txt="two")) == (
        f"{Path('c.zip').absolute()} holds 2 files; unpack it and give the folder."
    )
    assert "holds 0 files" in told(zipped("d.zip"))
    written(f__a_txt="one")
    for name, mode in {"a.tar": "w", "a.tar.gz": "w:gz", "a.tgz": "w:gz"}.items():
        with tarfile.open(name, mode) as archive:
            archive.add("f/a.txt")
        wanted = f"{Path(name).absolute()} is an archive; unpack it and give the folder."
        assert told(name) == wanted
        Path(name).rename(f"f/{name}")
    zipped("f/c.zip", a_txt="one", b_txt="two")
    with pytest.warns(ZooWarning, match=r"left out of f, as no text in utf-8 \(4 of 5 files\)"):
        assert documents("f") == ["one"]


def test_a_file_that_vanishes_or_cannot_be_read() -> None:
    (name,) = written(a_txt="text")
    corpus = load_corpus(name)
    Path(name).unlink()
    with pytest.raises(CorpusError, match=r"a\.txt cannot be read: No such file or directory\."):
        _ = corpus.text
    assert "is neither a corpus nor a file" in told(name, UsageError)
    written(f__b_txt="text")
    Path("f/link.txt").symlink_to("nothing")
    with pytest.warns(
        ZooWarning, match=r"left out of f, as no text in utf-8 \(1 of 2 files\): link\.txt"
    ):
        assert text("f") == "text"


def test_an_error_in_a_folder_names_the_file() -> None:
    written(f__a_txt="text", f__b_txt="a" * 20_000 + "\0", f__c_jsonl="[]")
    assert told("f").startswith(f"{Path('f/b.txt').absolute()} is not text: it holds zero bytes")
    assert told("f/*.jsonl") == f"{Path('f/c.jsonl').absolute()}, line 1 is no object with fields."


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file of Linux")
def test_a_device_that_fails() -> None:
    assert re.match("/proc/self/mem cannot be read: [IO]n", told("/proc/self/mem"))


# encodings


@pytest.mark.parametrize("encoding", LANGUAGES)
@pytest.mark.parametrize("after", [0, 200_000])
def test_an_error_suggests_the_encoding(encoding: str, after: int) -> None:
    content = "a line of plain English\n" * (after // 24) + LANGUAGES[encoding] * 3
    (name,) = written(a_txt=content.encode(encoding))
    message = told(name)
    found = re.fullmatch(
        r"\S*a\.txt is not UTF-8 text \(byte ([\d,]+)\); it looks like (\S+): "
        r"give --encoding (\S+)\.",
        message,
    )
    assert found, message
    with pytest.raises(UnicodeDecodeError) as caught:
        Path(name).read_bytes().decode()
    assert int(found[1].replace(",", "")) == caught.value.start
    assert found[2] == found[3]
    assert text(name, encoding=found[3]) == text(name, encoding=encoding) == content
    (name,) = written(a_jsonl=json.dumps({"text": content}, ensure_ascii=False).encode(encoding))
    if encoding != "utf-16" and not after:  # whose lines do not end with the byte of a line end
        message = told(name)
        assert "line 1 is not UTF-8 text; it looks like" in message
        assert documents(name, encoding=message.split()[-1].rstrip(".")) == [content]


def test_a_text_read_in_a_wrong_encoding_is_likely_utf8() -> None:
    (name,) = written(a_txt=LANGUAGES["cp1251"] * 3)
    for encoding in ("ascii", "utf-16", "utf-32"):
        message = told(name, encoding=encoding)
        assert f"is not {encoding.upper().replace('ASCII', 'ascii')} text (byte 0)" in message
        assert re.search(r"give --encoding utf[-_]8\.$", message)
    (name,) = written(a_txt=b"abc\xff")
    assert "(byte 3)" in told(name)


@pytest.mark.parametrize("encoding", ["nope", "hex", "rot13", "undefined", "a\nb", ""])
def test_an_unknown_encoding(
    encoding: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (str(text_file), str(text_file.parent), "-"):
        message = told(name, UsageError, encoding=encoding)
        assert message.startswith(f"the encoding {encoding!r} is not known; ")
        assert "\n" not in message
    assert zoo_command(["train", str(text_file), "--encoding", encoding]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path("runs").exists()
    assert "did you mean 'latin_1'" in told(str(text_file), UsageError, encoding="latin_11")


CODECS = ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-32", "gb18030", "big5"]


@given(st.sampled_from(CODECS), st.text("ab\r\n é你🦊\ufeff"), st.integers(1, 7))
def test_pieces_may_end_anywhere(encoding: str, content: str, size: int) -> None:
    """Within a character, a byte order mark, or a line end; against Python's decoding at once."""
    raw = content.encode(encoding, "ignore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.data.formats.PIECE_BYTES", size)
        pieces = [*decoded(io.BytesIO(raw), "a", encoding)]
    wanted = raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    assert "".join(pieces) == wanted.replace("\r\n", "\n")
    assert "" not in pieces


@given(
    st.lists(st.sampled_from([b"a", b"\xe4", b"\xbd\xa0", b"\xf0\x9f", b"\xff"])).map(b"".join),
    st.integers(1, 5),
)
def test_bytes_that_are_no_text_are_found_where_python_finds_them(raw: bytes, size: int) -> None:
    try:
        raw.decode()
        return
    except UnicodeDecodeError as error:
        wanted = f"byte {error.start})"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.data.formats.PIECE_BYTES", size)
        with pytest.raises(CorpusError) as caught:
            list(decoded(io.BytesIO(raw), "a", "utf-8"))
    assert wanted in str(caught.value)


def test_zero_bytes() -> None:
    (name,) = written(a_txt=b"abc\0def")
    assert "a.txt is not text: it holds zero bytes; " in told(name)
    (name,) = written(a_txt=(LANGUAGES["cp1252"] * 3).encode("utf-16-le"))
    encoding = told(name).split()[-1].rstrip(".")
    assert text(name, encoding=encoding) == LANGUAGES["cp1252"] * 3


# other places


def test_a_url_is_found_anew_when_it_changes() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/zoo/a.txt": b"one", "/zoo/b.txt.gz": gzip.compress(b"two")})
    corpus = load_corpus("memory://zoo/a.txt")
    assert load_corpus("memory://zoo/a.txt").source.identity == corpus.source.identity
    memory.pipe("/zoo/a.txt", b"new")
    changed = load_corpus("memory://zoo/a.txt")
    assert changed.text == "new"
    assert changed.source.identity != corpus.source.identity
    assert documents("memory://zoo") == documents("memory://zoo/*") == ["new", "two"]
    memory.rm("/zoo", recursive=True)
    assert "is neither a corpus nor a file" in told("memory://zoo/a.txt", UsageError)
    assert "cannot be opened: Protocol not known: nope" in told("nope://a.txt", UsageError)


def test_a_changed_file_has_another_identity() -> None:
    (name,) = written(a_txt="one")
    before = load_corpus(name).source.identity
    assert load_corpus(name).source.identity == before
    assert load_corpus(name, reading=Reading(encoding="latin-1")).source.identity != before
    stat = os.stat(name)
    written(a_txt="two")
    os.utime(name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_corpus(name).source.identity != before


@pytest.mark.parametrize(
    ("raw", "encoding"), [("grüße\r\n".encode(), "utf-8"), (b"gr\xfc", "latin1")]
)
def test_standard_input(raw: bytes, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    corpus = load_corpus("-", reading=Reading(encoding=encoding))
    assert [corpus.text, corpus.text] == [raw.decode(encoding).replace("\r\n", "\n")] * 2
    assert corpus.source.identity is None
    assert told("-") == "standard input is empty; there is nothing to learn from."
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"gr\xfc")))
    assert told("-").startswith("standard input is not UTF-8 text (byte 2)")


# training


def test_training_on_several_files_and_on_a_folder() -> None:
    names = written(f__a_txt=WORDS, f__b_txt=WORDS.upper())
    whole = WORDS + "\n\n" + WORDS.upper()
    runs = [zoo.train(tuple(names), out="two", **TINY), zoo.train("f", out="folder", **TINY)]
    for run, corpus in zip(runs, (tuple(names), "f"), strict=True):
        assert zoo.load(run.path).config.data.corpus == run.config.data.corpus == corpus
        assert set(run.tokenizer.characters) == set(whole)
        assert zoo.score(run.path, corpus).tokens == len(whole) - 1
        assert zoo.resume(run.path).metrics() == run.metrics()
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        assert one.equal(other)


def test_a_run_of_very_many_files_has_a_short_name() -> None:
    names = written(**{f"book{number}_txt": WORDS for number in range(60)})
    run = zoo.train(names, max_tokens=60, **TINY)
    assert run.path == Path("runs/book0-and-59-more-rnn")
    assert load_corpus(names[:3]).name == "book0-book1-book2"
