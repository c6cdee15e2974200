"""Benchmarks: what is counted, the order of measurements, and the report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
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
from zoo.benchmarking.roofline import Target, matrix_products, usable_cores
from zoo.benchmarking.workloads import COMPILED, FORWARD, LOOP
from zoo.cli import run
from zoo.config import ModelConfig
from zoo.errors import ArtifactError, UsageError
from zoo.models.torch_engine import ModelStepper
from zoo.registry.registry import Registry

QUICK = {"rounds": 1, "seconds": 1e-3, "provider": "cpu", "compiled": False}
QUICKLY = ["--rounds", "1", "--seconds", "0.001", "--provider", "cpu", "--no-compile"]
WRITING = [LOOP, "step", "generate", "step int8", "generate int8"]
H, V, E = 24, 28, 10


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


@pytest.mark.parametrize(
    ("cell", "settings", "products"),
    [
        ("lstm", {}, {(H, 4 * H): 4 * H * H, (H, V): H * V}),
        ("lstm-scratch", {}, {(H, H): 4 * H * H, (H, V): H * V}),
        ("gru", {}, {(H, 3 * H): 3 * H * H, (H, V): H * V}),
        ("rnn-scratch", {}, {(H, H): H * H, (H, V): H * V}),
        ("lstm", {"layers": 2}, {(H, 4 * H): (1 + 2) * 4 * H * H, (H, V): H * V}),
        (
            "gru",
            {"embedding": E},
            {(E, 3 * H): 3 * H * E, (H, 3 * H): 3 * H * H, (H, V): H * V},
        ),
        (
            "bidirectional",
            {"options": {"cell": "lstm"}, "mask_token": True},
            {(H, 4 * H): 2 * 4 * H * H, (2 * H, V): 2 * H * V},
        ),
    ],
)
def test_the_cost_of_a_token_by_hand(
    cell: str, settings: dict[str, object], products: dict[tuple[int, int], int]
) -> None:
    """The product of a one-hot token with the input weights is a lookup, and costs nothing."""
    config = ModelConfig(cell=cell, hidden=H, **settings)
    assert matrix_products(config, V, zoo.load_registry()) == products


def test_the_cost_of_a_cell_that_is_not_installed_is_unknown() -> None:
    assert matrix_products(ModelConfig(cell="lstm"), V, Registry()) == Counter()


def test_every_workload_is_measured_at_every_target_and_batch_size(measured: Benchmark) -> None:
    threads = sorted({1, usable_cores()})
    found = [(row.target, row.batch, row.workload) for row in measured.rows]
    assert len(set(found)) == len(found)
    assert set(found) == {
        (Target("cpu", count), batch, workload)
        for count in threads
        for batch in (1, 3)
        for workload in (*WRITING, FORWARD, "sequence")
    }
    assert [row.workload for row in measured.rows if row.reads] == [FORWARD, "sequence"] * (
        2 * len(threads)
    )
    assert measured.machine["cores"] == usable_cores()


def test_medians_ratios_and_shares_are_consistent(measured: Benchmark, fox_run: zoo.Run) -> None:
    cost = 24 * 24 + 24 * fox_run.tokenizer.vocab_size
    assert measured.multiply_adds == cost
    limits = {limit.target: limit for limit in measured.limits}
    by_name = {(row.target, row.batch, row.workload): row for row in measured.rows}
    for row in measured.rows:
        assert row.reason == ""
        assert 0 < row.lowest <= row.tokens_per_second <= row.highest
        base = by_name[row.target, row.batch, FORWARD if row.reads else LOOP]
        assert row.ratio == pytest.approx(row.tokens_per_second / base.tokens_per_second)
        steps = row.tokens_per_second / row.batch
        size = cost * (1 if row.workload.endswith("int8") else 4)
        limit = limits[row.target]
        assert row.memory_share == pytest.approx(steps * size / limit.bytes_per_second)
        speed = limit.multiply_adds_per_second[row.batch]
        assert row.arithmetic_share == pytest.approx(row.tokens_per_second * cost / speed)


def test_workloads_are_interleaved_and_tokens_counted() -> None:
    order = []

    def takes(name: str, tokens: int) -> zoo.benchmarking.workloads.Workload:
        def work() -> int:
            order.append(name)
            time.sleep(0.01)
            return tokens

        return zoo.benchmarking.workloads.Workload(name, 1, work)

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
    assert {row.workload for row in found.rows} == {*WRITING, FORWARD, "sequence"}
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_exported_files_alone(exported: Path) -> None:
    found = benchmark(exported, batches=(1,), **QUICK)
    assert list(dict.fromkeys(row.workload for row in found.rows)) == [
        "step",
        "generate",
        "sequence",
    ]
    assert all(row.ratio is None and row.memory_share is not None for row in found.rows)
    (name,) = {
        row.workload for row in benchmark(exported / "step.onnx", batches=(1,), **QUICK).rows
    }
    assert name == "step"


@pytest.mark.slow
def test_a_bidirectional_model_is_measured_on_sequences_only(
    trained: Callable[..., zoo.Run],
) -> None:
    found = benchmark(trained("bidirectional").path, batches=(2,), **QUICK)
    assert {row.workload for row in found.rows} == {FORWARD, "sequence"}
    assert all(row.reads and row.ratio is not None for row in found.rows)


def test_the_number_of_threads_is_restored(exported: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        benchmark(exported / "step.onnx", batches=(1,), **QUICK)
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
        assert row.tokens_per_second is row.ratio is row.memory_share is None


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
    assert {row["workload"] for row in found["rows"]} == {*WRITING, FORWARD, "sequence"}
    for row in found["rows"]:
        assert row["batch"] == 2
        assert row["provider"] == "cpu"
        assert isinstance(row["tokens_per_second"], float)
    assert [limit["threads"] for limit in found["limits"]] == sorted({1, usable_cores()})
    assert "cpu × 1: round 1 of 1" in err
    assert "GB/s" in err


def test_the_table_and_the_plot(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(exported / "generate.onnx")
    assert run(["bench", file, "--batch", "1", "--batch", "4", "--plot", "p.png", *QUICKLY]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["workload", "on", "batch"]
    assert len(rows) == 2 * len({1, usable_cores()})
    assert all(row.startswith("generate") and ("memory" in row or "arith" in row) for row in rows)
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in Path.cwd().iterdir()] == ["p.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere does not exist; give a run folder or an exported file"),
        (["{folder}"], 1, "is not a run folder"),
        (["{text}"], 1, "neither a run folder nor a file that a runtime here opens"),
        (["{file}", "--batch", "0"], 2, "0 is not in the range x>=1"),
        (["{file}", "--rounds", "0"], 2, "0 is not in the range x>=1"),
        (["{file}", "--seconds", "0"], 2, "0.0 is not in the range x>0"),
        (["{file}", "--seconds", "inf"], 2, "seconds above 0"),
        (["{file}", "--provider", "rocm"], 2, "'rocm' is not one of"),
        (["{file}", "--plot", "speeds.svg"], 2, "must be a .png file in a folder that exists"),
        (["{file}", "--plot", "none/speeds.png"], 2, "must be a .png file in a folder"),
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


@pytest.mark.parametrize("wrong", [{"batches": ()}, {"batches": (0,)}, {"rounds": 0}])
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
