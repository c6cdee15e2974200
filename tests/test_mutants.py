"""Mutated files: none is more than refused, whatever is changed in its bytes, its metadata or its
graph; and those that open are used in every way."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load, save
from torch import nn

import zoo
from zoo.config import ModelConfig, Sampling
from zoo.data.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, LettersTokenizer
from zoo.errors import ArtifactError, UsageError, ZooError, one_line
from zoo.exporting.export import describe
from zoo.inference.artifact import ArtifactInfo, Proof, StateEntry, TrainingFacts
from zoo.inference.engine import NotFiniteError
from zoo.models.language_model import LanguageModel
from zoo_onnx import export_step
from zoo_onnx.exporter import OnnxExporter
from zoo_ort import open_module
from zoo_ort.device_loop import DeviceEngine

from .mutants.graph import with_output
from .mutants.outcomes import count_outcomes
from .mutants.sealing import joined, split

FOX = "the quick brown fox jumps over the lazy dog, é and all. "
HIDDEN = 8
REGIMES = ("bytes", "metadata", "meaning", "outputs", "graph")

# cell, tokenizer, graph and precision of a language model
MODELS: dict[str, tuple[str, Any, str, str]] = {
    "char-step": ("lstm", CharTokenizer, "step", "fp32"),
    "char-generate": ("rnn", CharTokenizer, "generate", "fp32"),
    "letters-sequence": ("lstm", LettersTokenizer, "sequence", "fp32"),
    "blocks": ("mingru", CharTokenizer, "sequence", "fp32"),
    "fused-blocks": ("gated-deltanet", CharTokenizer, "sequence", "fp32"),
    "byte-generate-fp16": ("gru", ByteTokenizer, "generate", "fp16"),
    "bpe-step-int8": ("gru", BPETokenizer, "step", "int8"),
    "bpe-generate": ("gru", BPETokenizer, "generate", "fp32"),
    "bidirectional": ("bidirectional", CharTokenizer, "sequence", "fp32"),
}
KINDS = (*MODELS, "module")
QUICK = ("char-step", "bpe-generate", "bidirectional", "module")


class Filter(nn.Module):
    """A step with two inputs, two outputs, and a state of two types."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, x: Any, mode: Any, state: Any) -> Any:
        h, count = state
        h = self.cell(x * (1 + mode[:, None]), h)
        return (self.head(h), h.argmax(1)), (h, count + 1)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a kind, made once, of a model that was not trained."""
    folder = tmp_path_factory.mktemp("originals")

    def make(kind: str) -> Path:
        path = folder / f"{kind}.onnx"
        if not path.exists():
            torch.manual_seed(0)
            if kind == "module":
                inputs = (torch.randn(8, 3), torch.arange(8) % 3)
                state = (torch.zeros(8, HIDDEN), torch.zeros(8, dtype=torch.int64))
                export_step(Filter(), inputs, state, path, input_names=["x", "mode"])
            else:
                path.write_bytes(language_model(*MODELS[kind]))
        return path

    return make


def language_model(cell: str, tokenizer: Any, graph: str, precision: str) -> bytes:
    learned = tokenizer.from_text(tokenizer.normalize(FOX * 20), 270)
    config = ModelConfig(cell=cell, hidden=HIDDEN, mask_token=cell == "bidirectional")
    model = LanguageModel(config, learned.vocab_size).eval()
    info = describe(model, learned, graph, precision, TrainingFacts(prompt="the "))
    proof = Proof(steps=256, batch_sizes=(1, 5), difference=1e-6)
    exporter = OnnxExporter()
    built = exporter.build(model, info)
    return exporter.seal(built, info.model_copy(update={"proof": proof}))


def open_mutants(path: Path, seed: int, count: int, regimes: Sequence[str]) -> Counter[str]:
    given = str(path), str(seed), str(count), *regimes
    return count_outcomes("open_mutated", *given, count=count)


def test_damaged_files_are_refused(exported: Callable[[str], Path]) -> None:
    found = open_mutants(exported("char-step"), 0, 300, ["damaged"])
    assert found.keys() <= {"refused:", "unchanged"}
    assert found["refused:"] > 270


@pytest.mark.parametrize("kind", QUICK)
def test_mutants_with_a_valid_digest(exported: Callable[[str], Path], kind: str) -> None:
    """Each is refused, or stops with an error of two lines at most, or runs; none ends the process,
    and ONNX Runtime prints nothing."""
    found = open_mutants(exported(kind), 0, 50, REGIMES)
    assert found["refused:"] >= 10
    assert found["stopped:"] + found["ran"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_more_mutants_with_a_valid_digest(exported: Callable[[str], Path], kind: str) -> None:
    found = open_mutants(exported(kind), 1, 750, REGIMES)
    assert min(found["refused:"], found["stopped:"] + found["ran"]) > 100


def changed(original: Path, name: str = "changed.onnx", **metadata: Any) -> Path:
    """A copy with other metadata, as `state=[…]`."""
    model, entries = split(original.read_bytes())
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value)
        entries[f"zoo.{key}".encode()] = text.encode("utf-8", "surrogatepass")
    path = Path(name)
    path.write_bytes(joined(model, entries.items()))
    return path


def metadata_of(path: Path, name: str) -> Any:
    return json.loads(split(path.read_bytes())[1][f"zoo.{name}".encode()])


def with_changed_output(original: Path, name: str, change: str, declared: bool = True) -> Path:
    path = Path("changed.onnx")
    path.write_bytes(with_output(original.read_bytes(), name, change, declared))
    return path


# A graph that ONNX Runtime runs, though its outputs are not what it declares.


@pytest.mark.parametrize(
    ("kind", "output", "change"),
    [
        ("char-step", "logits", "no rows"),
        ("char-step", "logits", "rows twice"),
        ("char-step", "logits", "one on the last axis"),
        ("char-step", "logits", "nothing on the last axis"),
        ("char-step", "logits", "transposed"),
        ("char-step", "state_01_layer0_c_out", "no rows"),
        ("char-step", "state_01_layer0_c_out", "one on the last axis"),
        ("letters-sequence", "logits", "no rows"),
        ("char-generate", "tokens", "no rows"),
        ("char-generate", "tokens", "nothing on the last axis"),
        ("char-generate", "tokens", "all rows but the first"),
        ("char-generate", "tokens", "rows twice"),
        ("char-generate", "state_00_layer0_h_out", "rows twice"),
    ],
)
def test_outputs_of_another_shape(
    exported: Callable[[str], Path], kind: str, output: str, change: str
) -> None:
    path = with_changed_output(exported(kind), output, change, declared=False)
    with pytest.raises(ArtifactError, match=rf"(the graph's )?output '{output}'.*; export it"):
        list(zoo.stream(path, length=5))


@pytest.mark.parametrize("change", ["no rows", "one on the last axis", "rows twice"])
@pytest.mark.parametrize("output", ["output_0", "state_00_0_out"])
def test_outputs_of_a_module_of_another_shape(
    exported: Callable[[str], Path], output: str, change: str
) -> None:
    path = with_changed_output(exported("module"), output, change, declared=False)
    with pytest.raises(ArtifactError, match=rf"output '{output}'.*; export it again"):
        step_once(path)


def step_once(path: Path) -> None:
    stepper = open_module(path)
    stepper.step({"x": [[0.0, 0.0, 0.0]], "mode": [0]}, stepper.init_state(1))


@pytest.mark.parametrize(
    ("kind", "output"),
    [("char-step", "logits"), ("char-step", "state_00_layer0_h_out"), ("char-generate", "tokens")],
)
def test_outputs_of_another_type(exported: Callable[[str], Path], kind: str, output: str) -> None:
    path = with_changed_output(exported(kind), output, "another type")
    with pytest.raises(ArtifactError, match=rf"has the output '{output}', float64 \["):
        zoo.open_source(path)


@pytest.mark.parametrize("kind", ["char-step", "bidirectional"])
def test_logits_that_are_not_finite(exported: Callable[[str], Path], kind: str) -> None:
    """They are not scored either."""
    path = with_changed_output(exported(kind), "logits", "not finite")
    text = Path("fox.txt")
    text.write_text(FOX * 5)
    with pytest.raises(NotFiniteError):
        zoo.score(path, str(text))
    if kind == "bidirectional":
        with pytest.raises(NotFiniteError):
            zoo.fill(path, "the qu_ck")


def test_the_device_loop_tells_what_a_graph_does(exported: Callable[[str], Path]) -> None:
    original = exported("char-step")
    path = with_changed_output(original, "state_00_layer0_h_out", "rows twice", declared=False)
    source = zoo.open_source(path)
    engine = DeviceEngine(source.engine.session, source.info, path.read_bytes(), "cpu")
    with pytest.raises(ArtifactError, match=r"ONNX Runtime cannot run the graph: .*; export it"):
        engine.write(np.array([1]), engine.init_state(1), np.zeros((3, 1), np.float32), Sampling())


# Metadata that is valid and is not that of the graph.


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        ("char-step", "shape", [2**27], "float32 [any, 8] where its metadata says"),
        ("char-step", "shape", [4, 2], "float32 [any, 8] where its metadata says"),
        ("char-step", "dtype", "float64", "where its metadata says the input 'state_00_layer0"),
        ("module", "shape", [2**27], "float32 [any, 8] where its metadata says"),
        ("module", "dtype", "float16", "float16 [any, 8]; export it again"),
    ],
)
def test_a_state_that_the_graph_does_not_have(
    exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    kind: str, field: str, value: Any, message: str,
) -> None:  # fmt: skip
    """It is refused before anything of its size is made."""
    state = metadata_of(exported(kind), "state")
    state[0][field] = value
    path = changed(exported(kind), state=state)
    monkeypatch.setattr(StateEntry, "initial_rows", lambda *_: pytest.fail("made rows"))
    with pytest.raises(ArtifactError) as caught:
        open_module(path) if kind == "module" else zoo.open_source(path)
    assert message in str(caught.value)


def test_a_signature_that_the_graph_does_not_have(exported: Callable[[str], Path]) -> None:
    original = exported("module")
    inputs = metadata_of(original, "inputs")
    inputs[0]["shape"] = [4]
    with pytest.raises(ArtifactError, match=r"has the input 'x', float32 \[any, 3\] where its"):
        open_module(changed(original, inputs=inputs))
    outputs = metadata_of(original, "outputs")
    free = [{**outputs[0], "shape": [None]}, outputs[1]]
    with pytest.raises(ArtifactError, match=r"float32 \[any, 2\] where .*, float32 \[any, any\];"):
        open_module(changed(original, outputs=free))
    outputs[1]["dtype"] = "float32"
    with pytest.raises(ArtifactError, match=r"has the output 'output_1', int64 \[any\] where its"):
        open_module(changed(original, outputs=outputs))
    with pytest.raises(ArtifactError, match=r"has the output 'output_1', .* says the output 'stat"):
        open_module(changed(original, outputs=outputs[:1]))


def test_a_vocabulary_that_the_graph_does_not_have(exported: Callable[[str], Path]) -> None:
    original = exported("char-step")
    tokenizer = metadata_of(original, "tokenizer")
    size = len(tokenizer["characters"]) + 1
    for other in ({"kind": "byte"}, {**tokenizer, "characters": tokenizer["characters"][1:]}):
        with pytest.raises(ArtifactError, match=rf"'logits', float32 \[any, {size}\] where"):
            zoo.open_source(changed(original, tokenizer=other))


def test_a_graph_of_another_kind(exported: Callable[[str], Path]) -> None:
    with pytest.raises(ArtifactError, match=r"has the input 'token', .* says the input 'tokens'"):
        zoo.open_source(changed(exported("char-step"), graph="sequence"))
    with pytest.raises(ArtifactError, match=r"has no input where its metadata says the input 'uni"):
        zoo.open_source(changed(exported("char-step"), graph="generate"))
    with pytest.raises(ArtifactError, match=r"has the input 'uniform', .* says no input; export"):
        zoo.open_source(changed(exported("char-generate"), graph="step"))
    with pytest.raises(ArtifactError, match=r"has a graph 'other', which .* cannot run; export"):
        zoo.open_source(changed(exported("char-step"), graph="other"))


@pytest.mark.parametrize(
    ("dtype", "initial"),
    [
        ("float16", 70_000), ("float32", 1e39), ("int64", 0.5), ("int64", 2**63), ("uint64", 2**64),
        ("uint8", -1), ("int8", 128), ("bool", 2), ("bool", 0.5),
    ],
)  # fmt: skip
def test_an_initial_value_that_its_type_does_not_have(dtype: str, initial: float) -> None:
    good = {"name": "h", "shape": (3,), "dtype": dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match=f"the initial value is no {dtype}"):
            StateEntry.checked(**good, initial=initial)
        assert StateEntry.checked(**good, initial=1).initial_rows(2).tolist() == [[1] * 3] * 2


def test_a_state_that_is_large_in_many_leaves(exported: Callable[[str], Path]) -> None:
    leaf = {"shape": [2**20], "dtype": "float32", "initial": 0}
    state = [{**leaf, "name": f"layer0.h{index}"} for index in range(2**8 + 1)]
    with pytest.raises(ArtifactError, match="the state is too large"):
        zoo.open_source(changed(exported("char-step"), state=state))


def test_a_module_without_a_state(exported: Callable[[str], Path]) -> None:
    with pytest.raises(ArtifactError, match="state: Tuple should have at least 1 item"):
        open_module(changed(exported("module"), state=[]))


def test_a_prompt_is_not_read_by_a_file_with_another_state(
    exported: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two files that claim the weights of one model."""
    original = exported("char-step")
    weights = split(original.read_bytes())[1][b"zoo.weights"].decode()
    tokenizer = metadata_of(original, "tokenizer")
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "step.onnx").write_bytes(original.read_bytes())
    other = language_model("rnn", CharTokenizer, "sequence", "fp32")
    Path("other.onnx").write_bytes(other)
    changed(Path("other.onnx"), str(folder / "sequence.onnx"), weights=weights, tokenizer=tokenizer)
    prompt = FOX * 3
    assert zoo.generate(folder, prompt, length=5) == zoo.generate(original, prompt, length=5)


