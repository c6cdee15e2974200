"""The examples: each prints what the how-to page says, with the same numbers from PyTorch and from
the file, and fails where these differ. The programs of the page print what it shows."""

from __future__ import annotations

import io
import re
import runpy
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo_onnx
import zoo_ort
from zoo_ort.modules import ModuleStepper

from .sessions import Step, run_step, steps_of

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "how-to" / "export-any-module.md").read_text("utf-8")
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]\d+)?|\bnan\b")


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def words(text: str) -> str:
    """The text without numbers, which training on another machine changes."""
    return " ".join(NUMBER.sub("…", text).split())


def shown(example: str) -> str:
    """The output of an example on the page."""
    (found,) = re.findall(rf"^```text\n\$ python {example}\.py\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


@pytest.fixture
def example(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Iterator[dict[str, Any]]:
    """The names of an example, with what its main function returned as `result` and printed as
    `printed`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = runpy.run_path(str(EXAMPLES / f"{request.param}.py"))
    capsys.readouterr()
    names["result"] = names["main"]()
    names["printed"] = capsys.readouterr().out
    assert words(names["printed"]) == words(shown(request.param))
    yield names
    torch.set_num_threads(threads)


def fails_with_another_file(name: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the script fails if the file, which is there, computes something else."""
    step: Callable[..., Any] = ModuleStepper.step

    class Wrong(ModuleStepper):
        def step(self, *arguments: Any) -> Any:
            outputs, state = step(self, *arguments)
            return {key: value + np.float32(0.01) for key, value in outputs.items()}, state

    def open_wrong(path: str) -> ModuleStepper:
        stepper = zoo_ort.modules.open_module(path)
        stepper.__class__ = Wrong
        return stepper

    monkeypatch.setattr(zoo_ort, "open_module", open_wrong)
    for export in ("export_step", "export_sequence"):
        monkeypatch.setattr(zoo_onnx, export, lambda *_, **__: None, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return bool(ended.value.code)


@pytest.mark.slow
@pytest.mark.parametrize("example", ["policy_loop"], indirect=True)
def test_the_policy_loop(example: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    result = example["result"]
    assert result["differing"] == 0
    assert result["largest"] < 1e-4
    assert result["episodes"] >= 8  # so that states were reset
    for line in example["printed"].splitlines()[1:9]:
        _, *wanted, left, right = numbers(line)
        np.testing.assert_allclose([left, right], wanted, rtol=0, atol=1e-4)
    assert fails_with_another_file("policy_loop", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("example", ["streaming_denoiser"], indirect=True)
def test_the_streaming_denoiser(example: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    result = example["result"]
    assert result["largest"] < 1e-5
    for way in ("file, hop by hop", "file, in one call"):
        assert result[way] == pytest.approx(result["PyTorch"], abs=1e-3)
        assert result[way] > result["noisy"] + 3  # decibels
    # a mask of ones gives the sound itself, a hop late
    model = example["Denoiser"]()
    torch.nn.init.constant_(model.mask.bias, 100)
    sound = torch.randn(2, 9, 128)
    with torch.no_grad():
        found, _ = model(sound, example["initial"](2))
    np.testing.assert_allclose(found[:, 1:], sound[:, :-1], rtol=0, atol=1e-5)
    assert fails_with_another_file("streaming_denoiser", monkeypatch)


def kalman(times: np.ndarray, readings: np.ndarray) -> np.ndarray:
    """The means [T, 2] of one balloon in float64. It takes the sensors one after the other, which
    for independent noise is the same as both at once, and needs no inverse."""
    mean, covariance, before, found = np.zeros(2), np.diag([1e4, 25.0]), times[0], []
    for time, reading in zip(times, readings, strict=True):
        dt, before = (time - before) / 1000, time
        move = np.array([[1, dt], [0, 1]])
        mean = move @ mean
        covariance = move @ covariance @ move.T
        covariance += 0.01 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        for sensor, noise in enumerate((4.0, 0.09)):
            if not np.isnan(reading[sensor]):
                gain = covariance[:, sensor] / (covariance[sensor, sensor] + noise)
                mean = mean + gain * (reading[sensor] - mean[sensor])
                covariance = covariance - np.outer(gain, covariance[sensor])
        found.append(mean)
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("example", ["sensor_filter"], indirect=True)
def test_the_sensor_filter(example: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    result = example["result"]
    assert result["largest"] < 1e-3
    times, readings, _ = example["fly"](4, 100, 7)
    found = example["run_device"]("filter.onnx", times, readings)
    for row in range(4):
        wanted = kalman(times[:, row], readings[:, row].astype(np.float64))
        # heights of some hundred metres in float32
        np.testing.assert_allclose(found[:, row], wanted, rtol=1e-5, atol=2e-3)

    # the device needs no torch
    source = (EXAMPLES / "sensor_filter.py").read_text("utf-8")
    (device,) = re.findall(r"^def run_device\(.*?(?=\n\n\n)", source, re.M | re.S)
    np.savez("flight.npz", times=times, readings=readings)
    program = f"""
import sys
import numpy as np
from zoo_ort import open_module

{device}

flight = np.load("flight.npz")
np.save("means.npy", run_device("filter.onnx", flight["times"], flight["readings"]))
assert not {{"torch", "onnx"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    np.testing.assert_array_equal(np.load("means.npy"), found)
    assert fails_with_another_file("sensor_filter", monkeypatch)


def test_the_excerpts_of_the_page_are_from_the_examples() -> None:
    section = PAGE.partition("\n## Three complete examples\n")[2]
    excerpts = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert len(list(EXAMPLES.glob("*.py"))) == 3
    for name, excerpt in zip(
        ("policy_loop", "streaming_denoiser", "sensor_filter"), excerpts, strict=True
    ):
        source = (EXAMPLES / f"{name}.py").read_text("utf-8")
        assert any(textwrap.indent(excerpt, "    " * depth) in source for depth in (1, 2, 3))


def output_of(step: Step, folder: Path) -> str:
    """What the step prints; programs with torch run in this process, which has imported it."""
    if step.command[2:] != [step.shown] or "import torch\n" not in step.shown:
        return run_step(step, folder)
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(step.shown, "<string>", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_programs_of_the_page_print_its_output(tmp_path: Path) -> None:
    steps = list(steps_of(PAGE))
    assert len(steps) >= 13
    for step in steps:
        printed = output_of(step, tmp_path)
        assert words(printed) == words(step.output), step.shown
        for line, wanted in zip(printed.splitlines(), step.output.splitlines(), strict=True):
            if beside := re.fullmatch(r"(?:\d+ )?PyTorch \[(.*)\] file \[(.*)\]", line):
                one, other = map(numbers, beside.groups())
                np.testing.assert_allclose(one, other, rtol=0, atol=2e-4)
            if "e-" not in line:  # a measured difference
                np.testing.assert_allclose(numbers(line), numbers(wanted), rtol=0.05, atol=1e-3)
