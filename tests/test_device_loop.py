"""The loop that writes, reads and scores on a device, with the host's memory in place of CUDA's:
against the loop over single steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import zoo
from zoo.config import Sampling
from zoo.errors import ProviderError, ZooWarning
from zoo.exporting.parity import SAMPLINGS
from zoo.inference.engine import NotFiniteError
from zoo_ort.cuda import CudaError, DeviceMemoryError
from zoo_ort.device_loop import pieces, rounded_up
from zoo_ort.loops import CHUNK
from zoo_ort.plan import Part, StepGraph
from zoo_ort.providers import CUDA, RECORD_PLACES, require_places

from .host_device import HostBuffer, HostDevice, host_engine
from .step_files import EXPANDING, export_step, registry_with_expanding, text_ties

HOT = Sampling(temperature=1.0)
NODES_OF_THE_CHOICE = 18  # that each token took when the choice was part of the graph
Export = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The step graph of a small untrained model of a cell."""
    files: dict[str, Path] = {}
    registry = registry_with_expanding()

    def export(cell: str) -> Path:
        if cell not in files:
            folder = tmp_path_factory.mktemp(cell)
            files[cell] = export_step(folder, cell, registry=registry)[1]
        return files[cell]

    return export


def both(path: Path, device: HostDevice | None = None) -> tuple[Any, Any]:
    """The device loop of a step graph, and the loop over its steps."""
    source = zoo.open_source(path, "cpu")
    return host_engine(source.info, path.read_bytes(), device), source.engine


def equal(one: Any, other: Any) -> None:
    for leaf, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "mamba2"])
def test_it_writes_the_tokens_of_the_step_loop(cell: str, exported: Export) -> None:
    device, steps = both(exported(cell))
    rng = np.random.default_rng(0)
    for batch_size in (1, 3, 5, 40, 1):
        states = [engine.init_state(batch_size) for engine in (device, steps)]
        last = rng.integers(0, device.vocab_size, batch_size)
        kept = None
        for size, sampling in zip((1, 7, 32, 2 * CHUNK + 1, 4), SAMPLINGS, strict=True):
            uniform = rng.random((size, batch_size), dtype=np.float32)
            kept = kept or (last, states[0], uniform, sampling)
            found, states[0] = device.write(last, states[0], uniform, sampling)
            wanted, states[1] = steps.write(last, states[1], uniform, sampling)
            assert found.tolist() == wanted.tolist()
            equal(*states)
            last = wanted[-1]
        # an older state is still valid
        again, _ = device.write(*kept)
        assert again.tolist() == steps.write(*kept)[0].tolist()


@pytest.mark.every_cell
def test_every_cell(name: str, tmp_path: Path) -> None:
    """Two layers: texts, logits and states."""
    _, path = export_step(tmp_path, name, hidden=32, layers=2)
    device, steps = both(path)
    assert text_ties(steps, device, rows=5, length=40, sampling=HOT) == 0
    tokens = np.random.default_rng(0).integers(0, 27, (9, 3))
    found, wanted = (e.logits(tokens, e.init_state(3)) for e in (device, steps))
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=1e-5)
    for one, other in zip(found[1], wanted[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 77, CHUNK + 3])
def test_it_reads_and_scores_as_the_step_loop(length: int, exported: Export) -> None:
    device, steps = both(exported("gru"))
    tokens = np.random.default_rng(0).integers(0, 28, (length, 3))
    states = [engine.init_state(3) for engine in (device, steps)]
    for _ in range(2):
        found, after = device.logits(tokens, states[0])
        wanted, states[1] = steps.logits(tokens, states[1])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        states[0] = device.read(tokens, states[0])
        equal(states[0], after)
        equal(*states)
    arrays = [
        engine.state_to_arrays(state) for engine, state in zip((device, steps), states, strict=True)
    ]
    assert list(arrays[0]) == list(arrays[1])
    assert device.read(tokens[:0], states[0]) is states[0]
    logits, _ = device.step(tokens[0], states[0])
    np.testing.assert_allclose(logits, steps.step(tokens[0], states[1])[0], rtol=0, atol=1e-5)