# What is told about a file.

UNFIT = ["a\nb\nc", "\x1b[31mred", "\u2028x", "x" * 10_000, "\ud800"]


@pytest.mark.parametrize("text", UNFIT, ids=ascii)
def test_a_message_fits_two_lines_whatever_the_file_says(
    exported: Callable[[str], Path], text: str
) -> None:
    original = exported("char-step")
    state = metadata_of(original, "state")
    for metadata in (
        {"format": text},
        {"graph": text},
        {"precision": text},
        {"weights": text},
        {"model": {"cell": "lstm", text: 1}},
        {"tokenizer": {"kind": text}},
        {"tokenizer": {"kind": "word", "package": text}},
        {"tokenizer": {"kind": "char", "characters": "ab", text: text}},
        {"tokenizer": {"kind": "bpe", "merges": [text]}},
        {"state": [{**state[0], "name": text}]},
        {"state": [{**state[0], "dtype": text}]},
        {"state": [{**state[0], "initial": text}]},
        {"state": [{**state[0], text: 0}, state[1]]},
        {"state": [{**state[0], "name": f"layer0.h{index}"} for index in range(2000)]},
        {"proof": {text: 1}},
        {"training": {text: [text]}},
    ):
        with pytest.raises(ArtifactError) as caught:
            zoo.open_source(changed(original, **metadata))
        message = str(caught.value)
        assert message.isprintable()
        assert len(message) < 500
        assert message.endswith(".")


