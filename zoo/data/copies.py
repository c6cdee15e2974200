"""Files of other machines, each downloaded once: its copy is kept in the cache under its URL and
version."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Container, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fsspec.implementations.local import LocalFileSystem

from zoo.data.formats import errors_named

KEPT_BYTES = 10 * 10**9  # of copies that earlier commands made
STAGED = ".new-"
LONGEST_DOWNLOAD = 24 * 60 * 60  # seconds without a byte; what is older was given up


class StoredFile(NamedTuple):
    """A file somewhere, by its path there; `version` and `size`, in bytes, are None where the place
    tells none."""

    system: Any
    path: str
    version: str | None
    size: int | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.path).path if is_http(self.system) else self.path).name

    @property
    def shown(self) -> str:
        """The path or URL, as a user would give it."""
        return str(self.system.unstrip_protocol(self.path)) if self.remote else self.path

    @property
    def remote(self) -> bool:
        return not isinstance(self.system, LocalFileSystem)


def is_http(system: Any) -> bool:
    return "http" in system.protocol


class Copies:
    """The copies in `folder`. Where it cannot be written, and of files whose version nobody tells,
    they are temporary."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[Path] = set()
        self._fetched: dict[StoredFile, Path] = {}

    def find(self, file: StoredFile) -> Path | None:
        """The copy of a file, if there is one."""
        kept = self._place(file)
        known = self._fetched.get(file) or kept
        if known is None or not known.is_file():
            return None
        if known == kept:
            self._used.add(known)
            with suppress(OSError):
                os.utime(known)  # the ones that were used last are kept longest
        return known

    def fetch(self, file: StoredFile) -> Path:
        """The copy of a file, which is downloaded if there is none."""
        if (known := self.find(file)) is not None:
            return known
        target = self._place(file)
        staged = None if target is None else new_staged_file(self._folder)
        if target is None or staged is None:
            target, staged = None, self._temporary / str(len(self._fetched))
        try:
            with errors_named(file.shown):
                file.system.get_file(file.path, str(staged))
                if target is not None:
                    os.replace(staged, target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        if target is not None:
            self._used.add(target)
            self._prune()
        self._fetched[file] = target or staged
        return target or staged

    @cached_property
    def _temporary(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="zoo-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _place(self, file: StoredFile) -> Path | None:
        """Where the copy of a file is kept, if it is."""
        if file.version is None:
            return None
        key = hashlib.sha256(json.dumps([file.shown, file.version]).encode()).hexdigest()[:40]
        return self._folder / key

    def _prune(self) -> None:
        with suppress(OSError):
            remove_oldest(self._folder.iterdir(), self._used)


def new_staged_file(folder: Path) -> Path | None:
    """A new file in the folder to download to; None where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=STAGED)
    except OSError:
        return None
    os.close(handle)
    return Path(path)


def remove_oldest(copies: Iterable[Path], used: Container[Path]) -> None:
    """Removes copies but for those that this command has `used`, from the one that was used longest
    ago, until they have at most KEPT_BYTES."""
    with suppress(OSError):  # another command removes them too
        others = [path for path in copies if path not in used]
        by_use = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in by_use:
            if path.name.startswith(STAGED) and _age(path) < LONGEST_DOWNLOAD:
                continue
            total += path.stat().st_size
            if total > KEPT_BYTES or path.name.startswith(STAGED):
                path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since a file was last written."""
    return time.time() - path.stat().st_mtime
