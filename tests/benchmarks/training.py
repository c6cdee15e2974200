"""The speed of a training step, against the same model in plain PyTorch: the lecture note's loops
over time with autograd, and torch.nn's layers in its `RNNModel` with a one-hot input.

Hidden size 512, 32 rows of 35 steps, a vocabulary of 28, SGD with clipping. The workloads of a
comparison are interleaved; medians are printed.

    python tests/benchmarks/training.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.config import ModelConfig
from zoo.models.language_model import LanguageModel
from zoo.nn.state import detach
from zoo.training.malloc import keep_freed_memory

VOCAB, HIDDEN, BATCH, STEPS, ROUNDS, SLICE = 28, 512, 32, 35, 9, 0.4
TOKENS = BATCH * STEPS


class PlainRNN(nn.Module):
    """Dive into Deep Learning, section 9.5."""

    gates = 1

    def __init__(self) -> None:
        super().__init__()
        G = self.gates
        self.W_x = nn.ParameterList([torch.randn(VOCAB, HIDDEN) * 0.01 for _ in range(G)])
        self.W_h = nn.ParameterList([torch.randn(HIDDEN, HIDDEN) * 0.01 for _ in range(G)])
        self.b = nn.ParameterList([torch.zeros(HIDDEN) for _ in range(G)])
        self.W_hq = nn.Parameter(torch.randn(HIDDEN, VOCAB) * 0.01)
        self.b_q = nn.Parameter(torch.zeros(VOCAB))

    def begin(self) -> tuple[Tensor, ...]:
        return (torch.zeros(BATCH, HIDDEN),)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = state
        return (torch.tanh(x @ self.W_x[0] + h @ self.W_h[0] + self.b[0]),)

    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, object]:
        outputs = []
        for x in F.one_hot(tokens, VOCAB).float():
            state = self.step(x, state)
            outputs.append(state[0] @ self.W_hq + self.b_q)
        return torch.stack(outputs), state


class PlainGRU(PlainRNN):
    """Section 10.2."""

    gates = 3

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,), W_x, W_h, b = state, self.W_x, self.W_h, self.b
        z = torch.sigmoid(x @ W_x[0] + h @ W_h[0] + b[0])
        r = torch.sigmoid(x @ W_x[1] + h @ W_h[1] + b[1])
        n = torch.tanh(x @ W_x[2] + (r * h) @ W_h[2] + b[2])
        return (z * h + (1 - z) * n,)


class PlainLSTM(PlainRNN):
    """Section 10.1."""

    gates = 4

    def begin(self) -> tuple[Tensor, ...]:
        return torch.zeros(BATCH, HIDDEN), torch.zeros(BATCH, HIDDEN)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h, c), W_x, W_h, b = state, self.W_x, self.W_h, self.b
        i, f, o = (torch.sigmoid(x @ W_x[k] + h @ W_h[k] + b[k]) for k in range(3))
        c = f * c + i * torch.tanh(x @ W_x[3] + h @ W_h[3] + b[3])
        return o * torch.tanh(c), c


class RNNModel(nn.Module):
    """Section 9.6."""

    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.linear = layer(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)

    def begin(self) -> object:
        h = torch.zeros(1, BATCH, HIDDEN)
        return (h, h.clone()) if isinstance(self.rnn, nn.LSTM) else h

    def forward(self, tokens: Tensor, state: object) -> tuple[Tensor, object]:
        y, state = self.rnn(F.one_hot(tokens, VOCAB).float(), state)
        return self.linear(y), state


def trainer(model: nn.Module, begin: Callable[[], object]) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (STEPS + 1, BATCH), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    state = [begin()]

    def train() -> None:
        logits, end = model(tokens[:-1], state[0])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state[0] = end.detach() if isinstance(end, Tensor) else detach(end)

    return train


def ours(cell: str) -> Callable[[], None]:
    model = LanguageModel(ModelConfig(cell=cell, hidden=HIDDEN), VOCAB).train()
    return trainer(model, lambda: model.init_state(BATCH))


def plain(model: nn.Module) -> Callable[[], None]:
    return trainer(model, model.begin)  # type: ignore[arg-type]


def product() -> float:
    """Floating-point operations per second of the recurrence's product alone."""
    h, W = torch.randn(BATCH, HIDDEN), torch.randn(HIDDEN, 4 * HIDDEN)
    for _ in range(50):
        h @ W
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 1:
        h @ W
        count += 1
    return count * 2 * h.numel() * W.shape[1] / (time.perf_counter() - began)


def main() -> None:
    keep_freed_memory()  # as in zoo.train; for the plain loops too
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for cell, other, bound in (
        ("rnn-scratch", PlainRNN(), 1.35),
        ("gru-scratch", PlainGRU(), None),
        ("lstm-scratch", PlainLSTM(), 1.35),
        ("rnn", RNNModel(nn.RNN), 1.0),
        ("gru", RNNModel(nn.GRU), None),
        ("lstm", RNNModel(nn.LSTM), 1.0),
    ):
        workloads = {"ours": ours(cell), "plain": plain(other)}
        rates: dict[str, list[float]] = {name: [] for name in workloads}
        for _ in range(ROUNDS):
            for name, workload in workloads.items():
                workload()
                began, count = time.perf_counter(), 0
                while time.perf_counter() - began < SLICE:
                    workload()
                    count += TOKENS
                rates[name].append(count / (time.perf_counter() - began))
        medians = {name: statistics.median(found) for name, found in rates.items()}
        gates = {"r": 1, "g": 3, "l": 4}[cell[0]]
        # forward, and backward for the state and for the weights
        work = 3 * 2 * (gates * HIDDEN * HIDDEN + HIDDEN * VOCAB)
        share = medians["ours"] * work / product()
        wanted = f" (wanted: >= {bound})" if bound else ""
        print(
            f"{cell:<13} {medians['ours']:>9,.0f} tokens/s, plain {medians['plain']:>9,.0f}: "
            f"{medians['ours'] / medians['plain']:.2f}{wanted}; {share:.2f} of the product's rate"
        )


if __name__ == "__main__":
    main()
