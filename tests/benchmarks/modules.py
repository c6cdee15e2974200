"""How long exporting a step takes, with its proof: two layers of nn.GRU with 64 units, and two of
nn.LSTM with more. The first export of a process is a cold one.

    python tests/benchmarks/modules.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo_onnx import export_step

INPUTS, OUTPUTS, ROWS, LAYERS, REPEATS = 16, 4, 8, 2, 3
SIZES = ((nn.GRU, 64), (nn.LSTM, 512), (nn.LSTM, 1024))


class Step(nn.Module):
    """A recurrent layer and a head, step by step."""

    def __init__(self, kind: type[nn.RNNBase], hidden: int) -> None:
        super().__init__()
        self.layers, self.head = kind(INPUTS, hidden, LAYERS), nn.Linear(hidden, OUTPUTS)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.layers(x[None], state)
        return self.head(y[0]), state


def seconds(kind: type[nn.RNNBase], hidden: int, path: Path) -> float:
    torch.manual_seed(0)
    leaf = torch.zeros(LAYERS, ROWS, hidden)
    state = (leaf, leaf.clone()) if kind is nn.LSTM else leaf
    began = time.monotonic()
    export_step(Step(kind, hidden), torch.randn(ROWS, INPUTS), state, path, batch_axis=1)
    return time.monotonic() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind, hidden in SIZES:
            taken = [seconds(kind, hidden, Path(folder, "step.onnx")) for _ in range(REPEATS)]
            print(
                f"{kind.__name__:4} {hidden:5}", *(f"{each:6.1f} s" for each in taken), flush=True
            )


if __name__ == "__main__":
    main()
