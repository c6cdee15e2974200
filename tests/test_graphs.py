"""The generation loop and whole sequences as exported graphs, in every precision, against PyTorch,
NumPy and onnx's reference evaluator."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import zoo
from zoo.cli import run as zoo_run
from zoo.config import Sampling
from zoo.errors import ArtifactError, NoStepError, UnknownNameError, UsageError, VerificationError
from zoo.exporting.parity import SAMPLINGS, SHORT_PIECES, prove_generate, prove_sequence, prove_step
from zoo.exporting.text_comparison import compare_texts
from zoo.inference.cpu import usable_cores
from zoo.inference.engine import Engine, Scorer, Stepper
from zoo.models.torch_engine import ModelStepper
from zoo_ort.device_loop import DeviceEngine
from zoo_ort.engines import CHUNK, GenerateEngine
from zoo_ort.tuning import fastest_threads, usual_threads

# gru-scratch has products with weights only; retnet also products of states, and a counter
SLOW = ("gru-scratch", "retnet", "rnn", "gru", "lru", "mamba", "gated-deltanet", "slstm")
SLOW_MARKS = (pytest.mark.slow, pytest.mark.rotates("name", SLOW))
CELLS = ["lstm", *(pytest.param(name, marks=SLOW_MARKS) for name in SLOW)]
OLDEST = ["rnn-scratch", "rnn", "gru-scratch", "gru", "lstm-scratch", "lstm"]
Train = Callable[..., zoo.Run]


@pytest.fixture(scope="module")
def exported(trained: Train, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with all graphs of a small model of a cell, in fp32 and int8."""
    folders: dict[tuple[str, int, str], Path] = {}

    def export(cell: str, layers: int = 2, operators: str = "auto") -> Path:
        nonlocal folders
        key = cell, layers, operators
        if key not in folders:
            folder = folders[key] = tmp_path_factory.mktemp(cell)
            run = trained(cell, layers=layers, epochs=2)
            for precision in ("fp32", "int8"):
                files = zoo.export_all(
                    run, precision=precision, out=folder, max_loss=1.0, operators=operators
                )
            if all(file.info.operators == "standard" for file in files):
                folders |= {(cell, layers, each): folder for each in ("auto", "standard")}
        return folders[key]

    return export


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs within it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


def constants_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The constants of a graph and of the graphs within it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from constants_of(attribute.g)


