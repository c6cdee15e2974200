"""Pages of the web: what the package holds, and its modules in JavaScript, run by Node, beside what
they repeat. Whole pages are in test_web_pages.py."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

import zoo
from zoo.config import Sampling
from zoo.data.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, LettersTokenizer
from zoo.errors import UsageError, ZooError, ZooWarning
from zoo.inference import prompts
from zoo.inference.artifact import StateEntry
from zoo.inference.sampling import choose, margin
from zoo_ort import tuning
from zoo_ort.engines import SessionEngine
from zoo_web import onnxruntime_web
from zoo_web.packager import SITE, WebPackager

DTYPES = (
    "float16", "float32", "float64", "bool",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
AWKWARD = [
    "",
    "the quick brown fox",
    "It's 12345 o'clock,\r\n\tthey'll say:  \n\n  “we’ve   gone”…",
    "naïve café, cafe\u0301 and a\u0308\u0323",
    "👩‍👩‍👧 🏳️‍🌈 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🇩🇪",
    "ΑΣ ΟΔΟΣ İstanbul ǅ ﬁ",
    "漢字かな交じり文。ไทย हिन्दी العربية",
    "\ufeff\u00a0\u2028\u2029\u0085\u200b\u3000\x1c\x1d\x1e\x1f\x00\x7f",
    "x" * 100 + "-" * 100 + " " * 70 + "7" * 10 + "\u0301" * 40,
    "a\ud800b",
    "\udfff!",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(SITE, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


@pytest.fixture(scope="module")
def node(site: Path) -> Callable[[str, Any], Any]:
    """Runs a program, which has `given`, and gives what it passes to `answer`."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")

    def run(code: str, given: Any) -> Any:
        frame = (
            'import { readFileSync } from "node:fs";\n'
            'const given = JSON.parse(readFileSync(0, "utf-8"));\n'
            "const answer = (found) => process.stdout.write(JSON.stringify(found));\n"
        )
        path = site / "test.js"
        path.write_text(frame + code)
        done = subprocess.run(
            [program, str(path)], input=json.dumps(given), capture_output=True, text=True,
            timeout=60, encoding="utf-8",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_random_numbers_are_numpys(node: Callable[[str, Any], Any]) -> None:
    seeds = [0, 1, 7, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**200 + 3]
    code = """
        import { Random } from "./random.js";
        answer(given.map((seed) => {
          const random = new Random(BigInt(seed));
          const begin = [...random.floats(3)];
          const middle = random.toJSON();
          const rest = [...Random.fromJSON(middle).floats(9997)];
          return [[...begin, ...rest], middle];
        }));
    """
    found = node(code, [str(seed) for seed in seeds])
    for seed, (numbers, middle) in zip(seeds, found, strict=True):
        rng = np.random.default_rng(seed)
        begin = rng.random(3, dtype=np.float32)
        assert json.loads(middle) == rng.bit_generator.state
        expected = np.concatenate([begin, rng.random(9997, dtype=np.float32)])
        np.testing.assert_array_equal(np.array(numbers, np.float32), expected)


def tokenizers() -> dict[str, Any]:
    text = "".join(AWKWARD[1:8]) * 3 + "the quick brown fox jumps over the lazy dog. " * 20
    known = "".join(dict.fromkeys(text[: len(text) // 4]))
    bpe = BPETokenizer.from_text(text, vocab=400)
    return {
        "char": CharTokenizer(characters=known),
        "char with documents": CharTokenizer(characters=known, documents=True),
        "letters": LettersTokenizer(characters=" etainoshrdlmucfwgypbvkxzjq"),
        "byte": ByteTokenizer(),
        "byte with documents": ByteTokenizer(documents=True),
        "bounded bpe": bpe,
        "unbounded bpe": BPETokenizer(merges=bpe.merges),
        "bpe with documents": bpe.changed(documents=True),
    }


@pytest.mark.parametrize("name", tokenizers())
def test_tokenizers_are_pythons(name: str, node: Callable[[str, Any], Any]) -> None:
    tokenizer = tokenizers()[name]
    rng = np.random.default_rng(3)
    ids = [tokenizer.encode(text).tolist() for text in AWKWARD]
    ids += [rng.integers(0, tokenizer.vocab_size, 300).tolist() for _ in range(10)]
    code = """
        import { makeTokenizer } from "./tokenizer.js";
        const tokenizer = makeTokenizer(given.description);
        const stream = (ids) => {
          const decoder = tokenizer.decoder();
          return [...ids.map(decoder.push), decoder.end()].filter((piece) => piece);
        };
        answer({
          size: tokenizer.vocabSize,
          end: tokenizer.endOfText,
          encoded: given.texts.map((text) => tokenizer.encode(text)),
          unknown: given.texts.map((text) => tokenizer.unknown(text)),
          decoded: given.ids.map(stream),
        });
    """
    description = tokenizer.model_dump(mode="json")
    found = node(code, {"description": description, "texts": AWKWARD, "ids": ids})
    assert found["size"] == tokenizer.vocab_size
    assert found["end"] == tokenizer.end_of_text
    assert found["encoded"] == [tokenizer.encode(text).tolist() for text in AWKWARD]
    assert found["unknown"] == [tokenizer.unknown(text) for text in AWKWARD]
    for pieces, each in zip(found["decoded"], ids, strict=True):
        assert "".join(pieces) == tokenizer.decode(each)
    whole = len(AWKWARD)  # of bytes that are no UTF-8, either may see it a byte earlier
    assert found["decoded"][:whole] == [list(tokenizer.stream(each)) for each in ids[:whole]]


def test_long_texts_are_cut_where_python_cuts_them(node: Callable[[str, Any], Any]) -> None:
    tokenizer = BPETokenizer(merges=("a b", "ab ab", "abab abab"))
    texts = ["ab" * 100_001, "😀" * 70_000 + " ab" + "abab" * 40_000, "ab ab\n" * 30_000]
    code = """
        import { makeTokenizer } from "./tokenizer.js";
        const tokenizer = makeTokenizer(given.description);
        answer(given.texts.map((text) => tokenizer.encode(text)));
    """
    found = node(code, {"description": tokenizer.model_dump(mode="json"), "texts": texts})
    assert found == [tokenizer.encode(text).tolist() for text in texts]


def test_safetensors_go_both_ways(site: Path, node: Callable[[str, Any], Any]) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"layer0.{dtype}": rng.integers(0, 2, (1, 3, size)).astype(dtype)
        for size, dtype in enumerate(DTYPES)
    }
    arrays["last_token"] = np.array(7)
    (site / "python.safetensors").write_bytes(save(arrays))
    code = """
        import { writeFileSync } from "node:fs";
        import { readSafetensors, toNumbers, writeSafetensors } from "./safetensors.js";
        const leaves = readSafetensors(readFileSync(`${given}/python.safetensors`));
        writeFileSync(`${given}/js.safetensors`, writeSafetensors(leaves));
        answer([...leaves].map(([name, leaf]) =>
          [name, leaf.dtype, leaf.shape, Array.from(toNumbers(leaf))]));
    """
    found = node(code, str(site))
    assert {name: (dtype, tuple(shape)) for name, dtype, shape, _ in found} == {
        name: (str(array.dtype), array.shape) for name, array in arrays.items()
    }
    for name, _, _, numbers in found:
        assert arrays[name].flatten().tolist() == numbers, name
    back = load((site / "js.safetensors").read_bytes())
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_damaged_safetensors_are_refused(node: Callable[[str, Any], Any]) -> None:
    whole = save({"a": np.arange(6.0)})
    files = [whole[:5], whole[:-1], b"\xff" * 20, whole.replace(b"[6]", b"[5]"), whole[:20]]
    code = """
        import { readSafetensors } from "./safetensors.js";
        answer(given.map((bytes) => {
          try { return readSafetensors(Uint8Array.from(bytes)).size; } catch { return "refused"; }
        }));
    """
    found = node(code, [list(file) for file in [*files, whole]])
    assert found == ["refused"] * len(files) + [1]


def test_initial_states_are_those_of_the_table(node: Callable[[str, Any], Any]) -> None:
    half = np.array([[0.1, -0.0], [6e-8, np.inf], [-65504, 6.2e-5]], np.float16)
    fills = [(dtype, 1.0 if dtype in ("bool", "uint64") else 3.0) for dtype in DTYPES]
    fills += [("float16", -0.3330078125), ("float16", 6e-08), ("int64", -5.0), ("float32", -1e30)]
    entries = [
        StateEntry.from_row(f"fill{number}", np.full((2, 3), value).astype(dtype))
        for number, (dtype, value) in enumerate(fills)
    ]
    rows = [np.arange(6).reshape(2, 3).astype(dtype) for dtype in DTYPES]
    entries += [StateEntry.from_row(f"row{n}", row) for n, row in enumerate([*rows, half])]
    code = """
        import { GenerateEngine } from "./engines.js";
        class Tensor {
          constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
        }
        const engine = new GenerateEngine({ Tensor }, null, given, () => null);
        answer([...engine.initial].map(([name, { dtype, shape, bytes }]) =>
          [name, dtype, shape, [...bytes]]));
    """
    found = node(code, [entry.model_dump(mode="json") for entry in entries])
    for entry, (name, dtype, shape, content) in zip(entries, found, strict=True):
        rows_of_one = entry.initial_rows(1)
        assert (name, dtype, tuple(shape)) == (entry.name, entry.dtype, rows_of_one.shape)
        assert bytes(content) == rows_of_one.tobytes(), name


def test_tokens_of_the_step_graph_are_chosen_as_in_python(node: Callable[[str, Any], Any]) -> None:
    rng = np.random.default_rng(1)
    settings = [
        {"temperature": t, "top_k": k, "top_p": p}
        for t in (0.0, 1e-31, 0.5, 1.0, 3.0)
        for k in (0, 1, 5, 30, 99)
        for p in (1.0, 0.9, 0.3, 1e-30)
    ]
    logits = rng.normal(0, 3, (len(settings), 20, 30)).astype(np.float32)
    logits[:, 0, :] = np.round(logits[:, 0, :])  # some are equal
    uniform = rng.random((len(settings), 20), dtype=np.float32)
    code = """
        import { checkSampling, choose } from "./sampling.js";
        answer(given.settings.map(({ temperature, top_k: topK, top_p: topP }, which) => {
          const sampling = checkSampling({ temperature, topK, topP });
          return given.logits[which].map((row, index) =>
            choose(Float32Array.from(row), given.uniform[which][index], sampling));
        }));
    """
    given = {"settings": settings, "logits": logits.tolist(), "uniform": uniform.tolist()}
    compared = 0
    for which, found in enumerate(node(code, given)):
        sampling = Sampling(**settings[which])
        expected = choose(logits[which], uniform[which], sampling)
        for row in range(20):
            ties = sampling.greedy or margin(logits[which, row], uniform[which, row], sampling)
            if ties is True or ties > 1e-9 or row == 0:
                assert found[row] == expected[row], (settings[which], row)
                compared += 1
    assert compared > 0.9 * len(settings) * 20


BAD = {
    "temperature": ("hot", "-1", "1001", "", "0x10", "NaN", "Infinity"),
    "top_k": ("1.5", "-3", "2147483648"),
    "top_p": ("0", "1.1", "many"),
    "length": ("-1", "ten", "1e3", "99999999999999999999"),
    "seed": ("-1", "9223372036854775808", "x"),
    "prompt": ("",),
}


def test_bad_settings_are_refused_by_name(node: Callable[[str, Any], Any]) -> None:
    code = """
        import { fromAddress, parse } from "./settings.js";
        const good = {
          prompt: "the", temperature: "1", top_k: "0", top_p: "1", length: "9", seed: "0", stop: "",
        };
        answer(Object.entries(given).flatMap(([name, values]) => values.map((value) => {
          try {
            parse({ ...good, ...fromAddress(new URLSearchParams({ [name]: value }).toString()) });
            return [name, value, "accepted"];
          } catch (error) { return [name, value, error.message]; }
        })));
    """
    for name, value, message in node(code, BAD):
        assert name.replace("_", "-") in message.replace("_", "-"), (name, value, message)
    assert node(code, {"stop": ["a\nb"], "seed": [str(2**63 - 1)]}) == [
        ["stop", "a\nb", "accepted"], ["seed", str(2**63 - 1), "accepted"],
    ]  # fmt: skip


def test_the_module_stays_short() -> None:
    for path in SITE.glob("*.js"):
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) <= 300, path.name
        assert max(map(len, lines)) <= 100, path.name


def without_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, names: object) -> None:
        raise onnxruntime_web.NotVendoredError("npm is not installed")

    monkeypatch.setattr(onnxruntime_web, "vendor", refuse)


def write_package(files: list[Any], folder: Path) -> Path:
    folder.mkdir()
    WebPackager(zoo.load_registry()).write(files, folder)
    return folder


def test_without_npm_the_page_loads_the_runtime_from_a_cdn(
    fox_run: zoo.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_npm(monkeypatch)
    files = zoo.export_all(fox_run, ("step",), out=tmp_path / "files")
    with pytest.warns(ZooWarning, match="npm is not installed"):
        folder = write_package(files, tmp_path / "page")
    content = json.loads((folder / "model.json").read_text("utf-8"))
    for address in content["runtime"]["wasm"].values():
        assert address.startswith(
            f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{onnxruntime_web.VERSION}/"
        )
    assert "connect-src 'self' https://cdn.jsdelivr.net;" in (folder / "index.html").read_text()
    assert content["graphs"] == {
        "step": {"file": "step.onnx", "bytes": (folder / "step.onnx").stat().st_size}
    }
    (entry,) = content["state"]
    assert entry["input"] == "state_00_layer0_h_in"
    assert entry["output"] == "state_00_layer0_h_out"
    assert content["tokenizer"]["characters"] == fox_run.tokenizer.characters
    assert content["prompt"] == "the "
    assert content["training"]["corpus"] == "fox.txt"
    assert not (folder / "onnxruntime").exists()


# in place of ONNX Runtime; a length for each run of many tokens, and "step" for the others
RECORDER = """
    export const env = { wasm: {} };
    export const runs = [];
    export class Tensor {
      constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
    }
    const run = async (feeds, wanted) => {
      runs.push(feeds.tokens ? feeds.tokens.dims[1] : "step");
      const leaf = (name) => feeds[name.replace(/_out$/, "_in")];
      return Object.fromEntries(wanted.map((name) => [name, leaf(name) ?? { data: [0n] }]));
    };
    export const InferenceSession = { create: async () => ({ run }) };
"""


@pytest.fixture(scope="module")
def all_graphs(fox_run: zoo.Run, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    kinds = ("generate", "step", "sequence")
    return zoo.export_all(fox_run, kinds, out=tmp_path_factory.mktemp("all graphs"))


@pytest.mark.parametrize("graph", ["generate", "step"])
@pytest.mark.parametrize("form", ["that says it", "of before", "of a large vocabulary"])
def test_prompts_are_read_in_the_runs_of_python(
    graph: str,
    form: str,
    site: Path,
    node: Callable[[str, Any], Any],
    all_graphs: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step and the sequence graph round differently: a prompt that is read by the other one, or
    in other pieces, could get another text."""
    without_npm(monkeypatch)
    files = [made for made in all_graphs if made.info.graph in (graph, "sequence")]
    if (
        form == "of a large vocabulary"
    ):  # that pieces of more than 8 tokens have too many logits for
        monkeypatch.setattr(prompts, "MOST_LOGITS", 9 * files[0].info.tokenizer.vocab_size)
    with pytest.warns(ZooWarning):
        folder = write_package(files, tmp_path / "page")
    model = json.loads((folder / "model.json").read_text("utf-8"))
    model["runtime"] = {"wasm": {"module": "./recorder.js", "binary": "none.wasm"}}
    if form == "of before":
        del model["reading"]
    (site / "recorder.js").write_text(RECORDER)
    code = """
        globalThis.fetch = async (url) =>
          new Response(String(url).endsWith(".json") ? JSON.stringify(given.model) : "");
        const { load } = await import("./zoo.js");
        const { runs } = await import("./recorder.js");
        const found = [];
        for (const text of given.texts) {
          await (await load("./")).session().feed(text);
          found.push(runs.splice(0));
        }
        answer(found);
    """
    lengths = (1, 2, 3, 16, 17, 18, 257, 258, 260, 600)  # one more than are read
    texts = [("the quick brown fox " * 30)[:length] for length in lengths]
    found = node(code, {"model": model, "texts": texts})

    runs: list[int | str] = []
    run = SessionEngine._run

    def recording(self: Any, tokens: Any, *more: Any, **feeds: Any) -> Any:
        runs.append(tokens.shape[1] if tokens.ndim == 2 else "step")
        return run(self, tokens, *more, **feeds)

    monkeypatch.setattr(SessionEngine, "_run", recording)
    source = zoo.open_source(folder)
    for text, of_page in zip(texts, found, strict=True):
        zoo.Session(source).feed(text)
        assert of_page == runs, len(text)
        runs.clear()
    assert max(found[-1]) == (8 if form == "of a large vocabulary" else prompts.LARGEST_PIECE)


def test_threads_are_as_many_as_in_python(
    site: Path, node: Callable[[str, Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pages that may have them, for models that do not run on a GPU."""
    monkeypatch.setattr(tuning, "usable_cores", lambda: 4)
    sizes = [1, 2**21, 2**21 + 1, 5 * 2**20, 2**30]
    expected = []
    for size in sizes:
        with (tmp_path / "file").open("wb") as file:
            file.truncate(size)
        expected.append(tuning.usual_threads(tmp_path / "file"))
    (site / "recorder.js").write_text(RECORDER)
    code = """
        const gpu = { requestAdapter: async () => ({}) };
        const navigator = { value: { hardwareConcurrency: 4, gpu } };
        Object.defineProperty(globalThis, "navigator", navigator);
        const files = { module: "./recorder.js", binary: "none.wasm" };
        const tokenizer = { kind: "byte", documents: false };
        let bytes;
        globalThis.fetch = async (url) => {
          const graphs = { step: { file: "step.onnx", bytes } };
          const runtime = { wasm: files, webgpu: files };
          return new Response(JSON.stringify({ graphs, runtime, tokenizer, state: [] }));
        };
        const { load } = await import("./zoo.js");
        const { env } = await import("./recorder.js");
        const found = [];
        for (const [isolated, device] of given.pages) {
          globalThis.crossOriginIsolated = isolated;
          const threads = [];
          for (bytes of given.sizes) {
            await load("./", { device });
            threads.push(env.wasm.numThreads);
          }
          found.push(threads);
        }
        answer(found);
    """
    pages = [(True, "wasm"), (False, "wasm"), (True, "webgpu")]
    one = [1] * len(sizes)
    assert node(code, {"pages": pages, "sizes": sizes}) == [expected, one, one]


def test_another_archive_than_the_tested_one_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "onnxruntime-web.tgz"
    archive.write_bytes(b"something else")
    with pytest.raises(ZooError, match="another onnxruntime-web"):
        onnxruntime_web._unpack(archive, tmp_path / "runtime", [])
    assert not (tmp_path / "runtime").exists()


def test_a_tokenizer_of_a_plugin_is_refused(
    fox_run: zoo.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Syllables(ByteTokenizer):
        kind: str = "syllables"  # type: ignore[assignment]

    without_npm(monkeypatch)
    (made,) = zoo.export_all(fox_run, ("step",), out=tmp_path / "files")
    info = made.info.model_copy(update={"tokenizer": Syllables()})
    with pytest.raises(UsageError, match="'syllables'"):
        write_package([type(made)(made.path, info)], tmp_path / "page")
    assert list((tmp_path / "page").iterdir()) == []
