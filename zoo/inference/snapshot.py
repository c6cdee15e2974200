"""A position in a text as bytes: what a session, a server and a browser write and read alike. Needs
no torch.

A snapshot is a safetensors file: the state's leaves by name ([1, …]), `last_token`, which the state
has not read yet, and `random`, the state of NumPy's PCG64 as JSON in uint8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from zoo.errors import ZooError
from zoo.inference.engine import Arrays, HasState, is_finite

LAST, RANDOM = "last_token", "random"


class Snapshot(NamedTuple):
    """The state of one row, the last token (None before the first), and the random numbers."""

    state: Any
    last: int | None
    random: Mapping[str, Any]


def first_snapshot(engine: HasState, seed: int) -> Snapshot:
    """The position before the first token."""
    return Snapshot(engine.init_state(1), None, np.random.default_rng(seed).bit_generator.state)


def write_snapshot(engine: HasState, snapshot: Snapshot) -> bytes:
    arrays = dict(engine.state_to_arrays(snapshot.state))
    if snapshot.last is not None:
        arrays[LAST] = np.array(snapshot.last)
    arrays[RANDOM] = np.frombuffer(json.dumps(snapshot.random).encode(), np.uint8)
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def read_snapshot(engine: HasState, content: bytes) -> Snapshot:
    """Raises ZooError for a snapshot that is damaged or of another model."""
    try:
        arrays: Arrays = load(content)
        generator = np.random.default_rng()
        generator.bit_generator.state = json.loads(arrays.pop(RANDOM).tobytes())
        random = generator.bit_generator.state  # without what else the JSON may hold
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, RecursionError) as e:
        raise ZooError(f"the snapshot is damaged: {type(e).__name__}.") from None
    last = arrays.pop(LAST, None)
    initial = engine.state_to_arrays(engine.init_state(1))
    found, wanted = _form(arrays), _form(initial)
    if others := sorted(name for name, _ in found.items() ^ wanted.items()):
        name = others[0]
        raise ZooError(
            f"the snapshot is of another model: its {name[:40]!r} is "
            f"{found.get(name, 'missing')}, and this one's is {wanted.get(name, 'missing')}."
        )
    arrays = {name: arrays[name] for name in initial}  # a file has an order of its own
    if not is_finite(arrays.values(), initial.values()):
        raise ZooError("the snapshot is damaged: its state has numbers that are not finite.")
    is_token = last is not None and last.size == 1 and last.dtype.kind == "i"
    token = None if last is None else int(last.flat[0]) if is_token else -1
    if token is not None and not 0 <= token < engine.vocab_size:
        raise ZooError("the snapshot is of another model: its last token is not in this one's.")
    return Snapshot(engine.state_from_arrays(arrays), token, random)


def _form(arrays: Arrays) -> dict[str, str]:
    return {name: f"{array.dtype} {[*array.shape]}" for name, array in arrays.items()}
