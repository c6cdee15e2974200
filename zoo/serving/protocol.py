"""HTTP by httptools, which parses several times as fast as h11, with what it leaves open to clients
that mean no good."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES = 64 * 1024
HEAD_SECONDS = 30.0  # in which the next request of a connection has to begin; twice that at most


class BoundedProtocol(HttpToolsProtocol):
    """Answers 400, and closes the connection, where a request's line and headers are longer.

    Closes it, too, where none begins in time, however slowly its headers come, or the rest of a
    body that nobody waits for. Both h11 and httptools leave such connections open.
    """

    _in_headers, _header_bytes = True, 0
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_on()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _watch_on(self) -> None:
        """One timer for the connection: requests cost nothing."""
        former = self.cycle

        def look() -> None:
            if self.cycle is former and (former is None or former.response_complete):
                self.transport.close()
            else:
                self._watch_on()

        self._watch = self.loop.call_later(HEAD_SECONDS, look)

    def data_received(self, data: bytes) -> None:
        # a pipelined request may begin in the middle of the data: then its part counts from the
        # next data on
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        too_long = self._in_headers and self._header_bytes > MOST_HEADER_BYTES
        if too_long and not self.transport.is_closing():
            self.send_400_response("The headers of the request are too long.")

    def send_400_response(self, msg: str) -> None:
        """The answer to what is no HTTP, but none in the middle of another, or after it."""
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and self._in_headers):
            super().send_400_response(msg)
            return
        if cycle.response_started or self.pipeline:
            self.transport.close()
        else:
            super().send_400_response(msg)
        cycle.disconnected = True
        cycle.message_event.set()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # not after the body, where they may have no end
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers = True

    def _unsupported_upgrade_warning(self) -> None:
        """There is nothing to upgrade to, and nothing to install: the request is answered."""
