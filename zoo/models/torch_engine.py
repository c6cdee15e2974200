"""A language model as an engine: generation, scoring and the reference of every proof, in
PyTorch."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch

from zoo.data.tokenizer import Ids
from zoo.errors import NoStepError
from zoo.inference.engine import Arrays, Logits, StepLoop
from zoo.models.language_model import LanguageModel
from zoo.nn.state import named_leaves, unflatten


class ModelScorer:
    """A LanguageModel as a `zoo.inference.Scorer`: whole sequences in PyTorch."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.vocab_size, self.interface = model.vocab_size, model.interface
        self.mask_token = model.vocab_size if model.config.mask_token else None
        self._device = next(model.parameters()).device

    def init_state(self, batch_size: int) -> tuple[Any, ...]:
        with torch.inference_mode():
            return self.model.init_state(batch_size)

    def logits(self, tokens: Ids, state: tuple[Any, ...]) -> tuple[Logits, tuple[Any, ...]]:
        with torch.inference_mode():
            logits, state = self.model(torch.from_numpy(tokens).to(self._device), state)
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


class ModelStepper(ModelScorer, StepLoop):
    """A LanguageModel as a `zoo.inference.Stepper` too: PyTorch's side of every comparison."""

    def __init__(self, model: LanguageModel) -> None:
        if not model.causal:
            raise NoStepError(f"cell {model.config.cell!r}")
        super().__init__(model)

    def step(self, tokens: Ids, state: tuple[Any, ...]) -> tuple[Logits, tuple[Any, ...]]:
        with torch.inference_mode():
            logits, state = self.model.step(torch.from_numpy(tokens).to(self._device), state)
            return logits.cpu().numpy(), state


def to_float64(model: LanguageModel) -> LanguageModel:
    """A copy of the model that computes in float64."""
    return deepcopy(model).double()
