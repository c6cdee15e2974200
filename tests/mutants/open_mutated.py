"""Opens mutated copies of an exported file, and uses those that open in every way.

    python -m mutants.open_mutated FILE SEED COUNT REGIME…

Prints a line for each: its number, the regime, and the outcome. The regimes are applied in turn:
`damaged` changes bytes, and the others make the digest anew. A copy that crashes ONNX Runtime, or
takes longer than SECONDS, ends this process.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import zoo
from zoo.errors import ZooError
from zoo.inference import Engine
from zoo.inference.artifact import GENERATE
from zoo.registry.specs import MODULE
from zoo_ort import open_module
from zoo_ort.container import read_metadata

from . import content, graph, metadata
from .outcomes import told
from .sealing import sealed, split, unsealed

SECONDS = 60
MAX_MEMORY = 2 * 2**20  # KiB
TEXT = "the quick brown fox zß\n jumps over. " * 2

MUTATIONS: dict[str, Callable[[bytes, Random], bytes]] = {
    "metadata": metadata.mutate_metadata,
    "meaning": metadata.mutate_meaning,
    "outputs": graph.mutate_outputs,
    "graph": graph.mutate_graph,
}


def main() -> None:
    path, seed, count, regimes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", zoo.ZooWarning)  # about a prompt that was mutated
    original = path.read_bytes()
    read_metadata(path, original)
    kind = split(original)[1][b"zoo.graph"].decode()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "mutated.onnx"
        sources = [mutants(original, regime, seed) for regime in regimes]
        for number in range(count):
            turn = number % len(regimes)
            mutated = next(sources[turn])
            copy.write_bytes(mutated)
            signal.alarm(SECONDS)
            found = "unchanged" if mutated == original else outcome(copy, kind)
            print(number, regimes[turn], found, flush=True)
            signal.alarm(0)


def mutants(original: bytes, regime: str, seed: int) -> Iterator[bytes]:
    """Mutated files, without end."""
    if regime == "damaged":
        yield from content.mutations(original, seed)
    elif regime == "bytes":
        yield from map(sealed, content.mutations(unsealed(original), seed))
    rng = Random(f"{regime} {seed}")
    while True:
        yield MUTATIONS[regime](original, rng)


def outcome(path: Path, kind: str) -> str:
    """ "refused", "stopped" (by an error in some of its uses) or "ran", and the error; or "FAULT"
    for what a reader of files must not do."""
    found = "ran"
    try:
        opened = open_module(path, "cpu") if kind == MODULE else zoo.open_source(path, "cpu")
    except ZooError as error:
        return f"refused: {told(error, path)}"
    except Exception as error:
        return f"FAULT on opening: {error!r}"
    for use in uses_of_module(opened) if kind == MODULE else uses_of_model(opened, path):
        try:
            use()
        except ZooError as error:
            found = f"stopped: {told(error, path)}"
        except Exception as error:
            return f"FAULT in use: {error!r}"
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if used < MAX_MEMORY else f"FAULT: {used:,} KiB of memory"


def uses_of_model(source: Any, path: Path) -> Iterator[Callable[[], object]]:
    tokenizer, engine = source.tokenizer, source.engine
    text = path.with_name("text.txt")
    text.write_text(TEXT, "utf-8")
    yield lambda: json.dumps(source.info.to_metadata())
    yield lambda: [tokenizer.encode(part) for part in ("", TEXT, "中\ud800 😀\0")]
    yield lambda: tokenizer.decode(range(engine.vocab_size))
    yield lambda: [
        engine.state_from_arrays(engine.state_to_arrays(engine.init_state(rows))) for rows in (1, 3)
    ]
    if not isinstance(engine, Engine):
        yield lambda: zoo.fill(source, "the qu_ck 中")
        yield lambda: zoo.score(source, str(text))
        return
    sampling = {"temperature": 0.8, "top_k": 3, "top_p": 0.9, "seed": 1, "stop": ["q"]}
    yield lambda: list(zoo.stream(source, length=5))
    yield lambda: zoo.generate(source, "the é中", length=40)
    yield lambda: zoo.generate(source, "th" * 40, length=5, **sampling)
    yield lambda: zoo.generate_batch(source, ["a", "bcd", "the"], length=5, temperature=1.0)
    yield lambda: use_session(source)
    if source.info.graph != GENERATE:
        yield lambda: zoo.score(source, str(text))


def use_session(source: Any) -> None:
    session = zoo.Session(source)
    session.feed("the")
    session.sample(3)
    session.restore(session.snapshot())
    session.fork().sample(3, temperature=1.0)


def uses_of_module(stepper: Any) -> Iterator[Callable[[], object]]:
    yield lambda: json.dumps(stepper.info.to_metadata())
    for rows in (1, 3):
        yield lambda rows=rows: step(stepper, rows)


def step(stepper: Any, rows: int) -> None:
    """Three steps, whose outputs and states are what the metadata says."""
    state, rng = stepper.init_state(rows), np.random.default_rng(0)
    for _ in range(3):
        inputs = {
            entry.name: rng.integers(0, 3, sized(rows, entry.shape)).astype(entry.dtype)
            for entry in stepper.info.inputs
        }
        state = stepper.state_from_arrays(stepper.state_to_arrays(state))
        outputs, state = stepper.step(inputs, state)
        for entry in stepper.info.outputs:
            assert outputs[entry.name].shape == sized(rows, entry.shape)
            assert outputs[entry.name].dtype == entry.dtype
        for entry, leaf in zip(stepper.info.state, state, strict=True):
            assert leaf.shape == (rows, *entry.shape)


def sized(rows: int, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """With four steps where their number decides a size."""
    return rows, *(4 if size is None else size for size in shape)


if __name__ == "__main__":
    main()
