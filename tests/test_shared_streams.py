"""Streams that several servers keep in one folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zoo.inference.snapshot import Snapshot
from zoo.registry.registry import load_registry
from zoo.serving.models import ServedModel, open_models
from zoo.serving.settings import ServeConfig
from zoo.serving.stream_store import StreamStore

MORE_THAN_THREADS = 2 * min(32, (os.cpu_count() or 1) + 4)  # those of asyncio.to_thread


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    return ServeConfig(state=str(tmp_path / "state"))


@pytest.fixture
def model(fox_file: Path, config: ServeConfig) -> Iterator[ServedModel]:
    model = open_models([f"fox={fox_file}"], config, load_registry())["fox"]
    yield model
    model.scheduler.close()


def start(model: ServedModel) -> Snapshot:
    random = np.random.default_rng(0).bit_generator.state
    return Snapshot(model.engine.init_state(1), None, random)


def test_requests_that_wait_for_each_others_streams_are_all_answered(
    model: ServedModel, config: ServeConfig
) -> None:
    """Two servers hold streams, and each has more requests for those of the other than it has
    threads. They stand for two processes: a file that is opened twice is locked twice."""
    stores = [StreamStore({"fox": model}, config, shared=True) for _ in range(2)]
    count = MORE_THAN_THREADS
    ids = [[store.create(model, start(model)).id for _ in range(count)] for store in stores]

    async def use(store: StreamStore, id: str, held: asyncio.Event, begin: asyncio.Event) -> None:
        async with store.use(id) as stream:
            stream.saved = False  # it has to be written when it is given back
            held.set()
            await begin.wait()

    async def both() -> None:
        begin, tasks, holding = asyncio.Event(), [], []
        for store, own in zip(stores, ids, strict=True):
            for id in own:
                holding.append(asyncio.Event())
                tasks.append(asyncio.create_task(use(store, id, holding[-1], begin)))
        for held in holding:
            await held.wait()
        for store, others in zip(stores, reversed(ids), strict=True):
            for id in others:
                tasks.append(asyncio.create_task(use(store, id, asyncio.Event(), begin)))
        await asyncio.sleep(0.2)
        begin.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)

    asyncio.run(both())
    for store in stores:
        store.close()