def test_recordings_are_kept(exported: Export) -> None:
    device = HostDevice()
    engine, _ = both(exported("rnn"), device)
    for batch_size in (16, 15, 13):
        uniform = np.zeros((CHUNK + 4, batch_size), np.float32)
        for _ in range(2):
            engine.write(uniform[0].astype(int), engine.init_state(batch_size), uniform, HOT)
    assert device.recorded == 2


def test_sizes() -> None:
    sizes = [rounded_up(rows) for rows in range(1, 1026)]
    assert all(1 <= size / rows < 1.5 for rows, size in enumerate(sizes, 1))
    assert sorted(set(sizes))[:9] == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert sizes[1023] == 1024
    assert list(pieces(300, 128)) == [(0, 128), (128, 128), (256, 32), (288, 8), (296, 4)]


def test_what_cannot_be_recorded_runs_step_by_step(exported: Export) -> None:
    class Unable(HostDevice):
        def record(self, queue: Callable[[], None]) -> Callable[[], None]:
            raise CudaError("CUDA does not run here: cuStreamEndCapture: invalidated.")

    engine, steps = both(exported("rnn"), Unable())
    uniform = np.random.default_rng(0).random((CHUNK + 5, 2), dtype=np.float32)
    last, state = np.array([3, 4]), engine.init_state(2)
    with pytest.warns(ZooWarning, match=r"cannot be recorded.*invalidated") as found:
        tokens, _ = engine.write(last, state, uniform, HOT)
    assert len(found) == 1
    assert tokens.tolist() == steps.write(last, state, uniform, HOT)[0].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is told once
        engine.write(last, state, uniform, HOT)


