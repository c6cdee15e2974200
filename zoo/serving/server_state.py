"""What all requests of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zoo.serving.bridge import Bridge
from zoo.serving.models import ServedModel
from zoo.serving.requests import ApiError
from zoo.serving.settings import ServeConfig

if TYPE_CHECKING:
    from zoo.serving.metrics import Metrics
    from zoo.serving.stream_store import StreamStore


@dataclass
class ServerState:
    config: ServeConfig
    models: Mapping[str, ServedModel]
    bridge: Bridge
    streams: StreamStore
    metrics: Metrics
    stopping: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def model(self, name: str) -> ServedModel:
        """The model of that name, by a look into the table of those that were opened."""
        if name not in self.models:
            raise ApiError(
                404,
                f"there is no model {name[:100]!r} here; there is {', '.join(self.models)}.",
                "model_not_found",
                "model",
            )
        return self.models[name]

    async def timed(self, events: AsyncIterator[str], began: float) -> AsyncIterator[str]:
        """The events; the time to the first is measured, from when the request began."""
        first = True
        async for event in events:
            if first:
                self.metrics.first_token.observe(time.perf_counter() - began)
                first = False
            yield event
