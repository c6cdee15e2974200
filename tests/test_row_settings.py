"""Each row of a batch with its own temperature, top-k and top-p."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import zoo
from zoo.config import Sampling
from zoo.inference.artifact import SAMPLING_INPUTS
from zoo.inference.engine import Engine, select_rows
from zoo.models.torch_engine import ModelStepper
from zoo_ort.container import DIGEST, digest, metadata_entry

RULES = [
    Sampling(),
    Sampling(temperature=0.8),
    Sampling(temperature=1.0, top_k=3),
    Sampling(temperature=1.3, top_p=0.7),
    Sampling(temperature=0.6, top_k=9, top_p=0.5),
    Sampling(temperature=2.0, top_k=1000, top_p=1.0),
]
STEPS = 60


@pytest.fixture(scope="module")
def files(fox_run: zoo.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    zoo.export_all(fox_run, ("step", "generate"), out=folder)
    return folder


def as_format_1(file: Path, target: Path) -> Path:
    """The same model with one setting for all rows, as files of format 1 have it."""
    model = onnx.load(file)
    graph, before = model.graph, []
    axes = helper.make_node("Shape", ["token"], ["rows_of_token"])
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
    for name, kind in zip(SAMPLING_INPUTS, kinds, strict=True):
        index = [value.name for value in graph.input].index(name)
        graph.input[index].CopyFrom(helper.make_tensor_value_info(name, kind, []))
        before.append(helper.make_node("Expand", [name, "rows_of_token"], [f"{name}_of_rows"]))
        for node in graph.node:
            for i, read in enumerate(node.input):
                if read == name:
                    node.input[i] = f"{name}_of_rows"
    nodes = [axes, *before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    entries = {entry.key: entry.value for entry in model.metadata_props} | {"zoo.format": "1"}
    del model.metadata_props[:]
    content = model.SerializeToString()
    for key, value in entries.items():
        if key != DIGEST:
            content += metadata_entry(key, value)
    target.write_bytes(content + metadata_entry(DIGEST, digest(content)))
    return target


def alone(engine: Engine, tokens: np.ndarray, uniform: np.ndarray, rules: list[Sampling]) -> list:
    """What each row writes by itself."""
    found = []
    for row, rule in enumerate(rules):
        state = select_rows(engine, engine.init_state(len(rules)), [row])
        written, _ = engine.write(tokens[[row]], state, uniform[:, [row]], rule)
        found.append(written[:, 0].tolist())
    return found


@pytest.mark.parametrize("kind", ["generate", "step", "format 1", "pytorch"])
@pytest.mark.parametrize("seed", range(3))
def test_a_row_does_not_depend_on_the_settings_of_others(
    kind: str, seed: int, files: Path, fox_run: zoo.Run
) -> None:
    """Each row of a mixed batch writes what it writes alone, by every engine; and the proved step
    of PyTorch says which tokens these are."""
    if kind == "pytorch":
        engine = ModelStepper(fox_run.model)
    elif kind == "format 1":
        engine = zoo.open_source(as_format_1(files / "generate.onnx", Path("old.onnx"))).engine
    else:
        engine = zoo.open_source(files / f"{kind}.onnx").engine
    rng = np.random.default_rng(seed)
    rules = [RULES[i] for i in rng.permutation(len(RULES)).tolist()]
    tokens = rng.integers(0, engine.vocab_size, len(rules))
    uniform = rng.random((STEPS, len(rules)), dtype=np.float32)
    written, _ = engine.write(tokens, engine.init_state(len(rules)), uniform, rules)
    assert written.T.tolist() == alone(engine, tokens, uniform, rules)
    same, _ = engine.write(tokens, engine.init_state(len(rules)), uniform, rules[0])
    assert same[:, 0].tolist() == written[:, 0].tolist()


def test_one_rule_is_that_of_all_rows(files: Path) -> None:
    engine = zoo.open_source(files / "generate.onnx").engine
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, engine.vocab_size, 4)
    uniform = rng.random((STEPS, 4), dtype=np.float32)
    for rule in RULES:
        one, _ = engine.write(tokens, engine.init_state(4), uniform, rule)
        each, _ = engine.write(tokens, engine.init_state(4), uniform, [rule] * 4)
        assert one.tolist() == each.tolist()


def test_as_many_rules_as_rows(files: Path, fox_run: zoo.Run) -> None:
    for engine in (
        zoo.open_source(files / "step.onnx").engine,
        ModelStepper(fox_run.model),
    ):
        with pytest.raises(ValueError, match="zip"):
            engine.write(
                np.zeros(3, np.int64), engine.init_state(3), np.zeros((1, 3), np.float32), RULES[:2]
            )


def test_files_of_format_1_open_and_write_the_same_texts(files: Path) -> None:
    old = as_format_1(files / "generate.onnx", Path("old.onnx"))
    for settings in ({}, {"temperature": 0.9, "seed": 4}, {"temperature": 1.0, "top_k": 4}):
        new = zoo.generate(files / "generate.onnx", "the ", length=80, **settings)
        assert zoo.generate(old, "the ", length=80, **settings) == new
