"""Exporting recurrent modules that are not zoo cells: a stream of sensor values."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import zoo
from zoo.errors import ArtifactError, UsageError, ZooError
from zoo_onnx import export_step
from zoo_ort import open_module


class FilterState(NamedTuple):
    h: Tensor  # [B, 16]
    delay: Tensor  # [B, 3, 4]: the last three readings
    count: Tensor  # [B], int64


class SensorFilter(nn.Module):
    """Smooths four readings and outputs how unusual they are."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(12, 16)
        self.smooth, self.score = nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(
        self, readings: Tensor, mode: Tensor, state: FilterState
    ) -> tuple[tuple[Tensor, Tensor], FilterState]:
        delay = torch.cat((state.delay[:, 1:], readings[:, None]), 1)
        h = self.cell(delay.flatten(1), state.h)
        smooth = self.smooth(h) * (1 + mode[:, None])
        return (smooth, self.score(h).sigmoid()), FilterState(h, delay, state.count + 1)


def make() -> tuple[SensorFilter, tuple[Tensor, Tensor], FilterState]:
    torch.manual_seed(0)
    rows = 8
    inputs = (torch.randn(rows, 4) * 2 + 1, torch.arange(rows) % 3)
    state = FilterState(
        torch.zeros(rows, 16), torch.full((rows, 3, 4), 0.5), torch.zeros(rows, dtype=torch.int64)
    )
    return SensorFilter(), inputs, state


NAMES = {"input_names": ["readings", "mode"], "output_names": ["smooth", "unusual"]}


def test_a_sensor_stream_against_pytorch_and_the_reference_evaluator() -> None:
    module, inputs, state = make()
    info = export_step(module, inputs, state, "filter.onnx", **NAMES)
    assert info.proof.steps == 256
    assert info.proof.difference < 1e-5
    assert [entry.name for entry in info.state] == ["h", "delay", "count"]
    onnx.checker.check_model("filter.onnx", full_check=True)

    stepper, evaluator = open_module("filter.onnx"), ReferenceEvaluator("filter.onnx")
    streams, rng = 3, np.random.default_rng(1)
    leaves = found_state = stepper.init_state(streams)
    own = FilterState(
        torch.zeros(streams, 16), torch.full((streams, 3, 4), 0.5), torch.zeros(streams).long()
    )
    names = info.state_names("in")
    for _ in range(60):
        readings = rng.normal(size=(streams, 4)).astype(np.float32)
        mode = rng.integers(0, 3, streams)
        with torch.no_grad():
            (smooth, unusual), own = module(torch.from_numpy(readings), torch.from_numpy(mode), own)
        found, found_state = stepper.step({"readings": readings, "mode": mode}, found_state)
        np.testing.assert_allclose(found["smooth"], smooth, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found["unusual"], unusual, rtol=0, atol=1e-4)
        feeds = {"readings": readings, "mode": mode, **dict(zip(names, leaves, strict=True))}
        evaluated, _, *leaves = evaluator.run(None, feeds)
        np.testing.assert_allclose(evaluated, smooth, rtol=0, atol=1e-4)
    assert stepper.state_to_arrays(found_state)["count"].tolist() == [60] * streams


def test_a_learned_initial_state() -> None:
    module, inputs, state = make()
    learned = state._replace(h=nn.Parameter(state.h))
    assert export_step(module, inputs, learned, "learned.onnx").proof.difference < 1e-5


def test_one_input_and_a_bare_tensor_as_state() -> None:
    class Leaky(nn.Module):
        def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            state = 0.9 * state + 0.1 * x
            return state, state

    info = export_step(Leaky(), torch.randn(5, 2), torch.zeros(5, 2), "folder/leaky.onnx")
    stepper = open_module("folder/leaky.onnx")
    assert info.state_names("in") == ["state_00_state_in"]
    state = stepper.init_state(1)
    for _ in range(3):
        outputs, state = stepper.step({"input": [[1.0, 2.0]]}, state)
    # 0.1 * (1 + 0.9 + 0.81)
    np.testing.assert_allclose(outputs["output"], [[0.271, 0.542]], rtol=1e-6)


