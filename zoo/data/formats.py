"""How the content of a file is read as documents, piece by piece: text in any encoding, JSON lines
and Parquet, compressed or not.

The packages of the extra `datasets` read Parquet and Zstandard.
"""

from __future__ import annotations

import codecs
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec

from zoo.errors import CorpusError, UsageError, ZooError, near_names, one_line

PIECE_BYTES = 2**20
PROBED_BYTES = 2**14  # to see whether a file is text
DETECTED_BYTES = 2**17
# of encodings that a text may equally well be in, and what to read it as
LIKELIEST = {"ascii": "utf-8", "utf_8": "utf-8", "cp1252": "cp1252"}
PARQUET, JSON_LINES = (".parquet",), (".jsonl", ".ndjson")
ZIP, ZSTANDARD = "zip", "zstd"
ARCHIVES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".7z", ".rar")  # of many files


def documents_in(
    content: IO[bytes], name: str, field: str, encoding: str, shown: str
) -> Iterator[Iterator[str]]:
    """The documents in a file, whose kind its name tells; errors call it `shown`."""
    content, name = _uncompressed(content, name, shown)
    ending = _ending(name)
    if ending in PARQUET:
        yield from _parquet_rows(content, shown, field)
    elif ending in JSON_LINES:
        yield from _json_rows(content, shown, field, encoding)
    else:
        yield decoded(content, shown, encoding)


def may_have_fields(name: str) -> bool:
    """Whether a file of this name can hold records. What a .zip holds is seen when it is read."""
    return compression_of(name) == ZIP or _ending(name) in PARQUET + JSON_LINES


def is_table(name: str) -> bool:
    """Whether a file of this name holds records, and is not to be looked at as text."""
    return _ending(name) in PARQUET + JSON_LINES


def has_encoding(name: str) -> bool:
    return _ending(name) not in PARQUET


def is_read_from_its_end(name: str) -> bool:
    """Whether a file of this name has what describes it at its end."""
    return compression_of(name) == ZIP or _ending(name) in PARQUET


def looks_like_text(content: IO[bytes], name: str, encoding: str, shown: str) -> bool:
    if compression_of(name) is None:
        with errors_named(shown):
            beginning = content.read(PROBED_BYTES)
    else:
        try:
            beginning = _uncompressed(content, name, shown)[0].read(PROBED_BYTES)
        except UsageError:
            raise
        except Exception:  # of many kinds, from the readers of compressed files
            return False
    try:
        return "\0" not in codecs.getincrementaldecoder(encoding)().decode(beginning)
    except UnicodeError:
        return False


def compression_of(name: str) -> str | None:
    """What a file of this name is compressed by. fsspec knows .zst only where a package reads it
    that the zoo does not use."""
    if name.lower().endswith(".zst"):
        return ZSTANDARD
    found: str | None = fsspec.utils.infer_compression(name)
    return found


def _ending(name: str) -> str:
    """That of the name, without the one of a compression."""
    plain = name.rpartition(".")[0] if compression_of(name) else name
    return PurePosixPath(plain).suffix.lower()


def _uncompressed(content: IO[bytes], name: str, shown: str) -> tuple[IO[bytes], str]:
    """What a file holds, and a name that tells its kind. CorpusError for an archive of several
    files."""
    if _ending(name) in ARCHIVES:
        raise CorpusError(f"{shown} is an archive; unpack it and give the folder.")
    kind = compression_of(name)
    if kind == ZIP:
        with errors_named(shown):
            archive = zipfile.ZipFile(content)
            files = [each for each in archive.infolist() if not each.is_dir()]
            if len(files) != 1:
                raise CorpusError(
                    f"{shown} holds {len(files)} files; unpack it and give the folder."
                )
            return _uncompressed(archive.open(files[0]), files[0].filename, shown)
    if kind == ZSTANDARD:  # fsspec's readers take a file that ends too early for a whole one
        arrow = needed("pyarrow", shown)
        with errors_named(shown):
            raw = arrow.CompressedInputStream(arrow.PythonFile(content, "r"), kind)
        return io.BufferedReader(raw), name
    if kind:
        with errors_named(shown):
            return fsspec.compression.compr[kind](content, mode="rb"), name
    return content, name


