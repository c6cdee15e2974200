"""Step graphs of small untrained models, a third-party cell that makes tensors for its number of
rows, and the comparison of long texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import zoo
from zoo import CellSpec, ModelCard, StateField, hookimpl
from zoo.config import ModelConfig, Sampling
from zoo.data.tokenizers import CharTokenizer
from zoo.exporting.export import describe
from zoo.exporting.exporter import find_exporters
from zoo.exporting.text_comparison import ROUNDING_TIE
from zoo.inference.sampling import margin
from zoo.models.language_model import LanguageModel
from zoo.registry import Registry

EXPANDING = "expanding"


class Level(NamedTuple):
    h: Tensor


class Expanding(zoo.Cell):
    """h' = tanh(z + a h + b), with b expanded to the rows and joined to new zeros."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.input = nn.Linear(input_size, hidden_size)
        self.a, self.b = nn.Parameter(torch.rand(hidden_size)), nn.Parameter(torch.randn(1, 2))

    def init_state(self, batch_size: int) -> Level:
        return Level(self.a.new_zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return self.input(x)

    def advance(self, z: Tensor, state: Level) -> tuple[Tensor, Level]:
        rows = z.shape[0]
        zeros = z.new_zeros(rows, self.hidden_size - 2)
        b = torch.cat([self.b.expand(rows, 2), zeros], dim=-1)
        h = torch.tanh(z + self.a * state.h + b)
        return h, Level(h)


class Plugin:
    @hookimpl
    def zoo_cells(self) -> list[CellSpec]:
        card = ModelCard(
            title="t", authors="a", year=2026, paper="p", equations=(),
            state=(StateField("h", "the level"),),
        )  # fmt: skip
        return [CellSpec(EXPANDING, f"{__name__}:Expanding", card)]


def registry_with_expanding() -> Registry:
    return zoo.load_registry(Plugin())


def export_step(
    folder: Path, cell: str, hidden: int = 64, layers: int = 1, precision: str = "fp32",
    registry: Registry | None = None,
) -> tuple[LanguageModel, Path]:  # fmt: skip
    """The model, and its step.onnx. It knows 26 letters, and the space."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer(characters=" " + "".join(map(chr, range(97, 123))))
    config = ModelConfig(cell=cell, hidden=hidden, layers=layers)
    registry = registry or zoo.load_registry()
    model = LanguageModel(config, tokenizer.vocab_size, registry).eval()
    (exporter,) = find_exporters(["step"], precision, registry).values()
    info = describe(model, tokenizer, "step", precision)
    path = folder / "step.onnx"
    path.write_bytes(exporter.seal(exporter.build(model, info), info))  # without its proof
    return model, path


def text_ties(reference: Any, candidate: Any, rows: int, length: int, sampling: Sampling) -> int:
    """How often rounding alone decided a token otherwise, in texts that both engines write, each
    from its own state; AssertionError where something else did. After a difference a row goes on
    from the reference's state."""
    rng = np.random.default_rng(0)
    states = [reference.init_state(rows), candidate.init_state(rows)]
    last, ties = rng.integers(0, reference.vocab_size, rows), 0
    for start in range(0, length, 128):
        uniform = rng.random((min(128, length - start), rows), dtype=np.float32)
        before = states[0]
        tokens, states[0] = reference.write(last, before, uniform, sampling)
        found, states[1] = candidate.write(last, states[1], uniform, sampling)
        if differing := np.flatnonzero((tokens != found).any(axis=0)).tolist():
            for row in differing:
                index = int((tokens[:, row] != found[:, row]).argmax())
                state = tuple(leaf[[row]] for leaf in before)
                read = np.concatenate((last[[row]], tokens[:index, row]))
                for token in read:
                    logits, state = reference.step(token[None], state)
                assert margin(logits[0], float(uniform[index, row]), sampling) <= ROUNDING_TIE
                ties += 1
            mine, theirs = tuple(states[1]), states[0]
            for one, other in zip(mine, theirs, strict=True):
                one[differing] = other[differing]
            states[1] = mine
        last = tokens[-1]
    return ties
