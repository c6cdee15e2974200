"""Ray, which the zoo works without: importing it, and being connected to a cluster."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from zoo.errors import UsageError, ZooError, one_line

LOCAL = "local"  # the address of a cluster that begins and ends with the work
LOCAL_STORE = 2**28  # bytes of its shared memory: a few blocks of text


def import_ray(module: str = "ray") -> Any:
    """Ray, or a module of it; UsageError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"a cluster needs the package {error.name}; pip install 'recurrent-zoo[ray]'."
        ) from None


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[Any]:
    """Ray, connected to the cluster at `address` within the block: "auto" is the one that runs on
    this machine, "local" one that begins and ends with the block, of so many `cpus`. Where the
    process is connected already, that connection is used whatever the address, and kept. Raises
    ZooError where no cluster answers."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    local = {"include_dashboard": False, "object_store_memory": LOCAL_STORE, "num_cpus": cpus}
    try:
        require_answer(address)
        ray.init(
            address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(local if address == LOCAL else {}),
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ZooError(
            f"no Ray cluster answers at {address!r} ({one_line(error).rstrip('.')}); begin one "
            f"with `ray start --head`, or use {LOCAL!r}. If it has tokens, set RAY_AUTH_MODE=token."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def require_answer(address: str) -> None:
    """OSError or ValueError where nobody listens at HOST:PORT, for which Ray waits for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