class HidesState(nn.Module):
    """A module with state outside its arguments, which tracing cannot detect."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.steps += 1
        return x + state * self.steps, state + x


def test_modules_that_cannot_be_exported_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    module, inputs, state = make()
    with pytest.raises(UsageError, match="HidesState remembers steps from step to step"):
        export_step(HidesState(), torch.randn(3, 2), torch.zeros(3, 2), "hides.onnx")
    with pytest.raises(UsageError, match="must return"):
        export_step(nn.Bilinear(2, 2, 2), torch.randn(3, 2), torch.zeros(3, 2), "x.onnx")
    with pytest.raises(UsageError, match="2 inputs and 1 names"):
        export_step(module, inputs, state, "x.onnx", input_names=["readings"])
    with pytest.raises(UsageError, match="rows of the state before the first step must be equal"):
        export_step(module, inputs, state._replace(h=torch.randn(8, 16)), "x.onnx")

    with pytest.raises(
        UsageError, match=r"raised RuntimeError: Sizes .* at .*test_modules\.py:\d+"
    ):
        export_step(module, (inputs[0][:, :1], inputs[1]), state, "x.onnx")

    class Grows(nn.Module):
        def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.cat((state, x), 1)

    with pytest.raises(UsageError, match="must have the shapes"):
        export_step(Grows(), torch.randn(3, 2), torch.zeros(3, 2), "x.onnx")

    class Decides(nn.Module):
        def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return (x if x.sum() > 0 else -x), state + x

    capfd.readouterr()
    with pytest.raises(
        ZooError, match=r"the step of Decides cannot be traced: the value of a tensor"
    ):
        export_step(Decides(), torch.randn(3, 2), torch.zeros(3, 2), "x.onnx")
    assert capfd.readouterr() == ("", "")
    assert list(Path().iterdir()) == []


def test_module_and_language_model_files_are_distinguished(fox_file: Path) -> None:
    module, inputs, state = make()
    export_step(module, inputs, state, "filter.onnx", **NAMES)
    with pytest.raises(ArtifactError, match=r"open it with zoo_ort\.open_module"):
        zoo.open_source("filter.onnx")
    with pytest.raises(ArtifactError, match=r"open it with zoo\.open_source"):
        open_module(fox_file)
    stepper = open_module("filter.onnx")
    state = stepper.init_state(2)
    with pytest.raises(UsageError, match="input 'mode' is missing"):
        stepper.step({"readings": np.zeros((2, 4))}, state)
    with pytest.raises(UsageError, match=r"has shape \(1, 4\) instead of \(2, 4\)"):
        stepper.step({"readings": np.zeros((1, 4)), "mode": np.zeros(2)}, state)
    with pytest.raises(UsageError, match="there is no input 'other'"):
        stepper.step({"readings": np.zeros((2, 4)), "mode": [0, 0], "other": 1}, state)


class LevelInBfloat16(nn.Module):
    """Smooths in bfloat16, with a product that rounds to it."""

    def forward(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        level = 0.75 * level + 0.25 * x
        return level * x, level


def test_bfloat16_is_float32_in_the_file() -> None:
    torch.manual_seed(0)
    module, x = LevelInBfloat16(), torch.randn(6, 3).bfloat16()
    info = export_step(module, x, torch.zeros(6, 3).bfloat16(), "bf16.onnx")
    assert {entry.dtype for entry in (*info.inputs, *info.outputs, *info.state)} == {"float32"}
    stepper = open_module("bf16.onnx")
    state, own = stepper.init_state(2), torch.zeros(2, 3).bfloat16()
    for step in range(100):
        torch.manual_seed(step)
        value = torch.randn(2, 3).bfloat16()
        found, state = stepper.step({"input": value.float()}, state)
        wanted, own = module(value, own)
        # two roundings to 8 bits
        np.testing.assert_allclose(found["output"], wanted.float(), rtol=2**-6, atol=2**-8)
        np.testing.assert_allclose(state[0], own.float(), rtol=2**-6, atol=2**-8)
