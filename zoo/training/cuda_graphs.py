"""A training's forward and backward pass as CUDA graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.config import TrainConfig
from zoo.errors import UsageError
from zoo.models.language_model import LanguageModel
from zoo.training.distributed import Processes


class _Forward(nn.Module):
    """The model's forward under another name: what is recorded replaces the `forward` of the module
    that it is recorded of, and the model itself is also evaluated, sampled and copied."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_TB: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        return self.model(tokens_TB, state)  # type: ignore[no-any-return]


def record_graph(model: LanguageModel, config: TrainConfig, processes: Processes) -> nn.Module:
    """The model as it is called in training, recorded at the shapes of its windows. UsageError
    where there is nothing to record on."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        raise UsageError("--cuda-graph needs a GPU; leave it out on a CPU.")
    if processes.count > 1 or config.compile:
        raise UsageError("--cuda-graph goes with one process and without --compile.")
    tokens = torch.zeros(config.steps, config.batch_size, dtype=torch.int64, device=device)
    learner = _Forward(model).train()
    with torch.autocast(
        "cuda", torch.bfloat16, enabled=config.precision == "bf16", cache_enabled=False
    ):
        record: Any = torch.cuda.make_graphed_callables  # declared for flat arguments only
        graphed: nn.Module = record(learner, (tokens, model.init_state(config.batch_size)))
    return graphed
