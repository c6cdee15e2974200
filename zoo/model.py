"""The language model: an entrance, a stack of cells, a head."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.cell import Cell
from zoo.config import ModelConfig
from zoo.errors import UsageError
from zoo.generator import Arrays, Logits
from zoo.registry import Registry, load_registry
from zoo.state import named_leaves, unflatten
from zoo.tokenizers import Ids

MAX_ONE_HOT = 16_384


class OneHot(nn.Module):
    """Tokens [...] to one-hot vectors [..., V], as a lookup in the identity matrix: the same values
    as torch.nn.functional.one_hot, and a single Gather when it is exported."""

    eye: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        if vocab_size > MAX_ONE_HOT:
            raise UsageError(
                f"a one-hot entrance for {vocab_size} tokens is too wide; use --embedding."
            )
        self.register_buffer("eye", torch.eye(vocab_size), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.eye)


class Head(nn.Module):
    """Features [..., H] to logits [..., V]: `x W_hq + b_q`, with `W_hq` [H, V] stored as it is
    multiplied."""

    def __init__(self, input_size: int, vocab_size: int, std: float | None) -> None:
        super().__init__()
        bound = 1 / math.sqrt(input_size)
        self.W_hq = nn.Parameter(torch.empty(input_size, vocab_size).uniform_(-bound, bound))
        self.b_q = nn.Parameter(torch.empty(vocab_size).uniform_(-bound, bound))
        if std is not None:
            nn.init.normal_(self.W_hq, std=std)
            nn.init.zeros_(self.b_q)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W_hq + self.b_q


class LanguageModel(nn.Module):
    """Logits of the next token, from the tokens so far and the state that they left.

    The state is the tuple of the cells' states, layer by layer. The cell comes from the registry by
    the name in `config`; UnknownNameError if it is not there.
    """

    def __init__(
        self, config: ModelConfig, vocab_size: int, registry: Registry | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        spec = (registry or load_registry()).cells[config.cell]
        self.encoder: nn.Module = (
            nn.Embedding(vocab_size, config.embedding)
            if config.embedding is not None
            else OneHot(vocab_size)
        )
        size = config.embedding or vocab_size
        cells: list[Cell] = []
        for _ in range(config.layers):
            cells.append(spec.build(size, config.hidden, **config.options))
            size = cells[-1].output_size
        self.cells = nn.ModuleList(cells)
        self.head = Head(size, vocab_size, config.head_std)

    def init_state(self, batch_size: int) -> tuple[Any, ...]:
        """The state before the first token of each of `batch_size` rows."""
        return tuple(cell.init_state(batch_size) for cell in self._cells())

    def step(self, tokens_B: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Logits [B, V] after one more token in each row, and the next state."""
        x = self.encoder(tokens_B)
        next_state = []
        for cell, cell_state in zip(self._cells(), state, strict=True):
            x, cell_state = cell.step(x, cell_state)
            next_state.append(cell_state)
        return self.head(x), tuple(next_state)

    def forward(
        self, tokens_TB: Tensor, state: tuple[Any, ...] | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Logits [T, B, V] after each token, and the state after the last."""
        if state is None:
            state = self.init_state(tokens_TB.shape[1])
        x = self.encoder(tokens_TB)
        next_state = []
        for cell, cell_state in zip(self._cells(), state, strict=True):
            x, cell_state = cell(x, cell_state)
            next_state.append(cell_state)
        return self.head(x), tuple(next_state)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def _cells(self) -> list[Cell]:
        return list(self.cells)  # type: ignore[arg-type]


class ModelStepper:
    """A LanguageModel as a `zoo.generator.Stepper`: PyTorch's side of every comparison."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.vocab_size = model.vocab_size
        self._device = next(model.parameters()).device

    def init_state(self, batch_size: int) -> tuple[Any, ...]:
        with torch.inference_mode():
            return self.model.init_state(batch_size)

    def step(self, tokens: Ids, state: tuple[Any, ...]) -> tuple[Logits, tuple[Any, ...]]:
        with torch.inference_mode():
            logits, state = self.model.step(torch.from_numpy(tokens).to(self._device), state)
            return logits.cpu().numpy(), state

    def state_to_arrays(self, state: tuple[Any, ...]) -> Arrays:
        return {name: leaf.detach().cpu().numpy() for name, leaf in named_leaves(state)}

    def state_from_arrays(self, arrays: Arrays) -> tuple[Any, ...]:
        like = self.init_state(1)
        leaves = [
            torch.from_numpy(np.array(arrays[name])).to(self._device, leaf.dtype)
            for name, leaf in named_leaves(like)
        ]
        return unflatten(like, leaves)


def to_float64(model: LanguageModel) -> LanguageModel:
    """A copy of the model that computes in float64."""
    return deepcopy(model).double()
