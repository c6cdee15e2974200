"""The speed of training of cells with a scan or a kernel of their own, against `gru`.

A million parameters in two layers with a residual connection, as in the leaderboard's tables; rows
and steps as `zoo train` chooses them on a CPU, for a short and for a longer training; a vocabulary
of 28, AdamW with clipping. All cells are interleaved; medians are printed, and the time per token
as a multiple of gru's.

    python tests/benchmarks/training_cells.py [CELL ...]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from zoo.config import ModelConfig
from zoo.models.language_model import LanguageModel
from zoo.models.parameter_budget import largest_hidden
from zoo.nn.state import detach
from zoo.registry.registry import Registry, load_registry
from zoo.training.defaults import ROWS, STEPS
from zoo.training.malloc import keep_freed_memory
from zoo.training.optimizers import adamw

VOCAB, PARAMETERS, ROUNDS, SECONDS = 28, 1_000_000, 15, 0.3
CELLS = ["mamba", "rwkv7", "hgrn2", "slstm", "rg-lru"]


def trainer(cell: str, steps: int, registry: Registry) -> Callable[[], None]:
    """One update of a model of this cell."""
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, layers=2, residual=True)
    hidden = largest_hidden(PARAMETERS, config, registry.cells[cell], VOCAB, registry)
    config = config.model_copy(update={"hidden": hidden})
    model = LanguageModel(config, VOCAB, registry).train()
    tokens = torch.randint(0, VOCAB, (steps + 1, ROWS))
    optimizer = adamw(dict(model.named_parameters()), 1e-3, 0.01)
    state = [model.init_state(ROWS)]

    def train() -> None:
        optimizer.zero_grad()
        logits, end = model(tokens[:-1], state[0])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state[0] = detach(end)

    return train


def main() -> None:
    keep_freed_memory()  # as in zoo.train
    registry = load_registry()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {ROWS} rows")
    for steps in STEPS:
        workloads = {
            cell: trainer(cell, steps, registry) for cell in ["gru", *(sys.argv[1:] or CELLS)]
        }
        rates: dict[str, list[float]] = {cell: [] for cell in workloads}
        for _ in range(ROUNDS):
            for cell, train in workloads.items():
                train()
                began, count = time.perf_counter(), 0
                while time.perf_counter() - began < SECONDS:
                    train()
                    count += steps * ROWS
                rates[cell].append(count / (time.perf_counter() - began))
        medians = {cell: statistics.median(found) for cell, found in rates.items()}
        for cell, rate in medians.items():
            print(
                f"{steps} steps: {cell:<8} {rate:>7,.0f} tokens/s, "
                f"{medians['gru'] / rate:.2f} times gru's time",
                flush=True,
            )


if __name__ == "__main__":
    main()
