"""HTTP by httptools, which parses several times as fast as h11, with a bound on the headers of a
request, which h11 has and httptools does not."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Answers 400, and closes the connection, where a request's line and headers are longer."""

    _in_headers, _header_bytes = True, 0

    def data_received(self, data: bytes) -> None:
        # a pipelined request may begin in the middle of the data: then its part counts from the
        # next data on
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        too_long = self._in_headers and self._header_bytes > MOST_HEADER_BYTES
        if too_long and not self.transport.is_closing():
            self.send_400_response("The headers of the request are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers = True