def decoded(content: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """The text in pieces, its line ends as "\\n". CorpusError, with another encoding where one is
    likely, for bytes that are none."""
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    read, held, beginning = 0, "", b""
    while True:
        with errors_named(name):
            raw = content.read(PIECE_BYTES)
        beginning += raw[: DETECTED_BYTES - len(beginning)]
        kept = len(decoder.getstate()[0])
        try:
            text = held + decoder.decode(raw, final=not raw)
        except UnicodeError as error:  # one without a place if the byte order mark is missing
            start = getattr(error, "start", 0) - kept
            line = raw.rfind(b"\n", 0, max(0, start)) + 1
            raise CorpusError(
                f"{name} is not {_written(encoding)} text (byte {read + start:,}); "
                f"{_other_encoding(encoding, beginning, raw[line : line + DETECTED_BYTES])}."
            ) from None
        if "\0" in text:
            raise CorpusError(
                f"{name} is not text: it holds zero bytes; {_other_encoding(encoding, beginning)}."
            )
        read += len(raw)
        held = "\r" if raw and text.endswith("\r") else ""  # of a line end that is not whole yet
        if text := text[: len(text) - len(held)].replace("\r\n", "\n"):
            yield text
        if not raw:
            return


def _other_encoding(encoding: str, *samples: bytes) -> str:
    """Advice from parts of a text that is not in `encoding`: the first that is in another."""
    from charset_normalizer import from_bytes

    for sample in samples:
        matches = from_bytes(sample)
        if (best := matches.best()) is None:
            continue
        equal = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
        alike = {name for match in equal for name in match.could_be_from_charset}
        likely = next((LIKELIEST[name] for name in LIKELIEST if name in alike), best.encoding)
        if codecs.lookup(likely) != codecs.lookup(encoding):
            return f"it looks like {likely}: give --encoding {likely}"
    return "convert it first"


def require_encoding(name: str) -> None:
    """UsageError, with the near ones, for what is no encoding of text."""
    if _is_encoding(name):
        return
    from encodings.aliases import aliases

    near = near_names(name.lower(), filter(_is_encoding, sorted({*aliases, *aliases.values()})))
    hint = f"did you mean {near}?" if near else "give one that Python knows, such as latin-1."
    raise UsageError(f"the encoding {name!r} is not known; {hint}")


def _is_encoding(name: str) -> bool:
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def _json_rows(content: IO[bytes], name: str, field: str, encoding: str) -> Iterator[Iterator[str]]:
    for number in count(1):
        with errors_named(name):
            line = content.readline()
        if not line:
            return
        if not line.strip():
            continue
        where = f"{name}, line {number:,}"
        try:
            row = json.loads(line.decode(encoding).removeprefix("\ufeff"))
        except UnicodeError:
            raise CorpusError(
                f"{where} is not {_written(encoding)} text; {_other_encoding(encoding, line)}."
            ) from None
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON: {one_line(error)}.") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{where} is no object with fields.")
        require_field(row, field, where)
        yield iter([required_text(row[field], field, where)])


def _parquet_rows(content: IO[bytes], name: str, field: str) -> Iterator[Iterator[str]]:
    parquet = needed("pyarrow.parquet", name)
    with errors_named(name):
        table = parquet.ParquetFile(content)
    require_field(table.schema_arrow.names, field, name)
    batches = table.iter_batches(columns=[field])
    while True:
        with errors_named(name):
            rows = next(batches, None)
            values = None if rows is None else rows.column(0).to_pylist()
        if values is None:
            return
        for text in values:
            yield iter([required_text(text, field, name)])


def require_field(fields: Mapping[str, Any] | Sequence[str], field: str, where: str) -> str:
    """The field; CorpusError, naming those there are, where it is missing."""
    if field not in fields:
        near = near_names(field, fields)
        names = ", ".join(map(repr, list(fields)[:8]))
        hint = f"did you mean {near}?" if near else f"it has {names}; choose one by --field."
        raise CorpusError(f"{where} has no field {field!r}; {hint}")
    return field


def required_text(value: Any, field: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: the field {field!r} holds {type(value).__name__}, not text.")
    return value.encode("utf-8", "replace").decode()  # JSON can spell half of a character


def _written(encoding: str) -> str:
    return encoding.upper() if encoding.lower().startswith("utf") else encoding


def needed(module: str, name: str) -> Any:
    """A module of the extra `datasets`; UsageError, saying that `name` needs it, without it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            f"{name} needs {module.partition('.')[0]}; pip install 'recurrent-zoo[datasets]'."
        ) from None


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Within the block, whatever a file system or the reader of a format raises is a CorpusError
    that names the file. They have no common base."""
    try:
        yield
    except (ZooError, MemoryError):
        raise
    except Exception as error:
        reason = (
            getattr(error, "strerror", None) or getattr(error, "message", None) or one_line(error)
        )
        raise CorpusError(f"{name} cannot be read: {str(reason).rstrip('.')}.") from None
