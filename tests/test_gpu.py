"""On a CUDA device: PyTorch, ONNX Runtime, and its device loop.

`pytest -m gpu tests` runs these; they are skipped with the reason where CUDA does not run in one of
the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.config import ModelConfig, Sampling
from zoo.data.tokenizers import CharTokenizer
from zoo.errors import ProviderError
from zoo.exporting.export import describe
from zoo.exporting.exporter import find_exporters
from zoo.exporting.parity import prove_step
from zoo.exporting.staging import ExportBuilder
from zoo.exporting.text_comparison import compare_texts
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelStepper
from zoo_ort.device_loop import DeviceEngine
from zoo_ort.engines import CHUNK

pytestmark = pytest.mark.gpu
HOT = Sampling(temperature=1.0)
CELLS = [spec.name for spec in zoo.list_cells() if spec.causal]


@pytest.fixture(autouse=True, scope="module")
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    registry = zoo.load_registry()
    runtimes = [spec.load_factory()(registry) for spec in registry.runtimes.values()]
    probed = [report for runtime in runtimes for report in runtime.probe()]
    report = next((found for found in probed if found.provider.startswith("CUDA")), None)
    if report is None or not report.runs:
        pytest.skip(f"CUDA does not run in ONNX Runtime: {report.reason if report else 'no build'}")


def export(
    folder: Path, cell: str, hidden: int = 64, layers: int = 1, precision: str = "fp32"
) -> tuple[LanguageModel, Path]:
    torch.manual_seed(0)
    tokenizer = CharTokenizer(characters="".join(map(chr, range(97, 124))))
    config = ModelConfig(cell=cell, hidden=hidden, layers=layers)
    model = LanguageModel(config, tokenizer.vocab_size).eval()
    registry = zoo.load_registry()
    room = ExportBuilder(model, folder, registry)
    (exporter,) = find_exporters(["step"], precision, registry).values()
    draft = room.draft(exporter, describe(model, tokenizer, "step", precision))
    draft.path.write_bytes(draft.content)
    return model, draft.path


def open_on(path: Path, provider: str, graphs: bool = True) -> DeviceEngine:
    artifact = zoo.open_source(path, provider)
    engine = artifact.engine
    if provider == "cuda":
        assert isinstance(engine, DeviceEngine)
        assert engine.session.get_providers()[0] == "CUDAExecutionProvider"
        if not graphs:
            return DeviceEngine(engine.session, artifact.info, path.read_bytes(), "cuda", False)
    return engine


@pytest.mark.parametrize("name", CELLS)
def test_steps_on_cuda_equal_pytorchs(name: str, tmp_path: Path) -> None:
    model, path = export(tmp_path, name, layers=2)
    proof = prove_step(ModelStepper(model), open_on(path, "cuda"))
    assert proof.difference < 1e-5
    prove_step(ModelStepper(model.cuda()), open_on(path, "cuda"))


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "no graphs"])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_ten_thousand_tokens_on_cuda_and_on_the_cpu(
    name: str, graphs: bool, tmp_path: Path
) -> None:
    model, path = export(tmp_path, name)
    device = open_on(path, "cuda", graphs)
    prompt = np.array([1, 2, 3])
    on_cpu = open_on(path, "cpu")
    found = list(compare_texts(on_cpu, device, prompt, 10_000, HOT, seed=1))
    assert all(difference.is_tie for difference in found)
    assert len(found) <= 2
    on_torch = ModelStepper(model.cuda())
    found = list(compare_texts(on_torch, device, prompt, 10_000, HOT, seed=2))
    assert all(difference.is_tie for difference in found)
    assert len(found) <= 2


def test_cuda_graphs_change_no_result(tmp_path: Path) -> None:
    _, path = export(tmp_path, "lstm")
    engines = [open_on(path, "cuda", graphs) for graphs in (True, False)]
    rng = np.random.default_rng(0)
    for batch_size in (1, 16, 1, 5):
        last = rng.integers(0, 28, batch_size)
        uniform = rng.random((3 * CHUNK + 1, batch_size), dtype=np.float32)
        results = [
            engine.write(last, engine.init_state(batch_size), uniform, HOT) for engine in engines
        ]
        assert results[0][0].tolist() == results[1][0].tolist()
        for one, other in zip(results[0][1], results[1][1], strict=True):
            np.testing.assert_array_equal(one, other)


def test_sessions_are_independent(tmp_path: Path) -> None:
    """Two interleaved sessions on one device, with other batches between them."""
    _, path = export(tmp_path, "gru")
    source = zoo.open_source(path, "cuda")
    alone = []
    for seed in (1, 2):
        session = zoo.Session(source, seed=seed)
        session.feed("the ")
        alone.append(session.sample(500, temperature=1.0))
    sessions = [zoo.Session(source, seed=seed) for seed in (1, 2)]
    for session in sessions:
        session.feed("the ")
    texts = ["", ""]
    for part in (7, 93, 32, 64, 304):
        for index, session in enumerate(sessions):
            texts[index] += session.sample(part, temperature=1.0)
        zoo.generate_batch(source, ["abc", "x"], length=11, temperature=1.0)
    assert texts == alone


def test_sampling_settings_that_run_on_the_host(tmp_path: Path) -> None:
    _, path = export(tmp_path, "lstm")
    settings = {"length": 300, "temperature": 0.8, "top_k": 7, "top_p": 0.9, "seed": 3}
    texts = [zoo.generate(zoo.open_source(path, p), "the ", **settings) for p in ("cuda", "cpu")]
    assert texts[0] == texts[1]


def test_loops_of_onnx_are_refused_on_cuda(tmp_path: Path, trained: Callable[..., zoo.Run]) -> None:
    run = trained("gru", layers=2, epochs=2)
    file = zoo.export(run, graph="generate", out=tmp_path).path
    with pytest.raises(ProviderError, match="on CUDA use the step graph"):
        zoo.open_source(file, "cuda")


def test_half_precision_on_cuda(tmp_path: Path) -> None:
    model, path = export(tmp_path, "lstm", precision="fp16")
    proof = prove_step(ModelStepper(model), open_on(path, "cuda"), tolerance=0.02)
    assert proof.difference > 0


def test_speed_on_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the rates for docs/reference/performance.md; asserts nothing."""
    lines = [torch.cuda.get_device_name()]
    for name in ("rnn", "gru", "lstm"):
        model, path = export(tmp_path, name, hidden=512)
        engines = {
            "PyTorch eager": ModelStepper(model.cuda()),
            "device loop": open_on(path, "cuda"),
            "device loop, no graphs": open_on(path, "cuda", graphs=False),
        }
        for batch_size in (1, 16, 256):
            rates = {}
            for label, engine in engines.items():
                last, state = np.zeros(batch_size, np.int64), engine.init_state(batch_size)
                uniform = np.full((128, batch_size), 0.5, np.float32)
                for _ in range(2):
                    engine.write(last, state, uniform, HOT)
                found = []
                for _ in range(5):
                    began = time.perf_counter()
                    engine.write(last, state, uniform, HOT)
                    found.append(128 * batch_size / (time.perf_counter() - began))
                rates[label] = float(np.median(found))
            shown = ", ".join(f"{label} {rate:,.0f}" for label, rate in rates.items())
            ratio = rates["device loop"] / rates["PyTorch eager"]
            lines.append(f"{name} 512, batch {batch_size}: {shown} tokens/s; ratio {ratio:.1f}")
    with capsys.disabled():
        print("\n" + "\n".join(lines))


