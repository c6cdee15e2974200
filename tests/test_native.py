"""The examples that generate text outside Python, in Node and in C: the same seed gives the same
text as `zoo.generate`, from files of many kinds; mistakes are one line."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import zoo
from zoo.data.tokenizers import BPETokenizer
from zoo_ort.container import digest, metadata_entry

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
LARGEST = 2**63 - 1

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("native")]  # they are built once

Program = list[str | Path]


def run(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=120)


def require(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def require_done(what: str, done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode:
        pytest.skip(f"{what}: {done.stderr.decode(errors='replace').strip()[-200:]}")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Program:
    require("node", "npm")
    folder = tmp_path_factory.mktemp("node")
    for file in (EXAMPLES / "node").glob("*.*"):
        shutil.copy(file, folder)
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"]
    done = run("npm", "install", "--ignore-scripts", *quiet, folder=folder)
    require_done("npm cannot install onnxruntime-node", done)
    return ["node", folder / "generate.mjs"]


@pytest.fixture(scope="session")
def c(tmp_path_factory: pytest.TempPathFactory) -> Program:
    require("gcc")
    folder = tmp_path_factory.mktemp("c")
    libraries = list((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this onnxruntime has its library in another form")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    flags = ["-std=c17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", header_folder(folder)]
    linked = ["-L", folder, "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    source = EXAMPLES / "c" / "generate.c"
    done = run("gcc", *flags, source, *linked, "-o", folder / "generate")
    assert done.returncode == 0, done.stderr.decode()
    return [folder / "generate"]


def header_folder(folder: Path) -> Path:
    """Where ONNX Runtime's C header is: that of a newer Debian if it is not installed here."""
    given = os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime")
    if (Path(given) / "onnxruntime_c_api.h").is_file():
        return Path(given)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("onnxruntime_c_api.h is not here; ONNXRUNTIME_INCLUDE says where it is")
    query = ["--format", "$(REPO_URI)", "Identifier: Packages", "Label: Debian"]
    archives = run("apt-get", "indextargets", *query).stdout.decode().split()
    if not archives:
        pytest.skip("onnxruntime_c_api.h is not here, and apt-get has no archive of Debian")
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "archives" / "partial").mkdir(parents=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={keys}] {archives[0]} trixie main\n", "utf-8")
    places = {"etc::sourcelist": sources, "etc::sourceparts": "-", "cache": folder}
    places |= {"state::lists": folder / "lists"}
    options = [f"-oDir::{name}={place}" for name, place in places.items()]
    package = "libonnxruntime-dev"
    for command in (["update"], ["download", package]):
        done = run("apt-get", *options, "-oAPT::Sandbox::User=root", *command, folder=folder)
        require_done("apt-get cannot get onnxruntime_c_api.h", done)
    (file,) = folder.glob(f"{package}*.deb")
    require_done("dpkg", run("dpkg", "--extract", file, folder / "header"))
    return folder / "header" / "usr" / "include" / "onnxruntime"


@pytest.fixture(scope="session", params=["node", "c"])
def program(request: pytest.FixtureRequest) -> Program:
    found: Program = request.getfixturevalue(request.param)
    return found


def written(program: Program, file: Path, **settings: Any) -> str:
    """What the program writes, without the end of the line. The example in C leaves it to the
    terminal to replace bytes that are no UTF-8."""
    flags = [f"--{name.replace('_', '-')}" for name in settings]
    values = [str(value) for value in settings.values()]
    options = [part for pair in zip(flags, values, strict=True) for part in pair]
    done = run(*program, file, *options)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"\n")
    return done.stdout[:-1].decode(errors="replace")


SAMPLINGS: list[dict[str, Any]] = [
    {"length": 100},
    {"length": 2000, "temperature": 1, "seed": 2},
    {"length": 100, "temperature": 1.5, "top_k": 5, "seed": 0},
    {"length": 33, "temperature": 2.5, "top_p": 0.7, "seed": LARGEST},
    {"length": 64, "temperature": 0.7, "top_k": 7, "top_p": 0.9, "seed": 2**32 + 5},
]


def assert_same(program: Program, file: Path, samplings: list[dict[str, Any]], prompt: str) -> None:
    """Texts are the zoo's, and not all the same."""
    texts = []
    for settings in samplings:
        texts.append(written(program, file, prompt=prompt, **settings))
        assert texts[-1] == zoo.generate(file, prompt, **settings)
    assert len(set(texts)) == len(samplings)


