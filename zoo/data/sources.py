"""Where texts come from: files in any place, folders of them, datasets of the Hub, and standard
input, all as a sequence of documents that is read piece by piece and never held. What a file holds
is read by `zoo.data.formats`.

`fsspec` opens paths and URLs; a package of the extra `datasets` reads the Hub.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any, ClassVar, Protocol

import fsspec

from zoo.data.copies import Copies, StoredFile, is_http
from zoo.data.formats import (
    decoded,
    documents_in,
    errors_named,
    has_encoding,
    is_read_from_its_end,
    is_table,
    looks_like_text,
    may_have_fields,
    needed,
    require_encoding,
    require_field,
    required_text,
)
from zoo.errors import CorpusError, UsageError, ZooWarning, one_line, printable
from zoo.validation import FrozenModel

STANDARD_INPUT = "-"
HUB = "hf:"
PATTERN_SIGNS = "*?["
PEEKED_BYTES = 2**16  # that are fetched at once to see how a remote file begins
LONGEST_SHOWN = 200  # characters of a name
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


class OpenedSource(Source, Protocol):
    """`settings` are the fields of Reading that have an effect on the text."""

    @property
    def settings(self) -> frozenset[str]: ...


@dataclass(frozen=True)
class GivenText:
    """A text that is in memory."""

    text: str
    settings: ClassVar[frozenset[str]] = frozenset()

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


@dataclass(frozen=True)
class Files:
    """Files, each a document, or many where it holds records: those of a folder, or others. A file
    of another machine is read from a copy; to `peek` at its beginning, where it is, if that can be
    done and there is no copy."""

    files: Sequence[StoredFile]
    reading: Reading
    copies: Copies
    folder: bool = False
    peek: bool = False

    @property
    def settings(self) -> frozenset[str]:
        names = [file.name for file in self.files]
        effective = {
            "glob": self.folder,
            "field": any(map(may_have_fields, names)),
            "encoding": any(map(has_encoding, names)),
        }
        return frozenset(name for name, is_effective in effective.items() if is_effective)

    @property
    def identity(self) -> str | None:
        versions = [file.version for file in self.files]
        if None in versions:
            return None
        paths = [(file.path, file.version) for file in self.files]
        return json.dumps([self.reading.model_dump(), paths])

    def documents(self) -> Iterator[Iterator[str]]:
        for file in self.files:
            with self._open(file) as content:
                yield from documents_in(
                    content, file.name, self.reading.field, self.reading.encoding, file.shown
                )

    def _open(self, file: StoredFile) -> IO[bytes]:
        peek = self.peek and not (is_http(file.system) and is_read_from_its_end(file.name))
        return _opened(file, self.copies, peek=peek)


class StandardInput:
    """Standard input, kept in a temporary file: a text is read more than once."""

    identity = None
    settings = frozenset({"encoding"})

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

    settings = frozenset({"field"})

    def __init__(self, name: str, reading: Reading) -> None:
        self._name = f"{HUB}{name}"
        datasets = needed("datasets", self._name)
        path, config, split = (*name.split(":"), "", "")[:3]
        try:
            self._rows = datasets.load_dataset(path, config or None, split=split or "train")
        except Exception as error:  # of many kinds, from many packages
            raise CorpusError(
                f"{shown_name(self._name)} cannot be read: {one_line(error)}"
            ) from None
        self._field = require_field(self._rows.column_names, reading.field, self._name)

    @property
    def identity(self) -> str:
        return f"{self._rows._fingerprint} {self._field}"

    def documents(self) -> Iterator[Iterator[str]]:
        for rows in self._rows.select_columns([self._field]).iter(batch_size=1000):
            for text in rows[self._field]:
                yield iter([required_text(text, self._field, self._name)])


def open_texts(
    name: str, reading: Reading, copies: Copies, known: Callable[[str], str]
) -> OpenedSource:
    """What `name` stands for: "-", "hf:NAME", a URL, a file, a pattern of files, or a folder.
    `known(name)` is the advice where it is none of these."""
    require_encoding(reading.encoding)
    if name == STANDARD_INPUT:
        return StandardInput(reading)
    if name.startswith(HUB):
        return HubDataset(name.removeprefix(HUB), reading)
    shown = shown_name(name)
    if not name or "\0" in name:
        raise UsageError(f"'{shown}' is no name of a text; {known(shown)}")
    system, path = file_system(name)
    with errors_named(shown):
        system.invalidate_cache()  # of listings: what is there now counts
        if path.endswith("/") if is_http(system) else system.isdir(path):
            found = _files_of_folder(shown, system, path, reading, copies)
            return Files(found, reading, copies, folder=True)
        if (file := find_file(system, path)) is not None:
            return Files([file], reading, copies)
        if any(sign in path for sign in PATTERN_SIGNS):
            paths = [each for each in sorted(system.glob(path)) if not system.isdir(each)]
            if paths:
                return Files([_stored(system, each) for each in paths], reading, copies)
    raise UsageError(f"'{shown}' is neither a corpus nor a file; {known(shown)}")


def shown_name(name: str) -> str:
    """The name as messages show it: on one line, and not too long for it."""
    name = printable(name)
    return name if len(name) <= LONGEST_SHOWN else f"{name[: LONGEST_SHOWN // 2]}…{name[-20:]}"


def _files_of_folder(
    name: str, system: Any, path: str, reading: Reading, copies: Copies
) -> list[StoredFile]:
    """Its files and those of the folders in it, but for hidden ones, and for those that hold no
    text, which a warning names."""
    found: list[StoredFile] = []
    other: list[StoredFile] = []
    for each in sorted(system.find(path)):
        inner = PurePosixPath(each).relative_to(PurePosixPath(path))
        wanted = reading.glob is None or inner.match(reading.glob)
        if not wanted or any(part.startswith(".") for part in inner.parts):
            continue
        if is_http(system) and "?" in str(inner):  # a page of links sorted in another way
            continue
        listed = StoredFile(system, each, None)
        with errors_named(listed.shown):
            file = find_file(system, each)
        is_text = file is not None and _looks_like_text(file, reading, copies)
        (found if is_text else other).append(file or listed)  # a link may lead to nothing
    if not found:
        what = f" like {reading.glob!r}" if reading.glob else ""
        raise CorpusError(f"{name} has no text file{what}.")
    if other:
        shown = ", ".join(file.name for file in other[:3]) + (", …" if len(other) > 3 else "")
        warnings.warn(
            f"left out of {name}, as no text in {reading.encoding} ({len(other)} of "
            f"{len(other) + len(found)} files): {shown}",
            ZooWarning,
            stacklevel=2,
        )
    return found


def _looks_like_text(file: StoredFile, reading: Reading, copies: Copies) -> bool:
    if is_table(file.name):
        return True
    with _opened(file, copies, peek=True) as content:
        return looks_like_text(content, file.name, reading.encoding, file.shown)


def file_system(name: str, shown: str | None = None, **options: Any) -> tuple[Any, str]:
    """What reads files at a path or URL, and the path there; it takes `options`. UsageError, which
    calls it `shown`, for a protocol that is not known, or whose package is missing."""
    shown = shown_name(name) if shown is None else shown
    try:
        system, path = fsspec.core.url_to_fs(name, **options)
    except ImportError as error:
        if name.startswith(("http:", "https:")):
            needed("aiohttp", shown)
        cause = error.__cause__
        if isinstance(cause, ImportError) and cause.name:
            package = cause.name.partition(".")[0]
            raise UsageError(f"{shown} needs {package}; pip install {package}.") from None
        raise UsageError(f"{shown} cannot be opened: {one_line(error)}.") from None
    except ValueError as error:
        raise UsageError(f"{shown} cannot be opened: {one_line(error)}.") from None
    return system, path


def find_file(system: Any, path: str) -> StoredFile | None:
    """The file, if there is one."""
    if not is_http(system):
        return _stored(system, path) if system.exists(path) else None
    try:  # fsspec says of a server that cannot be reached too that the file is not there
        return _stored(system, path)
    except FileNotFoundError as error:
        cause = error.__cause__
        if cause is None or getattr(cause, "status", None) in (404, 410):
            return None
        raise cause from None


def _stored(system: Any, path: str) -> StoredFile:
    info = system.info(path)
    told = {key: str(info[key]) for key in VERSIONS if info.get(key) is not None}
    version = [info.get("size"), told]
    if system.storage_options:  # which may say what machine it is on
        version.append(json.dumps(system.storage_options, default=str, sort_keys=True))
    return StoredFile(system, path, json.dumps(version) if told else None, info.get("size"))


def _opened(file: StoredFile, copies: Copies, peek: bool = False) -> IO[bytes]:
    """The bytes of a file: its own, those of its copy, or where it is only to be peeked at, those
    of the remote file as they are fetched."""
    content: IO[bytes]
    with errors_named(file.shown):
        path = copies.find(file) if file.remote else file.path
        if path is None and not peek:
            path = copies.fetch(file)
        if path is not None:
            content = fsspec.filesystem("file").open(str(path), "rb")
        elif is_http(file.system):  # in one stream: not all servers send a part that is asked for
            content = io.BufferedReader(file.system.open(file.path, "rb", block_size=0))
        else:
            content = file.system.open(file.path, "rb", block_size=PEEKED_BYTES)
    return content
