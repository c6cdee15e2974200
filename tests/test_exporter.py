"""Exported files: metadata, refused files, and failed proofs."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import zoo
from zoo.errors import ArtifactError, ProviderError, RunError, UnknownNameError, VerificationError
from zoo.exporting.comparison import relative_difference
from zoo.exporting.export import training_facts
from zoo.exporting.parity import prove_step
from zoo.inference.artifact import ArtifactInfo, Proof, StateEntry
from zoo.models.torch_engine import ModelStepper
from zoo_ort.container import read_metadata


def changed(path: Path, name: str = "changed.onnx", **metadata: str) -> Path:
    """A copy of an exported file with other metadata and a valid digest."""
    from zoo_ort.container import digest, metadata_entry

    proto = onnx.load(str(path))
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    del proto.metadata_props[:]
    content = proto.SerializeToString()
    for key, value in {**entries, **metadata}.items():
        if key != "zoo.digest":
            content += metadata_entry(key, value)
    copy = Path(name)
    copy.write_bytes(content + metadata_entry("zoo.digest", digest(content)))
    return copy


def test_the_interface_is_the_documented_one(fox_file: Path) -> None:
    model = onnx.load(str(fox_file))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 9
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 19)]

    def describe(value: onnx.ValueInfoProto) -> tuple[str, str, list[object]]:
        tensor = value.type.tensor_type
        shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
        return value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), shape

    vocab = zoo.open_source(fox_file).tokenizer.vocab_size
    assert [describe(v) for v in model.graph.input] == [
        ("token", "INT64", ["batch"]),
        ("state_00_layer0_h_in", "FLOAT", ["batch", 24]),
    ]
    assert [describe(v) for v in model.graph.output] == [
        ("logits", "FLOAT", ["batch", vocab]),
        ("state_00_layer0_h_out", "FLOAT", ["batch", 24]),
    ]
    assert {node.op_type for node in model.graph.node} <= {"Gather", "MatMul", "Add", "Tanh"}


def test_the_file_describes_itself(fox_run: zoo.Run, fox_file: Path) -> None:
    metadata = onnxruntime.InferenceSession(fox_file).get_modelmeta().custom_metadata_map
    assert metadata["zoo.format"] == "2"
    assert metadata["zoo.graph"] == "step"
    assert metadata["zoo.cell"] == "rnn"
    assert metadata["zoo.precision"] == "fp32"
    assert json.loads(metadata["zoo.model"])["hidden"] == 24
    assert json.loads(metadata["zoo.state"]) == [
        {"name": "layer0.h", "shape": [24], "dtype": "float32", "initial": 0.0, "bound": 1.0}
    ]
    assert json.loads(metadata["zoo.training"])["prompt"] == "the "
    assert json.loads(metadata["zoo.proof"])["steps"] == 256
    artifact = zoo.open_source(fox_file)
    assert artifact.tokenizer == fox_run.tokenizer


def test_running_a_file_imports_neither_torch_nor_onnx(fox_file: Path) -> None:
    assert_runs_light(["generate", str(fox_file), "--length", "5"], without={"tokenizers"})


def test_running_a_file_of_subwords_imports_neither(trained: Callable[..., zoo.Run]) -> None:
    run = trained(tokenizer="bpe", vocab=270, embedding=8, hidden=8, epochs=1)
    file = str(zoo.export(run).path)
    assert_runs_light(["generate", file, "--length", "5"])
    assert_runs_light(["score", file, run.config.data.corpus])


def assert_runs_light(arguments: list[str], without: Collection[str] = ()) -> None:
    """A command succeeds in a process of its own, and imports nothing that only training needs."""
    heavy = {"torch", "onnx", "onnxscript", "onnx_ir", *without}
    code = (
        "import sys, zoo.cli\n"
        f"code = zoo.cli.run({arguments!r})\n"
        f"heavy = {heavy!r} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_every_flipped_bit_is_detected(fox_file: Path) -> None:
    content = fox_file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        with pytest.raises(ArtifactError):
            read_metadata(fox_file, bytes(damaged))


def test_a_truncated_or_extended_file_is_detected(fox_file: Path) -> None:
    content = fox_file.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], content + b"\0", content * 2, b""):
        with pytest.raises(ArtifactError) as caught:
            read_metadata(fox_file, damaged)
        assert len(str(caught.value).splitlines()) == 1


def test_files_that_the_zoo_did_not_export_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        zoo.open_source(tmp_path / "absent.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("this is no model")
    with pytest.raises(ArtifactError, match="is not an ONNX file"):
        zoo.open_source(text)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["y"])],
        "foreign",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    foreign = tmp_path / "foreign.onnx"
    onnx.save(onnx.helper.make_model(graph), str(foreign))
    with pytest.raises(ArtifactError, match="was not exported by the zoo"):
        zoo.open_source(foreign)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"zoo.format": "3"}, "its format is '3'"),
        ({"zoo.tokenizer": "{"}, "zoo.tokenizer is damaged"),
        ({"zoo.tokenizer": '{"kind": "pickle"}'}, "the tokenizer 'pickle' is not installed"),
        ({"zoo.model": '{"cell": "rnn", "hidden": 99999999}'}, "metadata is damaged: model.hidden"),
        ({"zoo.model": '{"cell": "rnn", "factory": "os:system"}'}, "model.factory"),
        ({"zoo.state": "[]"}, "its metadata says"),
        ({"zoo.state": "7"}, "metadata is damaged: state"),
        (
            {"zoo.state": '[{"name":"layer0.h","shape":[9999999,9999999],"dtype":"float32",'
             '"initial":0}]'},
            "state leaf is too large",
        ),
        (
            {"zoo.state": '[{"name":"layer0.h","shape":[24],"dtype":"float32","initial":"AAAA"}]'},
            "initial row does not fit",
        ),
        ({"zoo.proof": "[" * 100_000}, "zoo.proof is damaged"),
    ],
)  # fmt: skip
def test_metadata_is_checked_against_bounds(
    fox_file: Path, metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        zoo.open_source(changed(fox_file, **metadata))
    assert len(str(caught.value).splitlines()) == 1


def test_unavailable_cuda_is_an_error_with_the_reason(fox_file: Path, fox_run: zoo.Run) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA runs here")
    with pytest.raises(ProviderError, match=r"CUDA does not run in ONNX Runtime here: .+"):
        zoo.open_source(fox_file, "cuda")
    with pytest.raises(ProviderError, match=r"CUDA does not run in PyTorch here: .+"):
        zoo.open_source(fox_run.path, "cuda")


def test_initial_rows_that_are_not_constant_are_stored_in_the_file() -> None:
    row = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    entry = StateEntry.from_row("layer0.h", row)
    again = StateEntry.model_validate_json(entry.model_dump_json())
    assert np.array_equal(again.initial_rows(2), np.stack([row, row]))
    assert base64.b64decode(entry.initial) == row.astype("<f4").tobytes()
    constant = StateEntry.from_row("layer0.n", np.full(3, 5, np.int64))
    assert constant.initial == 5
    assert constant.initial_rows(1).dtype == np.int64


def test_state_names_of_inputs_and_outputs_sort_in_the_same_order(fox_file: Path) -> None:
    info = zoo.open_source(fox_file).info
    entries = tuple(
        StateEntry(name=f"layer{i}.h", shape=(1,), dtype="float32", initial=0.0) for i in range(120)
    )
    many = info.model_copy(update={"state": entries})
    for side in ("in", "out"):
        assert sorted(many.state_names(side)) == many.state_names(side)
    assert many.state_names("in")[7] == "state_007_layer7_h_in"
    assert ArtifactInfo.from_metadata(many.to_metadata(), zoo.load_registry()) == many


class Wrong(ModelStepper):
    """A stepper with a fault, as a wrong exporter could write it."""

    def __init__(self, model: zoo.LanguageModel, fault: str) -> None:
        super().__init__(model)
        self.fault, self.count = fault, 0

    def step(self, tokens: np.ndarray, state: tuple) -> tuple[np.ndarray, tuple]:
        self.count += 1
        logits, after = super().step(tokens, state)
        if self.fault == "frozen state":
            after = self.init_state(len(tokens))
        if self.fault == "late logits" and self.count > 400:
            logits = logits + 1e-3
        if self.fault == "shared rows":
            after = (type(after[0])(after[0].h[:1].expand_as(after[0].h)),)
        if self.fault == "half":
            logits = logits.astype(np.float16)
        if self.fault == "lost row":
            logits = logits[:1]
        return logits, after


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("frozen state", r"layer0.h differs by .* at step 0 of 256, at batch size 1"),
        ("late logits", r"logits differs by .* at step 200 of 256, at batch size 1"),
        ("shared rows", r"layer0.h differs by .* at step 0 of 256, at batch size 5"),
        ("half", "logits is float16 and should be float32"),
        ("lost row", r"logits has shape \(1, \d+\) and should have \(5, \d+\)"),
    ],
)
def test_the_proof_finds_each_fault(fox_run: zoo.Run, fault: str, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        prove_step(ModelStepper(fox_run.model), Wrong(fox_run.model, fault))


def test_a_file_that_fails_its_proof_is_not_written(
    fox_run: zoo.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo_onnx.exporter import OnnxExporter

    build = OnnxExporter.build

    def build_wrongly(self: OnnxExporter, model: zoo.LanguageModel, info: ArtifactInfo) -> bytes:
        with torch.no_grad():
            model = zoo.load(fox_run.path).model
            model.head.bias[3] += 0.01
        return build(self, model, info)

    monkeypatch.setattr(OnnxExporter, "build", build_wrongly)
    with pytest.raises(VerificationError, match=r"step.onnx was not written: logits\[\d+\] is"):
        zoo.export(fox_run, out="here/there")
    assert not Path("here").exists()


@pytest.mark.parametrize(("keep", "epoch"), [("best", 2), ("last", 3)])
def test_a_file_has_the_metrics_of_its_own_weights(
    trained: Callable[..., zoo.Run], keep: str, epoch: int
) -> None:
    run = trained(epochs=3, keep=keep)
    shutil.copytree(run.path, "run")
    lines = [{"epoch": n, "tokens": n * 100, "train_perplexity": 9.0 - n,
              "held_out_perplexity": 2**bits, "held_out_bits_per_token": bits}
             for n, bits in ((1, 3.0), (2, 2.0), (3, 2.5))]  # fmt: skip
    Path("run/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = training_facts(zoo.load("run"))
    assert (facts.epochs, facts.tokens) == (epoch, epoch * 100)
    assert facts.held_out_perplexity == lines[epoch - 1]["held_out_perplexity"]


def test_export_does_not_change_the_model(fox_run: zoo.Run) -> None:
    before = {name: tensor.clone() for name, tensor in fox_run.model.state_dict().items()}
    training = fox_run.model.training
    zoo.export(fox_run, out="elsewhere")
    assert fox_run.model.training is training
    for name, tensor in fox_run.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_spec_names_the_graphs_that_are_built() -> None:
    """The spec must not import onnx, so the names are declared twice."""
    from zoo_onnx.exporter import TRACED
    from zoo_onnx.precision import PRECISIONS

    spec = zoo.load_registry().exporters["onnx"]
    assert spec.graphs == tuple(TRACED)
    assert spec.precisions == tuple(PRECISIONS)


def test_an_unknown_graph_is_an_error_with_suggestions(fox_run: zoo.Run) -> None:
    with pytest.raises(
        UnknownNameError, match="graph 'stp' is not in the zoo; did you mean 'step'"
    ):
        zoo.export(fox_run, graph="stp")


def test_verify_accepts_a_run_in_training_mode(text_file: Path) -> None:
    run = zoo.train(str(text_file), cell="gru", hidden=8, epochs=1, layers=2, dropout=0.4, out="r")
    result = zoo.verify(zoo.export(run).path, run, length=50, seeds=1)
    assert result.proof.batch_sizes == (1, 5)


def test_a_proof_of_infinite_values_is_finite() -> None:
    """A network that overflows has no finite difference, and JSON has no infinity."""
    found = relative_difference(np.array([1.0]), np.array([np.inf]))
    assert Proof(steps=1, batch_sizes=(1,), difference=0.0, drift=found).drift > 1e300
    assert relative_difference(np.array([np.nan]), np.array([1.0])) > 1e300
    assert relative_difference(np.array([3.0, -4.0]), np.array([3.0, -3.0])) == 0.25


def test_verify_against_its_run_and_another(
    fox_run: zoo.Run, fox_file: Path, trained: object
) -> None:
    result = zoo.verify(fox_file, fox_run.path, length=300, seeds=2)
    assert result.proof.difference < 1e-5
    assert [(s.temperature, seed) for s, seed, _ in result.texts] == [(0, 0), (0.8, 0), (0.8, 1)]
    assert all(found == () for _, _, found in result.texts)
    with pytest.raises(VerificationError, match="exported from another model"):
        zoo.verify(fox_file, trained(hidden=25, epochs=1).path)
    with pytest.raises(VerificationError, match="exported from another model"):
        zoo.verify(fox_file, trained(seed=9).path)