def feeds_of(file: Path, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    info = zoo.open_source(file).info
    return dict(zip(info.state_names("in"), state.values(), strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_generate_in_the_reference_evaluator(
    name: str, trained: Train, exported: Callable[..., Path]
) -> None:
    """onnx's reference evaluator shares no code with ONNX Runtime; the expected tokens are sampled
    in NumPy."""
    file = exported(name, operators="standard") / "generate.onnx"
    onnx.checker.check_model(str(file), full_check=True)
    stepper, evaluator = ModelStepper(trained(name, layers=2, epochs=2).model), None
    evaluator = ReferenceEvaluator(str(file))
    rng = np.random.default_rng(0)
    for each in zip(SAMPLINGS, [*SAMPLINGS[1:], SAMPLINGS[0]], strict=True):
        state = stepper.init_state(2)
        last = rng.integers(0, stepper.vocab_size, 2)
        uniform = rng.random((12, 2), dtype=np.float32)
        found, *leaves = evaluator.run(
            None,
            {
                "token": last,
                **feeds_of(file, stepper.state_to_arrays(state)),
                "uniform": uniform,
                "temperature": np.array([own.temperature for own in each], np.float32),
                "top_k": np.array([own.top_k for own in each]),
                "top_p": np.array([own.top_p for own in each], np.float32),
            },
        )
        wanted, end = stepper.write(last, state, uniform, each)
        assert found.tolist() == wanted.tolist()
        for leaf, other in zip(leaves, stepper.state_to_arrays(end).values(), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*CELLS, pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_sequence_in_the_reference_evaluator(
    name: str, trained: Train, exported: Callable[..., Path]
) -> None:
    file = exported(name, operators="standard") / "sequence.onnx"
    onnx.checker.check_model(str(file), full_check=True)
    model = trained(name, layers=2, epochs=2).model.eval()
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, (3, 17))
    with torch.no_grad():
        wanted, end = model(torch.from_numpy(tokens).T)
    from zoo.models.torch_engine import ModelScorer

    scorer = ModelScorer(model)
    state = scorer.state_to_arrays(scorer.init_state(3))
    found, *leaves = ReferenceEvaluator(str(file)).run(
        None, {"tokens": tokens, **feeds_of(file, state)}
    )
    np.testing.assert_allclose(found, wanted.transpose(0, 1), rtol=0, atol=1e-4)
    for leaf, other in zip(leaves, scorer.state_to_arrays(end).values(), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0, atol=1e-4)


def test_the_interfaces_are_the_documented_ones(exported: Callable[..., Path]) -> None:
    folder = exported("lstm", layers=1)

    def interface(name: str) -> tuple[list[str], list[str]]:
        graph = onnx.load(str(folder / name)).graph

        def shapes(values: object) -> list[str]:
            return [
                f"{value.name} {onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)} "
                f"{[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]}"
                for value in values
            ]

        return shapes(graph.input), shapes(graph.output)

    vocab = zoo.open_source(folder / "step.onnx").tokenizer.vocab_size
    states = ["state_00_layer0_h", "state_01_layer0_c"]
    before = [f"{name}_in FLOAT ['batch', 24]" for name in states]
    after = [f"{name}_out FLOAT ['batch', 24]" for name in states]
    settings = [
        "uniform FLOAT ['steps', 'batch']", "temperature FLOAT ['batch']",
        "top_k INT64 ['batch']", "top_p FLOAT ['batch']",
    ]  # fmt: skip
    for precision in ("", ".int8"):
        assert interface(f"generate{precision}.onnx") == (
            ["token INT64 ['batch']", *before, *settings],
            ["tokens INT64 ['steps', 'batch']", *after],
        )
        assert interface(f"sequence{precision}.onnx") == (
            ["tokens INT64 ['batch', 'time']", *before],
            [f"logits FLOAT ['batch', 'time', {vocab}]", *after],
        )


def test_only_the_recurrence_is_in_the_loop(exported: Callable[..., Path]) -> None:
    """One product in each Scan of `sequence`: the input's product and the output head are
    outside."""
    graph = onnx.load(str(exported("lstm") / "sequence.onnx")).graph
    scans = [node for node in graph.node if node.op_type == "Scan"]
    assert len(scans) == 2
    for scan in scans:
        (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
        assert [node.op_type for node in body.node].count("MatMul") == 1
    # layer 1's input and the output head; layer 0's input is looked up
    assert [node.op_type for node in graph.node].count("MatMul") == 2


@pytest.mark.parametrize("name", CELLS)
def test_int8_replaces_every_product_with_weights(name: str, exported: Callable[..., Path]) -> None:
    for graph in ("step", "generate", "sequence"):
        model = onnx.load(str(exported(name) / f"{graph}.int8.onnx"))
        assert "MatMulInteger" in onnx.printer.to_text(model)
        # a product with ones and zeros is a sum
        weights = {
            tensor.name
            for tensor in constants_of(model.graph)
            if not np.isin(onnx.numpy_helper.to_array(tensor), (0, 1)).all()
        }
        for node in nodes_of(model.graph):
            # the remaining products are of two computed matrices
            assert node.op_type not in ("MatMul", "Gemm") or not weights & {*node.input}


@pytest.mark.parametrize("name", CELLS)
def test_batch_rows_of_int8_files_are_independent(name: str, exported: Callable[..., Path]) -> None:
    """A row gives the same tokens alone and in a batch with 31 others."""
    engine = zoo.open_source(exported(name) / "generate.int8.onnx").engine
    rng = np.random.default_rng(0)
    last = rng.integers(0, engine.vocab_size, 32)
    uniform = rng.random((300, 32), dtype=np.float32)
    sampling = Sampling(temperature=1.0)
    together, _ = engine.write(last, engine.init_state(32), uniform, sampling)
    for row in (0, 7, 31):
        part = slice(row, row + 1)
        alone, _ = engine.write(last[part], engine.init_state(1), uniform[:, part], sampling)
        assert alone[:, 0].tolist() == together[:, row].tolist()


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_the_same_seed_gives_the_same_text_in_every_runtime_and_graph(
    sampling: Sampling, trained: Train, exported: Callable[..., Path]
) -> None:
    run, folder = trained("gru", layers=2, epochs=2), exported("gru")
    settings = sampling.model_dump()
    texts = {
        zoo.generate(source, "the fox ", length=3 * CHUNK + 5, seed=11, **settings)
        for source in (run.path, *(folder / f"{g}.onnx" for g in ("step", "generate", "sequence")))
    }
    assert len(texts) == 1


def test_a_session_is_at_its_last_token_across_chunks(
    trained: Train, exported: Callable[..., Path]
) -> None:
    """The generate graph runs ahead; unconsumed look-ahead tokens are discarded."""
    hot = {"temperature": 1.0}
    ahead = zoo.Session(exported("lstm") / "generate.onnx", seed=3)
    single = zoo.Session(trained("lstm", layers=2, epochs=2).path, seed=3)
    for session in (ahead, single):
        session.feed("the ")
    for taken in (1, CHUNK - 1, CHUNK, CHUNK + 1, 5):
        pieces = [session.stream(200, **hot) for session in (ahead, single)]
        texts = ["".join(next(stream) for _ in range(taken)) for stream in pieces]
        assert texts[0] == texts[1]
        assert ahead.fork().sample(9, **hot) == single.fork().sample(9, **hot)
    ahead.feed("dog")
    single.feed("dog")
    assert ahead.sample(40, **hot) == single.sample(40, **hot)
    # an interrupted stream continues from the session's current state
    stream = ahead.stream(50, **hot)
    first = next(stream)
    other = ahead.sample(3, **hot)
    rest = "".join(stream)
    assert first + other + rest == single.sample(53, **hot)


def test_stops(trained: Train, exported: Callable[..., Path]) -> None:
    run, file = trained("gru", layers=2, epochs=2), exported("gru") / "generate.onnx"
    whole = zoo.generate(run.path, "the ", length=200, temperature=1.0, seed=2)
    index = whole.index("o", len("the ") + 40)
    stop = whole[index - 3 : index + 1]
    ended = whole[: whole.index(stop, len("the ")) + len(stop)]
    token = int(run.tokenizer.encode(stop[-1])[0])
    for source in (run.path, file):
        given = {"length": 200, "temperature": 1.0, "seed": 2}
        assert zoo.generate(source, "the ", stop=[stop], **given) == ended
        short = zoo.generate(source, "the ", stop=[token], **given)
        assert short == whole[: whole.index(stop[-1], len("the ")) + 1]
        session = zoo.Session(source, seed=2)
        session.feed("the ")
        assert "the " + session.sample(200, stop=[stop], temperature=1.0) == ended
        following = whole[len(ended) : len(ended) + 20]
        assert session.sample(20, temperature=1.0) == following
    with pytest.raises(UsageError, match="stop string is empty"):
        zoo.generate(file, "the ", stop=[""])
    assert zoo_run(["generate", str(file), "--prompt", "the ", "--stop", ""]) == 2


def test_a_batch_of_prompts_gives_the_texts_of_single_prompts(
    trained: Train, exported: Callable[..., Path]
) -> None:
    prompts = ["the ", "a", "the quick brown fox jumps", "dog", "the "]
    for source in (
        trained("lstm", layers=2, epochs=2).path,
        exported("lstm") / "generate.onnx",
        exported("lstm") / "sequence.onnx",
    ):
        given = {"length": 2 * CHUNK + 3, "temperature": 1.0, "stop": ["x", "q"]}
        together = zoo.generate_batch(source, prompts, seed=5, **given)
        alone = [
            zoo.generate(source, prompt, seed=5 + row, **given)
            for row, prompt in enumerate(prompts)
        ]
        assert together == alone
    assert zoo.generate_batch(source, [], length=3) == []
    assert zoo.generate_batch(source, ["the"], length=0) == ["the"]
    with pytest.raises(UsageError, match="the prompt is empty"):
        zoo.generate_batch(source, ["the", ""])


def test_scores_agree_with_a_computation_in_pytorch(
    trained: Train, exported: Callable[..., Path], text_file: Path
) -> None:
    run, folder = trained("lstm", layers=2, epochs=2), exported("lstm")
    scores = [
        zoo.score(source, str(text_file), last=0.2)
        for source in (run.path, folder / "step.onnx", folder / "sequence.onnx")
    ]
    for score in scores[1:]:
        assert score.nats_per_token == pytest.approx(scores[0].nats_per_token, abs=1e-5)
    # by hand, in PyTorch: one stream from the initial state
    ids = run.tokenizer.encode(text_file.read_text())
    ids = torch.from_numpy(ids[len(ids) - round(len(ids) * 0.2) :])
    with torch.no_grad():
        logits, _ = run.model.eval()(ids[:-1, None])
    nats = torch.nn.functional.cross_entropy(logits[:, 0].double(), ids[1:])
    assert scores[0].nats_per_token == pytest.approx(float(nats), rel=1e-6)
    assert scores[0].tokens == len(ids) - 1
    assert scores[0].bits_per_token == pytest.approx(float(nats) / np.log(2), rel=1e-6)
    assert scores[0].nats_per_char == scores[0].nats_per_token  # one token a character
    assert scores[0].perplexity == pytest.approx(np.exp(float(nats)), rel=1e-6)
    with pytest.raises(UsageError, match="a generate graph gives tokens and no probabilities"):
        zoo.score(folder / "generate.onnx", str(text_file))
    for last in (0, 1.5):
        with pytest.raises(UsageError, match="last must be above 0"):
            zoo.score(run.path, str(text_file), last=last)


def test_a_uniform_model_has_the_vocabulary_size_as_perplexity(
    trained: Train, text_file: Path
) -> None:
    run = zoo.load(trained("gru", epochs=1).path)
    with torch.no_grad():
        run.model.head.weight.zero_()
        run.model.head.bias.zero_()
    source = zoo.inference.Source(ModelStepper(run.model), run.tokenizer, "", "PyTorch")
    assert zoo.score(source, str(text_file)).perplexity == pytest.approx(run.tokenizer.vocab_size)


@pytest.mark.slow
def test_scores_of_bidirectional_models(
    trained: Train, exported: Callable[..., Path], text_file: Path
) -> None:
    run = trained("bidirectional", layers=2, epochs=2)
    file = exported("bidirectional") / "sequence.onnx"
    one, other = zoo.score(run.path, str(text_file)), zoo.score(file, str(text_file))
    assert one.nats_per_token == pytest.approx(other.nats_per_token, abs=1e-5)
    assert one.tokens == other.tokens < len(text_file.read_text()) * 0.2
    assert (
        zoo.fill(file, "the d_g").masked[0].candidates[0][0]
        == (zoo.fill(run.path, "the d_g").masked[0].candidates[0][0])
    )
    with pytest.raises(NoStepError):
        zoo.generate(file)


@pytest.mark.slow
def test_a_folder_reads_long_prompts_with_its_sequence_graph(
    exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The text is the same with and without the sequence graph; with it, the step graph does not
    read the prompt. A file given by name is used without the others in its folder."""
    folder = exported("gru")
    prompt = "the quick brown fox jumps over the lazy dog " * 4
    steps = []
    run = GenerateEngine._run

    def counting(self, tokens, state, shape, **feeds):  # type: ignore[no-untyped-def]
        steps.append(shape[0])
        return run(self, tokens, state, shape, **feeds)

    monkeypatch.setattr(GenerateEngine, "_run", counting)
    alone = zoo.generate(folder / "generate.onnx", prompt, length=20, temperature=1.0)
    assert steps == [1] * (len(prompt) - 1) + [20]
    steps.clear()
    assert zoo.generate(folder, prompt, length=20, temperature=1.0) == alone
    assert steps == [20]
    # a sequence graph of another precision is not used
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "generate.onnx", other)
    shutil.copy(folder / "sequence.int8.onnx", other / "sequence.onnx")
    steps.clear()
    assert zoo.generate(other, prompt, length=20, temperature=1.0) == alone
    assert len(steps) == len(prompt)


def test_opening_a_file_writes_no_files(trained: Train, tmp_path: Path) -> None:
    """Also for a file of more than 2 MiB, with any choice of threads."""
    run = trained("gru", hidden=512, epochs=1)
    file = zoo.export(run, graph="generate", out=tmp_path).path
    assert file.stat().st_size > 2**21
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    texts = [
        zoo.generate(zoo.open_source(source, threads=threads), "the ", length=9)
        for source, threads in [(file, None), (file, 2), (file, "measure"), (tmp_path, "measure")]
    ]
    assert texts == [texts[0]] * 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("size", "threads"), [(0, 1), (2**21, 1), (2**21 + 1, 2), (5 * 2**20, 3), (2**40, 10**6)]
)
def test_threads_for_each_two_mebibytes(size: int, threads: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    assert usual_threads(file) == min(threads, usable_cores())


def test_measured_threads_are_the_fastest(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(2**22))
    for fastest in (1, usable_cores()):
        speed = {fastest: 2.0}
        assert fastest_threads(file, lambda _, n, speed=speed: speed.get(n, 1.0)) == fastest


@pytest.mark.parametrize("threads", [0, -1, True, "two", 1.5])
def test_an_invalid_number_of_threads_is_an_error(threads: object, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    with pytest.raises(UsageError, match="threads must be a number of 1 or more"):
        zoo.open_source(tmp_path, threads=threads)  # type: ignore[arg-type]


def test_threads_are_not_an_option_of_run_folders(trained: Train) -> None:
    with pytest.raises(UsageError, match="set_num_threads"):
        zoo.open_source(trained("gru", layers=2, epochs=2).path, threads=1)


def test_a_folder_of_files_is_a_source(exported: Callable[..., Path], tmp_path: Path) -> None:
    folder = exported("lstm")
    text = zoo.generate(folder / "step.onnx", "the ", length=40, temperature=1.0)
    assert zoo.generate(folder, "the ", length=40, temperature=1.0) == text
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, source in (("step.onnx", folder), ("generate.onnx", exported("gru"))):
        (mixed / name).write_bytes((source / name).read_bytes())
    with pytest.raises(ArtifactError, match="holds files of several models"):
        zoo.open_source(mixed)


@pytest.mark.slow
def test_export_all_and_verify_each(
    trained: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = trained("gru", layers=2, epochs=2)
    out = str(tmp_path / "out")
    assert zoo_run(["export", str(run.path), "--graph", "all", "--out", out]) == 0
    files = capsys.readouterr().out.splitlines()
    assert files == [f"{out}/{name}.onnx" for name in ("step", "generate", "sequence")]
    arguments = ["--graph", "all", "--precision", "int8", "--max-loss", "1", "--out", out]
    assert zoo_run(["export", str(run.path), *arguments]) == 0
    out_text, err = capsys.readouterr()
    assert "the precision costs +0.0" in err or "the precision costs -0.0" in err
    for file in [*files, *out_text.splitlines()]:
        given = ["--length", "40", "--seeds", "1", "--max-loss", "1"]
        assert zoo_run(["verify", file, "--against", str(run.path), *given]) == 0, file
        assert "proved over" in capsys.readouterr().out


def test_a_precision_that_costs_too_much_is_refused(trained: Train, tmp_path: Path) -> None:
    run = zoo.load(trained("lstm", epochs=1).path)
    hidden = run.model.config.hidden
    with torch.no_grad():  # a unit that is always zero, whose weights set the scale
        run.model.stack.cells[0].rnn.bias_ih_l0[3 * hidden] = -1e4  # its output gate
        run.model.head.weight[:, 0] = 500.0
    with pytest.raises(VerificationError, match=r"step.int8.onnx was not written: its precision"):
        zoo.export(run, precision="int8", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UnknownNameError, match="precision 'int4' is not in the zoo"):
        zoo.export(run, precision="int4")


def test_half_precision(trained: Train, tmp_path: Path) -> None:
    run = trained("gru", layers=2, epochs=2)
    exported = zoo.export_all(run, precision="fp16", out=tmp_path)
    assert [item.path.name for item in exported] == [
        "step.fp16.onnx", "generate.fp16.onnx", "sequence.fp16.onnx",
    ]  # fmt: skip
    for item in exported:
        assert abs(item.info.proof.cost_bits) < 0.001
        large = [
            tensor
            for tensor in constants_of(onnx.load(str(item.path)).graph)
            if len(tensor.dims) == 2
        ]
        assert {tensor.data_type for tensor in large} == {onnx.TensorProto.FLOAT16}


def test_engines_implement_the_protocols_of_their_graph(exported: Callable[..., Path]) -> None:
    engines = {
        graph: zoo.open_source(exported("lstm") / f"{graph}.onnx").engine
        for graph in ("step", "generate", "sequence")
    }
    assert [isinstance(engines[g], Engine) for g in engines] == [True, True, True]
    assert [isinstance(engines[g], Stepper) for g in engines] == [True, False, True]
    assert [isinstance(engines[g], Scorer) for g in engines] == [True, False, True]


class WrongState(GenerateEngine):
    def write(self, last, state, uniform, sampling):  # type: ignore[no-untyped-def]
        tokens, state = super().write(last, state, uniform, sampling)
        return tokens, tuple(leaf + 0.001 * (len(uniform) == 1) for leaf in state)


class WrongToken(GenerateEngine):
    def write(self, last, state, uniform, sampling):  # type: ignore[no-untyped-def]
        tokens, state = super().write(last, state, uniform, sampling)
        last_row = sampling if isinstance(sampling, Sampling) else sampling[-1]
        tokens[0, -1] = (tokens[0, -1] + (last_row.top_p < 1)) % self.vocab_size
        return tokens, state


class StateOfTheNext(GenerateEngine):
    """Returns a state that has read the last token too, when it writes many."""

    def write(self, last, state, uniform, sampling):  # type: ignore[no-untyped-def]
        tokens, state = super().write(last, state, uniform, sampling)
        if len(uniform) > 1:
            _, state = super().write(tokens[-1], state, uniform[:1], sampling)
        return tokens, state


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (WrongState, r"layer0\.h differs by .* at step 0 of 256, at batch size 1"),
        (WrongToken, r"tokens has \d+ and should have \d+, which was clear by .* at step 3 of"),
        (StateOfTheNext, r"layer0\.h differs by .* after 37 steps in one run"),
    ],
)
def test_the_proof_of_the_loop_finds_each_fault(
    wrong: type[GenerateEngine], message: str, trained: Train, exported: Callable[..., Path]
) -> None:
    right = zoo.open_source(exported("gru") / "generate.onnx")
    reference = ModelStepper(trained("gru", layers=2, epochs=2).model)
    assert prove_generate(reference, right.engine).ties <= 1
    engine = wrong(right.engine.session, right.info, lambda: None)
    with pytest.raises(VerificationError, match=message):
        prove_generate(reference, engine)


def test_the_proof_of_sequences_finds_each_fault(
    trained: Train, exported: Callable[..., Path]
) -> None:
    engine = zoo.open_source(exported("gru") / "sequence.onnx").engine
    reference = ModelStepper(trained("gru", layers=2, epochs=2).model)
    assert prove_sequence(reference, engine).difference < 1e-5

    class Late(type(engine)):  # type: ignore[misc]
        def logits(self, tokens, state):  # type: ignore[no-untyped-def]
            logits, state = super().logits(tokens, state)
            logits[100:] += 0.001
            return logits, state

    wrong = Late(engine.session, zoo.open_source(exported("gru") / "sequence.onnx").info)
    with pytest.raises(VerificationError, match=r"logits differs by .* over steps 198 to 455"):
        prove_sequence(reference, wrong)


def test_the_device_loop_equals_the_step_loop(exported: Callable[..., Path]) -> None:
    """CUDA's buffers and bindings, on the CPU: it writes the tokens of the step loop."""
    path = exported("lstm") / "step.onnx"
    source = zoo.open_source(path)
    device = DeviceEngine(source.engine.session, source.info, path.read_bytes(), "cpu")
    rng = np.random.default_rng(0)
    for batch_size in (1, 3, 1):
        states = [engine.init_state(batch_size) for engine in (device, source.engine)]
        last = rng.integers(0, device.vocab_size, batch_size)
        kept = None
        for size, sampling in zip((1, 7, CHUNK, 2 * CHUNK + 1, 4), SAMPLINGS, strict=True):
            uniform = rng.random((size, batch_size), dtype=np.float32)
            kept = kept or (last, states[0], uniform, sampling)
            found, states[0] = device.write(last, states[0], uniform, sampling)
            wanted, states[1] = source.engine.write(last, states[1], uniform, sampling)
            assert found.tolist() == wanted.tolist()
            for one, other in zip(*states, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
            last = wanted[-1]
        # an older state is still valid
        again, _ = device.write(*kept)
        assert again.tolist() == source.engine.write(*kept)[0].tolist()


@pytest.mark.slow
@pytest.mark.rotates("name", OLDEST)
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", OLDEST)
def test_ten_thousand_tokens_with_twenty_seeds(
    name: str, trained: Train, exported: Callable[..., Path]
) -> None:
    """PyTorch, step loop and generate graph: 200,000 tokens, equal except for ties."""
    run, folder = trained(name, layers=2, epochs=2), exported(name)
    engines = [zoo.open_source(folder / f"{graph}.onnx").engine for graph in ("step", "generate")]
    reference = ModelStepper(run.model)
    sampling, length = Sampling(temperature=1.0), 10_000
    prompt = run.tokenizer.encode("the ")
    for engine in engines:
        ties = []
        for seed in range(20):
            ties += compare_texts(reference, engine, prompt, length, sampling, seed)
        assert all(tie.is_tie for tie in ties)
        assert len(ties) <= 4


def test_a_bidirectional_model_from_pytorch(tmp_path: Path, text_file: Path) -> None:
    """It has no mask token, and is not taken for a causal one."""
    from zoo.data.tokenizers import CharTokenizer

    torch.manual_seed(0)
    tokenizer = CharTokenizer.from_text(text_file.read_text())
    rnn = torch.nn.GRU(tokenizer.vocab_size, 8, bidirectional=True)
    head = torch.nn.Linear(16, tokenizer.vocab_size)
    model = zoo.LanguageModel.from_torch(None, rnn, head, tokenizer)
    run = zoo.save(model, tokenizer, tmp_path / "r")
    (exported,) = zoo.export_all(run)
    assert exported.path.name == "sequence.onnx"
    (small,) = zoo.export_all(run, precision="int8", max_loss=1.0)
    assert small.info.proof.cost_bits is not None
    for source in (run.path, exported.path, exported.path.parent):
        with pytest.raises(NoStepError):
            zoo.generate(source, "the")
        with pytest.raises(UsageError, match="trained without a mask token"):
            zoo.score(source, str(text_file))
        with pytest.raises(UsageError, match="trained without a mask token"):
            zoo.fill(source, "th_")


def give_gain(run: zoo.Run, gain: float) -> None:
    """Sets random recurrent weights of an `rnn`; a larger gain amplifies rounding more."""
    torch.manual_seed(0)
    with torch.no_grad():
        for cell in run.model.stack.cells:
            weight = cell.rnn.weight_hh_l0
            weight.copy_(torch.randn(weight.shape) * gain / len(weight) ** 0.5)


@pytest.mark.slow
def test_a_sequence_may_differ_by_as_much_as_rounding_is_amplified(
    trained: Train, tmp_path: Path
) -> None:
    """Its float32 and float64 runs differ by 1e-5 to 1e-3: long sequences may differ by as much."""
    run = zoo.load(trained("rnn").path)
    gap = 0.0
    for gain in (1.0, 1.2, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0):
        give_gain(run, gain)
        exported = zoo.export_all(run, out=tmp_path / str(gain))
        gap = exported[0].info.proof.float64_gap
        if gap > 1e-5:
            break
    assert gap > 1e-5


@pytest.mark.slow
def test_amplification_is_measured_over_the_compared_length(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the proof's tokens this model is stable. Over the compared ones it amplifies rounding,
    so that its texts may differ."""
    run = zoo.load(trained("rnn", layers=2, epochs=2).path)
    give_gain(run, 3)
    monkeypatch.setattr("zoo.exporting.staging.AMPLIFYING_STEPS", 3)
    monkeypatch.setattr("zoo.exporting.parity.PIECES", SHORT_PIECES)  # without the longer sequences
    exported = zoo.export(run, out=tmp_path)
    assert not exported.info.proof.amplifies
    result = zoo.verify(exported.path, run, length=600, seeds=2, temperature=1.0)
    assert any(not difference.is_tie for _, _, found in result.texts for difference in found)


def test_scores_of_a_folder(exported: Callable[..., Path], text_file: Path) -> None:
    folder = exported("lstm")
    wanted = zoo.score(folder / "sequence.onnx", str(text_file), last=0.1)
    assert zoo.score(folder, str(text_file), last=0.1) == wanted


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_steps_of_a_model_that_amplifies(trained: Train, tmp_path: Path) -> None:
    """Its texts may differ, but its single steps may not."""
    run = zoo.load(trained("rnn", layers=2, epochs=2).path)
    give_gain(run, 3)
    files = {item.info.graph: item for item in zoo.export_all(run, out=tmp_path)}
    assert files["step"].info.proof.amplifies
    reference = ModelStepper(run.model.eval())
    step, generate, sequence = (
        zoo.open_source(files[graph].path).engine for graph in ("step", "generate", "sequence")
    )
    assert prove_step(reference, step, steps=10_000).difference < 1e-5
    assert prove_generate(reference, generate, steps=10_000).difference < 1e-5
    gap = files["step"].info.proof.float64_gap
    assert prove_sequence(reference, sequence, steps=10_000, gap=gap).difference < 1e-5
