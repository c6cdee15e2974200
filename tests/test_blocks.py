"""Sequences in blocks: lengths on both sides of their borders, for few rows and for many."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from zoo.config import ModelConfig
from zoo.data.tokenizers import CharTokenizer
from zoo.exporting.export import describe
from zoo.models.language_model import LanguageModel
from zoo.nn.state import flatten
from zoo_onnx.blocks import LEAST, MOST
from zoo_onnx.exporter import OnnxExporter

VOCAB_SIZE = 11
LENGTHS = (1, LEAST, LEAST + 1, MOST - 1, MOST, MOST + 1, 2 * MOST + 1)
ROWS = (1, 5, 17)
SLOW = [pytest.param(cell, marks=pytest.mark.slow) for cell in ("retnet", "s4d")]


def build(cell: str, operators: str = "standard") -> tuple[LanguageModel, bytes]:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(cell=cell, hidden=16, layers=2), VOCAB_SIZE).eval()
    tokenizer = CharTokenizer(characters="abcdefghij")
    info = describe(model, tokenizer, "sequence", operators=operators)
    exporter = OnnxExporter()
    return model, exporter.seal(exporter.build(model, info), info)


@pytest.mark.parametrize("cell", ["mingru", *SLOW])
def test_blocks_are_the_steps_one_by_one(cell: str) -> None:
    """From a state that is not zero, against PyTorch's step in float64."""
    model, content = build(cell)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    exact = LanguageModel(model.config, VOCAB_SIZE).double().eval()
    exact.load_state_dict(model.state_dict())
    rng = np.random.default_rng(0)
    for rows in ROWS:
        tokens = torch.from_numpy(rng.integers(0, VOCAB_SIZE, (rows, 3 + max(LENGTHS))))
        state, wanted, states = exact.init_state(rows), [], []
        with torch.no_grad():
            for column in tokens.T:
                states.append([leaf.numpy() for leaf in flatten(state)])
                logits, state = exact.step(column, state)
                wanted.append(logits.numpy())
        states.append([leaf.numpy() for leaf in flatten(state)])
        kinds = [session.get_inputs()[i].type for i in range(1, len(names))]
        for length in LENGTHS:
            given = [
                leaf if "float" not in kind else leaf.astype(np.float32)
                for leaf, kind in zip(states[3], kinds, strict=True)
            ]
            part = tokens[:, 3 : 3 + length].numpy()
            found, *after = session.run(None, dict(zip(names, (part, *given), strict=True)))
            assert found.shape == (rows, length, VOCAB_SIZE)
            expected = np.stack(wanted[3 : 3 + length], 1)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
            for leaf, exactly in zip(after, states[3 + length], strict=True):
                np.testing.assert_allclose(leaf, exactly, rtol=1e-4, atol=2e-5)
