"""Streams of a server: positions in texts that clients come back to, in memory while they are used,
and on the disk otherwise.

A stream is a file of the folder, in `FINGERPRINT/ID.stream`: a snapshot as
`zoo.inference.snapshot` writes it, whole or not there at all. The names of these files are ids that
this server made up; what a request says is only looked up among them.
"""

from __future__ import annotations

import asyncio
import fcntl
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from zoo.errors import RunError
from zoo.files import write_atomically
from zoo.inference.snapshot import Snapshot, read_snapshot, write_snapshot
from zoo.serving.models import ServedModel
from zoo.serving.requests import ApiError
from zoo.serving.settings import ServeConfig

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
            raise RunError(f"{folder} cannot be used for streams: {error.strerror}.") from None

    def create(self, model: ServedModel, position: Snapshot) -> Stream:
        """A new stream; ApiError where there are as many as may be."""
        if len(self._streams) >= self._config.max_streams:
            raise ApiError(
                429, f"there are {len(self._streams):,} streams; delete some.", "too_many_streams"
            )
        stream = Stream(secrets.token_hex(16), model, position)
        self._streams[stream.id] = stream
        if self._shared:
            self._save(stream)
            stream.position = None
        return stream

    @asynccontextmanager
    async def use(self, id: str) -> AsyncIterator[Stream]:
        """The stream, in memory, for one request at a time; ApiError for one that is not there."""
        stream = self._known(id)
        async with stream.lock:
            lock = await asyncio.to_thread(self._lock_file, stream) if self._shared else None
            try:
                if stream.position is None:
                    content = await asyncio.to_thread(self._read, stream)
                    stream.position = read_snapshot(stream.model.engine, content)
                    stream.saved = True
                yield stream
                stream.used = time.monotonic()
                if self._shared:
                    if not stream.saved:
                        await asyncio.to_thread(self._save, stream)
                    stream.position = None
            finally:
                if lock is not None:
                    lock.close()

    def _known(self, id: str) -> Stream:
        if id not in self._streams and self._shared:
            for model in self._models.values():  # another process may have made it
                self._find(model)
        if id not in self._streams:
            raise ApiError(404, f"there is no stream {id[:64]!r}.", "stream_not_found")
        return self._streams[id]

    def _lock_file(self, stream: Stream):  # type: ignore[no-untyped-def]
        file = (self._folder_of(stream.model) / f".{stream.id}.lock").open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _read(self, stream: Stream) -> bytes:
        try:
            return self._path(stream).read_bytes()
        except OSError:
            self._streams.pop(stream.id, None)
            raise ApiError(404, f"the stream {stream.id} is gone.", "stream_not_found") from None

    def _save(self, stream: Stream) -> None:
        assert stream.position is not None
        position = stream.position
        write_atomically(self._path(stream), write_snapshot(stream.model.engine, position))
        stream.saved = stream.position is position

    async def delete(self, id: str) -> None:
        stream = self._known(id)
        async with stream.lock:
            self._streams.pop(id, None)
            self._path(stream).unlink(missing_ok=True)
            (self._folder_of(stream.model) / f".{stream.id}.lock").unlink(missing_ok=True)

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
            await self.tidy()

    def close(self) -> None:
        """Saves all streams, or removes the folder if they end with the server."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            return
        for stream in self._streams.values():
            if stream.position is not None and not stream.saved:
                self._save(stream)
