"""Models of other machines: exported files at URLs, each downloaded once. A copy is kept in the
cache under the SHA-256 of its content. Needs no torch."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from zoo.data.copies import STAGED, StoredFile, is_http, new_staged_file, remove_oldest
from zoo.data.corpora import cache_folder
from zoo.data.formats import errors_named, needed
from zoo.data.sources import file_system, find_file
from zoo.errors import ArtifactError, CorpusError, RunError, UsageError
from zoo.files import write_atomically
from zoo.inference.artifact import MAX_FILE_BYTES
from zoo.inference.urls import URL, shown_url
from zoo.validation import FrozenModel

MODELS = "models"  # a folder of the cache
PIN = "#sha256="
DIGEST = re.compile(r"[0-9a-f]{64}")
PIECE_BYTES = 2**20
SILENCE = 60  # seconds without a byte of a server, after which it is given up


def fetch_models(url: str, wanted: Callable[[str], bool], patterns: str) -> dict[Path, str]:
    """The copies of the file at a URL, or of those in the folder there, whose names are `wanted`,
    in order of name; and the URL of each, as messages show it. `patterns` tells which are wanted.

    A copy is used again as long as the server tells the same version of the file (its ETag, say),
    and a file without a version is downloaded each time. After "#sha256=HEX" the content has to
    have this digest, and a copy that has it is used without asking the server. Raises RunError for
    a URL without such a file or that cannot be read, UsageError for one that is none or needs a
    package, ArtifactError for a file that is too large or of another digest.
    """
    place, sign, pin = url.partition(PIN)
    shown, pin = shown_url(place), pin.lower()
    if sign and not DIGEST.fullmatch(pin):
        raise UsageError(f"{shown}: a SHA-256 has 64 hexadecimal digits; give URL{PIN}HEX.")
    copies = _ModelCopies(cache_folder() / MODELS)
    name = urlsplit(place).path.rpartition("/")[2]
    if pin and wanted(name) and (known := copies.find(pin, name)) is not None:
        return {known: shown}
    options = _http_options(shown) if place.lower().startswith(("http:", "https:")) else {}
    system, path = file_system(place, shown, **options)
    with _errors_about(shown):
        system.invalidate_cache()  # of listings: what is there now counts
        files = _list(system, path, wanted)
    if not files:
        raise RunError(f"{shown} holds no file that a runtime here opens ({patterns}).")
    if not all(wanted(file.name) for file in files):
        raise RunError(f"{shown} is no file that a runtime here opens ({patterns}).")
    if sign and (len(files) > 1 or files[0].path != path):
        raise UsageError(f"{shown} is a folder, and a SHA-256 is that of one file; name the file.")
    fetched = {}
    for file in files:
        about = shown if file.path == path else f"{shown.partition('?')[0].rstrip('/')}/{file.name}"
        with _errors_about(about):
            fetched[copies.fetch(file, pin, about)] = about
    return fetched


def _http_options(shown: str) -> dict[str, Any]:
    """A download may take as long as bytes come; the usual limit is five minutes in all."""
    aiohttp = needed("aiohttp", shown)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": timeout}}


def _list(system: Any, path: str, wanted: Callable[[str], bool]) -> list[StoredFile]:
    """The file at a path, or the wanted ones of the folder there, but for those in folders of
    it."""
    if path.endswith("/") if is_http(system) else system.isdir(path):
        inside = path.rstrip("/")
        listed = [StoredFile(system, each, None) for each in sorted(system.ls(path, detail=False))]
        found = [
            find_file(system, each.path)
            for each in listed  # a page may link to anywhere
            if each.path.rpartition("/")[0] == inside and wanted(each.name)
        ]
        return [file for file in found if file is not None]
    if (file := find_file(system, path)) is None:
        raise FileNotFoundError
    return [file]


@contextmanager
def _errors_about(shown: str) -> Iterator[None]:
    """Within the block, whatever a file system raises is a RunError that names the file, and tells
    no URL with what it has of secrets."""
    try:
        with errors_named(shown):
            try:
                yield
            except FileNotFoundError:
                raise RunError(
                    f"{shown} does not exist; give the URL of an exported file."
                ) from None
    except CorpusError as error:
        told = str(error).removeprefix(shown)
        raise RunError(shown + URL.sub(lambda found: shown_url(found[0]), told)) from None


class _Record(FrozenModel):
    """What was last downloaded from a URL: digests of what the server said of its version, and of
    the content."""

    version: str
    content: str = Field(pattern=f"^{DIGEST.pattern}$")


class _ModelCopies:
    """Copies in `folder`, each in a folder named by its SHA-256. What is known of a URL is in a
    file beside them, named by a digest of the URL, which may be secret. Where `folder` cannot be
    written, copies are temporary and end with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[Path] = set()

    def find(self, digest: str, name: str) -> Path | None:
        """The copy with this content, if there is one and it is whole."""
        path = self._folder / digest / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
        if found != digest:
            return None
        with suppress(OSError):
            os.utime(path)  # the ones that were used last are kept longest
        self._used.add(path)
        return path

    def fetch(self, file: StoredFile, pin: str, shown: str) -> Path:
        """The copy of a file, which is downloaded if there is none of its version. ArtifactError
        for one that does not have the digest `pin`, if one is given."""
        content = self._content_of(file)
        if content is not None and pin in ("", content):
            known = self.find(content, file.name)
            if known is not None:
                return known
        folder = self._folder
        if (staged := new_staged_file(folder)) is None:
            folder = Path(tempfile.mkdtemp(prefix="zoo-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            staged = folder / file.name
        try:
            digest = _download(file, staged, shown)
            if pin not in ("", digest):
                raise ArtifactError(
                    f"{shown} has the SHA-256 {digest}, and not the one that was asked for: the "
                    f"file has been changed, or the address is another's."
                )
            target = folder / digest / file.name
            target.parent.mkdir(exist_ok=True)
            os.replace(staged, target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        self._used.add(target)
        if folder == self._folder:
            self._remember(file, digest)
            copies = chain(self._folder.glob("*/*"), self._folder.glob(f"{STAGED}*"))
            remove_oldest(copies, self._used)
        return target

    def _content_of(self, file: StoredFile) -> str | None:
        """The digest of a file, if it still has the version that was downloaded."""
        if file.version is None:
            return None
        try:
            record = _Record.model_validate_json(self._record_path(file).read_bytes())
        except (OSError, ValidationError):
            return None
        return record.content if record.version == _digest(file.version) else None

    def _remember(self, file: StoredFile, content: str) -> None:
        if file.version is not None:
            record = _Record(version=_digest(file.version), content=content)
            with suppress(RunError):  # the disk is full: it is downloaded again next time
                write_atomically(self._record_path(file), record.model_dump_json().encode())

    def _record_path(self, file: StoredFile) -> Path:
        return self._folder / f"{_digest(file.shown)}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _download(file: StoredFile, target: Path, shown: str) -> str:
    """Writes the content of a file to `target`, and returns its SHA-256."""
    _require_size(file.size or 0, shown)
    found, size = hashlib.sha256(), 0
    # of http in one stream: not all servers send a part that is asked for
    options = {"block_size": 0} if is_http(file.system) else {}
    with file.system.open(file.path, "rb", **options) as content, target.open("wb") as copy:
        while piece := content.read(PIECE_BYTES):
            size += len(piece)
            _require_size(size, shown)
            found.update(piece)
            copy.write(piece)
    if file.size not in (None, size):
        raise RunError(
            f"{shown} cannot be read: it ended after {size:,} of {file.size:,} bytes; try again."
        )
    return found.hexdigest()


def _require_size(size: int, shown: str) -> None:
    if size > MAX_FILE_BYTES:
        raise ArtifactError(f"{shown} is too large; a model has at most {MAX_FILE_BYTES:,} bytes.")
