"""Taking over models that were trained with torch.nn, without any code of the zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.config import ModelConfig, OptionValue
from zoo.errors import UsageError
from zoo.registry import Registry, load_reference, load_registry

if TYPE_CHECKING:
    from zoo.model import LanguageModel
    from zoo.tokenizers import Tokenizer


@dataclass(frozen=True)
class Adopted:
    """A torch.nn layer as a cell of the zoo: the cell's name, its options, and its state_dict."""

    cell: str
    options: dict[str, OptionValue]
    weights: dict[str, Tensor]


def adopt_layer(layer: nn.RNNBase, registry: Registry) -> Adopted:
    """Asks every registered cell whether it can take this one-layer module over.

    A spec says so by its `adopt`, a function `(layer, registry) -> Adopted | None`. UsageError if
    none can.
    """
    for spec in registry.cells.values():
        if spec.adopt and (adopted := load_reference(spec.adopt)(layer, registry)) is not None:
            found: Adopted = adopted
            return found
    raise UsageError(f"no cell of the zoo computes what {type(layer).__name__} computes.")


def model_from_torch(
    embedding: nn.Embedding | None,
    rnn: nn.RNNBase,
    head: nn.Linear,
    tokenizer: Tokenizer,
    registry: Registry | None = None,
) -> LanguageModel:
    """See LanguageModel.from_torch."""
    from zoo.model import LanguageModel

    registry = registry or load_registry()
    _refuse(embedding, rnn, head, tokenizer)
    layers = [adopt_layer(single_layer(rnn, index), registry) for index in range(rnn.num_layers)]
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
    model = LanguageModel(config, tokenizer.vocab_size, registry)
    model.load_state_dict({name: weight.detach().clone() for name, weight in weights.items()})
    return model.eval()


def _refuse(
    embedding: nn.Embedding | None, rnn: nn.RNNBase, head: nn.Linear, tokenizer: Tokenizer
) -> None:
    """Names what cannot be taken."""
    wrong = []
    if not isinstance(rnn, nn.RNNBase):
        wrong.append(f"{type(rnn).__name__} is not a torch.nn.RNN, GRU or LSTM")
    elif getattr(rnn, "proj_size", 0):
        wrong.append(f"proj_size={rnn.proj_size} is not supported")
    elif head.in_features != rnn.hidden_size * (2 if rnn.bidirectional else 1):
        wrong.append(f"the head takes {head.in_features} features, which the rnn does not give")
    elif rnn.input_size != (tokenizer.vocab_size if embedding is None else embedding.embedding_dim):
        wrong.append(f"the rnn takes {rnn.input_size} features, which its entrance does not give")
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
        raise UsageError(f"this model cannot be taken over: {'; '.join(wrong)}.")


def single_layer(rnn: nn.RNNBase, layer: int = 0, direction: int | None = None) -> nn.RNNBase:
    """One layer of a torch.nn stack as a module of its own, with copies of its weights: in all its
    directions, or only forwards (0) or backwards (1)."""
    width = rnn.hidden_size * (2 if rnn.bidirectional else 1) if layer else rnn.input_size
    arguments = {"nonlinearity": rnn.nonlinearity} if isinstance(rnn, nn.RNN) else {}
    make: Any = type(rnn)  # RNNBase's own signature begins with a mode
    single: nn.RNNBase = make(
        width,
        rnn.hidden_size,
        bias=rnn.bias,
        bidirectional=rnn.bidirectional and direction is None,
        **arguments,
    )
    suffix = "_reverse" if direction == 1 else ""
    single.load_state_dict(
        {
            name: getattr(rnn, name.replace("_l0", f"_l{layer}") + suffix)
            for name in single.state_dict()
        }
    )
    return single
