"""Streams of a server: positions in texts that clients come back to, in memory while they are used,
and on the disk otherwise.

A stream is a file of the folder, in `FINGERPRINT/ID.stream`: a snapshot as
`zoo.inference.snapshot` writes it, whole or not there at all. The names of these files are ids that
this server made up; what a request says is only looked up among them.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from zoo.errors import RunError, UsageError, ZooError
from zoo.files import write_atomically
from zoo.inference.snapshot import Snapshot, read_snapshot, write_snapshot
from zoo.serving.models import ServedModel
from zoo.serving.requests import ApiError
from zoo.serving.settings import ServeConfig

_log = logging.getLogger(__name__)
SUFFIX = ".stream"
TIDY_SECONDS = 1.0


class Stream:
    """A position in a text of a model. `position` is None while it is only on the disk, `saved`
    says whether the file has it."""

    def __init__(self, id: str, model: ServedModel, position: Snapshot | None) -> None:
        self.id, self.model, self.position = id, model, position
        self.saved = position is None
        self.used = time.monotonic()
        self.lock = asyncio.Lock()

    @property
    def bytes_held(self) -> int:
        if self.position is None:
            return 0
        leaves = self.model.engine.state_to_arrays(self.position.state).values()
        return sum(leaf.nbytes for leaf in leaves)


class StreamStore:
    """`shared` is for several processes with one folder: a stream is then read from the disk for
    each request, and written back after it, under a lock."""

    def __init__(
        self, models: Mapping[str, ServedModel], config: ServeConfig, shared: bool = False
    ) -> None:
        self._models, self._config, self._shared = models, config, shared
        self._own = None if config.state else tempfile.mkdtemp(prefix="zoo-streams-")
        self.folder = Path(config.state or self._own or "")
        self._streams: dict[str, Stream] = {}
        self._told = ""  # what was last logged of streams that cannot be saved
        self._claim = self._claim_folder()
        for model in models.values():
            self._find(model)

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def in_memory(self) -> int:
        return sum(stream.position is not None for stream in self._streams.values())

    def of_model(self, model: ServedModel) -> list[str]:
        return [stream.id for stream in self._streams.values() if stream.model is model]

    def _folder_of(self, model: ServedModel) -> Path:
        return self.folder / model.fingerprint

    def _path(self, stream: Stream) -> Path:
        return self._folder_of(stream.model) / f"{stream.id}{SUFFIX}"

    def _claim_folder(self) -> IO[bytes]:
        """The lock of the folder, for as long as it is open. UsageError where another server has
        the folder, unless both are among several processes that share it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # also to be read: NFS gives a shared lock for nothing less
            claim = (self.folder / ".lock").open("w+b")
        except OSError as error:
            raise _unusable(self.folder, error) from None
        if not _try_lock(claim, fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX):
            claim.close()
            raise UsageError(
                f"another server keeps its streams in {self.folder}; choose another --state."
            )
        return claim

    def _find(self, model: ServedModel) -> None:
        """The streams of a model that are on the disk; and removes what a killed process left
        half-written."""
        folder = self._folder_of(model)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path.suffix == SUFFIX:
                    if path.stem not in self._streams:
                        self._streams[path.stem] = Stream(path.stem, model, None)
                elif path.name.startswith(".") and not self._shared:
                    path.unlink()
        except OSError as error:
            raise _unusable(folder, error) from None

    def _find_all(self) -> None:
        """Brings the table up to date with the folder: other processes make and delete streams."""
        unused = [id for id, stream in self._streams.items() if not stream.lock.locked()]
        for id in unused:
            if not self._path(self._streams[id]).exists():
                del self._streams[id]
        for model in self._models.values():
            self._find(model)

    def create(self, model: ServedModel, position: Snapshot) -> Stream:
        """A new stream; ApiError where there are as many as may be."""
        if self._shared:
            self._find_all()
        if len(self._streams) >= self._config.max_streams:
            raise ApiError(
                429, f"there are {len(self._streams):,} streams; delete some.", "too_many_streams"
            )
        stream = Stream(secrets.token_hex(16), model, position)
        if self._shared:
            self._save(stream)
            stream.position = None
        self._streams[stream.id] = stream
        return stream

    @asynccontextmanager
    async def use(self, id: str) -> AsyncIterator[Stream]:
        """The stream, in memory, for one request at a time; ApiError for one that is not there."""
        stream = self._known(id)
        async with stream.lock, self._locked_file(stream):
            try:
                if stream.position is None:
                    content = await asyncio.to_thread(self._read, stream)
                    stream.position = read_snapshot(stream.model.engine, content)
                    stream.saved = True
                elif self._streams.get(id) is not stream:  # deleted while this one waited
                    raise _unknown(id)
                yield stream
                stream.used = time.monotonic()
                if self._shared and not stream.saved:
                    await asyncio.to_thread(self._save, stream)
            finally:
                if self._shared:  # the next request may come to another process
                    stream.position = None

    def _known(self, id: str) -> Stream:
        if id not in self._streams and self._shared:
            self._find_all()
        if id not in self._streams:
            raise _unknown(id)
        return self._streams[id]

    def _lock_path(self, stream: Stream) -> Path:
        return self._folder_of(stream.model) / f".{stream.id}.lock"

    @asynccontextmanager
    async def _locked_file(self, stream: Stream) -> AsyncIterator[None]:
        """Keeps other processes from the stream. It is tried for again and again rather than
        waited for in a thread: waiting threads could be all that there are."""
        if not self._shared:
            yield
            return
        with self._lock_path(stream).open("wb") as file:
            pause = 0.001
            while not _try_lock(file, fcntl.LOCK_EX):
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.05)
            yield

    def _read(self, stream: Stream) -> bytes:
        try:
            return self._path(stream).read_bytes()
        except FileNotFoundError:
            self._forget(stream)
            raise _unknown(stream.id) from None
        except OSError as error:
            raise _unusable(self._path(stream), error) from None

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._path(stream).unlink(missing_ok=True)
        self._lock_path(stream).unlink(missing_ok=True)

    def _save(self, stream: Stream) -> None:
        assert stream.position is not None
        position = stream.position
        write_atomically(self._path(stream), write_snapshot(stream.model.engine, position))
        stream.saved = stream.position is position

    async def delete(self, id: str) -> None:
        stream = self._known(id)
        async with stream.lock, self._locked_file(stream):
            if self._streams.get(id) is not stream or (
                self._shared and not self._path(stream).exists()
            ):  # deleted while this one waited
                self._forget(stream)
                raise _unknown(id)
            self._forget(stream)

    async def tidy(self) -> None:
        """Saves what changed, and takes out of memory what was not used for long, or is too
        much."""
        now = time.monotonic()
        held = 0
        by_use = sorted(self._streams.values(), key=lambda stream: -stream.used)
        for stream in by_use:
            if stream.position is None or stream.lock.locked():
                held += stream.bytes_held
                continue
            async with stream.lock:
                if self._streams.get(stream.id) is not stream:
                    continue
                if not stream.saved and self._config.state:
                    await asyncio.to_thread(self._save, stream)
                held += stream.bytes_held
                if now - stream.used > self._config.idle or held > self._config.max_memory:
                    if not stream.saved:
                        await asyncio.to_thread(self._save, stream)
                    held -= stream.bytes_held
                    stream.position = None

    async def keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            try:
                await self.tidy()
                self._told = ""
            except ZooError as error:  # the disk is full, say: they stay in memory
                self._log_once(str(error))

    def _log_once(self, problem: str) -> None:
        if problem != self._told:
            _log.error("streams cannot be saved: %s", problem)
        self._told = problem

    def close(self) -> None:
        """Saves all streams, or removes the folder if they end with the server."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
        else:
            for stream in self._streams.values():
                if stream.position is not None and not stream.saved:
                    try:
                        self._save(stream)
                    except ZooError as error:  # the others may be small enough
                        self._log_once(str(error))
        self._claim.close()


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unknown(id: str) -> ApiError:
    return ApiError(404, f"there is no stream {id[:64]!r}.", "stream_not_found")


def _unusable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be used for streams: {error.strerror}.")