@pytest.fixture(scope="session")
def exported(trained: Callable[..., zoo.Run]) -> Callable[..., Path]:
    """Exports the generate graph of a model, once for each precision. After one epoch a model is
    not sure of anything, so texts show all random numbers."""

    @cache
    def export(cell: str = "lstm", precision: str = "fp32") -> Path:
        run = trained(cell, epochs=1)
        return zoo.export(run, "generate", precision, max_loss=float("inf")).path

    return export


@pytest.fixture(scope="session")
def bytes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of bytes and ends of texts: 257 tokens."""
    folder = tmp_path_factory.mktemp("bytes")
    lines = [json.dumps({"text": f"größer → {number} 🦊"}) for number in range(300)]
    (folder / "text.jsonl").write_text("\n".join(lines), "utf-8")
    kind = {"tokenizer": "byte", "documents": True}
    sizes = {"hidden": 8, "epochs": 1, "steps": 8, "batch_size": 8, "max_tokens": 4000}
    run = zoo.train(str(folder / "text.jsonl"), cell="gru", out=folder / "run", **kind, **sizes)
    return zoo.export(run, "generate").path


@pytest.mark.parametrize("cell", ["lstm", "retnet"])  # retnet's state has an int64
def test_texts_are_those_of_the_zoo(
    exported: Callable[..., Path], program: Program, cell: str
) -> None:
    assert_same(program, exported(cell), SAMPLINGS, "the dog ")


def test_a_file_in_int8(exported: Callable[..., Path], program: Program) -> None:
    assert_same(program, exported("lstm", "int8"), SAMPLINGS[::2], "the dog ")


def test_bytes_and_the_ends_of_texts(bytes_file: Path, program: Program) -> None:
    """At a high temperature there are bytes that are no UTF-8, and texts end early."""
    settings = [{"length": 700, "temperature": 30, "seed": seed} for seed in range(4)]
    assert_same(program, bytes_file, [*settings, {"length": 40}], "größer 🦊")
    texts = [zoo.generate(bytes_file, "größer 🦊", **each) for each in settings]
    assert any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
    assert min(map(len, texts)) < 300


def test_subwords_in_node(bytes_file: Path, node: Program, tmp_path: Path) -> None:
    tokenizer = {"kind": "bpe", "merges": ["Ġ t"], "words": "bounded"}
    file = changed(bytes_file, tmp_path / "bpe.onnx", tokenizer=tokenizer)
    settings = [{"length": 300, "temperature": 30, "seed": seed} for seed in range(2)]
    assert_same(node, file, [*settings, {"length": 40}], "the  töst 🦊")


def test_what_c_does_not_read(
    exported: Callable[..., Path], bytes_file: Path, c: Program, tmp_path: Path
) -> None:
    tokenizer = {"kind": "bpe", "merges": ["Ġ t"], "words": "bounded"}
    file = changed(bytes_file, tmp_path / "bpe.onnx", tokenizer=tokenizer)
    done = run(*c, file, "--prompt", "a")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"error: unsupported tokenizer bpe\n"
    done = run(*c, exported(), "--prompt", "the \udcff")  # a byte that is no UTF-8
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: the prompt is empty, or is not UTF-8\n"


def test_characters_of_all_planes(
    exported: Callable[..., Path], program: Program, tmp_path: Path
) -> None:
    """Those that JSON escapes, those of two surrogates, and those that the model never saw."""
    count = len(zoo.open_source(exported()).tokenizer.characters)
    known = '"\\/\b\f\r\t\x01é→🦊\N{REPLACEMENT CHARACTER}\nkind: [{\U0010ffff\ud7ff\ue000'[:count]
    known += "".join(map(chr, range(0x4E00, 0x4E00 + count - len(known))))
    tokenizer = {"kind": "char", "characters": known}
    file = changed(exported(), tmp_path / "characters.onnx", tokenizer=tokenizer)
    with pytest.warns(zoo.ZooWarning, match="never saw"):
        assert_same(program, file, SAMPLINGS[2:], 'é→Z🦊🐙\\"\n')


def test_letters_in_capitals(
    exported: Callable[..., Path], program: Program, tmp_path: Path
) -> None:
    characters = zoo.open_source(exported()).tokenizer.characters
    file = changed(
        exported(),
        tmp_path / "letters.onnx",
        tokenizer={"kind": "letters", "characters": characters},
        training={"prompt": 'Thé "Q'},
    )
    with pytest.warns(zoo.ZooWarning, match="never saw"):
        assert_same(program, file, SAMPLINGS[2:], "A Fox, É")
    with pytest.warns(zoo.ZooWarning, match="never saw"):
        own = zoo.generate(file, length=20)
    assert written(program, file, length=20) == own


@pytest.mark.parametrize("words", ["bounded", "unbounded"])
def test_words_in_node(node: Program, tmp_path: Path, words: str) -> None:
    """Any text has the tokens that the `tokenizers` library gives it."""
    text = "The fox isn't 12345 times  quicker,\n\n  Größe naïve → 🦊🦊 the end.   " * 60
    tokenizer = BPETokenizer.from_text(text, 330).changed(words=words)
    rng = np.random.default_rng(0)
    parts = [
        *"aeßéÀ 'ts\n\t.,-12٣½²🦊→中\u0301\u200d\u00a0\u0085\u2028\ufeff\u3000\x1c\0",
        *("the", "  ", "'ll", "'S", " fox", "0123456", "x" * 40, "-" * 40, " " * 40),
    ]
    texts = ["".join(rng.choice(parts, size)) for size in rng.integers(1, 40, 2000)]
    description = tokenizer.model_dump(mode="json")
    (tmp_path / "given.json").write_text(json.dumps([description, texts]), "utf-8")
    script = """
        import { readFileSync } from "node:fs";
        const [module, file] = process.argv.slice(1);
        const { makeTokenizer } = await import(module);
        const [description, texts] = JSON.parse(readFileSync(file));
        const tokenizer = makeTokenizer(description);
        console.log(JSON.stringify(texts.map(tokenizer.encode)));
    """
    module = Path(node[1]).with_name("tokenizers.mjs")
    command = ["node", "--input-type=module", "-e", script, module, tmp_path / "given.json"]
    done = run(*command)
    assert done.stderr == b""
    assert json.loads(done.stdout) == [tokenizer.encode(text).tolist() for text in texts]


NUMBERS: dict[str, list[float]] = {
    "float16": [-0.3330078125, 2**-24, 65504, 1], "float32": [0.1], "float64": [-0.1, 1e300],
    "bool": [1], "int8": [-3], "int16": [-300], "int32": [-70000], "int64": [-5e9],
    "uint8": [200], "uint16": [60000], "uint32": [4e9], "uint64": [1e19],
}  # fmt: skip


def with_states(file: Path, target: Path) -> Path:
    """A copy of a generate graph with two states more for each dtype and number: one filled with
    it, one of given bytes. Their values, scaled, are added to the first state of the model; they
    are 0 from the first run on."""
    model = onnx.load(file)
    (stored,) = (entry.value for entry in model.metadata_props if entry.key == "zoo.state")
    entries = json.loads(stored)
    graph, own = model.graph, len(entries)
    first = graph.input[1].name
    rename(graph, {first: "first"})
    graph.initializer.append(helper.make_tensor("of_zero", TensorProto.DOUBLE, [], [0]))
    added, nodes, inputs, outputs = first, [], [], []
    rng = np.random.default_rng(0)
    for dtype, numbers in NUMBERS.items():
        for number in numbers:
            row = (rng.random((2, 3)) * number).astype(dtype)
            raw = base64.b64encode(row.tobytes()).decode()
            for shape, initial in ([], float(np.array(number, dtype))), ([2, 3], raw):
                name = f"extra{len(entries)}"
                before, after = (f"state_{len(entries):02}_{name}_{side}" for side in ("in", "out"))
                entries.append({"name": name, "shape": shape, "dtype": dtype, "initial": initial})
                kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
                inputs.append(helper.make_tensor_value_info(before, kind, ["batch", *shape]))
                outputs.append(helper.make_tensor_value_info(after, kind, ["batch", *shape]))
                graph.initializer.append(
                    helper.make_tensor(f"{name}_scale", TensorProto.DOUBLE, [], [1 / number])
                )
                parts = [before, *(f"{name}_{part}" for part in ("cast", "scaled", "sum", "small"))]
                nodes += [
                    helper.make_node("Cast", [before], [parts[1]], to=TensorProto.DOUBLE),
                    helper.make_node("Mul", [parts[1], "of_zero"], [f"{name}_zero"]),
                    helper.make_node("Cast", [f"{name}_zero"], [after], to=kind),
                    helper.make_node("Mul", [parts[1], f"{name}_scale"], [parts[2]]),
                    helper.make_node("ReduceSum", [parts[2]], [parts[3]], keepdims=0),
                    helper.make_node("Cast", [parts[3]], [parts[4]], to=TensorProto.FLOAT),
                    helper.make_node("Add", [added, parts[4]], [f"{name}_added"]),
                ]
                added = f"{name}_added"
    nodes.append(helper.make_node("Identity", [added], ["first"]))
    kept = list(graph.node)
    for field, items in (
        (graph.node, [*nodes, *kept]),
        (graph.input, [*graph.input[: 1 + own], *inputs, *graph.input[1 + own :]]),
        (graph.output, [*graph.output, *outputs]),
    ):
        items = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(items)
    return sealed(model, target, {"zoo.state": json.dumps(entries)})


def with_scalars(file: Path, target: Path) -> Path:
    """A copy of a generate graph in format 1, whose settings are scalars."""
    model = onnx.load(file)
    names = ["temperature", "top_k", "top_p"]
    rename(model.graph, {name: f"{name}_row" for name in names})
    model.graph.initializer.append(helper.make_tensor("first_axis", TensorProto.INT64, [1], [0]))
    for index, name in enumerate(names):
        unsqueeze = helper.make_node("Unsqueeze", [name, "first_axis"], [f"{name}_row"])
        model.graph.node.insert(index, unsqueeze)
    for value in model.graph.input:
        if value.name in names:
            del value.type.tensor_type.shape.dim[:]
    return sealed(model, target, {"zoo.format": "1"})


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Makes all nodes, also those in graphs within, use values of other names."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for attribute in node.attribute:
            rename(attribute.g, names)


def changed(file: Path, target: Path, **metadata: Any) -> Path:
    """A copy with other metadata."""
    changes = {f"zoo.{key}": json.dumps(value) for key, value in metadata.items()}
    return sealed(onnx.load(file), target, changes)


def sealed(model: onnx.ModelProto, target: Path, changes: dict[str, str]) -> Path:
    """Writes a model whose metadata are changed, with a valid digest."""
    metadata = {entry.key: entry.value for entry in model.metadata_props} | changes
    del metadata["zoo.digest"], model.metadata_props[:]
    content = model.SerializeToString()
    content += b"".join(metadata_entry(key, value) for key, value in metadata.items())
    target.write_bytes(content + metadata_entry("zoo.digest", digest(content)))
    return target


def test_states_of_all_dtypes(
    exported: Callable[..., Path], tmp_path: Path, program: Program
) -> None:
    plain = exported()
    file = with_states(plain, tmp_path / "states.onnx")
    assert_same(program, file, SAMPLINGS[1:], "the dog ")
    settings = SAMPLINGS[1]
    assert zoo.generate(file, "the ", **settings) != zoo.generate(plain, "the ", **settings)


def test_a_file_of_format_1(
    exported: Callable[..., Path], tmp_path: Path, program: Program
) -> None:
    file = with_scalars(exported(), tmp_path / "scalars.onnx")
    assert_same(program, file, SAMPLINGS[2:], "the ")


def test_mistakes_are_one_line(
    exported: Callable[..., Path], program: Program, tmp_path: Path
) -> None:
    file = exported()
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    step = sealed(onnx.load(file), tmp_path / "step.onnx", {"zoo.graph": "step"})
    unprompted = changed(file, tmp_path / "unprompted.onnx", training={"prompt": None})
    mistakes: list[tuple[list[str | Path], int, str]] = [
        ([tmp_path / "missing.onnx"], 1, "missing.onnx"),
        ([tmp_path / "text.onnx"], 1, ""),
        ([tmp_path / "empty.onnx"], 1, ""),
        ([step], 1, "generate graph"),
        ([file, "--prompt", ""], 2, "the prompt is empty"),
        ([unprompted], 2, "the prompt is empty"),
        ([file, "--seed", "-1"], 2, "--seed"),
        ([file, "--length", "many"], 2, "--length"),
        ([file, "--top-p", "0"], 2, "--top-p"),
        ([file, "--heat", "1"], 2, "--heat"),
        ([], 2, "usage: "),
    ]
    for arguments, code, said in mistakes:
        done = run(*program, *arguments)
        assert (done.returncode, done.stdout) == (code, b""), arguments
        message = done.stderr.decode()
        assert message.startswith("error: ")
        assert message.endswith("\n")
        assert len(message.splitlines()) == 1, message
        assert said in message


def test_no_tokens(exported: Callable[..., Path], program: Program) -> None:
    file = exported()
    assert written(program, file, prompt="the ", length=0) == "the "