@pytest.mark.parametrize("text", UNFIT[:4], ids=ascii)
def test_a_message_of_onnx_runtime_fits_two_lines(
    exported: Callable[[str], Path], text: str
) -> None:
    proto = onnx.ModelProto.FromString(exported("char-step").read_bytes())
    for node in proto.graph.node:
        node.name, node.op_type = text, "Transpose"
    path = Path(f"{'long' * 40}.onnx")
    del proto.metadata_props[:]
    model, entries = proto.SerializeToString(), split(exported("char-step").read_bytes())[1]
    path.write_bytes(joined(model, entries.items()))
    with pytest.raises(ArtifactError, match=r"ONNX Runtime cannot open .*; export it") as caught:
        zoo.open_source(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    assert message.count(path.name) == 1


def test_one_line_is_for_a_terminal() -> None:
    assert one_line(ZooError("a\x1b[1mb\x00é 中\ud800\nsecond")) == r"a\x1b[1mb\x00é 中\ud800"


def test_a_snapshot_of_another_model_in_one_line(exported: Callable[[str], Path]) -> None:
    session = zoo.Session(exported("char-step"))
    leaves = load(session.snapshot())
    many = {f"layer0.h\x1b{index}": np.zeros((1, HIDDEN)) for index in range(1000)}
    none = {"random": leaves["random"]}
    for arrays, told in (
        (leaves | many, r"its 'layer0.h\x1b0' is float64 [1, 8], and this one's is missing."),
        (none, "its 'layer0.c' is missing, and this one's is float32 [1, 8]."),
    ):
        with pytest.raises(ZooError) as caught:
            session.restore(save(arrays))
        assert str(caught.value) == f"the snapshot is of another model: {told}"


def test_an_unknown_input_of_many(exported: Callable[[str], Path]) -> None:
    stepper = open_module(exported("module"))
    entry = stepper.info.inputs[0]
    many = [entry.model_copy(update={"name": f"{'x' * 190}{index}"}) for index in range(250)]
    stepper.info = stepper.info.model_copy(update={"inputs": tuple(many)})
    given = {one.name: np.zeros((1, 3)) for one in many} | {"z": 1}
    with pytest.raises(UsageError, match="there is no input 'z'") as caught:
        stepper.step(given, stepper.init_state(1))
    assert len(str(caught.value)) < 500


def test_the_originals_open(exported: Callable[[str], Path]) -> None:
    """What the tests above change is right."""
    for kind in ("char-step", "char-generate", "bpe-step-int8", "byte-generate-fp16"):
        info: ArtifactInfo = zoo.open_source(exported(kind)).info
        assert len(zoo.generate(exported(kind), "the", length=5)) >= 4
        assert info.proof is not None
