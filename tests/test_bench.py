"""Benchmarks: what is counted, the order of measurements, and the report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

import zoo
import zoo.benchmarking.workloads
from zoo.benchmarking.benchmark import Benchmark, Row, benchmark, benchmark_events
from zoo.benchmarking.compiled import CompiledProcess, CompiledStepper
from zoo.benchmarking.roofline import Target
from zoo.benchmarking.workloads import COMPILED, FORWARD, LOOP, WINDOW, Workload
from zoo.cli import run
from zoo.errors import ArtifactError, UsageError
from zoo.inference.cpu import usable_cores
from zoo.models.torch_engine import ModelStepper
from zoo.registry.registry import Registry

QUICK = {"rounds": 1, "seconds": 1e-3, "provider": "cpu", "compiled": False}
QUICKLY = ["--rounds", "1", "--seconds", "0.001", "--provider", "cpu", "--no-compile"]
WRITING = [LOOP, "step", "generate", "step int8", "generate int8"]
PRODUCTS = ["PyTorch product", "PyTorch product int8"]


@pytest.fixture(scope="module")
def exported(fox_run: zoo.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-precision files of a run."""
    folder = tmp_path_factory.mktemp("exported")
    zoo.export_all(fox_run, out=folder)
    return folder


@pytest.fixture(scope="module")
def ready(fox_run: zoo.Run, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose folder has all graphs that are measured."""
    folder = tmp_path_factory.mktemp("ready") / "run"
    shutil.copytree(fox_run.path, folder, ignore=shutil.ignore_patterns("export"))
    shutil.copytree(exported, folder / "export")
    zoo.export_all(folder, ("step", "generate"), "int8", np.inf)
    return folder


@pytest.fixture(scope="module")
def measured(ready: Path) -> Benchmark:
    return benchmark(ready, batches=(1, 3), **{**QUICK, "rounds": 3})


def test_every_workload_is_measured_at_every_target_and_batch_size(measured: Benchmark) -> None:
    threads = sorted({1, usable_cores()})
    found = [(row.target, row.batch, row.workload) for row in measured.rows]
    assert len(set(found)) == len(found)
    assert set(found) == {
        (Target("cpu", count), batch, workload)
        for count in threads
        for batch in (1, 3)
        for workload in (*WRITING, FORWARD, "sequence", *PRODUCTS)
    }
    assert [row.workload for row in measured.rows if row.reads] == [FORWARD, "sequence"] * (
        2 * len(threads)
    )
    assert measured.machine["cores"] == usable_cores()


def test_limits_and_shares_of_a_run(measured: Benchmark, fox_run: zoo.Run) -> None:
    numbers = 24 * 24 + 24 * fox_run.tokenizer.vocab_size  # an RNN of 24 units and its head
    assert measured.work is not None
    assert measured.work.multiply_adds == measured.work.weights == numbers
    assert measured.work.state_bytes == 24 * 4
    assert {(limit.target, limit.precision) for limit in measured.limits} == {
        (row.target, row.precision) for row in measured.rows
    }
    limits = {(limit.target, limit.precision): limit for limit in measured.limits}
    for row in measured.rows:
        assert row.reason == ""
        assert 0 < row.lowest <= row.tokens_per_second <= row.highest
        limit = limits[row.target, row.precision]
        size = 1 if row.workload.endswith("int8") else 4
        assert limit.weight_bytes == numbers * size
        moved = (numbers * size / row.batch + 2 * 24 * 4) / (WINDOW if row.reads else 1)
        assert row.operations_per_byte == pytest.approx(2 * numbers / moved)
        memory = limit.bytes_per_second / moved
        arithmetic = limit.multiply_adds_per_second / numbers
        assert row.limit == pytest.approx(min(memory, arithmetic))
        assert row.limited_by == ("memory" if memory < arithmetic else "arithmetic")
        assert row.share == pytest.approx(row.tokens_per_second / row.limit)
        if row.workload in (LOOP, FORWARD):
            assert row.ratio == 1
        assert (row.ratio is None) == row.workload.startswith("PyTorch product")


def test_ratios_are_medians_of_the_rounds_ratios() -> None:
    """Where the machine slows down between rounds, the ratio of the medians is another one: 2."""
    from zoo.benchmarking.benchmark import _row

    found = [
        Workload(LOOP, 1, rates=[100.0, 50.0, 10.0]),
        Workload(COMPILED, 1, rates=[200.0, 100.0, 20.0]),
        Workload("generate", 1, rates=[300.0, 100.0, 30.0]),
        Workload("generate", 2, rates=[1.0, 1.0, 1.0]),
    ]
    row = _row(found[2], found, Target("cpu", 1), None, [])
    assert (row.tokens_per_second, row.lowest, row.highest) == (100, 30, 300)
    assert (row.ratio, row.compiled_ratio) == (3, 1.5)
    assert row.limit is row.share is row.operations_per_byte is None
    alone = _row(found[3], found, Target("cpu", 1), None, [])
    assert alone.ratio is alone.compiled_ratio is None


def test_workloads_are_interleaved_and_tokens_counted() -> None:
    order = []

    def takes(name: str, tokens: int) -> Workload:
        def work() -> int:
            order.append(name)
            time.sleep(0.01)
            return tokens

        return Workload(name, 1, work)

    from zoo.benchmarking.benchmark import _measure

    workloads = [takes("a", 10), takes("b", 1000)]
    assert len(list(_measure(workloads, Target("cpu", 1), 3, 1e-4))) == 1 + 3
    assert order == ["a", "b"] * (1 + 3)  # the first round is not measured
    for workload, tokens in zip(workloads, (10, 1000), strict=True):
        assert len(workload.rates) == 3
        assert max(workload.rates) <= tokens / 0.01  # sleep takes at least that long
        assert median(workload.rates) > tokens / 0.05


@pytest.mark.slow
def test_existing_exports_of_a_run_are_reused(
    fox_run: zoo.Run, trained: Callable[..., zoo.Run], tmp_path: Path
) -> None:
    """A file of other weights is not one of the run."""
    folder = tmp_path / "run"
    shutil.copytree(fox_run.path, folder, ignore=shutil.ignore_patterns("export"))
    zoo.export_all(folder, ("step",))
    zoo.export_all(trained(seed=1), ("sequence",), out=folder / "export")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    *lines, found = benchmark_events(folder, batches=(2,), **QUICK)
    assert lines[:2] == [
        "exporting in fp32: generate, sequence",
        "exporting in int8: step, generate",
    ]
    assert isinstance(found, Benchmark)
    assert {row.workload for row in found.rows} == {*WRITING, FORWARD, "sequence", *PRODUCTS}
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_exported_files_alone(exported: Path) -> None:
    found = benchmark(exported, batches=(1,), **QUICK)
    assert list(dict.fromkeys(row.workload for row in found.rows)) == [
        "step",
        "generate",
        "sequence",
        "PyTorch product",
    ]
    assert all(row.ratio is None and row.share is not None for row in found.rows)
    alone = benchmark(exported / "step.onnx", batches=(1,), **QUICK)
    assert {row.workload for row in alone.rows} == {"step", "PyTorch product"}


def test_limits_of_a_cell_that_is_not_installed(exported: Path) -> None:
    """The file runs, and its speed is all that is known."""
    registry = Registry()
    registry.runtimes = zoo.load_registry().runtimes
    registry.tokenizers = zoo.load_registry().tokenizers
    found = benchmark(exported / "step.onnx", batches=(1,), registry=registry, **QUICK)
    assert found.work is None
    assert found.limits == []
    assert {row.workload for row in found.rows} == {"step"}
    assert all(row.tokens_per_second > 0 and row.share is None for row in found.rows)


@pytest.mark.slow
def test_a_bidirectional_model_is_measured_on_sequences_only(
    trained: Callable[..., zoo.Run],
) -> None:
    found = benchmark(trained("bidirectional").path, batches=(2,), **QUICK)
    assert {row.workload for row in found.rows} == {FORWARD, "sequence", "PyTorch product"}
    assert all(row.ratio is not None for row in found.rows if row.reads)


def test_the_number_of_threads_is_chosen_and_restored(exported: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = benchmark(exported / "step.onnx", batches=(1,), threads=(2, 1), **QUICK)
        assert list(dict.fromkeys(row.target.threads for row in found.rows)) == [2, 1]
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def rows_of(run: Path, workload: str) -> list[Row]:
    found = benchmark(run, batches=(2,), **{**QUICK, "compiled": True})
    return [row for row in found.rows if row.workload == workload]


@pytest.mark.slow
def test_a_failed_compilation_is_reported_with_its_reason(
    ready: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    found = rows_of(ready, COMPILED)
    assert found
    for row in found:
        assert row.reason.startswith("does not compile: ")
        assert "compiler" in row.reason
        assert row.tokens_per_second is row.ratio is row.share is None


def test_a_compilation_that_exceeds_the_timeout_is_ended(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    close = CompiledProcess.close

    def closed(process: CompiledProcess) -> None:
        close(process)
        started.append(process)

    monkeypatch.setattr(CompiledProcess, "close", closed)
    monkeypatch.setattr(zoo.benchmarking.workloads, "COMPILE_SECONDS", 0.05)
    found = rows_of(ready, COMPILED)
    assert {row.reason for row in found} == {"does not compile: not within 0.05 seconds"}
    assert len(started) == len(found)
    assert all(process.ended for process in started)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiled_step_equals_the_step(trained: Callable[..., zoo.Run]) -> None:
    """Values agree within 1e-5, as for exported steps; a torch.nn layer compiles too."""
    model = trained("lstm", epochs=1).model
    plain, compiled = ModelStepper(model), CompiledStepper(model)
    state, other = plain.init_state(2), compiled.init_state(2)
    for column in np.random.default_rng(0).integers(0, model.vocab_size, (20, 2)):
        with torch._dynamo.config.patch(allow_rnn=True):
            found, other = compiled.step(column, other)
        logits, state = plain.step(column, state)
        np.testing.assert_allclose(found, logits, atol=1e-5)


def test_json_has_the_machine_and_the_rows(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(ready), "--batch", "2", "--json", *QUICKLY]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["machine"]["cores"] == usable_cores()
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert set(found["work"]) == {"multiply_adds", "weights", "state_bytes", "shape"}
    rows = {row["workload"] for row in found["rows"]}
    assert rows == {*WRITING, FORWARD, "sequence", *PRODUCTS}
    for row in found["rows"]:
        assert row["batch"] == 2
        assert row["provider"] == "cpu"
        assert row["share"] == pytest.approx(row["tokens_per_second"] / row["limit"])
        assert row["limited_by"] in ("memory", "arithmetic")
    assert [(limit["threads"], limit["precision"]) for limit in found["limits"]] == [
        (count, precision)
        for count in sorted({1, usable_cores()})
        for precision in ("fp32", "int8")
    ]
    assert "cpu × 1: round 1 of 1" in err
    assert "GB/s" in err


def test_the_table_and_the_pictures(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(exported / "generate.onnx")
    pictures = ["--plot", "p.png", "--roofline", "r.png"]
    assert run(["bench", file, "--batch", "1", "--batch", "4", *pictures, *QUICKLY]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["workload", "on", "batch"]
    assert "limit of the machine" in header
    assert "share of the limit" in header
    assert len(rows) == 2 * 2 * len({1, usable_cores()})
    assert all("by memory" in row or "by arithmetic" in row for row in rows)
    for name in ("p.png", "r.png"):
        assert Path(name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["p.png", "r.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere does not exist; give a run folder or an exported file"),
        (["{folder}"], 1, "is not a run folder"),
        (["{text}"], 1, "neither a run folder nor a file that a runtime here opens"),
        (["{file}", "--batch", "0"], 2, "0 is not in the range x>=1"),
        (["{file}", "--rounds", "0"], 2, "0 is not in the range x>=1"),
        (["{file}", "--threads", "0"], 2, "0 is not in the range x>=1"),
        (["{file}", "--seconds", "0"], 2, "0.0 is not in the range x>0"),
        (["{file}", "--seconds", "inf"], 2, "seconds above 0"),
        (["{file}", "--provider", "rocm"], 2, "'rocm' is not one of"),
        (["{file}", "--plot", "speeds.svg"], 2, "must be a .png file in a folder that exists"),
        (["{file}", "--plot", "none/speeds.png"], 2, "must be a .png file in a folder"),
        (["{file}", "--roofline", "roof.svg"], 2, "must be a .png file in a folder that exists"),
    ],
)  # fmt: skip
def test_errors_are_one_or_two_lines(
    arguments: list[str],
    code: int,
    message: str,
    exported: Path,
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    paths = {"file": exported / "step.onnx", "text": text_file, "folder": tmp_path / "empty"}
    assert run(["bench", *(argument.format(**paths) for argument in arguments)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("zoo: error: ")
    assert message in err
    assert len(err.splitlines()) <= 2


def test_files_of_several_models(
    exported: Path, trained: Callable[..., zoo.Run], tmp_path: Path
) -> None:
    shutil.copy(exported / "step.onnx", tmp_path)
    zoo.export(trained(seed=1), "generate", out=tmp_path)
    with pytest.raises(ArtifactError, match="files of several models"):
        benchmark(tmp_path, **QUICK)


@pytest.mark.parametrize(
    "wrong", [{"batches": ()}, {"batches": (0,)}, {"rounds": 0}, {"threads": (0,)}]
)
def test_values_out_of_bounds(exported: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        benchmark(exported, **{**QUICK, **wrong})


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA runs here")
@pytest.mark.parametrize("graph", ["step", "sequence"])
def test_unavailable_cuda_is_an_error_where_it_was_requested(
    exported: Path, graph: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(exported / f"{graph}.onnx")
    assert run(["bench", file, *QUICKLY, "--provider", "cuda"]) == 1
    assert len(capsys.readouterr().err.splitlines()) <= 2
    assert run(["bench", file, "--batch", "1", *QUICKLY, "--provider", "auto"]) == 0
    assert "cuda" not in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_steps_on_cuda(ready: Path) -> None:
    found = benchmark(ready, batches=(2,), **{**QUICK, "provider": "cuda"})
    speeds = {row.workload: row.tokens_per_second for row in found.rows}
    assert speeds["step"] > 0
    assert speeds[LOOP] > 0
    assert speeds[FORWARD] > 0
    assert {row.target for row in found.rows} == {Target("cuda", None)}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
@pytest.mark.parametrize("when", ["exporting in int8", "cpu × 1: round 1"])
def test_an_interrupt_leaves_no_files(fox_run: zoo.Run, tmp_path: Path, when: str) -> None:
    (tmp_path / "t").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "bench", str(fox_run.path), "--no-compile"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "t")},
        # background jobs of a shell inherit that interrupts are ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(when):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert list((tmp_path / "t").glob("zoo-bench-*")) == []
