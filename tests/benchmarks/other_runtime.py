"""Runs exported files in the runtime of a virtual environment of its own, with numpy alone beside
it: for `runtimes.py`.

    python other_runtime.py onnxruntime|openvino FOLDER RESULTS

FOLDER has NAME.onnx, and NAME.npz with the initial state of the file's model. RESULTS gets a line
of JSON for each file, before it is opened and after it ran.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

TOKENS, ROWS = 200, 2
Run = Callable[[list, dict], list]


def open_file(runtime: str, path: Path) -> Run:
    """A function of the names of outputs and the inputs."""
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        opened = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        return opened.run
    import openvino

    # in float32, which its CPU plugin does not always compute in by itself
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda names, feeds: [request.infer(feeds)[name].copy() for name in names]


def choose(logits: np.ndarray, uniform: np.ndarray, hot: bool) -> np.ndarray:
    """Tokens [B] from logits [B, V]: the best ones, or drawn at temperature 1."""
    if not hot:
        return logits.argmax(-1)
    exact = logits.astype(np.float64)
    weights = np.exp(exact - exact.max(-1, keepdims=True))
    mass = np.cumsum(weights / weights.sum(-1, keepdims=True), -1)
    return (mass > uniform[:, None].astype(np.float64)).argmax(-1)


def texts(run: Run, graph: str, state: dict, vocab_size: int) -> list[list[int]]:
    """Tokens that the file writes, greedy and sampled: for `sequence`, what it says of the next
    token at each position of a text."""
    rng = np.random.default_rng(0)
    uniform = rng.random((TOKENS, ROWS), dtype=np.float32)
    text = rng.integers(0, vocab_size, (ROWS, TOKENS))
    names = [name.replace("_in", "_out") for name in state]
    if graph == "sequence":
        (logits,) = run(["logits"], {"tokens": text, **state})
        flat = logits.transpose(1, 0, 2)
        return [
            [int(token) for t in range(TOKENS) for token in choose(flat[t], uniform[t], hot)]
            for hot in (False, True)
        ]
    if graph == "generate":
        found = []
        for temperature, top_k, top_p in ((0, 0, 1), (1, 0, 1), (0.8, 5, 0.9)):
            settings = {
                "temperature": np.full(ROWS, temperature, np.float32),
                "top_k": np.full(ROWS, top_k, np.int64),
                "top_p": np.full(ROWS, top_p, np.float32),
            }
            feeds = {"token": text[:, 0], **state, "uniform": uniform, **settings}
            found.append(run(["tokens"], feeds)[0].ravel().tolist())
        return found
    found = []
    for hot in (False, True):
        token, carried, written = text[:, 0], dict(state), []
        for t in range(TOKENS):
            logits, *after = run(["logits", *names], {"token": token, **carried})
            carried = dict(zip(state, after, strict=True))
            token = choose(logits, uniform[t], hot)
            written += token.tolist()
        found.append(written)
    return found


def main() -> None:
    runtime, folder, results = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    known = {json.loads(line)["file"] for line in results.read_text("utf-8").splitlines()}
    with results.open("a", encoding="utf-8") as told:
        for path in sorted(folder.glob("*.onnx")):
            if path.stem in known:
                continue
            told.write(json.dumps({"file": path.stem, "error": "the process ended"}) + "\n")
            told.flush()
            facts = np.load(path.with_suffix(".npz"))
            state = {name: facts[name] for name in facts.files if name != "vocab_size"}
            found: dict[str, object] = {"file": path.stem}
            try:
                run = open_file(runtime, path)
            except Exception as error:  # the runtimes have many kinds
                found["error"] = f"does not open: {error}"
            else:
                try:
                    graph = path.stem.rpartition(".")[2]
                    found["texts"] = texts(run, graph, state, int(facts["vocab_size"]))
                except Exception as error:
                    found["error"] = f"does not run: {error}"
            told.write(json.dumps(found) + "\n")
            told.flush()


if __name__ == "__main__":
    main()