def test_a_recording_that_was_spoilt_is_made_again(exported: Export) -> None:
    class Disturbed(HostDevice):
        def record(self, queue: Callable[[], None]) -> Callable[[], None]:
            if self.recorded == 0:
                self.recorded = 1
                raise CudaError("CUDA does not run here: cuLaunchKernel: an error before.")
            return super().record(queue)

    device = Disturbed()
    engine, steps = both(exported("rnn"), device)
    uniform = np.random.default_rng(0).random((8, 2), dtype=np.float32)
    arguments = (np.array([3, 4]), engine.init_state(2), uniform, HOT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens, _ = engine.write(*arguments)
    assert device.recorded == 2
    assert tokens.tolist() == steps.write(*arguments)[0].tolist()


def test_logits_that_are_not_finite_are_told(exported: Export) -> None:
    engine, _ = both(exported("lstm"))
    broken = [np.full_like(leaf, np.nan) for leaf in engine.init_state(2)]
    with pytest.raises(NotFiniteError):
        engine.write(np.array([1, 2]), tuple(broken), np.zeros((3, 2), np.float32), Sampling())


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_long_texts_of_many_rows(sampling: Sampling, exported: Export) -> None:
    device, steps = both(exported("gru"))
    assert text_ties(steps, device, rows=10, length=300, sampling=sampling) == 0


class Small(HostDevice):
    """It has no room for the tokens of that many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> HostBuffer:
        if np.dtype(dtype) == np.int64 and shape[-1] >= self._rows:
            raise DeviceMemoryError("the GPU's memory is full.")
        return super().allocate(shape, dtype)


def test_more_rows_than_fit_take_turns(exported: Export) -> None:
    engine, steps = both(exported("lstm"), Small(5))
    rng = np.random.default_rng(1)
    last, uniform = rng.integers(0, 28, 19), rng.random((9, 19), dtype=np.float32)
    states = [engine.init_state(19) for engine in (engine, steps)]
    for _ in range(2):
        found, states[0] = engine.write(last, states[0], uniform, HOT)
        wanted, states[1] = steps.write(last, states[1], uniform, HOT)
        assert found.tolist() == wanted.tolist()
        equal(*states)
        last = wanted[-1]
    prompts = rng.integers(0, 28, (4, 19))
    equal(engine.read(prompts, states[0]), steps.read(prompts, states[1]))


def test_no_room_for_one_row(exported: Export) -> None:
    engine, _ = both(exported("lstm"), Small(1))
    with pytest.raises(DeviceMemoryError, match=r"memory is full: .* one row; .*--provider cpu"):
        engine.step(np.array([1, 2]), engine.init_state(2))


@pytest.mark.parametrize("rows", [1, 16, 1024])
@pytest.mark.parametrize(("cell", "most"), [("rnn", 5), ("gru", 5), ("lstm", 5)])
def test_a_token_takes_at_most_half_the_nodes(
    cell: str, most: int, rows: int, exported: Export
) -> None:
    """The products, the kernels between them, and the choice."""
    path = exported(cell)
    graph = StepGraph(path.read_bytes())
    stages = graph.plan(list(graph.outputs), rows).stages
    parts = [onnx.load_from_string(stage.content) for stage in stages if isinstance(stage, Part)]
    count = sum(len(part.graph.node) for part in parts) + len(stages) - len(parts) + 1
    assert count <= most
    assert count <= (len(onnx.load(path).graph.node) + NODES_OF_THE_CHOICE) / 2
    reading = graph.plan([name for name in graph.outputs if name != "logits"], rows).stages
    assert len(reading) == 2


def optimised(path: Path, out: Path) -> onnx.GraphProto:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(out)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(out).graph


@pytest.mark.parametrize("cell", ["mamba2", EXPANDING])
def test_what_is_computed_from_the_number_of_rows_is_folded_away(
    cell: str, exported: Export, tmp_path: Path
) -> None:
    """ONNX Runtime computes it on the CPU, which would keep the graph from CUDA."""
    path = exported(cell)
    sizes = {"Shape", "Size", "ConstantOfShape", "Expand"}
    assert sizes & {node.op_type for node in optimised(path, tmp_path / "whole.onnx").node}
    graph = StepGraph(path.read_bytes())
    for rows in (1, 4, 1024):
        plan = graph.plan(list(graph.outputs), rows)
        for number, stage in enumerate(plan.stages):
            if isinstance(stage, Part):
                part = tmp_path / f"{number}.onnx"
                part.write_bytes(stage.content)
                left = optimised(part, tmp_path / f"{number}-optimised.onnx")
                assert not sizes & {node.op_type for node in left.node}
        assert {plan.shapes[name][0] for name in graph.outputs} == {rows}


def test_a_node_without_a_kernel_is_named(exported: Export) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORD_PLACES, "1")
    path = exported("gru")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    require_places(session, "CPUExecutionProvider")
    named = r"CUDA has no kernel for the node '\w+', operator \w+, .*\(--provider cpu\)"
    with pytest.raises(ProviderError, match=named):
        require_places(session, CUDA)


@pytest.mark.parametrize(("rows", "provider"), [(1, "cpu"), (10_000, "cuda")])
def test_auto_is_cuda_for_enough_work(
    rows: int, provider: str, exported: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file of 40 kB, on a machine where CUDA would run."""
    asked = []

    def device_engine(path: Path, *_: object) -> object:
        asked.append("cuda")
        raise ProviderError("not here")

    monkeypatch.setattr("zoo_ort.runtime.resolve_provider", lambda provider: "cuda")
    monkeypatch.setattr("zoo_ort.runtime._device_engine", device_engine)
    try:
        zoo.open_source(exported("lstm"), rows=rows)
    except ProviderError:
        assert asked == ["cuda"]
    assert asked == (["cuda"] if provider == "cuda" else [])
