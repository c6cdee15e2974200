"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventStream(StreamingResponse):
    """A response of events, one for each text of `data`; `leave` is called when it is over, however
    that came: the client may have gone."""

    media_type = "text/event-stream"

    def __init__(self, data: AsyncIterator[str], leave: Callable[[], object]) -> None:
        self._leave = leave
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_framed(data), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _framed(data: AsyncIterator[str]) -> AsyncIterator[str]:
    async for text in data:
        yield f"data: {text}\n\n"