@pytest.mark.parametrize("name", ["rnn-scratch", "lstm-scratch", "gru"])
def test_training_with_cuda_graphs_is_the_same(
    name: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The losses of all reports are equal; the speeds are only printed."""
    settings = {"cell": name, "hidden": 64, "epochs": 2, "batch_size": 8, "steps": 35,
                "dropout": 0.0, "precision": "fp32", "device": "cuda"}  # fmt: skip
    runs = [
        zoo.train(str(text_file), out=str(graph), cuda_graph=graph, **settings)
        for graph in (False, True)
    ]
    plain, graphed = (run.metrics() for run in runs)
    for one, other in zip(plain, graphed, strict=True):
        assert other["train_perplexity"] == pytest.approx(one["train_perplexity"], rel=1e-3)
    with capsys.disabled():
        rates = [lines[-1]["tokens_per_second"] for lines in (plain, graphed)]
        print(f"\n{name}: {rates[0]:,.0f} tokens/s in training, as CUDA graphs {rates[1]:,.0f}")


@pytest.mark.parametrize("recipe", ["d2l-scratch", "d2l-concise"])
def test_speed_of_the_textbooks_experiments_on_cuda(
    recipe: str, time_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the rates for docs/reference/performance.md; the lecture note has 43,298.7 tokens/s on
    its GPU."""
    for graph in (False, True):
        run = zoo.train(recipe=recipe, out=str(graph), epochs=50, device="cuda", cuda_graph=graph)
        rates = [line["tokens_per_second"] for line in run.metrics()]
        with capsys.disabled():
            how = "as CUDA graphs" if graph else "eager"
            print(f"\n{recipe}, {how}: {np.median(rates):,.0f} tokens/s")
