"""Where texts come from: files of any kind in any place, folders of them, datasets of the Hub, and
standard input, all as a sequence of documents that is read piece by piece and never held.

`fsspec` opens paths, URLs and compressed files; the packages of the extra `datasets` read Parquet,
Zstandard and the Hub.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol

import fsspec

from zoo.errors import CorpusError, UsageError, ZooError, ZooWarning, near_names, one_line
from zoo.validation import FrozenModel

STANDARD_INPUT = "-"
HUB = "hf:"
PIECE_BYTES = 2**20
PROBED_BYTES = 2**14  # of each file of a folder, to see whether it is text
DETECTED_BYTES = 2**17
# of encodings that a text may equally well be in, and what to read it as
LIKELIEST = {"ascii": "utf-8", "utf_8": "utf-8", "cp1252": "cp1252"}
BETWEEN = "\n\n"  # what stands between documents that no token separates
TABLES = (".jsonl", ".ndjson", ".parquet")
PATTERN_SIGNS = "*?["
# what a file system says about a version of a file; a change of the content changes one of them
VERSIONS = (
    "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "crc32c", "mtime", "LastModified",
    "Last-Modified", "last_modified", "updated", "created",
)  # fmt: skip


class Reading(FrozenModel):
    """How files are read: which of a folder, the field of records, the encoding of text."""

    glob: str | None = None
    field: str = "text"
    encoding: str = "utf-8"


class Source(Protocol):
    """A text as documents, each in pieces, from its beginning whenever they are asked for.
    `identity` changes with the content; None where only reading it all would tell."""

    @property
    def identity(self) -> str | None: ...

    def documents(self) -> Iterator[Iterator[str]]: ...


@dataclass(frozen=True)
class GivenText:
    """A text that is in memory."""

    text: str

    @cached_property
    def identity(self) -> str:
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def documents(self) -> Iterator[Iterator[str]]:
        yield iter([self.text])


class Joint:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    @property
    def identity(self) -> str | None:
        each = [source.identity for source in self._sources]
        return None if None in each else json.dumps(each)

    def documents(self) -> Iterator[Iterator[str]]:
        for source in self._sources:
            yield from source.documents()


class StoredFile(NamedTuple):
    """A file somewhere, by its path there; `version` is None where the place tells none."""

    system: Any
    path: str
    version: str | None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


class Files:
    """Files, each a document, or many where it holds records."""

    def __init__(self, name: str, files: Sequence[StoredFile], reading: Reading) -> None:
        self._name, self._files, self._reading = name, files, reading
        self._copies = Path(tempfile.mkdtemp(prefix="zoo-")) if _any_remote(files) else None
        if self._copies is not None:
            weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)

    @property
    def identity(self) -> str | None:
        versions = [file.version for file in self._files]
        if None in versions:
            return None
        paths = [(file.path, file.version) for file in self._files]
        return json.dumps([self._reading.model_dump(), paths])

    def documents(self) -> Iterator[Iterator[str]]:
        for number, file in enumerate(self._files):
            with self._open(number, file) as content:
                kind = PurePosixPath(_uncompressed(file.name)).suffix.lower()
                if kind == ".parquet":
                    yield from _parquet_rows(content, file.path, self._reading.field)
                elif kind in TABLES:
                    yield from _json_rows(content, file.path, self._reading)
                else:
                    yield decoded(content, file.path, self._reading.encoding)

    def _open(self, number: int, file: StoredFile) -> IO[bytes]:
        """The uncompressed bytes. A file of another machine is fetched once."""
        with _told(file.path):
            if self._copies is None:
                return _opened(file.system, file.path)
            copy = self._copies / f"{number}-{file.name}"
            if not copy.exists():
                file.system.get_file(file.path, str(copy))
            return _opened(fsspec.filesystem("file"), str(copy))


class StandardInput:
    """Standard input, kept in a temporary file: a text is read more than once."""

    identity = None

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._content = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the source
        weakref.finalize(self, self._content.close)
        shutil.copyfileobj(sys.stdin.buffer, self._content)

    def documents(self) -> Iterator[Iterator[str]]:
        self._content.seek(0)
        yield decoded(self._content, "standard input", self._reading.encoding)


class HubDataset:
    """A dataset by its name on the Hub, or in a local folder: "NAME", "NAME:CONFIG" or
    "NAME:CONFIG:SPLIT"; the split is "train" where none is given."""

    def __init__(self, name: str, reading: Reading) -> None:
        datasets = _extra("datasets", f"{HUB}{name}")
        path, config, split = (*name.split(":"), "", "")[:3]
        try:
            self._rows = datasets.load_dataset(path, config or None, split=split or "train")
        except Exception as error:  # of many kinds, from many packages
            raise CorpusError(f"{HUB}{name} cannot be read: {one_line(error)}") from None
        self._field = require_field(self._rows.column_names, reading.field, f"{HUB}{name}")

    @property
    def identity(self) -> str:
        return f"{self._rows._fingerprint} {self._field}"

    def documents(self) -> Iterator[Iterator[str]]:
        for rows in self._rows.select_columns([self._field]).iter(batch_size=1000):
            for text in rows[self._field]:
                yield iter([_required_text(text, self._field, "the dataset")])


def open_texts(name: str, reading: Reading, known: Callable[[str], str]) -> Source:
    """What `name` stands for: "-", "hf:NAME", a URL, a file, a pattern of files, or a folder.
    `known(name)` is the advice where it is none of these."""
    _require_encoding(reading.encoding)
    if name == STANDARD_INPUT:
        return StandardInput(reading)
    if name.startswith(HUB):
        return HubDataset(name.removeprefix(HUB), reading)
    return Files(name, find_files(name, reading, known), reading)


def find_files(
    name: str, reading: Reading, known: Callable[[str], str] = lambda name: ""
) -> list[StoredFile]:
    """The files that a path, URL, pattern or folder stands for, in order of their paths."""
    with _told(name):
        system, path = _file_system(name)
        if system.isdir(path):
            return _files_of_folder(name, system, path, reading)
        if system.exists(path):
            return [_stored(system, path)]
        if any(sign in path for sign in PATTERN_SIGNS) and (found := sorted(system.glob(path))):
            return [_stored(system, each) for each in found if system.isfile(each)]
    raise UsageError(f"{name!r} is neither a corpus nor a file; {known(name)}")


def _files_of_folder(name: str, system: Any, path: str, reading: Reading) -> list[StoredFile]:
    """Its files and those of the folders in it, but for hidden ones, and for those that hold no
    text, which a warning names."""
    found: list[StoredFile] = []
    other: list[StoredFile] = []
    for each in sorted(system.find(path)):
        inner = PurePosixPath(each).relative_to(PurePosixPath(path))
        wanted = reading.glob is None or inner.match(reading.glob)
        if not wanted or any(part.startswith(".") for part in inner.parts):
            continue
        file = _stored(system, each)
        (found if _looks_like_text(file, reading) else other).append(file)
    if not found:
        what = f" like {reading.glob!r}" if reading.glob else ""
        raise CorpusError(f"{name} has no text file{what}.")
    if other:
        shown = ", ".join(file.name for file in other[:3]) + (", …" if len(other) > 3 else "")
        warnings.warn(
            f"{len(other)} of {len(other) + len(found)} files in {name} are no text in "
            f"{reading.encoding} and are left out: {shown}",
            ZooWarning,
            stacklevel=2,
        )
    return found


def _looks_like_text(file: StoredFile, reading: Reading) -> bool:
    if PurePosixPath(_uncompressed(file.name)).suffix.lower() in TABLES:
        return True
    try:
        with _opened(file.system, file.path) as content:
            beginning = content.read(PROBED_BYTES)
        return "\0" not in codecs.getincrementaldecoder(reading.encoding)().decode(beginning)
    except ZooError:
        raise
    except Exception:  # of many kinds, from the readers of compressed files
        return False


def decoded(content: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """The text in pieces, its line ends as "\\n". CorpusError, with another encoding where one is
    likely, for bytes that are none."""
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    read, held, beginning = 0, "", b""
    while True:
        with _told(name):
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


def _require_encoding(name: str) -> None:
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


def _json_rows(content: IO[bytes], name: str, reading: Reading) -> Iterator[Iterator[str]]:
    for number in count(1):
        with _told(name):
            line = content.readline()
        if not line:
            return
        if not line.strip():
            continue
        where = f"{name}, line {number:,}"
        try:
            row = json.loads(line.decode(reading.encoding).removeprefix("\ufeff"))
        except UnicodeError:
            raise CorpusError(
                f"{where} is not {_written(reading.encoding)} text; "
                f"{_other_encoding(reading.encoding, line)}."
            ) from None
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON: {one_line(error)}.") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{where} is no object with fields.")
        field = require_field(row, reading.field, where)
        yield iter([_required_text(row[field], field, where)])


def _parquet_rows(content: IO[bytes], name: str, field: str) -> Iterator[Iterator[str]]:
    parquet = _extra("pyarrow.parquet", name)
    with _told(name):
        table = parquet.ParquetFile(content)
    require_field(table.schema_arrow.names, field, name)
    batches = table.iter_batches(columns=[field])
    while True:
        with _told(name):
            rows = next(batches, None)
            values = None if rows is None else rows.column(0).to_pylist()
        if values is None:
            return
        for text in values:
            yield iter([_required_text(text, field, name)])


def require_field(fields: Mapping[str, Any] | Sequence[str], field: str, where: str) -> str:
    """The field; CorpusError, naming those there are, where it is missing."""
    if field not in fields:
        near = near_names(field, fields)
        names = ", ".join(map(repr, list(fields)[:8]))
        hint = f"did you mean {near}?" if near else f"it has {names}; choose one by --field."
        raise CorpusError(f"{where} has no field {field!r}; {hint}")
    return field


def _required_text(value: Any, field: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: the field {field!r} holds {type(value).__name__}, not text.")
    return value.encode("utf-8", "replace").decode()  # JSON can spell half of a character


def _file_system(name: str) -> tuple[Any, str]:
    try:
        system, path = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{name} cannot be opened: {one_line(error)}") from None
    return system, path


def _stored(system: Any, path: str) -> StoredFile:
    info = system.info(path)
    told = {key: str(info[key]) for key in VERSIONS if info.get(key) is not None}
    version = json.dumps([info.get("size"), told]) if told else None
    return StoredFile(system, path, version)


def _opened(system: Any, path: str) -> IO[bytes]:
    kind = fsspec.utils.infer_compression(path)
    content: IO[bytes] = system.open(path, "rb")
    if kind == "zstd":  # fsspec's reader takes a file that ends too early for a whole one
        arrow = _extra("pyarrow", path)
        raw = arrow.CompressedInputStream(arrow.PythonFile(content, "r"), kind)
        return io.BufferedReader(raw)
    return fsspec.compression.compr[kind](content, mode="rb") if kind else content


def _uncompressed(name: str) -> str:
    """The name without the ending of a compression."""
    return name.rpartition(".")[0] if fsspec.utils.infer_compression(name) else name


def _any_remote(files: Sequence[StoredFile]) -> bool:
    return any(type(file.system).__name__ != "LocalFileSystem" for file in files)


def _written(encoding: str) -> str:
    return encoding.upper() if encoding.lower().startswith("utf") else encoding


def _extra(module: str, name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            f"{name} needs {module.partition('.')[0]}; pip install 'recurrent-zoo[datasets]'."
        ) from None


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Within the block, whatever a file system or the reader of a format raises is a CorpusError
    that names the file. They have no common base."""
    try:
        yield
    except (ZooError, MemoryError):
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise CorpusError(f"{name} cannot be read: {str(reason).rstrip('.')}.") from None
