"""The language model: input embedding, recurrent layers, output head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from zoo.config import Interface, ModelConfig, OptionValue
from zoo.data.tokenizer import Tokenizer
from zoo.errors import NoStepError, UsageError
from zoo.nn.adoption import adopt_layer, single_layer
from zoo.nn.cell import Cell
from zoo.nn.contract import check_contract, require_cell
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry, load_registry

MAX_ONE_HOT = 16_384


class OneHot(nn.Module):
    """Tokens [...] to one-hot vectors [..., V], as a lookup in the identity matrix: the same values
    as torch.nn.functional.one_hot, and a single Gather when it is exported."""

    eye: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        if vocab_size > MAX_ONE_HOT:
            raise UsageError(
                f"a one-hot input for {vocab_size} tokens is too wide; use --embedding."
            )
        self.register_buffer("eye", torch.eye(vocab_size), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.eye)


class Features(nn.Linear):
    """Features [..., F] to a first layer's input [..., E]; in the precision of the weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.weight.dtype) @ self.weight.T + self.bias


class Head(nn.Linear):
    """Features [..., H] to logits, or numbers, [..., V], over torch.nn.Linear's parameters.

    The product is written out, as a step must be that ONNX Runtime's integer kernels are to take;
    torch.nn.Linear's layout of the weights (transposed) makes its gradient twice as fast.
    """

    def __init__(self, input_size: int, output_size: int, std: float | None) -> None:
        super().__init__(input_size, output_size)
        if std is not None:
            nn.init.normal_(self.weight, std=std)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Stack(nn.Module):
    """Stacked layers of one cell; its state is the tuple of their states.

    It has a cell's `init_state`, `step` and `forward`. `dropout` is the share of features that is
    dropped between layers in training; with `residual`, a layer's input is added to its output
    where their sizes are equal.
    """

    def __init__(
        self,
        spec: CellSpec,
        input_size: int,
        hidden_size: int,
        layers: int,
        options: Mapping[str, OptionValue],
        *,
        dropout: float = 0.0,
        residual: bool = False,
        registry: Registry | None = None,
    ) -> None:
        super().__init__()
        registry = registry or load_registry()
        self.residual = residual
        self.dropout = nn.Dropout(dropout)
        self.output_size = input_size
        cells = []
        for _ in range(layers):
            cell = spec.build(self.output_size, hidden_size, registry=registry, **options)
            require_cell(cell, spec, registry)
            self.output_size = cell.output_size
            cells.append(cell)
        self.cells = nn.ModuleList(cells)

    def check_contract(self, spec: CellSpec, registry: Registry) -> None:
        """ContractError where a method of the cell that `spec` registers does not take or return
        what it should. The second layer has other inputs than the first; more are like it."""
        for cell in self._cells()[:2]:
            check_contract(cell, spec, registry)

    def init_state(self, batch_size: int) -> tuple[Any, ...]:
        return tuple(cell.init_state(batch_size) for cell in self._cells())

    def state_bounds(self) -> dict[str, float]:
        return {
            f"layer{index}.{name}": bound
            for index, cell in enumerate(self._cells())
            for name, bound in cell.state_bounds().items()
        }

    def recurrent_weights(self) -> list[list[tuple[nn.Parameter, int]]]:
        """Of each layer, the weights that multiply its state, and their axis of the state's
        units."""
        return [
            [(cell.get_parameter(name), axis) for name, axis in cell.recurrent_weights().items()]
            for cell in self._cells()
        ]

    def step(self, x_BI: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        return self._run(lambda cell, x, cell_state: cell.step(x, cell_state), x_BI, state)

    def forward(
        self, x_TBI: Tensor, state: tuple[Any, ...] | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        return self._run(lambda cell, x, cell_state: cell(x, cell_state), x_TBI, state)

    def _run(
        self,
        run: Callable[[Cell, Tensor, Any], tuple[Tensor, Any]],
        x: Tensor,
        state: tuple[Any, ...],
    ) -> tuple[Tensor, tuple[Any, ...]]:
        next_state = []
        for index, (cell, cell_state) in enumerate(zip(self._cells(), state, strict=True)):
            y, cell_state = run(cell, self.dropout(x) if index else x, cell_state)
            x = x + y if self.residual and x.shape == y.shape else y
            next_state.append(cell_state)
        return x, tuple(next_state)

    def _cells(self) -> list[Cell]:
        return list(self.cells)  # type: ignore[arg-type]


class LanguageModel(nn.Module):
    """Logits over the vocabulary, from tokens and a recurrent state: of
    the next token or, for a non-causal cell, of the masked token.

    A model of a task has another `interface`: it may read features, through a linear input
    embedding, and give logits of classes, or numbers. Below, tokens [T, B] are then features
    [T, B, F], and logits are its outputs.

    The cell comes from the registry by the name in `config`; UnknownNameError if it is not there.
    """

    def __init__(
        self, config: ModelConfig, interface: int | Interface, registry: Registry | None = None
    ) -> None:
        """`interface` is a number of tokens for a language model."""
        super().__init__()
        if isinstance(interface, int):
            interface = Interface.of_text(interface)
        self.config, self.interface = config, interface
        self.vocab_size = interface.outputs
        registry = registry or load_registry()
        spec = registry.cells[config.cell]
        self.causal = spec.causal
        entries = interface.inputs + 1 if config.mask_token else interface.inputs
        self.encoder = _input_embedding(interface, entries, config.embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.stack = Stack(
            spec,
            config.embedding or entries,
            config.hidden,
            config.layers,
            config.options,
            dropout=config.dropout,
            residual=config.residual,
            registry=registry,
        )
        self.head = Head(self.stack.output_size, interface.outputs, config.head_std)

    @classmethod
    def from_torch(
        cls,
        embedding: nn.Embedding | None,
        rnn: nn.RNNBase,
        head: nn.Linear,
        tokenizer: Tokenizer,
        registry: Registry | None = None,
    ) -> LanguageModel:
        """A model with the weights of trained torch.nn modules: an nn.RNN, nn.GRU or nn.LSTM of any
        depth, its embedding (None for one-hot inputs) and its linear output head.

        A bidirectional module becomes a model for whole sequences. Raises
        UsageError naming what cannot be imported (`proj_size`, `max_norm`, sizes that do not
        fit). Save it with `zoo.save`, then export it.
        """
        registry = registry or load_registry()
        _refuse_untakeable(embedding, rnn, head, tokenizer)
        layers = [
            adopt_layer(single_layer(rnn, index), registry) for index in range(rnn.num_layers)
        ]
        config = ModelConfig(
            cell=layers[0].cell,
            options=layers[0].options,
            hidden=rnn.hidden_size,
            layers=rnn.num_layers,
            embedding=None if embedding is None else embedding.embedding_dim,
            dropout=0.0,
            mask_token=False,
        )
        weights: dict[str, Tensor] = {
            "head.weight": head.weight,
            "head.bias": torch.zeros(head.out_features) if head.bias is None else head.bias,
        }
        if embedding is not None:
            weights["encoder.weight"] = embedding.weight
        for index, layer in enumerate(layers):
            weights |= {f"stack.cells.{index}.{name}": w for name, w in layer.weights.items()}
        model = cls(config, tokenizer.vocab_size, registry)
        model.load_state_dict({name: weight.detach().clone() for name, weight in weights.items()})
        return model.eval()

    @property
    def mask_token(self) -> int:
        """The input token for a masked token."""
        if not self.config.mask_token:
            raise UsageError(f"this model of cell {self.config.cell!r} has no mask token.")
        return self.vocab_size

    def init_state(self, batch_size: int) -> tuple[Any, ...]:
        """The state before the first token of each of `batch_size` rows."""
        return self.stack.init_state(batch_size)

    def step(self, tokens_B: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Logits [B, V] after one more token in each row, and the next state."""
        if not self.causal:
            raise NoStepError(f"cell {self.config.cell!r}")
        x, state = self.stack.step(self._embed(tokens_B), state)
        return self.head(self.dropout(x)), state

    def forward(
        self, tokens_TB: Tensor, state: tuple[Any, ...] | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Logits [T, B, V], one for each token, and the state after the last."""
        if isinstance(tokens_TB, PackedSequence):
            raise UsageError(
                "packed sequences are not supported; pad them, or run rows of one length together."
            )
        x, state = self.stack(self._embed(tokens_TB), state)
        return self.head(self.dropout(x)), state

    def _embed(self, tokens: Tensor) -> Tensor:
        """The first layer's input [..., I]. Of a one-hot vector nothing is dropped: it would be the
        whole token."""
        x: Tensor = self.encoder(tokens)
        if self.config.embedding is not None:
            x = self.dropout(x)
        return x

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _input_embedding(interface: Interface, entries: int, size: int | None) -> nn.Module:
    """From what is read to the first layer's input."""
    if interface.reads == "features":
        return Features(interface.inputs, size or interface.inputs)
    return OneHot(entries) if size is None else nn.Embedding(entries, size)


def fingerprint(model: LanguageModel) -> str:
    """SHA-256, in hexadecimal, of the weights: names, shapes and values."""
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        whole.update(f"{name} {array.shape} {array.dtype} ".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def _refuse_untakeable(
    embedding: nn.Embedding | None, rnn: nn.RNNBase, head: nn.Linear, tokenizer: Tokenizer
) -> None:
    """Names what cannot be imported."""
    wrong = []
    if not isinstance(rnn, nn.RNNBase):
        wrong.append(f"{type(rnn).__name__} is not a torch.nn.RNN, GRU or LSTM")
    elif getattr(rnn, "proj_size", 0):
        wrong.append(f"proj_size={rnn.proj_size} is not supported")
    elif head.in_features != rnn.hidden_size * (2 if rnn.bidirectional else 1):
        wrong.append(f"the head takes {head.in_features} features, which the rnn does not give")
    elif rnn.input_size != (tokenizer.vocab_size if embedding is None else embedding.embedding_dim):
        wrong.append(
            f"the rnn takes {rnn.input_size} features, which its input embedding does not give"
        )
    if embedding is not None:
        if embedding.max_norm is not None:
            wrong.append(f"max_norm={embedding.max_norm} of the embedding is not supported")
        if embedding.num_embeddings != tokenizer.vocab_size:
            wrong.append(
                f"the embedding has {embedding.num_embeddings} entries for "
                f"{tokenizer.vocab_size} tokens"
            )
    if head.out_features != tokenizer.vocab_size:
        wrong.append(f"the head gives {head.out_features} logits for {tokenizer.vocab_size} tokens")
    if wrong:
        raise UsageError(f"this model cannot be imported: {'; '.join(wrong)}.")
