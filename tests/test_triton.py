"""Model repositories for Triton: their configurations, and what a simulated server computes from
them. No Triton server runs here."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import zoo
from zoo.cli import run
from zoo.config import ModelConfig, Sampling
from zoo.data import CharTokenizer, read_tokenizer
from zoo.errors import UsageError
from zoo.exporting.export import Exported
from zoo.inference.artifact import ArtifactInfo, StateEntry
from zoo.models.torch_engine import ModelScorer
from zoo_triton.config import config
from zoo_triton.packager import TritonPackager

from .triton_server import Model, Request, Server, name_of, numpy_type, parse_config

ROUNDING = 1e-5  # of float32 logits, between batch sizes of one graph
NUMPY_TYPES = {
    "TYPE_BOOL": "bool", "TYPE_FP16": "float16", "TYPE_FP32": "float32", "TYPE_FP64": "float64",
    "TYPE_INT8": "int8", "TYPE_INT64": "int64", "TYPE_UINT16": "uint16",
}  # fmt: skip

CAUSAL = [
    "rnn",
    pytest.param("slstm", marks=pytest.mark.slow),  # a leaf of -1e30
    pytest.param("retnet", marks=pytest.mark.slow),  # a leaf of int64 without axes
]
GRAPHS = ("step", "generate", "sequence")


def untrained(cell: str, folder: Path) -> zoo.Run:
    tokenizer = CharTokenizer.from_text("the quick brown fox jumps over the lazy dog")
    causal = zoo.get_cell(cell).causal
    torch.manual_seed(0)
    model = zoo.LanguageModel(
        ModelConfig(cell=cell, hidden=8, mask_token=not causal), tokenizer.vocab_size
    )
    return zoo.save(model, tokenizer, folder, prompt="the ")


@pytest.fixture(scope="session")
def packaged(
    trained: Callable[..., zoo.Run], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    """The run of a small model, its exported files by graph, and its repository."""
    made: dict[str, Any] = {}

    def write(cell: str) -> Any:
        if cell not in made:
            folder = tmp_path_factory.mktemp(cell)
            source = trained(cell) if cell == "rnn" else untrained(cell, folder / "run")
            files = zoo.export_all(source, out=folder / "export")
            repository = folder / "repository"
            repository.mkdir()
            TritonPackager(zoo.load_registry()).write(files, repository)
            made[cell] = SimpleNamespace(
                run=source, files={file.info.graph: file for file in files}, repository=repository
            )
        return made[cell]

    return write


def serve(model: Model, streams: dict[int, list[dict[str, np.ndarray]]], seed: int) -> dict:
    """Sends the requests of each sequence in order, those of different sequences at random times;
    the outputs of each sequence."""
    rng = np.random.default_rng(seed)
    futures: dict[int, list] = {sequence: [] for sequence in streams}
    while any(len(futures[s]) < len(requests) for s, requests in streams.items()):
        for sequence in rng.permutation(list(streams)).tolist():
            requests, sent = streams[sequence], len(futures[sequence])
            if sent < len(requests) and rng.random() < 0.5:
                request = Request(
                    requests[sent], sequence, start=sent == 0, end=sent + 1 == len(requests)
                )
                futures[sequence].append(model.submit(request))
        for _ in range(rng.integers(3)):
            model.run_batch()
    while model.run_batch():
        pass
    return {s: [future.result(0) for future in sent] for s, sent in futures.items()}


def limit(model: Model, batch_size: int, slots: int) -> None:
    """So few rows and slots that sequences wait and share batches with changing others."""
    model.config.max_batch_size = batch_size
    model.config.sequence_batching.oldest.max_candidate_sequences = slots


def was_mixed(model: Model) -> bool:
    """Whether a sequence had different places in the batches, and not always the same others."""
    places: dict[int, set[int]] = {}
    for batch in model.batches:
        for place, sequence in enumerate(batch):
            places.setdefault(sequence, set()).add(place)
    return len({tuple(batch) for batch in model.batches}) > 3 and any(
        len(found) > 1 for found in places.values()
    )


@pytest.mark.parametrize("cell", CAUSAL)
def test_configurations_are_those_of_the_graphs(packaged: Any, cell: str) -> None:
    """Names, types and shapes against the exported files; initial states against PyTorch."""
    built = packaged(cell)
    scorer = ModelScorer(built.run.model)
    initial = list(scorer.state_to_arrays(scorer.init_state(1)).values())
    for graph in GRAPHS:
        folder = built.repository / graph
        written = parse_config(folder / "config.pbtxt")
        exported = onnx.load(built.files[graph].path).graph
        of_state = [v.name for v in exported.input if v.name.startswith("state_")]
        for found, values in ((written.input, exported.input), (written.output, exported.output)):
            others = [value for value in values if not value.name.startswith("state_")]
            assert [value.name for value in found] == [value.name for value in others]
            for own, value in zip(found, others, strict=True):
                elements = value.type.tensor_type.elem_type
                dtype = str(helper.tensor_dtype_to_np_dtype(elements))
                assert NUMPY_TYPES[name_of(own.data_type)] == dtype
                sizes = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
                sizes.remove("batch")
                wanted = [-1 if isinstance(size, str) else size for size in sizes]
                assert list(own.dims) == (wanted or [1])
                assert own.HasField("reshape") == (not wanted)
                assert not own.reshape.shape
        states = written.sequence_batching.state
        assert [state.input_name for state in states] == of_state
        for state, row in zip(states, initial, strict=True):
            assert state.output_name == state.input_name.removesuffix("_in") + "_out"
            assert NUMPY_TYPES[name_of(state.data_type)] == str(row.dtype)
            assert list(state.dims) == (list(row.shape[1:]) or [1])
            (start,) = state.initial_state
            assert (start.dims, start.data_type) == (state.dims, state.data_type)
            if row.any():
                content = (folder / "initial_state" / start.data_file).read_bytes()
                assert content == row.tobytes()
            else:
                assert start.zero_data
        assert written.sequence_batching.HasField("oldest")
        assert not written.sequence_batching.control_input


@pytest.mark.parametrize("cell", CAUSAL)
def test_interleaved_steps_give_what_each_sequence_gives_alone(packaged: Any, cell: str) -> None:
    built = packaged(cell)
    model = Model(built.repository / "step")
    limit(model, batch_size=3, slots=4)
    engine = zoo.open_source(built.files["step"].path, "cpu").engine
    rng = np.random.default_rng(1)
    lengths = {5: 9, 9: 1, 2: 14, 700: 6, 31: 11, 4: 2, 77: 8}
    tokens = {s: rng.integers(engine.vocab_size, size=size) for s, size in lengths.items()}
    streams = {s: [{"token": np.array([[token]])} for token in row] for s, row in tokens.items()}
    for seed in (0, 1):  # the second time, the numbers of the ended sequences are used again
        found = serve(model, streams, seed)
        for sequence, row in tokens.items():
            state = engine.init_state(1)
            for token, outputs in zip(row, found[sequence], strict=True):
                logits, state = engine.step(np.array([token]), state)
                assert list(outputs) == ["logits"]
                np.testing.assert_allclose(outputs["logits"], logits, rtol=ROUNDING, atol=ROUNDING)
    assert was_mixed(model)
    assert not model.kept


@pytest.mark.parametrize("cell", CAUSAL)
def test_interleaved_generation_writes_what_each_sequence_writes_alone(
    packaged: Any, cell: str
) -> None:
    """Sequences with their own settings, which write in chunks of two sizes."""
    built = packaged(cell)
    model = Model(built.repository / "generate")
    limit(model, batch_size=4, slots=5)
    source = zoo.open_source(built.files["generate"].path, "cpu")
    engine = source.writer()
    samplings = [
        Sampling(), Sampling(temperature=0.8), Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1.2, top_p=0.7), Sampling(temperature=0.5, top_k=5, top_p=0.9),
        Sampling(temperature=2.0),
    ]  # fmt: skip
    streams, wanted = {}, {}
    for sequence, sampling in enumerate(samplings, 1):
        rng = np.random.default_rng(sequence)
        uniform = rng.random((24, 1), np.float32)
        first = np.array([sequence])
        wanted[sequence], _ = engine.write(first, engine.init_state(1), uniform, sampling)
        last, streams[sequence], begin = first, [], 0
        while begin < 24:
            size = 4 if sequence % 2 else 6
            part = slice(begin, begin + size)
            streams[sequence].append({
                "token": last[:, None],
                "uniform": uniform[part].T,
                "temperature": np.array([[sampling.temperature]], np.float32),
                "top_k": np.array([[sampling.top_k or 0]]),
                "top_p": np.array([[1 if sampling.top_p is None else sampling.top_p]], np.float32),
            })  # fmt: skip
            last, begin = wanted[sequence][part][-1], begin + size
    found = serve(model, streams, seed=2)
    for sequence, tokens in wanted.items():
        joined = np.concatenate([outputs["tokens"] for outputs in found[sequence]], axis=1)
        assert joined.tolist() == tokens.T.tolist()
    assert was_mixed(model)


@pytest.mark.parametrize("cell", CAUSAL)
def test_interleaved_pieces_give_the_logits_of_each_sequence(packaged: Any, cell: str) -> None:
    built = packaged(cell)
    model = Model(built.repository / "sequence")
    limit(model, batch_size=3, slots=64)
    scorer = ModelScorer(built.run.model)
    rng = np.random.default_rng(3)
    tokens = {s: rng.integers(scorer.vocab_size, size=12) for s in range(1, 7)}
    streams = {
        s: [{"tokens": piece[None]} for piece in np.split(row, 3 if s % 2 else [4, 5])]
        for s, row in tokens.items()
    }
    found = serve(model, streams, seed=4)
    for sequence, row in tokens.items():
        logits, _ = scorer.logits(row[:, None], scorer.init_state(1))
        joined = np.concatenate([outputs["logits"] for outputs in found[sequence]], axis=1)
        np.testing.assert_allclose(joined[0], logits[:, 0], rtol=1e-4, atol=1e-4)
    assert was_mixed(model)


@pytest.mark.parametrize("cell", CAUSAL)
def test_a_rewritten_graph_computes_what_the_exported_one_does(packaged: Any, cell: str) -> None:
    """From random states, bit for bit: only axes were moved."""
    built = packaged(cell)
    rng = np.random.default_rng(5)
    for graph in GRAPHS:
        served = built.repository / graph / "1" / "model.onnx"
        file = built.files[graph]
        scalar = any(not leaf.shape for leaf in file.info.state)
        if not scalar and graph != "generate":
            assert served.read_bytes() == file.path.read_bytes()
            zoo.open_source(served)  # still the file that its metadata describes
            continue
        assert not onnx.load(served).metadata_props
        old, new = (ort.InferenceSession(path) for path in (file.path, served))
        feeds = {}
        for value in old.get_inputs():
            sizes = {"batch": 3, "steps": 5, "time": 5}
            shape = [sizes.get(size, size) for size in value.shape]
            if value.name in ("token", "tokens"):
                feeds[value.name] = rng.integers(built.run.tokenizer.vocab_size, size=shape)
            elif "int64" in value.type:
                feeds[value.name] = rng.integers(6, size=shape)
            else:
                feeds[value.name] = rng.random(shape, np.float32)
        given = dict(feeds)
        if graph == "generate":
            given["uniform"] = feeds["uniform"].T
        for name, leaf in zip(file.info.state_names("in"), file.info.state, strict=True):
            if not leaf.shape:
                given[name] = feeds[name][:, None]
        names = [value.name for value in old.get_outputs()]
        results = zip(names, old.run(names, feeds), new.run(names, given), strict=True)
        for name, before, after in results:
            wanted = before.T if name == "tokens" else before
            assert after.reshape(wanted.shape).tolist() == wanted.tolist(), name
            assert after.ndim == max(wanted.ndim, 2)


@pytest.mark.slow
def test_a_non_causal_model_is_served_without_sequences(packaged: Any) -> None:
    built = packaged("bidirectional")
    model = Model(built.repository / "sequence")
    assert model.config.HasField("dynamic_batching")
    scorer = ModelScorer(built.run.model)
    rng = np.random.default_rng(6)
    asked = [rng.integers(scorer.vocab_size, size=shape) for shape in ((2, 7), (1, 9), (3, 7))]
    futures = [model.submit(Request({"tokens": t}, 0, False, False)) for t in asked]
    while model.run_batch():
        pass
    assert len(model.batches) == 2  # the shapes of two are equal
    for tokens, future in zip(asked, futures, strict=True):
        logits, _ = scorer.logits(tokens.T, scorer.init_state(len(tokens)))
        found = future.result(0)["logits"]
        np.testing.assert_allclose(found, logits.swapaxes(0, 1), rtol=1e-4, atol=1e-4)


def synthetic(folder: Path, leaves: dict[str, np.ndarray]) -> Exported:
    """A step whose logits are those of a table, and whose state leaves stay as they are."""
    tokenizer = CharTokenizer(characters="abc")
    info = ArtifactInfo.checked(
        graph="step",
        state=tuple(StateEntry.from_row(f"layer0.{name}", row) for name, row in leaves.items()),
        model=ModelConfig(),
        tokenizer=tokenizer,
    )
    nodes = [helper.make_node("Gather", ["table", "token"], ["logits"])]
    given = [helper.make_tensor_value_info("token", TensorProto.INT64, ["batch"])]
    returned = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])]
    names = zip(info.state_names("in"), info.state_names("out"), leaves.values(), strict=True)
    for own, after, row in names:
        dtype, shape = helper.np_dtype_to_tensor_dtype(row.dtype), ["batch", *row.shape]
        given.append(helper.make_tensor_value_info(own, dtype, shape))
        returned.append(helper.make_tensor_value_info(after, dtype, shape))
        nodes.append(helper.make_node("Identity", [own], [after]))
    table = numpy_helper.from_array(np.eye(4, dtype=np.float32), "table")
    graph = helper.make_graph(nodes, "step", given, returned, [table])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, folder / "step.onnx")
    return Exported(folder / "step.onnx", info)


def test_leaves_of_every_type_begin_with_their_initial_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    leaves = {
        "half": rng.random((2, 3)).astype(np.float16),
        "double": rng.random(4),
        "flags": np.array([True, False, True]),
        "small": np.array([-3, 4], np.int8),
        "wide": np.array([2**40, 7]),
        "unsigned": np.array([[65535], [1]], np.uint16),
        "scalar": np.array(3),
        "fraction": np.array(2.5, np.float32),
        "minus_zero": np.array([0.0, -0.0], np.float32),
        "infinite": np.full((2, 2), -np.inf, np.float32),
        "zero": np.zeros((3, 1), np.float32),
        "nothing": np.array(0),
    }
    file = synthetic(tmp_path, leaves)
    repository = tmp_path / "repository"
    repository.mkdir()
    TritonPackager(zoo.load_registry()).write([file], repository)
    in_files = {path.name for path in (repository / "step" / "initial_state").iterdir()}
    names = dict(zip(leaves, file.info.state_names("in"), strict=True))
    assert in_files == {name for leaf, name in names.items() if leaf not in ("zero", "nothing")}
    model = Model(repository / "step")
    for state, row in zip(model.states, leaves.values(), strict=True):
        assert numpy_type(state.data_type) == row.dtype
    requests = [Request({"token": np.array([[2]])}, s, start=True, end=False) for s in (1, 2)]
    for request in requests:
        model.submit(request)
    assert model.run_batch()
    for sequence in (1, 2):
        for leaf, row in leaves.items():
            kept = model.kept[sequence][names[leaf]]
            assert kept.dtype == row.dtype
            assert kept.tobytes() == row.tobytes(), leaf
    assert requests[0].future.result(0)["logits"].tolist() == [[0, 0, 1, 0]]


def programs(readme: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL))


def run_program(repository: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the README's client prints, of a simulated server behind real gRPC."""
    server, address = Server(repository).listen()
    try:
        code = programs((repository / "README.md").read_text("utf-8"))
        assert "localhost:8001" in code
        monkeypatch.chdir(repository)
        printed, names = io.StringIO(), dict[str, Any]()
        with contextlib.redirect_stdout(printed):
            exec(compile(code.replace("localhost:8001", address), "README.md", "exec"), names)
        names["client"].close()
    finally:
        server.stop(0)
    return printed.getvalue().splitlines()


