"""The speed of a training step for cells that are parallel over time: the cell's `forward`, the
loop over `step`, and the inherited `forward`, a loop over `advance` with `project` and `readout`
for all steps at once.

1,024 steps of 8 rows, 256 inputs and hidden units, forward and backward, with PyTorch's default
number of threads. The three are interleaved. Medians are printed, and the largest difference in any
gradient between the first two, relative to that gradient's largest value.

    python tests/benchmarks/scans.py [CELL ...]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import zoo
from zoo.training.malloc import keep_freed_memory

STEPS, BATCH, HIDDEN, ROUNDS = 1024, 8, 256, 5
TOKENS = STEPS * BATCH
CELLS = ["mingru", "minlstm", "lru", "mamba2", "gla", "deltanet"]


def trainer(
    cell: zoo.Cell, forward: Callable[[zoo.Cell, Tensor], tuple[Tensor, object]]
) -> Callable[[], list[Tensor]]:
    """One step of training, up to the gradients of the inputs and of every parameter."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, BATCH, HIDDEN, generator=generator, requires_grad=True)
    outside = torch.randn(STEPS, BATCH, cell.output_size, generator=generator)
    wanted = [x, *(p for p in cell.parameters() if p.requires_grad)]

    def train() -> list[Tensor]:
        y, _ = forward(cell, x)
        return list(torch.autograd.grad(y, wanted, outside))

    return train


def step_by_step(cell: zoo.Cell, x_TBI: Tensor) -> tuple[Tensor, object]:
    state, outputs = cell.init_state(x_TBI.shape[1]), []
    for x in x_TBI.unbind(0):
        y, state = cell.step(x, state)
        outputs.append(y)
    return torch.stack(outputs), state


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Between gradients, each relative to its largest value."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def main() -> None:
    keep_freed_memory()  # as in zoo.train; for the loop too
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    registry = zoo.load_registry()
    for name in sys.argv[1:] or CELLS:
        if name not in registry.cells:
            print(f"{name:<13} is not in the registry")
            continue
        torch.manual_seed(0)
        cell = zoo.get_cell(name, registry).build(HIDDEN, HIDDEN, registry=registry).train()
        methods = {
            "at once": trainer(cell, lambda cell, x: cell(x)),
            "steps": trainer(cell, step_by_step),
            "inherited": trainer(cell, zoo.Cell.forward),
        }
        first = [method() for method in methods.values()]
        rates: dict[str, list[float]] = {method: [] for method in methods}
        for _ in range(ROUNDS):
            for method, train in methods.items():
                began = time.perf_counter()
                train()
                rates[method].append(TOKENS / (time.perf_counter() - began))
        at_once, steps, inherited = (statistics.median(found) for found in rates.values())
        print(
            f"{name:<13} {at_once:>9,.0f} tokens/s, "
            f"its steps {steps:>9,.0f}: {at_once / steps:.2f}, "
            f"inherited {inherited:>9,.0f}: {at_once / inherited:.2f}; "
            f"gradients differ by {difference(*first[:2]):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