def test_the_readme_has_a_client_that_works(packaged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = packaged("rnn")
    greedy, sampled, bits = run_program(built.repository, monkeypatch)
    assert greedy == zoo.generate(built.run.path, "the ", 20)
    assert sampled == zoo.generate(built.run.path, "the ", 20, temperature=0.7, seed=0)
    tokens = torch.from_numpy(built.run.tokenizer.encode("the "))
    logits, _ = built.run.model(tokens[:-1, None])
    nats = torch.nn.functional.cross_entropy(logits[:, 0], tokens[1:])
    assert float(bits) == pytest.approx(nats.item() / np.log(2), rel=1e-4)


@pytest.mark.slow
def test_the_command_writes_a_repository(
    packaged: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a precision, which the names of the models state."""
    built = packaged("rnn")
    repository = tmp_path / "triton"
    args = [str(built.run.path), "--to", "triton", "--precision", "fp16", "--out", str(repository)]
    assert run(["export", *args]) == 0
    assert capsys.readouterr().out.strip() == str(repository)
    assert set(Server(repository).models) == {"step_fp16", "generate_fp16", "sequence_fp16"}
    tokenizer = read_tokenizer((repository / "tokenizer.json").read_bytes(), zoo.load_registry())
    assert tokenizer == built.run.tokenizer


@pytest.mark.slow
def test_the_readme_of_a_non_causal_model_has_a_client_that_works(
    packaged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = packaged("bidirectional")
    (filled,) = run_program(built.repository, monkeypatch)
    scorer = ModelScorer(built.run.model)
    tokens = built.run.tokenizer.encode("the ")
    tokens[1] = scorer.mask_token
    logits, _ = scorer.logits(tokens[:, None], scorer.init_state(1))
    assert filled == built.run.tokenizer.decode(logits[:, 0].argmax(-1))


def test_what_triton_cannot_serve_is_refused(packaged: Any, tmp_path: Path) -> None:
    files = packaged("rnn").files
    packager = TritonPackager(zoo.load_registry())
    generate = files["generate"]
    old = Exported(generate.path, generate.info.model_copy(update={"format": "1"}))
    with pytest.raises(UsageError, match="one temperature for all rows"):
        packager.write([files["step"], old], tmp_path)
    other = Exported(generate.path, generate.info.model_copy(update={"graph": "beam"}))
    with pytest.raises(UsageError, match=r"'beam' graph"):
        packager.write([other], tmp_path)
    with pytest.raises(UsageError, match=r"\.onnx files"):
        packager.write([Exported(Path("step.tflite"), generate.info)], tmp_path)
    assert not list(tmp_path.iterdir())


def test_large_models_may_use_all_cores(tmp_path: Path) -> None:
    file = synthetic(tmp_path, {"h": np.zeros(2, np.float32)})
    proto = onnx.load(file.path)
    assert "intra_op_thread_count" in config(proto, file.info, size=2**21)
    assert "intra_op_thread_count" not in config(proto, file.info, size=2**21 + 1)
